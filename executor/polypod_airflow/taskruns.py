"""What Kubernetes is asked for: a TaskRun for each workload, and Secrets with the workloads of a batch. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

API_VERSION, KIND, PLURAL = "polypod.dev/v1alpha1", "TaskRun", "taskruns"
LABEL = "polypod.dev/airflow"
"""On what an executor has made: which Airflow it is of."""
LOG_PATH = "polypod.dev/airflow-log-path"
"""The annotation with the path of the attempt's log, for a scheduler that takes a TaskRun over."""
PREFIX = "af-"
MERGE = "application/merge-patch+json"
BATCH = 256
"""Workloads in a Secret, at most."""
BATCH_SIZE = 700_000
"""Bytes of workloads in a Secret: it may have 1 MiB, and base64 takes a third more."""
_PRIORITIES = (-2_147_483_648, 2_147_483_647)


@dataclass(frozen=True, slots=True)
class Work:
    """A workload of Airflow's, and what is needed of it.

    Attributes:
        external_id: the UUID that the scheduler gave this queueing of the task instance.
        document: the workload as JSON, token included.
        pod_template: what the task's executor_config asks for.
        log_path: where its log is, below Airflow's folder of logs.
    """

    external_id: str
    queue: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    priority: int
    document: str = field(repr=False)
    pod_template: dict[str, Any] = field(default_factory=dict)
    log_path: str = ""

    @property
    def name(self) -> str:
        """The TaskRun's name: of each queueing another one, so that what is made twice is recognised."""
        return f"{PREFIX}{self.external_id}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What all TaskRuns of an Airflow have in common.

    Attributes:
        airflow: which Airflow it is: the value of the label.
        pending: how long a pod may take to start, less than Airflow's task_queued_timeout.
        ttl: seconds after which a TaskRun that has ended is deleted.
        execution_api: the URL of this Airflow's Execution API; empty if no pod can reach it by that, so that the
            operator's default is used. Tokens must not go to another Airflow.
    """

    namespace: str
    airflow: str
    pending: str = "8m"
    ttl: int = 600
    execution_api: str = ""


def batches(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Yield the workloads in groups of which each fits into one Secret."""
    batch: list[Work] = []
    size = 0
    for work in works:
        length = len(work.document.encode())
        if batch and (len(batch) == BATCH or size + length > BATCH_SIZE):
            yield batch
            batch, size = [], 0
        batch.append(work)
        size += length
    if batch:
        yield batch


def secret(works: Sequence[Work], settings: Settings) -> dict[str, Any]:
    """Return the Secret with the workloads, each under its TaskRun's name.

    Its name follows from what is in it: made again after a lost answer, it is the same.
    """
    ids = hashlib.sha256("\n".join(work.external_id for work in works).encode()).hexdigest()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"{PREFIX}{ids[:32]}",
            "namespace": settings.namespace,
            "labels": {LABEL: settings.airflow},
        },
        "type": "polypod.dev/workloads",
        "data": {work.name: base64.b64encode(work.document.encode()).decode() for work in works},
    }


def task_run(work: Work, secret_name: str, settings: Settings) -> dict[str, Any]:
    """Return the TaskRun of a workload."""
    least, most = _PRIORITIES
    spec: dict[str, Any] = {
        "queue": work.queue,
        "dagId": work.dag_id,
        "taskId": work.task_id,
        "runId": work.run_id,
        "mapIndex": work.map_index,
        "priority": min(max(work.priority, least), most),
        "workloadSecretRef": {"name": secret_name, "key": work.name},
        "timeouts": {"pending": settings.pending},
        "ttlSecondsAfterFinished": settings.ttl,
    }
    if settings.execution_api:
        spec["executionApi"] = {"url": settings.execution_api}
    if work.pod_template:
        spec["podTemplate"] = work.pod_template
    metadata: dict[str, Any] = {
        "name": work.name,
        "namespace": settings.namespace,
        "labels": {LABEL: settings.airflow},
        "annotations": {LOG_PATH: work.log_path},
    }
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def owners(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the patch by which a Secret goes with the last of its TaskRuns."""
    references = [
        {"apiVersion": API_VERSION, "kind": KIND, "name": raw["metadata"]["name"], "uid": raw["metadata"]["uid"]}
        for raw in made
    ]
    return {"metadata": {"ownerReferences": references}}


def collection(namespace: str, name: str = "") -> str:
    """Return the path of TaskRuns, or of one."""
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
    return f"{path}/{name}" if name else path


def secrets(namespace: str, name: str = "") -> str:
    """Return the path of Secrets, or of one."""
    path = f"/api/v1/namespaces/{namespace}/secrets"
    return f"{path}/{name}" if name else path
