"""Large TaskRuns come one at a time, each once, and namespaces take turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from polypod_core.kinds import Key
from polypod_operator.control.large import LargeTurns

KEYS: list[Key] = [(namespace, name) for namespace in "abc" for name in "123"]


def test_one_at_a_time_and_namespaces_take_turns() -> None:
    turns = LargeTurns()
    assert turns.enter(("a", "1"))
    assert turns.enter(("a", "1")), "it is its turn still"
    for key in (("a", "2"), ("a", "3"), ("a", "2"), ("b", "1")):
        assert not turns.enter(key)
    served, now = [], ("a", "1")
    while (following := turns.leave(now)) is not None:
        assert turns.enter(following)
        served.append(following)
        now = following
    assert served == [("a", "2"), ("b", "1"), ("a", "3")]
    assert turns.enter(("c", "1"))


def test_who_leaves_without_a_turn_is_never_called() -> None:
    turns = LargeTurns()
    assert turns.enter(("a", "1"))
    assert not turns.enter(("a", "2"))
    assert turns.leave(("a", "2")) is None
    assert turns.leave(("a", "1")) is None


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans())))
def test_whoever_waits_comes(steps: list[tuple[Key, bool]]) -> None:
    turns, waiting = LargeTurns(), set[Key | None]()
    now: Key | None = None

    def leave(key: Key) -> None:
        nonlocal now
        waiting.discard(key)
        following = turns.leave(key)
        if now == key:
            assert (following in waiting) if waiting else following is None
            now = following
            waiting.difference_update({following})
        else:
            assert following is None

    for key, enters in steps:
        if enters:
            assert turns.enter(key) == (now in (None, key))
            if now in (None, key):
                now = key
            else:
                waiting.add(key)
        else:
            leave(key)
    while now is not None:
        leave(now)
    assert not waiting
