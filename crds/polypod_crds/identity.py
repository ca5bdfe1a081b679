"""The task instance that an attempt is: worked out from the TaskRun by the operator and the Execution API alike."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("8f5b1d6e-5f0f-5d3e-9a55-706f6c79706f")


def task_instance_id(taskrun_uid: str, attempt: int) -> uuid.UUID:
    """Return the id of the task instance of a TaskRun's attempt, counted from 1."""
    return uuid.uuid5(_NAMESPACE, f"{taskrun_uid}/{attempt}")
