"""The answer to a task's start, and the StartupDetails that follow from it. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from polypod_bridge.comm import answers as a
from polypod_bridge.comm.exact import UNREADABLE
from polypod_bridge.comm.requests import ApiReply
from polypod_bridge.supervisor.assignment import Assignment
from polypod_bridge.supervisor.outcome import EndedBy

CLOCK_SKEW = 30.0
"""Seconds by which the server's clock may be ahead of ours."""


class Cause(msgspec.Struct, frozen=True):
    """Why a runtime is ended, if it is not by itself.

    Attributes:
        detail: for a person.
        known_state: the state that the server has the task in, if it ended in an earlier attempt.
    """

    ended_by: EndedBy
    detail: str
    known_state: str = "failed"


def read_run(reply: ApiReply | None, problem: str, token_end: float) -> a.TIRunContext | Cause:
    """Return the run context, or why the task may not run.

    Args:
        reply: the answer; None if there was none, and `problem` says why.
        token_end: when the workload's token expires, in seconds since 1970; 0 if that is not known.
    """
    if reply is None:
        return Cause(EndedBy.API_UNAVAILABLE, f"the Execution API could not be reached: {problem}")
    if not reply.ok:
        return _refused(reply, token_end)
    try:
        return msgspec.json.decode(reply.body, type=a.TIRunContext)
    except UNREADABLE as error:
        return Cause(EndedBy.API_UNAVAILABLE, f"the Execution API's run context is not valid: {error}")


def _refused(reply: ApiReply, token_end: float) -> Cause:
    found = reply.detail()
    detail = found if isinstance(found, dict) else {}
    previous = detail.get("previous_state")
    if reply.status == 409 and (previous == "running" or detail.get("reason") == "running_elsewhere"):
        return Cause(EndedBy.ALREADY_RUNNING, "the task instance already runs elsewhere")
    if reply.status == 409 and previous in ("success", "skipped", "removed"):
        text = f"an earlier attempt had already reported {previous}; the task is not run again"
        return Cause(EndedBy.ALREADY_ENDED, text, previous)
    if reply.status in (401, 403) and 0 < token_end <= datetime.now(UTC).timestamp() + CLOCK_SKEW:
        ended = datetime.fromtimestamp(token_end, UTC).isoformat(timespec="seconds")
        text = (
            f"the workload's token was valid until {ended}. A task that Airflow's scheduler has queued is queued again "
            "and uses no try; a workload that was applied by hand needs a new token"
        )
        return Cause(EndedBy.EXPIRED, text)
    state = f" (its state is {previous})" if previous else ""
    text = f"the Execution API answered {reply.status} to the start of the task: {reply.text()}{state}"
    return Cause(EndedBy.REFUSED, text)


def startup_details(task: Assignment, context: a.TIRunContext, started_at: datetime | None) -> a.StartupDetails:
    """Return the first frame that a runtime gets."""
    return a.StartupDetails(
        ti=task.ti,
        dag_rel_path=task.dag_rel_path,
        bundle_info=task.bundle_info,
        start_date=context.start_date or started_at or datetime.now(UTC),
        ti_context=context,
        sentry_integration=task.sentry_integration,
    )
