"""What `[polypod]` of Airflow's configuration says."""

from __future__ import annotations

from airflow.configuration import conf

from polypod_airflow.taskruns import Settings

_SECTION = "polypod"


def _pending() -> str:
    """Return how long a pod may take to start: less than Airflow leaves a task queued, so that the reason is seen."""
    return f"{int(0.8 * conf.getfloat('scheduler', 'task_queued_timeout', fallback=600.0))}s"


def settings(namespace: str) -> Settings:
    """Return the settings of all TaskRuns.

    Args:
        namespace: where TaskRuns are created if the configuration does not say.
    """
    return Settings(
        namespace=conf.get(_SECTION, "namespace", fallback="") or namespace,
        airflow=conf.get(_SECTION, "airflow_id", fallback="airflow"),
        pending=conf.get(_SECTION, "pending_timeout", fallback="") or _pending(),
        ttl=conf.getint(_SECTION, "ttl_seconds", fallback=600),
    )
