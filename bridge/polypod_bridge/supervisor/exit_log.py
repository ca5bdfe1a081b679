"""What the task's log says of how its process ended, where that is not plain. No I/O."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from polypod_bridge.process.base import Exit
from polypod_bridge.supervisor.actions import Action, Log
from polypod_bridge.supervisor.outcome import EndedBy, signal_name

_HINTS = {
    signal.SIGKILL: "likely out of memory: raise the container's memory limit, or lower what the task uses",
    signal.SIGSEGV: "the runtime accessed invalid memory: a bug in native code",
}


def explain(ended: Exit, *, silent: bool, ended_by: EndedBy | None) -> Iterable[Action]:
    """Yield the lines about an end.

    Args:
        silent: the runtime closed the comm socket and had sent no terminal message.
        ended_by: who ended it, if it was not the task itself.
    """
    if ended.signal is not None and ended_by is None:
        hint = next((text for number, text in _HINTS.items() if number == ended.signal), None)
        fields = {
            "signal": ended.signal,
            "signal_name": signal_name(ended.signal),
            **({"hint": hint} if hint else {}),
        }
        yield Log("critical" if hint else "error", "the runtime was ended by a signal", fields)
    elif ended.lost:
        yield Log("error", "another process collected the runtime's exit status")
    elif ended.code:
        yield Log("warning", "Process exited abnormally", {"exit_code": ended.code})
    elif ended.ok and silent and ended_by is None:
        yield Log("error", "the runtime exited with code 0 without reporting how the task ended")
