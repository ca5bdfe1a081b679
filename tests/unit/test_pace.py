"""kube/pace.py: how many TaskRuns are worked on at once, against API servers in miniature."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from polypod_operator.kube.pace import FIRST, LEAST, MOST, Pace


class Server:
    """An API server that answers in `least` seconds, and carries out at most `rate` writes a second."""

    def __init__(self, least: float, rate: float = 1e9) -> None:
        self.now = 0.0
        self.least, self.rate = least, rate
        self.pace = Pace(lambda: self.now)

    def run(self, seconds: float, others: int = 0) -> None:
        """Work all the time, while others have writes under way as well."""
        end = self.now + seconds
        while self.now < end:
            limit = self.pace.limit
            took = max(self.least, (limit + others) / self.rate)
            self.now += took
            for _ in range(limit):
                self.pace.answered(took)


def test_more_go_at_once_while_the_server_keeps_up() -> None:
    server = Server(0.005, 500)
    server.run(60)
    assert server.pace.limit == MOST


def test_fewer_go_at_once_while_it_is_full_and_more_again_afterwards() -> None:
    server = Server(0.005, 1000)
    server.run(10)
    server.run(60, others=3000)
    assert server.pace.limit == LEAST
    server.run(60)
    assert server.pace.limit >= FIRST


def test_one_that_is_far_away_gets_as_much_as_one_that_is_near() -> None:
    server = Server(2.0)
    server.run(300)
    assert server.pace.limit == MOST


def test_one_that_becomes_slow_for_good_is_full_at_first_and_far_away_later() -> None:
    server = Server(0.005)
    server.run(100)
    server.least = 2.0
    server.run(40)
    assert server.pace.limit < FIRST
    server.run(400)
    assert server.pace.limit == MOST


def test_a_server_that_says_it_is_busy_is_believed_at_once() -> None:
    pace = Pace(lambda: 0.0)
    for _ in range(10):
        pace.refused()
    assert pace.limit == LEAST


def test_one_that_is_hardly_used_tells_nothing() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for _ in range(1000):
        now += 1.0
        pace.answered(0.005)
    assert pace.limit == FIRST


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100), st.booleans()), max_size=300))
def test_the_limit_stays_within_its_bounds(answers: list[tuple[float, float, bool]]) -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for passes, took, busy in answers:
        now += passes
        if busy:
            pace.refused()
        else:
            pace.answered(took)
        assert LEAST <= pace.limit <= MOST
