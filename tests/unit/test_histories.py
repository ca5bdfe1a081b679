"""The controller under random histories (`support/histories.py`)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from support.histories import History
from support.sizes import SIZES

LENGTH = 50

History.TestCase.settings = settings(
    max_examples=SIZES.history_steps // LENGTH,
    stateful_step_count=LENGTH,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3000)
class TestHistory(History.TestCase):  # type: ignore[misc, valid-type]
    """Computes all the time; beside the clusters of other tests it may take several times as long."""


def test_a_clock_that_was_set_back_delays_no_retry_for_long() -> None:
    """Found by the histories: the retry is due in two hours by the clock as it is, and at once when that is right."""
    history = History()
    history.begin(limit=None, runs=1)
    history.quota_changes(refusing=True)
    history.operator_works(faults=[], most=2)
    history.clock_jumps(seconds=3600)
    history.time_passes(seconds=30)
    history.operator_works(faults=[], most=1)
    history.clock_jumps(seconds=-3600)
    history.time_passes(seconds=30)
    history.operator_works(faults=[], most=1)
    history.teardown()
