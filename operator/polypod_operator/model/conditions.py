"""The conditions of a TaskRun: a transition time changes with the status only, as tools expect."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from polypod_crds.taskrun import Condition, TaskRunStatus

MAX_MESSAGE = 1024
Answer = Literal["True", "False", "Unknown"]


def put(
    status: TaskRunStatus, kind: str, answer: Answer, reason: str, message: str, now: datetime, generation: int
) -> None:
    """Set the condition of that type."""
    message = shorten(message)
    for index, old in enumerate(status.conditions):
        if old.type == kind:
            since = old.last_transition_time if old.status == answer else now
            if (old.status, old.reason, old.message) == (answer, reason, message):
                return
            status.conditions[index] = _made(kind, answer, reason, message, since, generation)
            return
    status.conditions.append(_made(kind, answer, reason, message, now, generation))


def _made(kind: str, answer: Answer, reason: str, message: str, since: datetime, generation: int) -> Condition:
    return Condition(type=kind, status=answer, reason=reason, message=message, last_transition_time=since,
                     observed_generation=generation)  # fmt: skip


def shorten(message: str) -> str:
    """Cut a message to what a status should hold."""
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
