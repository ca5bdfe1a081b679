"""comm/exact.py and what stands on it: a value is exact, or refused with the place and the reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.comm import frames
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import DEEPEST, json_problem, msgpack_problem
from support.same import same

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text()
    | st.binary(max_size=4)
    | st.just(msgspec.msgpack.Ext(5, b"x"))
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(0, 5), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_what_is_let_through_comes_back_as_it_was(value: Any) -> None:
    """The judge is Python's own json: what it writes and reads back is compared, to the type."""
    if json_problem(value) == "":
        assert same(json.loads(json.dumps(value, allow_nan=False).encode()), value)
        assert same(msgspec.json.decode(msgspec.json.encode(value)), value)
    if msgpack_problem(value) == "":
        assert same(msgspec.msgpack.decode(msgspec.msgpack.encode(value)), value)


@given(ANYTHING)
def test_what_is_refused_could_not_have_been_kept(value: Any) -> None:
    if json_problem(value):
        try:
            kept = same(json.loads(json.dumps(value, allow_nan=False).encode("utf-8")), value)
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
        except (TypeError, ValueError):
            return
        assert not kept


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD = [
    ({"a": [1, float("nan")]}, "value.a[1]: nan is not a number that JSON can represent"),
    (float("-inf"), "value: -inf is not a number that JSON can represent"),
    ({"a": b"x"}, "value.a: JSON has no bytes; encode the value as text"),
    ({"a": {1: "x"}}, "value.a: the key 1 is int, not a string"),
    (msgspec.msgpack.Ext(7, b"x"), "value: JSON has no msgpack extension 7; encode the value as text"),
    (nested(DEEPEST + 5), f"more than {DEEPEST} lists and mappings within each other"),
]


@pytest.mark.parametrize(("value", "words"), BAD, ids=[words[:30] for _, words in BAD])
def test_an_xcom_that_json_cannot_hold_is_refused_by_its_place(value: Any, words: str) -> None:
    body = {"type": "SetXCom", "key": "k", "value": value, "dag_id": "d", "run_id": "r", "task_id": "t"}
    with pytest.raises(m.MessageError) as caught:
        m.decode_request(msgspec.msgpack.encode(body))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_half_an_emoji_from_a_runtime_is_a_message_that_cannot_be_read() -> None:
    # as a JavaScript runtime encodes "cut 😀".slice(0, 5)
    good = msgspec.msgpack.encode({"type": "GetVariable", "key": "cut XXX"})
    broken = good.replace(b"XXX", b"\xed\xa0\xbd")
    with pytest.raises(m.MessageError, match="a text is not valid UTF-8, at the bytes ed a0"):
        m.decode_request(broken)
    [frame] = frames.FrameReader().feed((len(broken) + 2).to_bytes(4, "big") + b"\x92\x07" + broken)
    assert frame.id == 7
