"""comm/ends.py and the supervisor: whatever is wrong with a terminal message, the task ends as it meant to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.comm import ends, frames
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.requests import ApiReply
from polypod_bridge.process.base import Exit
from polypod_bridge.supervisor import actions as act
from polypod_bridge.supervisor.outcome import Verdict
from polypod_core.reasons import Reason
from support.supervised import NOW, running

WHEN = "2026-11-21T10:00:00Z"
INDEX = {"rendered_map_index": "one"}
ENDS: list[dict[str, Any]] = [
    {"type": "SucceedTask", "state": "success", "end_date": WHEN, "task_outlets": [], "outlet_events": [], **INDEX,
     "loop_decision": {"stop": True, "reason": "done"}},
    {"type": "RetryTask", "state": "up_for_retry", "end_date": WHEN, "retry_delay_seconds": 7.5, "retry_reason": "no", **INDEX},
    {"type": "TaskState", "state": "failed", "end_date": WHEN, "retry_reason": "no", "loop_decision": {"stop": True}, **INDEX},
    {"type": "TaskState", "state": "skipped", "end_date": WHEN},
    {"type": "TaskState", "state": "removed", "end_date": WHEN},
    {"type": "DeferTask", "state": "deferred", "classpath": "a.B", "trigger_kwargs": {"x": 1}, "trigger_timeout": "PT1S",
     "queue": "q", "next_method": "f", "next_kwargs": {"y": 2}, **INDEX},
    {"type": "RescheduleTask", "state": "up_for_reschedule", "reschedule_date": WHEN, "end_date": WHEN},
    {"type": "AwaitInputTask", "state": "awaiting_input", "timeout": "PT1S", "next_method": "f", "next_kwargs": {}, **INDEX},
]  # fmt: skip
"""Every terminal message, all of its fields set."""
MEANING = {
    "TaskState": {"state"},
    "RescheduleTask": {"reschedule_date"},
    "DeferTask": {"classpath", "next_method", "trigger_kwargs", "next_kwargs"},
    "AwaitInputTask": {"next_method", "next_kwargs"},
}
"""Fields of which the end's meaning consists."""
LONG = ("é" * 900 + "😀" * 600).encode()


class Raw(bytes):
    """msgpack as it goes over the wire."""


def text(raw: bytes) -> Raw:
    return Raw(b"\xdb" + len(raw).to_bytes(4, "big") + raw)


def packed(body: dict[str, Any]) -> bytes:
    """Encode a body in which fields may be msgpack already, valid or not."""
    parts = [bytes(v) if isinstance(v, Raw) else msgspec.msgpack.encode(v) for v in body.values()]
    keys = [msgspec.msgpack.encode(key) for key in body]
    return b"\xde" + len(body).to_bytes(2, "big") + b"".join(k + v for k, v in zip(keys, parts, strict=True))


DAMAGED_TEXTS = st.one_of(
    st.sampled_from(
        [b"M\xfcnchen", b"\xff\xfe", b"\xed\xa0\xbd", b"\xed\xb8\x80 half", b"\xf0\x9f\x98", b"\0", b"\xc0\x80"]
    ),
    st.integers(0, len(LONG)).map(lambda size: LONG[:size]),
    st.binary(max_size=40),
).map(text)
WRONG = st.sampled_from(
    [None, True, -1, 1 << 63, 1.5, float("nan"), float("inf"), b"\xff", b"", [], [1], {}, {"a": float("nan")}, {1: 2},
     [{"a": b"\xff"}], {"stop": "no"}, {"stop": True, "other": 1}, "x", "", datetime(1, 1, 1, tzinfo=UTC), WHEN,
     msgspec.msgpack.Ext(-1, b"\xff" * 12), msgspec.msgpack.Ext(5, b"")]
)  # fmt: skip


