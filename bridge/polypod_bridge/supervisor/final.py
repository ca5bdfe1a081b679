"""The call that tells the Execution API how a task has ended. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from polypod_core.reasons import Reason

from polypod_bridge.comm import messages as m
from polypod_bridge.comm import requests
from polypod_bridge.comm.ends import LONGEST_REASON
from polypod_bridge.comm.requests import ApiCall
from polypod_bridge.supervisor.assignment import Assignment
from polypod_bridge.supervisor.outcome import Verdict


class Server(msgspec.Struct, frozen=True):
    """What is known of the server once it has allowed the task to run.

    Attributes:
        newest: it speaks version 2026-10-30.
        gave_up: it has said by a heartbeat that the task must not run any more.
    """

    newest: bool
    gave_up: bool


def acknowledges(verdict: Verdict, server: Server) -> bool:
    """Tell whether the server waits to hear that a task it gave up has ended: Airflow 3.4 then starts its next try."""
    return server.newest and server.gave_up and verdict.reason is Reason.SERVER_TERMINATED


def final_call(task: Assignment, pid: int, verdict: Verdict, said: m.Terminal | None, server: Server) -> ApiCall | None:
    """Return the call; None if there is nothing left to tell.

    Args:
        said: the last terminal message of the runtime, None if there was none.
    """
    now = datetime.now(UTC)
    if acknowledges(verdict, server):
        return requests.terminated_call(task.ti.id, task.identity.hostname, pid, now)
    if verdict.replay is not None:
        return requests.state_call(task.ti.id, verdict.replay, newest=server.newest)
    if not verdict.send:
        return None
    if verdict.state == "up_for_retry":
        retry = m.RetryTask(end_date=now, retry_reason=verdict.message[:LONGEST_REASON] or None)
        return requests.state_call(task.ti.id, retry)
    if isinstance(said, m.TaskState) and said.state == verdict.state:
        return requests.state_call(task.ti.id, msgspec.structs.replace(said, end_date=now), newest=server.newest)
    rendered = said.rendered_map_index if isinstance(said, m.TaskState) else None
    body = {"state": verdict.state, "end_date": now, "rendered_map_index": rendered}
    if server.newest and verdict.message:
        # the UI shows it as the reason of the state
        body["retry_reason"] = verdict.message[:LONGEST_REASON]
    return ApiCall("PATCH", f"task-instances/{task.ti.id}/state", body=body)
