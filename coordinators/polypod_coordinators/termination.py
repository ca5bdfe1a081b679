"""The outcome as it leaves the bridge: one JSON object, small enough for a pod's termination message."""

from __future__ import annotations

from datetime import datetime

import msgspec

MAX_SIZE = 4096
"""Bytes that Kubernetes keeps of a termination message."""


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
    """

    state: str
    reason: str
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    start_time: datetime | None = None
    finish_time: datetime | None = None
    reported: bool = False
    user_error: bool = False
    retry_delay_seconds: float | None = None
    reschedule_time: datetime | None = None
    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    connect_time: datetime | None = None
    log_url: str = ""


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
    return msgspec.json.decode(raw, type=Outcome)
