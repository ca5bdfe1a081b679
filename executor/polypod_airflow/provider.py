"""What Airflow is told about this package: its executor, its commands and its settings."""

from __future__ import annotations

from typing import Any

_OPTIONS: dict[str, tuple[str, str, str | None, str]] = {
    "namespace": ("string", "Namespace for TaskRuns; the pod's own if empty.", None, "airflow-tasks"),
    "airflow_id": ("string", "Which Airflow this is, if several share the namespace.", "airflow", "airflow-production"),
    "routing": (
        "string", "The routing ConfigMap, NAMESPACE/NAME.", "polypod-system/polypod-routing", "polypod/polypod-routing",
    ),
    "queues": ("string", "Mapped queues, comma-separated, instead of reading the ConfigMap.", None, "jvm,golang"),
    "pending_timeout": (
        "string", "How long a pod may take to start; 80 % of [scheduler] task_queued_timeout if empty.", None, "8m",
    ),
    "ttl_seconds": ("integer", "Seconds until a finished TaskRun is deleted.", "600", "3600"),
    "execution_api_url": (
        "string", "URL by which pods call this Airflow's Execution API; that of Airflow's workers if empty.", None,
        "http://airflow-api-server.airflow.svc:8080/execution/",
    ),
    "kubeconfig": ("string", "Path of a kubeconfig, outside a cluster.", None, "/home/airflow/.kube/config"),
}  # fmt: skip


def get_provider_info() -> dict[str, Any]:
    """Return it, in the form that Airflow's providers have."""
    options = {
        name: {"description": text, "version_added": "0.1.0", "type": kind, "default": default, "example": example}
        for name, (kind, text, default, example) in _OPTIONS.items()
    }
    return {
        "package-name": "polypod-airflow",
        "name": "Polypod",
        "description": "Runs stub tasks of mapped queues as TaskRuns of Polypod, in their own language's image.",
        "executors": ["polypod_airflow.executor.PolypodExecutor"],
        "cli": ["polypod_airflow.commands.commands"],
        "config": {"polypod": {"description": "PolypodExecutor, its task policy and commands.", "options": options}},
    }
