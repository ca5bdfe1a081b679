"""PolypodExecutor in real Airflows of both versions, against a real API server with our CRD."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import AIRFLOWS, ROOT, airflow_venv

from cluster.api import Api

Raw = dict[str, Any]
REPORTED: Raw = {"number": 1, "state": "success", "reason": "TaskSucceeded", "reported": True}


class Scheduler:
    """The executor as a scheduler drives it, in a process of its own."""

    def __init__(self, api: Api, version: str, folder: Path) -> None:
        self.api = api
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "executor"),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of a test, long enough to be one",
            "AIRFLOW__POLYPOD__KUBECONFIG": str(api.plane.kubeconfig),
            "AIRFLOW__POLYPOD__NAMESPACE": "default",
        }
        command = [str(airflow_venv(version) / "bin/python"), str(ROOT / "tests/airflow_env/drive_executor.py")]
        self._log = (folder / "scheduler.log").open("ab")
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def ask(self, do: str, **fields: Any) -> Raw:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("answer "):
                found: Raw = json.loads(line.removeprefix("answer "))
                return found
        raise AssertionError(Path(str(self._log.name)).read_text()[-3000:])

    def until(self, ready: Callable[[Raw], bool]) -> Raw:
        """Have the scheduler loop until something is so; return all events and texts of these loops."""
        events: Raw = {}
        told: list[str] = []
        found: Raw = {}

        def looped() -> bool:
            nonlocal found
            found = self.ask("heartbeat")
            events.update(found["events"])
            told.extend(found["told"])
            return ready({**found, "events": events, "told": told})

        try:
            self.api.wait(looped)
        except AssertionError:
            raise AssertionError(found, events, told, Path(str(self._log.name)).read_text()[-3000:]) from None
        return {**found, "events": events, "told": told}

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._log.close()


@pytest.fixture(params=AIRFLOWS)
def start(request: pytest.FixtureRequest, api: Api, tmp_path: Path) -> Iterator[Callable[[], Scheduler]]:
    made: list[Scheduler] = []

    def start() -> Scheduler:
        made.append(Scheduler(api, request.param, tmp_path))
        return made[-1]

    yield start
    for scheduler in made:
        scheduler.stop()
    api.kubectl("delete", "taskruns,secrets", "--all", "--wait=true")


def task_runs(api: Api) -> dict[str, Raw]:
    return {item["spec"]["taskId"]: item for item in api.items("taskruns")}


def end(api: Api, name: str, phase: str, state: str, reason: str, *attempts: Raw, message: str = "") -> None:
    """Have a TaskRun end as the operator would write it."""
    status = {"phase": phase, "state": state, "reason": reason, "message": message, "attempts": list(attempts)}
    item = task_runs(api)[name]
    done = api.kubectl("patch", "taskrun", item["metadata"]["name"], "--subresource=status", "--type=merge",
                       "-p", json.dumps({"status": status}))  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_workloads_become_taskruns_and_ends_are_told_if_airflow_cannot_know_them(
    api: Api, start: Callable[[], Scheduler]
) -> None:
    scheduler = start()
    names = [f"task-{number}" for number in range(6)]
    ids = scheduler.ask("queue", tasks=[{"name": name, "queue": "golang"} for name in names])["answer"]
    assert task_runs(api) == {}, "nothing is done while the scheduler holds its lock"
    scheduler.ask("heartbeat")
    api.wait(lambda: set(task_runs(api)) == set(names))
    run = task_runs(api)["task-0"]
    assert run["metadata"]["name"] == f"af-{ids['task-0']}"
    assert (run["spec"]["queue"], run["spec"]["priority"], run["spec"]["timeouts"]["pending"]) == ("golang", 3, "8m")
    # one Secret for all, which goes with the last of them
    [secret] = [item for item in api.items("secrets") if item["type"] == "polypod.dev/workloads"]
    workload = json.loads(base64.b64decode(secret["data"][run["spec"]["workloadSecretRef"]["key"]]))
    assert (workload["token"], workload["ti"]["task_id"]) == ("a token", "task-0")
    api.wait(lambda: len(api.items("secrets")[0]["metadata"].get("ownerReferences", [])) == 6)

    end(api, "task-0", "Succeeded", "success", "TaskSucceeded", REPORTED)
    end(api, "task-1", "Failed", "failed", "TaskFailed", {**REPORTED, "state": "failed"})
    end(api, "task-2", "Failed", "failed", "OOMKilled", {**REPORTED, "reported": False}, message="reached its limit")
    end(api, "task-3", "Failed", "failed", "ServerTerminated", {**REPORTED, "reason": "ServerTerminated"})
    api.kubectl("delete", "taskrun", f"af-{ids['task-4']}")
    found = scheduler.until(lambda state: state["running"] == ["task-5"])
    assert found["events"] == {
        "task-2": ["failed", "OOMKilled: reached its limit"],
        "task-3": ["failed", "ServerTerminated"],
        "task-4": ["failed", f"TaskRunDeleted: TaskRun 'af-{ids['task-4']}' was deleted before its end was seen"],
    }


def test_a_scheduler_that_starts_anew_adopts_what_is_there_and_makes_nothing_twice(
    api: Api, start: Callable[[], Scheduler]
) -> None:
    first = start()
    tasks = [{"name": f"task-{n}", "queue": "golang", "external_id": str(uuid.uuid4())} for n in range(5)]
    first.ask("queue", tasks=tasks)
    first.ask("heartbeat")
    api.wait(lambda: len(task_runs(api)) == 5)
    first.process.kill()
    end(api, "task-1", "Failed", "failed", "NodeLost", {**REPORTED, "reported": False})
    second = start()
    unknown = {"name": "never-made", "queue": "golang", "external_id": str(uuid.uuid4())}
    assert second.ask("adopt", tasks=[*tasks, unknown])["answer"] == ["never-made"]
    found = second.until(lambda state: "task-1" in state["events"])
    assert found["running"] == ["task-0", "task-2", "task-3", "task-4"]
    assert second.ask("adopt", tasks=tasks[2:])["answer"] == [], "asked again, it is the same"
    assert len(task_runs(api)) == 5


def test_what_waits_says_why_and_what_is_revoked_goes(api: Api, start: Callable[[], Scheduler]) -> None:
    scheduler = start()
    scheduler.ask("queue", tasks=[{"name": "waits", "queue": "golang"}])
    scheduler.ask("heartbeat")
    api.wait(lambda: task_runs(api))
    end(api, "waits", "Pending", "queued", "ImagePullFailed", message="image language:1: not found")
    found = scheduler.until(lambda state: state["told"])
    assert found["told"] == ["ImagePullFailed: image language:1: not found"]
    assert found["events"] == {}
    revoked = scheduler.ask("revoke", name="waits")
    assert (revoked["events"], revoked["running"]) == ({}, [])
    api.wait(lambda: not task_runs(api))
    # queued again, it is another TaskRun
    scheduler.ask("queue", tasks=[{"name": "waits", "queue": "golang"}])
    scheduler.ask("heartbeat")
    api.wait(lambda: task_runs(api))
    assert scheduler.until(lambda state: state["running"] == ["waits"])["events"] == {}
