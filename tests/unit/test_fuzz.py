"""Frames that nobody would send: whatever a runtime does, the protocol code answers, ends it, or refuses the stream.

`make fuzz` tries a million.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polypod_bridge.comm import frames
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import DEEPEST
from polypod_bridge.comm.requests import NO_BODY, ApiReply
from polypod_bridge.supervisor import actions as act
from support.sizes import SIZES
from support.supervised import running


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


NASTY: list[Any] = [
    None, True, 0, -1, 1 << 63, 1 << 64, 1e308, float("nan"), float("inf"), "", "\0", "x" * 70_000, "../..", b"\xff", [],
    {}, [[]], {"a": {"b": []}}, {1: 2}, nested(DEEPEST + 50), datetime(1, 1, 1, tzinfo=UTC), msgspec.msgpack.Ext(-1, b"\xff" * 12),
    msgspec.msgpack.Ext(-1, b""), msgspec.msgpack.Ext(100, b""), "\ud83d".encode("utf-8", "surrogatepass"),
]  # fmt: skip


def examples() -> dict[str, dict[str, Any]]:
    """Return a body for each message that a runtime may send, every field of it set."""
    made = {}
    for name, kind in m.REQUEST_TYPES.items():
        made[name] = {"type": name, **{field.encode_name: "x" for field in msgspec.structs.fields(kind)}}
    return made


EXAMPLES = examples()
BODIES = [
    b"", b"null", b"{", b"[]", b'{"value": 1180591620717411303424}', b'{"value": NaN}', b"\xff", b"5", b'{"detail": 7}',
    b'{"key": 1, "value": {"a": []}}', b"[" * 2000,
]  # fmt: skip
STATUSES = (200, 201, 204, 400, 403, 404, 409, 410, 422, 500)


FRAMES = 20
"""Frames of one seed: to draw each choice by itself takes ten times as long as what is tested."""


@given(st.integers(0, (1 << 64) - 1))
@settings(max_examples=SIZES.fuzz_frames // FRAMES, suppress_health_check=list(HealthCheck))
def test_no_frame_of_a_runtime_raises_anything(seed: int) -> None:
    """Each message, with fields replaced by what nobody would send, bytes changed at random, and any answer to it."""
    rng = random.Random(seed)
    for _ in range(FRAMES):
        raw = mutated(rng)
        if raw is not None:
            with noted(raw):
                send(raw, rng)


def mutated(rng: random.Random) -> bytes | None:
    """Return a message with faults in it; None if it cannot be written."""
    body = dict(rng.choice(list(EXAMPLES.values())))
    for field in rng.choices(sorted(body), k=rng.randint(0, 4)):
        body[field] = rng.choice(NASTY)
    try:
        raw = bytearray(msgspec.msgpack.encode([rng.randint(0, 1 << 40), body]))
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return None
    for _ in range(rng.randint(0, 3)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw)


@contextmanager
def noted(raw: bytes) -> Iterator[None]:
    """Have a failure show the frame."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"the frame, of {len(raw)} bytes: {raw[:4000].hex()}")
        raise


def send(raw: bytes, rng: random.Random) -> None:
    """Have a supervisor receive a frame, and the Execution API answer what it asks for."""
    state = running()
    try:
        received = frames.FrameReader().feed(len(raw).to_bytes(4, "big") + raw)
    except frames.FrameError as error:
        state.broken(1, str(error))
        return
    for frame in received:
        for action in state.frame(1, frame):
            if isinstance(action, act.Call):
                # as the client does it
                if action.call.body is not NO_BODY:
                    msgspec.json.encode(action.call.body)
                assert "\n" not in action.call.path
                state.replied(2, action, ApiReply(rng.choice(STATUSES), rng.choice(BODIES)))
            elif isinstance(action, act.Send):
                assert len(action.data) > frames.HEADER_SIZE
