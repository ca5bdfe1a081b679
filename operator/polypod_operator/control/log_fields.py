"""What the operator's own log says of a TaskRun besides the message: the same fields on every line. Pure."""

from __future__ import annotations

from typing import Any

from polypod_core.reasons import Reason
from polypod_crds.taskrun import Attempt, TaskRunStatus

from polypod_operator.model.objects import TaskRunObject

_SAME_TRY = frozenset({Reason.REPLACING, Reason.RESCHEDULED, Reason.SUSPENDED, Reason.CANCELLED})
"""Why an attempt may be closed without its try being counted as failed."""


def about(
    run: TaskRunObject, attempt: Attempt | None = None, pod: str | None = None, *, under_way: bool = False
) -> dict[str, Any]:
    """Return the fields of a line about a TaskRun.

    Args:
        attempt: the one that the line is about; by default the last one.
        pod: the pod's name, if the status does not have it yet.
        under_way: the line is about an attempt that the status does not show as closed yet, or at all.
    """
    spec, status = run.spec, run.status
    last = attempt or (status.attempts[-1] if status.attempts else None)
    fields = {
        "taskrun": f"{run.namespace}/{run.name}",
        "dag_id": spec.dag_id if spec is not None else None,
        "task_id": spec.task_id if spec is not None else None,
        "run_id": spec.run_id if spec is not None else None,
        "queue": spec.queue if spec is not None else None,
        "try_number": status.failed_tries + (1 if under_way or not _is_counted(status) else 0),
        "pod": pod or (last.pod_name if last is not None else None),
    }
    if attempt is not None:
        fields |= {"attempt": attempt.number, "state": attempt.state, "reason": attempt.reason}
    return fields


def _is_counted(status: TaskRunStatus) -> bool:
    """Tell whether the last attempt's try is among those that have failed."""
    last = status.attempts[-1] if status.attempts else None
    if last is None or last.state in ("queued", "running") or status.phase == "Succeeded":
        return False
    return status.failed_tries > 0 and status.reason not in _SAME_TRY
