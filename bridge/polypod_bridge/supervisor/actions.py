"""What the state machine asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from polypod_bridge.comm import messages as m
from polypod_bridge.comm.requests import ApiCall
from polypod_bridge.process.base import Exit
from polypod_bridge.supervisor.outcome import Verdict


@dataclass(frozen=True, slots=True)
class Call:
    """Send a call; one after the other, in order. Its reply comes back with the same `purpose`.

    `message` is the runtime's message that it serves, if there is one; `carrier` the trace headers that came with it.
    """

    purpose: str
    call: ApiCall
    message: m.Message | None = None
    request_id: int | None = None
    carrier: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look a connection or variable up in mounted Secrets; the answer comes back with this very action."""

    message: m.GetConnection | m.GetVariable
    request_id: int
    carrier: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """Send a heartbeat, beside the calls."""

    call: ApiCall


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes to the comm socket."""

    data: bytes | bytearray


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the runtime and the processes it started, or to the runtime's own process `alone`."""

    number: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class EndTree:
    """End all that is left of the runtime's process tree."""


@dataclass(frozen=True, slots=True)
class CloseChannels:
    """Close every channel that is still open."""


@dataclass(frozen=True, slots=True)
class Log:
    level: str
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogRaw:
    """Log an error with the bytes that caused it: masked first, then cut."""

    event: str
    problem: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Mask:
    """Hide this value from now on; see `Masker.add`."""

    value: Any
    name: str | None = None


@dataclass(frozen=True, slots=True)
class MaskConnection:
    password: Any
    extra: Any


@dataclass(frozen=True, slots=True)
class StopRetrying:
    """Try calls once from now on: whoever told us to end will not wait."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The attempt is over."""

    verdict: Verdict
    exit: Exit
    reported: bool


Action = (
    Call
    | LookUp
    | Beat
    | Send
    | Signal
    | EndTree
    | CloseChannels
    | Log
    | LogRaw
    | Mask
    | MaskConnection
    | StopRetrying
    | Finish
)
