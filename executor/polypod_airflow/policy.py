"""Airflow's task policy: tasks of mapped queues go to Polypod's executor, and no Dag has to name it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.configuration import AIRFLOW_HOME, conf
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.policies import hookimpl

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.routing import DEFAULT, RoutingProblem, queues_of, remembered

_CLASS = "polypod_airflow.executor.PolypodExecutor"


@hookimpl
def task_policy(task: Any) -> None:
    """Name the executor of a task that names none and whose queue is mapped."""
    name = executor_name(conf.get("core", "executor", fallback=""))
    if not name or task.executor is not None:
        return
    try:
        mapped = task.queue in _queues()
    except RoutingProblem as error:
        # sent to another executor it would run as a Python task
        raise AirflowClusterPolicyViolation(
            f"whether queue {task.queue!r} leads to Polypod is not known: {error}"
        ) from None
    if not mapped:
        return
    if hasattr(task, "partial_kwargs"):
        # a mapped operator's executor has no setter
        task.partial_kwargs["executor"] = name
    else:
        task.executor = name


def executor_name(configured: str) -> str:
    """Return the name by which `[core] executor` knows our executor, empty if it does not.

    >>> executor_name("LocalExecutor,polypod:polypod_airflow.executor.PolypodExecutor")
    'polypod'
    """
    for part in configured.replace("=", ";").split(";"):
        for item in part.split(","):
            alias, _, path = item.strip().rpartition(":")
            if path == _CLASS:
                return alias or path
    return ""


def _queues() -> frozenset[str]:
    named = conf.get("polypod", "queues", fallback="")
    if named:
        return frozenset(name.strip() for name in named.split(","))
    return remembered(Path(AIRFLOW_HOME) / "polypod-queues.json", _read)


def _read() -> frozenset[str]:
    where = conf.get("polypod", "routing", fallback=DEFAULT)
    namespace, _, name = where.partition("/")
    cluster: Cluster | None = None
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")))
        raw = cluster.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}", attempts=2)
    except (ClusterError, ConnectionProblem) as error:
        raise RoutingProblem(f"ConfigMap {where} cannot be read: {error}") from None
    finally:
        if cluster is not None:
            cluster.close()
    return queues_of(raw, where)
