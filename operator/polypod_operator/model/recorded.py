"""A TaskRun's status as the API server has it. Anybody with the right to can write whatever the CRD admits. Pure.

What is read here is fit for decisions: times have a zone, attempts are numbered upwards, only the last one is under
way, and a phase agrees with the other marks of an end. What is not so is left out, and never makes the rest unreadable.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from polypod_core.reasons import Reason
from polypod_core.states import ENDED, ENDED_WELL, FINISHED_PHASES, REMOVED
from polypod_crds.taskrun import Attempt, Condition, TaskRunStatus
from pydantic import ValidationError

from polypod_operator.kube.raw import Raw

_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9990, 1, 1, tzinfo=UTC)
"""Times outside of these are nobody's, and cannot be reckoned with."""
_HIGHEST = 999_999_999
"""Of an attempt: its pod's name holds no more digits."""
_PHASES = {True: "Succeeded", False: "Failed"}
"""Final phases, by whether the task has ended well."""
UNDER_WAY = ("queued", "running")
"""States of an attempt that has not ended."""


def digest(raw: Raw) -> int:
    """Return a number that is another one for another status."""
    return hash(msgspec.json.encode(raw.get("status") or {}))


def read(raw: Raw) -> tuple[TaskRunStatus, bool]:
    """Return the status of a TaskRun, and whether it is other than the operator writes one."""
    given = raw.get("status") or {}
    try:
        parsed = TaskRunStatus.model_validate(given)
    except ValidationError as error:
        return _sound(_without(given, error)), True
    sound = _sound(parsed)
    return sound, sound is not parsed


def managers(raw: Raw) -> set[str]:
    """Return the managers whose writes a status shows, by the managedFields; one that only removes is not listed."""
    fields = raw["metadata"].get("managedFields") or ()
    return {str(item.get("manager")) for item in fields if item.get("subresource") == "status"}


def agree(phase: str, state: str | None) -> bool:
    """Tell whether a final phase is that of a task that has ended in this state."""
    return state == REMOVED or state not in ENDED or (phase == "Succeeded") == (state in ENDED_WELL)


def as_ended(status: TaskRunStatus, state: str, when: datetime) -> TaskRunStatus:
    """Return a status that says that its task has ended in a state, if nothing else is known any more."""
    phase = _PHASES[state in ENDED_WELL]
    attempts = [item.model_copy(update={"state": state}) if item.state in UNDER_WAY else item
                for item in status.attempts]  # fmt: skip
    message = f"the status was edited after the task had ended in state {state!r}; nothing else is known of it"
    answers = (("Complete", "True"), ("Succeeded", "True" if phase == "Succeeded" else "False"))
    ended = [Condition.model_validate({"type": kind, "status": answer, "reason": Reason.STATUS_EDITED,
                                       "message": message, "last_transition_time": status.finish_time or when})
             for kind, answer in answers]  # fmt: skip
    kept = [item for item in status.conditions if item.type not in ("Complete", "Succeeded")]
    return status.model_copy(update={
        "phase": phase, "state": state, "reason": Reason.STATUS_EDITED, "message": message, "attempts": attempts,
        "conditions": [*kept, *ended], "next_attempt_time": None, "queue_place": None,
    })  # fmt: skip


def _without(given: Raw, error: ValidationError) -> TaskRunStatus:
    """Return what can be read of a status, without the fields and the items of lists that cannot."""
    left: dict[str, Any] = dict(given)
    for item in error.errors():
        name, *inside = item["loc"]
        if isinstance(left.get(str(name)), list) and inside:
            left[str(name)] = [None if index == inside[0] else entry for index, entry in enumerate(left[str(name)])]
        else:
            left.pop(str(name), None)
    for name, value in left.items():
        if isinstance(value, list):
            left[name] = [entry for entry in value if entry is not None]
    return TaskRunStatus.model_validate(left)


def _sound(status: TaskRunStatus) -> TaskRunStatus:
    """Return a status that decisions can be made from: the same object, if it is one."""
    changes: dict[str, Any] = {}
    for name in ("tries", "failed_tries", "infrastructure_failures"):
        if not 0 <= getattr(status, name) <= _HIGHEST:
            changes[name] = min(max(getattr(status, name), 0), _HIGHEST)
    for name in ("start_time", "finish_time", "next_attempt_time"):
        if not _is_time(getattr(status, name)):
            changes[name] = None
    if not all(_is_time(item.last_transition_time) for item in status.conditions):
        changes["conditions"] = [item for item in status.conditions if _is_time(item.last_transition_time)]
    attempts = _in_order(status.attempts)
    if attempts is not status.attempts:
        changes["attempts"] = attempts
    found = status.model_copy(update=changes) if changes else status
    ended = _end(found)
    return found.model_copy(update=ended) if ended else found


def _is_time(when: datetime | None) -> bool:
    return when is None or (when.tzinfo is not None and _EARLIEST < when < _LATEST)


def _in_order(attempts: list[Attempt]) -> list[Attempt]:
    """Return attempts that are numbered upwards, of which only the last is under way: the same list, if they are."""
    found: list[Attempt] = []
    for item in attempts:
        before = found[-1].number if found else 0
        if before < item.number <= _HIGHEST and _has_times(item):
            found.append(item)
    last = len(found) - 1
    for index, item in enumerate(found):
        if index < last and item.state in UNDER_WAY:
            found[index] = item.model_copy(update={"state": "failed"})
    same = len(found) == len(attempts) and all(one is other for one, other in zip(found, attempts, strict=True))
    return attempts if same else found


def _has_times(attempt: Attempt) -> bool:
    return all(map(_is_time, (attempt.create_time, attempt.start_time, attempt.connect_time, attempt.finish_time)))


def _end(status: TaskRunStatus) -> dict[str, Any]:
    """Return what has to be changed, so that all marks of an end agree: in doubt nothing is run again."""
    complete = any(item.type == "Complete" and item.status == "True" for item in status.conditions)
    final = status.phase in FINISHED_PHASES
    last = status.attempts[-1] if status.attempts else None
    if last is not None and last.state in UNDER_WAY:
        if not final:
            return {"finish_time": None} if status.finish_time is not None else {}
        if complete and status.finish_time is not None:
            state = status.state if status.state not in (None, *UNDER_WAY) else "failed"
            return {"attempts": [*status.attempts[:-1], last.model_copy(update={"state": state})]}
        return {"phase": "Pending", "finish_time": None}
    if final:
        return {} if agree(status.phase, status.state) else {"phase": _PHASES[status.phase != "Succeeded"]}
    if not (complete or status.finish_time is not None):
        return {}
    well = any(item.type == "Succeeded" and item.status == "True" for item in status.conditions)
    if well or status.state in ENDED_WELL:
        return {"phase": "Succeeded"}
    return {"phase": "Failed", "state": status.state if status.state in ENDED else "failed"}
