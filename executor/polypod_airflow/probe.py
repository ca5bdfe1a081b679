"""A TaskRun that asks Airflow's Execution API from a pod, for a task instance that does not exist, and leaves a log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from polypod_airflow.checks import Check
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.reading import task_run as task_run_of
from polypod_airflow.taskruns import Settings, Work, collection, secret, secrets, task_run
from polypod_airflow.verdicts import TaskRun, problem

WITHIN = 240.0
"""Seconds in which a pod has to start and to ask: its image may have to be pulled."""
_SLOW = 0.5
"""Part of the time that a pod may take, above which a full cluster may well take all of it."""
_PAUSE = 1.0
_DAG = "polypod-check"
_ANSWERED = re.compile(r"Execution API answered (40[134])\b")
_NO_SUCH_PATH = re.compile(r"answered 404 [^:]*: (Not Found|HTTP 404)")
"""The answer of a server that has no Execution API there; Airflow's own names the task instance."""
_LOSS = re.compile(r"its log is not complete.*")
_LOG_WITHIN = 10.0
"""Seconds until a file that a pod has written is seen here: file servers' clients remember what a folder holds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the probe's pod has come to. `trouble`: why it has no end."""

    run: TaskRun
    took: float
    trouble: str = ""

    @property
    def said(self) -> str:
        status = self.run.status
        return f"{status.reason}: {status.message}"


def probe(
    cluster: Cluster, settings: Settings, queue: str, ti_id: str, token: str, log_folder: Path
) -> Iterator[Check]:
    """Run the TaskRun in a queue's image, check what it shows, and delete it again.

    Args:
        ti_id: of a task instance that this Airflow does not have. So its Execution API answers 404, another Airflow's
            401 or 403, and nothing is touched.
        token: what this Airflow has signed for it.
        log_folder: where this Airflow keeps its logs.
    """
    where = settings.execution_api or "the operator's default"
    name = f"a pod of queue {queue!r} reaches this Airflow's Execution API ({where})"
    work = _work(queue, ti_id, token)
    made = secret([work], settings)
    named = made["metadata"]["name"]
    try:
        cluster.call("POST", secrets(settings.namespace), made)
        cluster.call("POST", collection(settings.namespace), task_run(work, named, replace(settings, ttl=60)))
        seen = _wait(cluster, collection(settings.namespace, work.name))
        yield Check(name, _reached(seen))
        if not seen.trouble:
            yield Check(f"a pod starts within {settings.pending}", _in_time(seen, settings.pending))
            yield Check("the pod's log is kept where Airflow reads it", _logged(seen, log_folder, work.log_path))
    except ClusterError as error:
        yield Check(name, f"{error}")
    finally:
        for path in (collection(settings.namespace, work.name), secrets(settings.namespace, named)):
            _delete(cluster, path)
        _remove(log_folder, work.log_path)


def _work(queue: str, ti_id: str, token: str) -> Work:
    document = {
        "type": "ExecuteTask",
        "token": token,
        "dag_rel_path": "polypod_check.py",
        "bundle_info": {"name": _DAG, "version": None},
        "log_path": f"dag_id={_DAG}/run_id={ti_id}/task_id=check/attempt=1.log",
        "ti": {
            "id": ti_id, "task_id": "check", "dag_id": _DAG, "run_id": ti_id, "try_number": 1, "map_index": -1,
            "dag_version_id": ti_id, "pool_slots": 1, "queue": queue, "priority_weight": 1,
        },
    }  # fmt: skip
    path = str(document["log_path"])
    return Work(ti_id, queue, _DAG, "check", ti_id, -1, 1, json.dumps(document), log_path=path)


def _reached(seen: Seen) -> str:
    if seen.trouble:
        return seen.trouble
    answer = _ANSWERED.search(seen.run.status.message)
    if answer is None:
        return seen.said
    if _NO_SUCH_PATH.search(seen.run.status.message):
        return f"{seen.said}: no Execution API is there; set [polypod] execution_api_url, which ends in /execution/"
    if answer[1] == "404":
        return ""
    return (
        f"it answers {answer[1]} to a token of this Airflow: it is another Airflow's, or [api_auth] differs there; "
        "set [polypod] execution_api_url"
    )


def _in_time(seen: Seen, pending: str) -> str:
    allowed = seconds(pending)
    if not allowed or seen.took <= _SLOW * allowed:
        return ""
    return (
        f"this one needed {seen.took:.0f} s; a pod that needs longer than [scheduler] task_queued_timeout is queued "
        "again and again: raise it"
    )


def _logged(seen: Seen, folder: Path, log_path: str) -> str:
    kept = seen.run.last.log
    if kept is None or not kept.url:
        return "Polypod keeps no logs: set logs.persistentVolumeClaim or logs.url in its chart's values"
    lost = _LOSS.search(seen.run.status.message)
    if lost is not None:
        return lost[0]
    if not kept.url.startswith("file:"):
        return ""
    give_up = time.monotonic() + _LOG_WITHIN
    while not (folder / log_path).exists():
        if time.monotonic() > give_up:
            return (
                f"the pod has written it, and it is not in {folder}: the claim has another volume than Airflow's logs"
            )
        time.sleep(_PAUSE)
    return ""


def _wait(cluster: Cluster, path: str) -> Seen:
    began = time.monotonic()
    while True:
        run = task_run_of(cluster.call("GET", path))
        took = time.monotonic() - began
        seen = Seen(run, took)
        if run.status.phase in ("Succeeded", "Failed"):
            return seen
        if took > WITHIN:
            return replace(seen, trouble=f"not within {WITHIN:.0f} s; {problem(run) or seen.said}")
        time.sleep(_PAUSE)


def seconds(duration: str) -> float:
    """Return a duration of the CRD's in seconds, such as 8m or 1h30m."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))


def _remove(folder: Path, log_path: str) -> None:
    """Remove the log, and the folders that were made for it."""
    file = folder / log_path
    with suppress(OSError):
        file.unlink()
        for made in list(file.parents)[:3]:
            made.rmdir()


def _delete(cluster: Cluster, path: str) -> None:
    try:
        cluster.call("DELETE", path)
    except ClusterError as error:
        if error.status != 404:
            print(f"{path.rpartition('/')[2]} is left over: {error}")