@st.composite
def mutations(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an end, and the same with faults in its side fields."""
    end = draw(st.sampled_from(ENDS))
    sides = sorted(set(end) - {"type"} - MEANING.get(end["type"], set()))
    bad = dict(end)
    for name in draw(st.lists(st.sampled_from(sides), unique=True)) if sides else []:
        if draw(st.booleans()):
            bad[name] = draw(st.one_of(DAMAGED_TEXTS, WRONG))
        else:
            bad.pop(name, None)
    for name in draw(st.lists(st.sampled_from(["extra", "", "é", "end date"]), unique=True)):
        bad[name] = draw(st.one_of(DAMAGED_TEXTS, WRONG))
    return end, bad


def ended(
    body: bytes, version: str = "2026-10-30", third: bytes = b"\xc0", code: int = 0
) -> tuple[Verdict, list[act.Action]]:
    """Have a runtime send an end and exit; return the verdict and all actions."""
    state = running(version)
    actions: list[act.Action] = []
    if body:
        frame = frames.decode_payload(b"\x93\x00" + body + third)
        actions += state.frame(1, frame)
    waiting = [action for action in actions if isinstance(action, act.Call)]
    actions += state.exited(2, Exit(code))
    for channel in ("comm", "logs", "stdout", "stderr"):
        actions += state.closed(2, channel)
    waiting += [action for action in actions if isinstance(action, act.Call) and action not in waiting]
    while waiting:
        call = waiting.pop(0)
        msgspec.json.encode(call.call.body)
        more = state.replied(3, call, ApiReply(204, b""))
        actions += more
        waiting += [action for action in more if isinstance(action, act.Call)]
    [finish] = [action for action in actions if isinstance(action, act.Finish)]
    return finish.verdict, actions


@given(mutations(), st.sampled_from(["2026-10-30", "2026-06-16"]))
def test_an_end_with_bad_side_fields_is_the_end_that_was_meant(pair: tuple[Any, Any], version: str) -> None:
    end, bad = pair
    verdict, actions = ended(packed(bad), version)
    assert verdict.state == end["state"], (verdict, bad)
    if end["type"] == "RetryTask" and bad.get("retry_delay_seconds") == 7.5:
        assert verdict.retry_delay_seconds == 7.5
    if end["type"] == "RescheduleTask":
        assert verdict.reschedule_time == datetime(2026, 11, 21, 10, tzinfo=UTC)
    for call in (action.call for action in actions if isinstance(action, act.Call)):
        assert len((call.body or {}).get("retry_reason") or "") <= ends.LONGEST_REASON
        assert len((call.body or {}).get("rendered_map_index") or "") <= ends.LONGEST_MAP_INDEX


@pytest.mark.parametrize("levels", [1, 30, 60])
def test_a_map_as_the_key_of_a_map_is_left_out(levels: int) -> None:
    """As text, such keys would double at each level: 28 of them took 130 MB."""
    key = b"\x81" * levels + b"\xa1a" + b"\x01" * levels
    fields = {"type": "TaskState", "state": "skipped", "end_date": WHEN}
    pairs = [msgspec.msgpack.encode(item) for pair in fields.items() for item in pair]
    body = b"\x84" + b"".join(pairs) + key + b"\x01"
    end = ends.read(body, NOW)
    assert end.message is not None
    assert end.message.state == "skipped"
    assert end.notes == ["map entries were left out: their keys are no text"]


@pytest.mark.parametrize("end", [end for end in ENDS if "retry_reason" in end], ids=lambda end: end["type"])
def test_a_reason_is_cut_for_airflow_and_whole_for_the_status_where_it_is_masked_first(end: dict[str, Any]) -> None:
    reason = "x" * 450 + "secret" * 20
    verdict, actions = ended(packed({**end, "retry_reason": reason}))
    assert verdict.message == reason
    sent = [(action.call.body or {}).get("retry_reason") for action in actions if isinstance(action, act.Call)]
    assert set(sent) <= {reason[: ends.LONGEST_REASON], None}


@given(st.sampled_from([end for end in ENDS if end["type"] in MEANING]), st.data())
def test_an_end_whose_meaning_is_lost_counts_a_try_and_retries(end: dict[str, Any], data: st.DataObject) -> None:
    bad = dict(end)
    name = data.draw(st.sampled_from(sorted(MEANING[end["type"]])))
    bad[name] = [1, float("nan")]
    verdict, actions = ended(packed(bad))
    assert (verdict.state, verdict.reason) == ("up_for_retry", Reason.PROTOCOL_ERROR), verdict
    [shown] = [action for action in actions if isinstance(action, act.LogRaw)]
    assert shown.raw == packed(bad)


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize(
    "body", [b"\xc0", b"\x90", b"\x80", packed({"type": "Succeed"}), packed({"type": text(b"\xff")})]
)
def test_an_answer_that_is_no_end_counts_a_try_and_retries(body: bytes, code: int) -> None:
    verdict, _ = ended(body, code=code)
    assert (verdict.state, verdict.reason) == ("up_for_retry", Reason.PROTOCOL_ERROR)
    assert "cannot be understood" in verdict.message


@pytest.mark.parametrize("third", [b"\xa1\xff", b"\x81\xa1\xff\xa1x", b"\x81\xa1x\xa1\xff", b"\x05", b"\xc0\x01"])
def test_what_comes_beside_an_end_does_not_matter(third: bytes) -> None:
    frame = frames.decode_payload(
        (b"\x94" if len(third) == 2 and third[0] == 0xC0 else b"\x93") + b"\x00" + packed(ENDS[0]) + third
    )
    assert isinstance(m.decode_request(frame.body), m.SucceedTask)


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [(-1.0, 0.0), (float("inf"), ends.LONGEST_DELAY), (1e18, ends.LONGEST_DELAY), (float("nan"), None)],
)
def test_a_delay_that_no_clock_has_becomes_the_nearest_that_one_has(seconds: float, kept: float | None) -> None:
    verdict, _ = ended(packed({**ENDS[1], "retry_delay_seconds": seconds}))
    assert (verdict.state, verdict.retry_delay_seconds) == ("up_for_retry", kept)


@pytest.mark.parametrize(
    ("given", "kept"), [("9999-12-31T23:59:59-12:00", datetime.max), ("0001-01-01T00:00:00+14:00", datetime.min)]
)
def test_a_time_that_utc_cannot_hold_becomes_the_nearest_that_it_can(given: str, kept: datetime) -> None:
    for end in ENDS:
        times: dict[str, Any] = {name: given for name in ("end_date", "reschedule_date") if name in end}
        message = m.decode_request(packed({**end, **times}))
        found, notes = ends.within_limits(message)  # type: ignore[arg-type]
        assert [getattr(found, name) for name in times] == [kept.replace(tzinfo=UTC)] * len(times)
        assert len(notes) == len(times)


def test_a_valid_end_after_one_that_cannot_be_understood_stands() -> None:
    state = running()
    state.frame(1, frames.decode_payload(b"\x93\x00\x80\xc0"))
    [call] = [
        x
        for x in state.frame(2, frames.decode_payload(b"\x93\x00" + packed(ENDS[0]) + b"\xc0"))
        if isinstance(x, act.Call)
    ]
    assert call.call.body is not None
    assert call.call.body["state"] == "success"


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything(body: bytes) -> None:
    ends.read(body, NOW)
    ends.read(b"\x81\xa4type\xabSucceedTask" + body, NOW)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text() |
                    st.binary(max_size=300), lambda some: st.lists(some) | st.dictionaries(st.text(), some)))  # fmt: skip
def test_valid_msgpack_is_read_as_it_is(value: Any) -> None:
    assert ends._Reader(msgspec.msgpack.encode(value)).value() == value
