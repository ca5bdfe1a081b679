"""What `[polypod]` of Airflow's configuration says."""

from __future__ import annotations

from airflow.configuration import conf

from polypod_airflow.cluster import Cluster
from polypod_airflow.execution_api import url_for_pods
from polypod_airflow.taskruns import Settings

_SECTION = "polypod"


def _pending() -> str:
    """Return how long a pod may take to start: less than Airflow leaves a task queued, so that the reason is seen."""
    return f"{int(0.8 * conf.getfloat('scheduler', 'task_queued_timeout', fallback=600.0))}s"


def _execution_api(own_namespace: str) -> str:
    """Return the URL that pods call: what is configured for them, else what Airflow's own workers use."""
    from airflow.executors.base_executor import get_execution_api_server_url

    named = conf.get(_SECTION, "execution_api_url", fallback="")
    return named or url_for_pods(get_execution_api_server_url(), own_namespace)


def settings(cluster: Cluster) -> Settings:
    """Return the settings of all TaskRuns.

    Args:
        cluster: where TaskRuns are created; its namespace is used if the configuration names none.
    """
    return Settings(
        namespace=conf.get(_SECTION, "namespace", fallback="") or cluster.namespace,
        airflow=conf.get(_SECTION, "airflow_id", fallback="airflow"),
        pending=conf.get(_SECTION, "pending_timeout", fallback="") or _pending(),
        ttl=conf.getint(_SECTION, "ttl_seconds", fallback=600),
        execution_api=_execution_api(cluster.own_namespace),
    )
