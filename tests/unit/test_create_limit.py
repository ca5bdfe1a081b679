"""Where pods are late, a namespace creates few at once; others do not notice."""

from __future__ import annotations

from polypod_operator.control.create_limit import FEW, LATE, CreateLimit


def test_few_at_once_where_they_are_late_and_as_ever_elsewhere() -> None:
    made = CreateLimit()
    for _ in range(32):
        assert made.may_begin("a")
        made.begin("a")
    made.late("a")
    assert not made.may_begin("a")
    assert made.may_begin("b")
    for _ in range(32 - FEW):
        made.end("a", LATE)
    assert not made.may_begin("a")
    made.end("a", LATE)
    assert made.may_begin("a")
    made.begin("a")
    assert not made.may_begin("a"), "still late"
    # one in time, and all is as before
    made.end("a", 0.1)
    for _ in range(32):
        assert made.may_begin("a")
        made.begin("a")
