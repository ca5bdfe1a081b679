"""The TaskRun's kind, and the labels and annotations of its pods."""

from __future__ import annotations

GROUP = "polypod.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TaskRun"
PLURAL = "taskruns"

Key = tuple[str, str]
"""Namespace and name of a TaskRun."""

TASKRUN_LABEL = f"{GROUP}/taskrun"
UID_LABEL = f"{GROUP}/taskrun-uid"
"""Selects pods that may be ours; the owner reference says whose they are."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
TRY_LABEL = f"{GROUP}/try"
LOG_ANNOTATION = f"{GROUP}/log"
"""Where the attempt's log is stored: a StoredLog as JSON."""
COORDINATOR_ANNOTATION = f"{GROUP}/coordinator"
QUEUE_ANNOTATION = f"{GROUP}/queue"
DAG_ID_ANNOTATION = f"{GROUP}/dag-id"
TASK_ID_ANNOTATION = f"{GROUP}/task-id"
RUN_ID_ANNOTATION = f"{GROUP}/run-id"


def task_run_path(namespace: str, name: str) -> str:
    """Return the path of a TaskRun on the API server."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}"


def is_task_run(api_version: str, kind: str) -> bool:
    """Tell whether an owner reference names a TaskRun, of whatever version."""
    return kind == KIND and api_version.startswith(f"{GROUP}/")
