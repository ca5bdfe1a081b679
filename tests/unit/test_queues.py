"""queues.py: whose turn it is."""

from __future__ import annotations

from datetime import timedelta

from polypod_core.kinds import Key
from polypod_operator.decide.decision import QueuePosition
from polypod_operator.decide.queues import Queues, Rank, rank
from support.objects import NOW


class Waiting:
    """A queue with a limit, and TaskRuns that would begin."""

    def __init__(self, limit: int) -> None:
        self.queues = Queues()
        self.queues.set_limits({"q": limit})
        self.ranks: dict[Key, Rank] = {}

    def submit(self, name: str, priority: int = 0, later: float = 0.0) -> QueuePosition | None:
        """Have a TaskRun ask for a place, that many seconds after the others; it takes it or waits."""
        key = ("ns", name)
        self.ranks[key] = rank(priority, NOW + timedelta(seconds=later), key)
        turn = self.queues.turn(key, "q", self.ranks[key])
        self.queues.put(key, "q", self.ranks[key], "holds" if turn is None else "waits")
        return turn

    def end(self, name: str) -> list[str]:
        """End an attempt; those whose turn it is take their places. Return their names."""
        woken = self.queues.put(("ns", name), "q", self.ranks["ns", name], "none")
        for key in woken:
            assert self.queues.turn(key, "q", self.ranks[key]) is None
            self.queues.put(key, "q", self.ranks[key], "holds")
        return [key[1] for key in woken]


def test_as_many_as_the_limit_hold_a_place_and_the_others_have_theirs_in_the_line() -> None:
    line = Waiting(2)
    turns = [line.submit(name, later=index) for index, name in enumerate("abcd")]
    assert turns == [None, None, QueuePosition(2, 1), QueuePosition(2, 2)]
    assert line.queues.depths() == {"q": (2, 2)}
    assert line.end("a") == ["c"]
    assert line.queues.turn(("ns", "d"), "q", line.ranks["ns", "d"]) == QueuePosition(2, 1)


def test_a_larger_priority_goes_first_and_of_the_same_the_older() -> None:
    line = Waiting(1)
    line.submit("running")
    line.submit("old", 0, later=1)
    line.submit("new", 0, later=2)
    line.submit("urgent", 5, later=3)
    line.submit("low", -1, later=0)
    order = []
    last = "running"
    for _ in range(4):
        [last] = line.end(last)
        order.append(last)
    assert order == ["urgent", "old", "new", "low"]


def test_nobody_waits_for_ever_behind_those_that_come_later() -> None:
    line = Waiting(1)
    line.submit("running")
    line.submit("low", 0, later=0)
    last = "running"
    for number in range(1000):
        line.submit(f"urgent-{number}", 2, later=60.0 * number)
        [last] = line.end(last)
        if last == "low":
            break
    # two points of priority are worth two hours
    assert number == 120


def test_a_limit_that_is_raised_or_taken_away_wakes_those_that_may_begin() -> None:
    line = Waiting(1)
    for index, name in enumerate("abcde"):
        line.submit(name, later=index)
    assert [key[1] for key in line.queues.set_limits({"q": 3})] == ["b", "c"]
    assert [key[1] for key in line.queues.set_limits({})] == ["b", "c", "d", "e"]
    assert line.queues.set_limits({"q": 0}) == []


def test_who_holds_a_place_keeps_it_when_the_limit_is_lowered() -> None:
    line = Waiting(2)
    line.submit("a")
    line.submit("b", later=1)
    line.submit("c", later=2)
    line.queues.set_limits({"q": 1})
    assert line.queues.turn(("ns", "b"), "q", line.ranks["ns", "b"]) is None
    assert line.end("a") == []
    assert line.end("b") == ["c"]


def test_what_is_let_go_leaves_nothing() -> None:
    line = Waiting(1)
    line.submit("a")
    line.submit("b", later=1)
    assert line.queues.forget(("ns", "b")) == []
    assert line.queues.forget(("ns", "a")) == []
    assert line.queues.depths() == {}
    assert line.queues.forget(("ns", "never")) == []
