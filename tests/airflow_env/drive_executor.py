"""Drives PolypodExecutor as Airflow's scheduler does, in a real Airflow's environment; told what to do by lines of JSON.

Each line has one answer: what the scheduler would find in the event buffer, who is running, and how long it took.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from types import SimpleNamespace
from typing import Any

from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from polypod_airflow.executor import PolypodExecutor

TIS: dict[str, Any] = {}


def workload(name: str, queue: str, **more: Any) -> ExecuteTask:
    fields = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)), "task_id": name, "dag_id": "dag", "run_id": "run", "try_number": 1,
        "dag_version_id": str(uuid.uuid4()), "map_index": -1, "queue": queue, "pool_slots": 1, "priority_weight": 3,
        "external_executor_id": more.pop("external_id", str(uuid.uuid4())), **more,
    }  # fmt: skip
    made = ExecuteTask(
        token="a token", dag_rel_path="dag.py", bundle_info=BundleInfo(name="dags-folder", version=None),
        log_path="dag_id=dag/run_id=run/task_id=t/attempt=1.log", ti=fields,
    )  # fmt: skip
    TIS[name] = made.ti
    return made


class Driver:
    def __init__(self) -> None:
        self.executor = PolypodExecutor(parallelism=1000)
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

    def end(self) -> None:
        self.executor.end()

    def name_of(self, key: Any) -> str:
        return next((name for name, ti in TIS.items() if self.executor._key(ti) == key), str(key))

    def state(self) -> dict[str, Any]:
        events = self.executor.get_event_buffer()
        audit = self.executor._task_event_logs
        told = [audit.popleft().extra for _ in range(len(audit))]
        return {
            "events": {self.name_of(key): [str(state), info] for key, (state, info) in events.items()},
            "running": sorted(self.name_of(key) for key in self.executor.running),
            "told": told,
        }


def main() -> None:
    driver = Driver()
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        answer = getattr(driver, asked.pop("do"))(**asked)
        took = time.monotonic() - began
        print("answer " + json.dumps({"answer": answer, "took": took, **driver.state()}), flush=True)


if __name__ == "__main__":
    main()
