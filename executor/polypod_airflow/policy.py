"""Airflow's task policy: stub tasks of mapped queues go to Polypod's executor, and no Dag has to name it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from airflow.configuration import AIRFLOW_HOME, conf
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.policies import hookimpl

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.routing import DEFAULT, RoutingProblem, queues_of, remembered

log = logging.getLogger(__name__)

CLASS = "polypod_airflow.executor.PolypodExecutor"
_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
"""Short: a Dag file is parsed meanwhile."""


@hookimpl
def task_policy(task: Any) -> None:
    """Name the executor of a stub task that names none and whose queue is mapped.

    A Python task of a mapped queue stays where it is. Only a mistake in the Dag keeps its file from being parsed: what
    is not known yet, or not any more, is decided when the task is queued.

    Raises:
        AirflowClusterPolicyViolation: a task that is no stub names our executor, or a task of ours has an
            executor_config that is no mapping, which would end Airflow's scheduler.
    """
    name = executor_name(conf.get("core", "executor", fallback=""))
    if not name:
        return
    if not _is_stub(task):
        if task.executor in (name, CLASS):
            raise AirflowClusterPolicyViolation(
                f"task {task.task_id!r} (queue {task.queue!r}) names executor {task.executor!r}, which runs no Python: "
                "make it a @task.stub, or leave the executor out"
            )
        return
    if task.executor is None and _is_ours(task.task_id, task.queue):
        if hasattr(task, "partial_kwargs"):
            # a mapped operator's executor has no setter
            task.partial_kwargs["executor"] = name
        else:
            task.executor = name
    config = task.executor_config
    if task.executor in (name, CLASS) and not isinstance(config, Mapping | None):
        raise AirflowClusterPolicyViolation(
            f"task {task.task_id!r}: executor_config is a {type(config).__name__}; it must be a mapping"
        )


def _is_ours(task_id: str, queue: str) -> bool:
    """Tell whether Polypod runs the stubs of a queue."""
    try:
        mapped = mapped_queues()
    except Exception as error:
        # whatever it is: the Dag file is parsed. What Airflow can run without Polypod stays with it; of what it cannot
        # run, the executor says why it does not start
        log.warning("task %r: whether queue %r maps to Polypod is unknown: %s", task_id, queue, error)
        return queue not in _airflows_own_queues()
    if queue not in mapped and queue not in _airflows_own_queues():
        log.warning(
            "task %r: queue %r is neither in Polypod's routing (it has %s) nor in [sdk] queue_to_coordinator here; "
            "unless a worker's configuration has it, the task will fail",
            task_id, queue, ", ".join(sorted(mapped)) or "no queue",
        )  # fmt: skip
    return queue in mapped


def _airflows_own_queues() -> frozenset[str]:
    """Return the queues that Airflow's own coordinators run."""
    try:
        found = conf.getjson("sdk", "queue_to_coordinator", fallback={})
    except Exception:
        # Airflow itself says what is wrong with it
        return frozenset()
    return frozenset(map(str, found)) if isinstance(found, dict) else frozenset()


def _is_stub(task: Any) -> bool:
    """Tell whether a task's code is in another language; a mapped task has the class of its operator."""
    return bool(getattr(getattr(task, "operator_class", task), "is_stub", False))


def executor_name(configured: str) -> str:
    """Return the name by which `[core] executor` knows our executor, empty if it does not.

    >>> executor_name("LocalExecutor,polypod:polypod_airflow.executor.PolypodExecutor")
    'polypod'
    """
    for part in configured.replace("=", ";").split(";"):
        for item in part.split(","):
            alias, _, path = item.strip().rpartition(":")
            if path == CLASS:
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
