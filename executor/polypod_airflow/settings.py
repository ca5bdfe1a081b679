"""What `[polypod]` of Airflow's configuration says."""

from __future__ import annotations

from airflow.configuration import conf

from polypod_airflow.taskruns import Settings

_SECTION = "polypod"


def settings(namespace: str) -> Settings:
    """Return the settings of all TaskRuns.

    Args:
        namespace: where TaskRuns are created if the configuration does not say.
    """
    return Settings(
        namespace=conf.get(_SECTION, "namespace", fallback="") or namespace,
        airflow=conf.get(_SECTION, "airflow_id", fallback="airflow"),
        pending=conf.get(_SECTION, "pending_timeout", fallback="8m"),
        ttl=conf.getint(_SECTION, "ttl_seconds", fallback=600),
    )
