"""kube/clock.py: the API server's time, however wrong this node's clock is."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_operator.kube.clock import ServerClock

START = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


class Time:
    """A node and an API server, whose clocks differ by `ahead` seconds."""

    def __init__(self, ahead: float) -> None:
        self.ahead, self.passed = ahead, 0.0
        self.clock = ServerClock(lambda: 77.0 + self.passed, lambda: START + self.passed + self.ahead)

    def asks(self, there: float, back: float) -> None:
        asked = 77.0 + self.passed
        self.passed += there
        date = format_datetime(datetime.fromtimestamp(int(START + self.passed), UTC), usegmt=True)
        self.passed += back
        self.clock.answered(date, asked)

    @property
    def error(self) -> float:
        return self.clock.now().timestamp() - (START + self.passed)


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(5, 700)), min_size=1, max_size=20),
)
def test_the_time_is_the_api_servers_whatever_this_nodes_clock_says(
    ahead: float, answers: list[tuple[float, float, float]]
) -> None:
    time = Time(ahead)
    bound = 1e9
    for there, back, pause in answers:
        time.asks(there, back)
        # half of the interval that the best answer leaves
        bound = min(bound, (1 + there + back) / 2)
        assert abs(time.error) <= bound + 1e-3
        assert abs(time.clock.skew - ahead) <= 1 + 2 * bound
        time.passed += pause


@pytest.mark.parametrize("ahead", [-660.0, 660.0])
def test_a_wrong_clock_is_said_once(ahead: float, caplog: pytest.LogCaptureFixture) -> None:
    time = Time(ahead)
    with caplog.at_level(logging.WARNING, "polypod.operator"):
        for _ in range(5):
            time.asks(0.01, 0.01)
            time.passed += 60
    [line] = [record.getMessage() for record in caplog.records]
    assert ("ahead of" in line) is (ahead > 0)
    assert time.clock.skew == pytest.approx(ahead, abs=1.5)


def test_an_api_server_whose_clock_is_set_is_followed() -> None:
    time = Time(0)
    time.asks(0.01, 0.01)
    time.passed += 60
    date = format_datetime(datetime.fromtimestamp(int(START + time.passed + 3600), UTC), usegmt=True)
    time.clock.answered(date, 77.0 + time.passed)
    assert time.error == pytest.approx(3600, abs=1.5)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sat, 99 Nov 2026 12:00:00 GMT"])
def test_without_a_date_the_time_is_this_nodes(date: str | None) -> None:
    time = Time(0)
    time.clock.answered(date, 77.0)
    assert time.error == pytest.approx(0)
    assert time.clock.skew == 0
