"""The log of a task that runs: from its pod, for Airflow's UI."""

from __future__ import annotations

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.reading import task_run
from polypod_airflow.taskruns import collection

_LINES = "2000"


def running_log(cluster: Cluster, namespace: str, name: str) -> tuple[list[str], list[str]]:
    """Return where the log comes from, and its last lines; never without a source, or Airflow asks the pod for it.

    A log that is kept elsewhere as well is read there by Airflow itself: its lines would be shown twice.

    Args:
        name: the TaskRun's.

    Raises:
        ClusterError: the TaskRun or the log cannot be read.
    """
    raw = cluster.call("GET", collection(namespace, name), attempts=1)
    attempt = task_run(raw).last
    if not attempt.pod_name:
        return [f"TaskRun {namespace}/{name} has no pod yet"], []
    source = f"pod {namespace}/{attempt.pod_name} of TaskRun {name}"
    if attempt.log is not None and attempt.log.url:
        return [f"{source}; its log is kept in {attempt.log.url}"], []
    path = f"/api/v1/namespaces/{namespace}/pods/{attempt.pod_name}/log"
    try:
        text = cluster.call("GET", path, params={"container": "bridge", "tailLines": _LINES}, attempts=1)
    except ClusterError as error:
        return [f"{source}: its log cannot be read: {error.message}"], []
    return [source], text.decode("utf-8", "replace").splitlines()
