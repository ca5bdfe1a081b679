"""Bytes to frames and back: a 4-byte big-endian length, then one msgpack array.

A runtime sends `[id, body]`, or `[id, body, context_carrier]` for a traced request, or `[id, body, error]` as its
answer to the supervisor's own frame 0. The supervisor sends `[id, body, error]`. Nothing here reads or writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from polypod_bridge.comm.exact import UNREADABLE

HEADER_SIZE = 4
MAX_FRAME_SIZE = 1 << 30
"""Largest frame accepted, in bytes. A runtime that announces more is broken or hostile."""


class FrameError(Exception):
    """The byte stream is not a stream of frames; it cannot be read any further."""

    def __init__(self, problem: str, raw: bytes = b"") -> None:
        """Keep what was read beside the problem: a log may show it, once it is masked."""
        super().__init__(problem)
        self.raw = raw


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame from a runtime.

    Attributes:
        id: the sender's request id; an answer carries the id of its request.
        body: the message, still encoded (see `messages.decode_request`).
        carrier: W3C trace headers of the sender, or None.
        is_answer: True for the three-element form without a carrier, in which a runtime answers frame 0.
    """

    id: int
    body: bytes
    carrier: dict[str, str] | None
    is_answer: bool


class _Wire(msgspec.Struct, array_like=True):
    id: int
    body: msgspec.Raw
    third: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.msgpack.Decoder(_Wire)
_encoder = msgspec.msgpack.Encoder()


def decode_payload(payload: bytes | bytearray | memoryview) -> Frame:
    """Decode what follows the length of one frame.

    Raises:
        FrameError: it is not msgpack, not an array, or its id is not an integer.
    """
    try:
        wire = _decoder.decode(payload)
    except UNREADABLE as error:
        problem = f"a frame of {len(payload)} bytes is not [id, body] in msgpack: {error}"
        raise FrameError(problem, bytes(payload)) from None
    if isinstance(wire.third, msgspec.UnsetType):
        return Frame(wire.id, bytes(wire.body), None, False)
    try:
        third = msgspec.msgpack.decode(wire.third)
    except UNREADABLE:
        # neither trace headers nor an error is worth the message that they come with
        third = None
    if isinstance(third, dict) and "type" not in third:
        return Frame(wire.id, bytes(wire.body), {str(k): str(v) for k, v in third.items()}, False)
    return Frame(wire.id, bytes(wire.body), None, True)


class FrameReader:
    """Collects bytes as they arrive and gives out the frames that are complete."""

    def __init__(self, max_size: int = MAX_FRAME_SIZE) -> None:
        self._max_size = max_size
        self._buffer = bytearray()
        self._needed = HEADER_SIZE

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Add bytes; return the frames they complete, in order.

        Raises:
            FrameError: a length over the limit, or a payload that is not a frame. The reader cannot be used afterwards.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= self._needed:
            size = int.from_bytes(buffer[start : start + HEADER_SIZE], "big")
            if size > self._max_size:
                raise FrameError(f"the runtime announced a frame of {size} bytes; the limit is {self._max_size} bytes")
            end = start + HEADER_SIZE + size
            if len(buffer) < end:
                self._needed = HEADER_SIZE + size
                break
            frames.append(decode_payload(bytes(buffer[start + HEADER_SIZE : end])))
            start = end
            self._needed = HEADER_SIZE
        if start:
            del buffer[:start]
        return frames


def encode(id: int, body: Any, error: Any = None) -> bytearray:
    """Encode one frame, length included.

    Args:
        id: the request's id, or 0 for the supervisor's own first frame.
        body: a message struct, a map, or None.
        error: an ErrorResponse struct, or None.

    Raises:
        FrameError: the frame would be larger than 4 GiB, or msgpack cannot hold what is in it.
    """
    buffer = bytearray(256)
    try:
        _encoder.encode_into((id, body, error), buffer, HEADER_SIZE)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise FrameError(f"what the runtime is to be sent does not fit msgpack: {problem}") from None
    size = len(buffer) - HEADER_SIZE
    if size >= 1 << 32:
        raise FrameError(f"an answer of {size} bytes does not fit a frame (4 GiB)")
    buffer[:HEADER_SIZE] = size.to_bytes(HEADER_SIZE, "big")
    return buffer
