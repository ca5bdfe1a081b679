"""Reports a task that could not be started: the same state machine, without a process to watch."""

from __future__ import annotations

import time
from collections import deque

from polypod_bridge.api.client import ApiUnavailable, ExecutionApiClient
from polypod_bridge.comm.requests import ApiReply
from polypod_bridge.logs.pipeline import TaskLog
from polypod_bridge.supervisor.actions import Action, Call, Finish, Log
from polypod_bridge.supervisor.state import Supervision


def report(state: Supervision, actions: list[Action], client: ExecutionApiClient, log: TaskLog) -> Finish:
    """Carry out what follows from `Supervision.not_started`; return the end."""
    pending = deque(actions)
    while True:
        match pending.popleft():
            case Finish() as finish:
                return finish
            case Log(level, event, fields):
                log.event(level, event, **fields)
            case Call() as call:
                pending.extend(state.replied(time.monotonic(), call, *_perform(client, call)))


def _perform(client: ExecutionApiClient, call: Call) -> tuple[ApiReply | None, str]:
    try:
        # until it may run, a task has nothing to lose by waiting for the server
        return client.call(call.call, patient=call.purpose == "run"), ""
    except ApiUnavailable as error:
        return None, str(error)
