"""durations.py and retries.py: durations, and the delay between tries."""

from __future__ import annotations

import pytest
from polypod_core.durations import seconds
from polypod_crds.retries import retry_delay
from polypod_crds.taskrun import Retries


@pytest.mark.parametrize(("text", "expected"), [("5s", 5), ("1h30m", 5400), ("250ms", 0.25), ("1.5s", 1.5)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5d", "-5s", "5s "])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


def test_the_delay_between_tries() -> None:
    fixed = Retries(delay="10s")
    assert [retry_delay(fixed, n) for n in (1, 2, 3)] == [10, 10, 10]
    growing = Retries(delay="10s", backoff="exponential", max_delay="1m")
    assert [retry_delay(growing, n) for n in (1, 2, 3, 4, 5000)] == [10, 20, 40, 60, 60]
