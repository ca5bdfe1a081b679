"""What an attempt is called, as a pod and as a task instance: worked out alike by operator and Execution API."""

from __future__ import annotations

import hashlib
import uuid

_NAMESPACE = uuid.UUID("8f5b1d6e-5f0f-5d3e-9a55-706f6c79706f")


def task_instance_id(taskrun_uid: str, attempt: int) -> uuid.UUID:
    """Return the id of the task instance of a TaskRun's attempt, counted from 1."""
    return uuid.uuid5(_NAMESPACE, f"{taskrun_uid}/{attempt}")


def pod_name(name: str, uid: str, attempt: int) -> str:
    """Return the name of an attempt's pod: always the same, so that creating it twice is no second run."""
    mark = hashlib.sha256(uid.encode()).hexdigest()[:5]
    tail = f"-{mark}-{attempt}"
    # a pod's name is also its host name, which may not begin or end with a dot or dash
    return name.replace(".", "-")[: 63 - len(tail)].rstrip("-") + tail
