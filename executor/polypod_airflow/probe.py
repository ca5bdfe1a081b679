"""A TaskRun that asks Airflow's Execution API from a pod. It belongs to no task instance: to be refused is to pass."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import replace

import msgspec

from polypod_airflow.checks import Check
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.taskruns import Settings, Work, collection, secret, secrets, task_run
from polypod_airflow.verdicts import TaskRun, problem

WITHIN = 240.0
"""Seconds in which a pod has to start and to ask: its image may have to be pulled."""
_PAUSE = 1.0
_DAG = "polypod-check"
_ANSWERED = re.compile(r"Execution API answered 40[13]\b")


def probe(cluster: Cluster, settings: Settings, queue: str) -> Check:
    """Run the TaskRun in a queue's image and delete it again.

    It has a token that no Airflow has signed, so the API refuses it, and nothing in Airflow is touched.
    """
    name = f"a pod of queue {queue!r} reaches Airflow's Execution API"
    work = _work(queue)
    made = secret([work], settings)
    named = made["metadata"]["name"]
    try:
        cluster.call("POST", secrets(settings.namespace), made)
        cluster.call("POST", collection(settings.namespace), task_run(work, named, replace(settings, ttl=60)))
        return Check(name, _seen(cluster, collection(settings.namespace, work.name)))
    except ClusterError as error:
        return Check(name, f"{error}")
    finally:
        for path in (collection(settings.namespace, work.name), secrets(settings.namespace, named)):
            _delete(cluster, path)


def _work(queue: str) -> Work:
    number = str(uuid.uuid4())
    document = {
        "type": "ExecuteTask",
        "token": "of no Airflow",
        "dag_rel_path": "polypod_check.py",
        "bundle_info": {"name": _DAG, "version": None},
        "log_path": f"dag_id={_DAG}/run_id={number}/task_id=check/attempt=1.log",
        "ti": {
            "id": number, "task_id": "check", "dag_id": _DAG, "run_id": number, "try_number": 1, "map_index": -1,
            "dag_version_id": number, "pool_slots": 1, "queue": queue, "priority_weight": 1,
        },
    }  # fmt: skip
    return Work(number, queue, _DAG, "check", number, -1, 1, json.dumps(document))


def _seen(cluster: Cluster, path: str) -> str:
    """Wait for the end; return what is wrong, empty if nothing is."""
    give_up = time.monotonic() + WITHIN
    trouble = "it does not end"
    while time.monotonic() < give_up:
        run = msgspec.json.decode(cluster.call("GET", path), type=TaskRun)
        said = f"{run.status.reason}: {run.status.message}"
        if run.status.phase in ("Succeeded", "Failed"):
            return "" if _ANSWERED.search(run.status.message) else said
        trouble = problem(run) or said
        time.sleep(_PAUSE)
    return f"not within {WITHIN:.0f} s; {trouble}"


def _delete(cluster: Cluster, path: str) -> None:
    try:
        cluster.call("DELETE", path)
    except ClusterError as error:
        if error.status != 404:
            print(f"{path.rpartition('/')[2]} is left over: {error}")
