"""What the operator's own log says of a TaskRun besides the message: the same fields on every line. Pure."""

from __future__ import annotations

from typing import Any

from polypod_crds.taskrun import Attempt

from polypod_operator.model.objects import TaskRunObject


def about(run: TaskRunObject, attempt: Attempt | None = None, pod: str | None = None) -> dict[str, Any]:
    """Return the fields of a line about a TaskRun.

    Args:
        attempt: the one that the line is about; by default the last one.
        pod: the pod's name, if the status does not have it yet.
    """
    spec, status = run.spec, run.status
    last = attempt or (status.attempts[-1] if status.attempts else None)
    fields = {
        "taskrun": f"{run.namespace}/{run.name}",
        "dag_id": spec.dag_id if spec is not None else None,
        "task_id": spec.task_id if spec is not None else None,
        "run_id": spec.run_id if spec is not None else None,
        "queue": spec.queue if spec is not None else None,
        "try_number": status.failed_tries + 1,
        "pod": pod or (last.pod_name if last is not None else None),
    }
    if attempt is not None:
        fields |= {"attempt": attempt.number, "state": attempt.state, "reason": attempt.reason}
    return fields
