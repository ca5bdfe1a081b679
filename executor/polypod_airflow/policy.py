"""Airflow's task policy: stub tasks of mapped queues go to Polypod's executor, and no Dag has to name it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
from airflow.configuration import AIRFLOW_HOME, conf
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.policies import hookimpl

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.routing import DEFAULT, RoutingProblem, queues_of, remembered

_CLASS = "polypod_airflow.executor.PolypodExecutor"
_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
"""Short: a Dag file is parsed meanwhile."""


@hookimpl
def task_policy(task: Any) -> None:
    """Name the executor of a stub task that names none and whose queue is mapped.

    A Python task of a mapped queue stays where it is.

    Raises:
        AirflowClusterPolicyViolation: a task that is no stub names our executor; or a Dag file is read for the
            scheduler, and it cannot be told whether the queue of a stub is mapped.
    """
    name = executor_name(conf.get("core", "executor", fallback=""))
    if not name:
        return
    if not _is_stub(task):
        if task.executor in (name, _CLASS):
            raise AirflowClusterPolicyViolation(
                f"task {task.task_id!r} (queue {task.queue!r}) names executor {task.executor!r}, which runs no Python: "
                "make it a @task.stub, or leave the executor out"
            )
        return
    if task.executor is not None:
        return
    try:
        mapped = task.queue in mapped_queues()
    except RoutingProblem as error:
        if not _for_the_scheduler():
            # a worker that runs another task of this Dag has no use for it
            return
        raise AirflowClusterPolicyViolation(
            f"task {task.task_id!r}: whether queue {task.queue!r} maps to Polypod is unknown: {error}"
        ) from None
    if not mapped:
        return
    if hasattr(task, "partial_kwargs"):
        # a mapped operator's executor has no setter
        task.partial_kwargs["executor"] = name
    else:
        task.executor = name


def _is_stub(task: Any) -> bool:
    """Tell whether a task's code is in another language; a mapped task has the class of its operator."""
    return bool(getattr(getattr(task, "operator_class", task), "is_stub", False))


def _for_the_scheduler() -> bool:
    """Tell whether this process reads Dag files for the scheduler (Airflow's Dag processor says so)."""
    return os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client"


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


def mapped_queues() -> frozenset[str]:
    """Return the queues that lead to Polypod: those of `[polypod] queues`, else those of the routing ConfigMap.

    Raises:
        RoutingProblem: the ConfigMap cannot be read.
    """
    named = conf.get("polypod", "queues", fallback="")
    if named:
        return frozenset(name.strip() for name in named.split(","))
    return remembered(Path(AIRFLOW_HOME) / "polypod-queues.json", _read)


def _read() -> frozenset[str]:
    where = conf.get("polypod", "routing", fallback=DEFAULT)
    namespace, _, name = where.partition("/")
    cluster: Cluster | None = None
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")), _TIMEOUT)
        raw = cluster.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}", attempts=1)
    except (ClusterError, ConnectionProblem) as error:
        raise RoutingProblem(f"ConfigMap {where} cannot be read: {error}") from None
    finally:
        if cluster is not None:
            cluster.close()
    return queues_of(raw, where)
