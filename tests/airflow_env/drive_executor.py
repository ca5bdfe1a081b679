"""Drives PolypodExecutor as Airflow's scheduler does, in a real Airflow's environment; told what to do by lines of JSON.

Each line has one answer: what the scheduler would find in the event buffer, who is running, and how long it took.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import uuid
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

OUT = os.fdopen(os.dup(1), "w")
# Airflow may print what it likes; the answers have a channel of their own
os.dup2(2, 1)

import pendulum  # noqa: E402
from airflow.executors.workloads import ExecuteCallback, ExecuteTask  # noqa: E402
from airflow.executors.workloads.base import BundleInfo  # noqa: E402
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod  # noqa: E402

TIS: dict[str, Any] = {}


def odd_config(name: str) -> dict[str, Any]:
    """Return an executor_config that JSON cannot carry here: what Airflow's unpickling may bring."""
    itself: dict[str, Any] = {}
    itself["again"] = itself
    deep: list[Any] = []
    for _ in range(2_000):
        deep = [deep]
    if name == "raises":
        return {"pod_template": Raises(spec=1)}
    odd = {
        "moment": pendulum.datetime(2026, 11, 28), "set": {1}, "bytes": b"text", "itself": itself, "deep": deep,
        "nan": float("nan"), "surrogate": "\ud83d", "object": object(),
    }  # fmt: skip
    return {"pod_override": {"metadata": {"annotations": {"odd": odd[name]}}}}


class Raises(dict[str, Any]):
    def items(self) -> Any:
        raise ZeroDivisionError("of the Dag's author")


def workload(name: str, queue: str, **more: Any) -> ExecuteTask:
    fields = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)), "task_id": name, "dag_id": "dag", "run_id": "run", "try_number": 1,
        "dag_version_id": str(uuid.uuid4()), "map_index": -1, "queue": queue, "pool_slots": 1, "priority_weight": 3,
        "external_executor_id": more.pop("external_id", str(uuid.uuid4())), **more,
    }  # fmt: skip
    odd = fields.pop("odd_config", "")
    made = ExecuteTask(
        token="a token", dag_rel_path="dag.py", bundle_info=BundleInfo(name="dags-folder", version=None),
        log_path="dag_id=dag/run_id=run/task_id=t/attempt=1.log", ti=fields,
    )  # fmt: skip
    if odd:
        # as Airflow hands it over: it is not read again
        made.ti.executor_config = odd_config(odd)
    TIS[name] = made.ti
    return made


class Driver:
    def __init__(self) -> None:
        # the benchmark drives others
        module, _, name = os.environ.get("EXECUTOR", "polypod_airflow.executor.PolypodExecutor").rpartition(".")
        self.executor = getattr(import_module(module), name)(parallelism=1000)
        self.executor.job_id = 1
        self.executor.start()

    def queue(self, tasks: list[dict[str, Any]]) -> Any:
        for task in tasks:
            self.executor.queue_workload(workload(**task), None)
        return {task["name"]: str(TIS[task["name"]].external_executor_id) for task in tasks}

    def heartbeat(self) -> None:
        self.executor.heartbeat()

    def adopt(self, tasks: list[dict[str, Any]]) -> list[str]:
        found = [workload(**task).ti for task in tasks]
        return [ti.task_id for ti in self.executor.try_adopt_task_instances(found)]

    def revoke(self, name: str) -> None:
        self.executor.revoke_task(ti=TIS[name])

    def log(self, name: str) -> Any:
        return self.executor.get_task_log(SimpleNamespace(external_executor_id=TIS[name].external_executor_id), 1)

    def migrate(self) -> None:
        from airflow.utils.db import initdb

        initdb()

    def store(self) -> None:
        """Put the tasks into the database, a SQLite file, as the scheduler has them when it queues them."""
        names = "id, task_id, dag_id, run_id, map_index, external_executor_id, state, try_number, pool, pool_slots, updated_at, queued_by_job_id"
        rows = [
            (
                ti.id.hex,
                ti.task_id,
                ti.dag_id,
                ti.run_id,
                -1,
                str(ti.external_executor_id),
                "queued",
                1,
                "default_pool",
                1,
                "2026-01-01",
                1,
            )
            for ti in TIS.values()
        ]
        with sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db") as database:
            # without the Dag and the run that they belong to
            database.executemany(f"INSERT INTO task_instance ({names}) VALUES ({', '.join('?' * 12)})", rows)
        database.close()

    def callback(self) -> list[Any]:
        callback = CallbackDTO(
            id=str(uuid.uuid4()), fetch_method=CallbackFetchMethod.IMPORT_PATH, data={"path": "a.b", "kwargs": {}}
        )
        self.executor.queue_workload(
            ExecuteCallback(
                callback=callback, token="a token", dag_rel_path="dag.py", log_path=None,
                bundle_info=BundleInfo(name="dags-folder", version=None),
            ),
            None,
        )  # fmt: skip
        return [[str(state), info] for state, info in self.executor.get_event_buffer().values()]

    def end(self) -> None:
        self.executor.end()

    def key(self, ti: Any) -> Any:
        return self.executor.get_task_key(ti) if hasattr(self.executor, "get_task_key") else ti.key

    def state(self) -> dict[str, Any]:
        events = self.executor.get_event_buffer()
        audit = self.executor._task_event_logs
        told = [audit.popleft().extra for _ in range(len(audit))]
        names = {self.key(ti): name for name, ti in TIS.items()}
        return {
            "events": {names.get(key, str(key)): [str(state), info] for key, (state, info) in events.items()},
            "running": sorted(names.get(key, str(key)) for key in self.executor.running),
            "told": told,
        }


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        answer = getattr(driver, asked.pop("do"))(**asked)
        took = time.monotonic() - began
        print(json.dumps({"answer": answer, "took": took, **driver.state()}), file=OUT, flush=True)


if __name__ == "__main__":
    main()
