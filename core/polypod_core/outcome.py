"""The outcome as it leaves the bridge: one JSON object, small enough for a pod's termination message."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

MAX_SIZE = 4096
"""Bytes that Kubernetes keeps of a termination message."""


# bounds of what a status can hold: the operator reads this from a pod that somebody may have tampered with
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Whole = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]
Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Outcome(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """How one attempt ended.

    Attributes:
        state: Airflow's name of the final state.
        reason: why, as one word of `Reason`.
        message: why, for a person.
        exit_code: the runtime's exit code, if it exited.
        signal: the signal that ended it, if one did.
        reported: True if the Execution API knows the state.
        user_error: True if what the user gave was wrong, so that another try would not help.
        retry_delay_seconds: the time before the next try that the task itself asked for.
        reschedule_time: when the same try is to be started again, if the task asked for that.
        peak_memory_bytes: largest resident set of the runtime.
        cpu_seconds: user and system time of the runtime.
        connect_time: when the runtime connected to the bridge.
        log_url: where its log is kept, if it is.
        log_lines: how many lines its log has in the bridge container's own; a kubelet keeps only the last of many.
    """

    state: Word
    reason: Word
    message: str = ""
    exit_code: Whole | None = None
    signal: Whole | None = None
    start_time: Aware | None = None
    finish_time: Aware | None = None
    reported: bool = False
    user_error: bool = False
    retry_delay_seconds: float | None = None
    reschedule_time: Aware | None = None
    peak_memory_bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] | None = None
    cpu_seconds: Annotated[float, msgspec.Meta(ge=0, lt=1e12)] | None = None
    connect_time: Aware | None = None
    log_url: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    log_lines: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0


def encode(outcome: Outcome, limit: int = MAX_SIZE) -> bytes:
    """Encode an outcome in at most `limit` bytes: its message is cut, never the rest."""
    message = outcome.message.encode("utf-8", "replace").decode()
    raw = msgspec.json.encode(msgspec.structs.replace(outcome, message=message))
    while len(raw) > limit and message:
        message = message[: max(0, len(message) - max(1, (len(raw) - limit) // 4))]
        raw = msgspec.json.encode(msgspec.structs.replace(outcome, message=message + "…" if message else ""))
    return raw


def decode(raw: bytes) -> Outcome:
    """Decode an outcome.

    Raises:
        msgspec.MsgspecError: it is not one.
    """
    try:
        return msgspec.json.decode(raw, type=Outcome)
    except RecursionError:
        raise msgspec.DecodeError("nested too deep") from None
