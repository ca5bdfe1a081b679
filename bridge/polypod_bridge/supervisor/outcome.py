"""The outcome table: from how the process ended, and what it said before, to the task's final state. No I/O.

The rules are upstream's (`ActivitySubprocess.final_state`), with one addition seen in a real Airflow: exit code 0
without any terminal message ends as failed, because nobody ever said that the task succeeded.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from polypod_core.reasons import Reason

from polypod_bridge.comm.messages import RescheduleTask, RetryTask, SucceedTask, TaskState, Terminal
from polypod_bridge.process.base import Exit


class EndedBy(Enum):
    """Who ended the process, if it was not the task itself."""

    SERVER = Reason.SERVER_TERMINATED
    HEARTBEAT = Reason.HEARTBEAT_FAILED
    EXECUTION_TIMEOUT = Reason.EXECUTION_TIMEOUT
    STARTUP_TIMEOUT = Reason.STARTUP_TIMEOUT
    STARTUP_FAILED = Reason.STARTUP_FAILED
    SIGNAL = Reason.TERMINATED
    PROTOCOL = Reason.PROTOCOL_ERROR
    REFUSED = Reason.API_REFUSED
    EXPIRED = Reason.WORKLOAD_EXPIRED
    ALREADY_RUNNING = Reason.ALREADY_RUNNING
    ALREADY_ENDED = Reason.ALREADY_ENDED
    API_UNAVAILABLE = Reason.API_UNAVAILABLE
    UNSENDABLE = Reason.UNSENDABLE
    OVERTIME = "overtime"


SILENT = frozenset({EndedBy.SERVER, EndedBy.REFUSED, EndedBy.EXPIRED, EndedBy.ALREADY_RUNNING, EndedBy.ALREADY_ENDED})
"""After these nothing more is sent: the server knows better than we do."""


@dataclass(frozen=True, slots=True)
class Ending:
    """All that decides an outcome.

    Attributes:
        exit: how the process ended.
        said: the last terminal message, None if there was none.
        delivered: True if the Execution API accepted `said` the moment it came.
        should_retry: what the run context said about another try.
        ended_by: who ended the process, and in which words.
        detail: the sentence that explains `ended_by`.
        known_state: the state that the server has the task in, if it ended in an earlier attempt.
        why: the task's own reason in `said`, not cut.
    """

    exit: Exit
    said: Terminal | None = None
    delivered: bool = False
    should_retry: bool = False
    ended_by: EndedBy | None = None
    detail: str = ""
    known_state: str = "failed"
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The final state, and what is left to tell the Execution API.

    Attributes:
        state: Airflow's name of the final state.
        reason: why, as one word.
        message: why, for a person.
        replay: a terminal message to send again, because its first delivery failed.
        send: True if `state` itself has to be sent.
        retry_delay_seconds: seconds before the next try, if the task said so itself.
        reschedule_time: when the same try is to be started again, if the task asked for that.
    """

    state: str
    reason: Reason
    message: str = ""
    replay: Terminal | None = None
    send: bool = False
    retry_delay_seconds: float | None = None
    reschedule_time: datetime | None = None


_WHY_IT_SAID = frozenset({EndedBy.EXECUTION_TIMEOUT, EndedBy.SIGNAL, EndedBy.HEARTBEAT, EndedBy.PROTOCOL})
"""A runtime that reports its end because it was terminated: the termination is the reason."""

_SAID_REASON = {
    "success": Reason.TASK_SUCCEEDED,
    "failed": Reason.TASK_FAILED,
    "skipped": Reason.TASK_SKIPPED,
    "removed": Reason.TASK_REMOVED,
    "up_for_retry": Reason.RETRY_REQUESTED,
    "deferred": Reason.TASK_DEFERRED,
    "up_for_reschedule": Reason.TASK_RESCHEDULED,
    "awaiting_input": Reason.AWAITING_INPUT,
}


def decide(ending: Ending) -> Verdict:
    """Return the outcome of an attempt."""
    said = ending.said
    if said is not None and ending.delivered:
        return _as_said(ending, said)
    if ending.ended_by in SILENT:
        return Verdict(ending.known_state, _ended_reason(ending), ending.detail)
    if said is not None and not isinstance(said, TaskState):
        return replace(_as_said(ending, said), replay=said)
    # an overtime's exit code is our own doing
    overtime = said is not None and ending.ended_by is EndedBy.OVERTIME
    if overtime or (ending.exit.ok and ending.ended_by in (None, EndedBy.SIGNAL, EndedBy.HEARTBEAT)):
        if said is not None:
            return replace(_as_said(ending, said), send=True)
        if ending.ended_by is None:
            return Verdict("failed", Reason.NO_TERMINAL_STATE, _no_terminal(), send=True)
    # the same value would be there again
    state = "up_for_retry" if ending.should_retry and ending.ended_by is not EndedBy.UNSENDABLE else "failed"
    reason, message = _failure(ending)
    return Verdict(state, reason, message, send=True)


def _as_said(ending: Ending, said: Terminal) -> Verdict:
    message = ""
    delay = said.retry_delay_seconds if isinstance(said, RetryTask) else None
    when = said.reschedule_date if isinstance(said, RescheduleTask) else None
    if ending.ended_by in _WHY_IT_SAID and said.state != "success":
        reason = _ended_reason(ending)
        return Verdict(said.state, reason, ending.detail, retry_delay_seconds=delay, reschedule_time=when)
    if isinstance(said, RetryTask | TaskState) and said.retry_reason:
        message = ending.why or said.retry_reason
    elif not ending.exit.ok and isinstance(said, SucceedTask | RescheduleTask):
        message = f"{_exit_text(ending.exit)} after the task had reported {said.state}, which stands"
    return Verdict(said.state, _SAID_REASON[said.state], message, retry_delay_seconds=delay, reschedule_time=when)


def _no_terminal() -> str:
    return "the runtime exited with code 0 without a terminal message: it did not report success"


def _ended_reason(ending: Ending) -> Reason:
    value: Any = ending.ended_by.value if ending.ended_by is not None else Reason.EXITED
    return value if isinstance(value, Reason) else Reason.EXITED


def _failure(ending: Ending) -> tuple[Reason, str]:
    if ending.ended_by is not None and ending.ended_by is not EndedBy.OVERTIME:
        return _ended_reason(ending), ending.detail
    text = _exit_text(ending.exit)
    if ending.exit.lost:
        return Reason.EXIT_STATUS_LOST, "the runtime is gone and another process collected its exit status"
    if ending.exit.signal == signal.SIGKILL and ending.ended_by is None:
        return Reason.LIKELY_OUT_OF_MEMORY, f"{text} that Polypod did not send; most likely out of memory"
    if ending.exit.signal is not None:
        return Reason.SIGNALED, text
    said = f" after reporting {ending.said.state}" if ending.said is not None else ""
    return Reason.EXITED, f"{text}{said}"


def _exit_text(ended: Exit) -> str:
    if ended.signal is not None:
        return f"the runtime was ended by {signal_name(ended.signal)}"
    return f"the runtime exited with code {ended.code}"


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGTERM."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
