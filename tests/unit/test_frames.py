"""frames.py: bytes to frames and back, however they are cut."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.comm import frames
from polypod_bridge.comm.answers import ErrorResponse


def wire(value: Any) -> bytes:
    payload = msgspec.msgpack.encode(value)
    return len(payload).to_bytes(4, "big") + payload


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
bodies = st.none() | st.dictionaries(st.text(), plain, max_size=5)


@given(st.lists(st.tuples(st.integers(0, 2**31), bodies), max_size=6), st.data())
def test_frames_survive_any_fragmentation(sent: list[tuple[int, Any]], data: st.DataObject) -> None:
    stream = b"".join(wire([number, body]) for number, body in sent)
    reader, got = frames.FrameReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert [(frame.id, msgspec.msgpack.decode(frame.body)) for frame in got] == sent
    assert reader.pending == 0


@given(st.integers(0, 2**31), bodies)
def test_what_is_encoded_is_decoded(number: int, body: Any) -> None:
    [frame] = frames.FrameReader().feed(frames.encode(number, body))
    assert (frame.id, msgspec.msgpack.decode(frame.body)) == (number, body)


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_frame_error(data: bytes) -> None:
    try:
        frames.FrameReader(max_size=1000).feed(data)
    except frames.FrameError:
        pass


@pytest.mark.parametrize(
    ("value", "carrier", "is_answer"),
    [
        ([1, {"type": "X"}], None, False),
        ([1, {"type": "X"}, None], None, True),
        ([1, {"type": "X"}, {"traceparent": "00-1"}], {"traceparent": "00-1"}, False),
        ([1, None, {"type": "ErrorResponse"}], None, True),
        ([1, {"type": "X"}, None, "more"], None, True),
    ],
)
def test_two_and_three_elements(value: Any, carrier: dict[str, str] | None, is_answer: bool) -> None:
    [frame] = frames.FrameReader().feed(wire(value))
    assert (frame.carrier, frame.is_answer) == (carrier, is_answer)


@pytest.mark.parametrize("value", [{"id": 1}, [1], [], "text", 7, None, ["one", {}]])
def test_a_payload_that_is_no_frame_is_an_error(value: Any) -> None:
    with pytest.raises(frames.FrameError, match="not \\[id, body\\]"):
        frames.FrameReader().feed(wire(value))


def test_an_oversized_frame_is_refused_before_it_is_read() -> None:
    with pytest.raises(frames.FrameError, match=r"4294967295 bytes; the limit is 1073741824"):
        frames.FrameReader().feed(b"\xff\xff\xff\xff")


def test_a_truncated_frame_waits_for_the_rest() -> None:
    reader = frames.FrameReader()
    assert reader.feed(wire([1, {}])[:-1]) == []
    assert reader.pending == len(wire([1, {}])) - 1


def test_an_error_is_the_third_element() -> None:
    data = frames.encode(7, None, ErrorResponse(error="GENERIC_ERROR", detail={"a": 1}))
    error = {"type": "ErrorResponse", "error": "GENERIC_ERROR", "detail": {"a": 1}}
    assert msgspec.msgpack.decode(data[4:]) == [7, None, error]
