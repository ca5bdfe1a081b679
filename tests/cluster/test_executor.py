"""PolypodExecutor in real Airflows of both versions, against a real API server with our CRD."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from polypod_airflow.cluster import Cluster
from polypod_airflow.connection import connection
from polypod_airflow.leftovers import delete_leftovers
from polypod_airflow.taskruns import Settings, Work, secret, task_run
from support.paths import AIRFLOWS, ROOT, airflow_venv

from cluster.api import Api
from cluster.control_plane import Reached
from cluster.frozen import Link
from cluster.spoilt import Proxy

pytestmark = pytest.mark.needs("api-server", "airflow")

Raw = dict[str, Any]
REPORTED: Raw = {"number": 1, "state": "success", "reason": "TaskSucceeded", "reported": True}


class Scheduler:
    """The executor as a scheduler drives it, in a process of its own."""

    def __init__(self, api: Api, version: str, folder: Path, kubeconfig: Path, more: dict[str, str]) -> None:
        self.api, self._folder = api, folder
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "executor"),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of a test, long enough to be one",
            "AIRFLOW__POLYPOD__KUBECONFIG": str(kubeconfig),
            "AIRFLOW__POLYPOD__NAMESPACE": "default",
            **more,
        }
        command = [str(airflow_venv(version) / "bin/python"), str(ROOT / "tests/airflow_env/drive_executor.py")]
        self._log = (folder / "scheduler.log").open("ab")
        self.process = subprocess.Popen(
            command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def evidence(self) -> dict[str, str]:
        return {f"(exit code {self.process.poll()})": Path(str(self._log.name)).read_text()}

    def ask(self, do: str, **fields: Any) -> Raw:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, Path(str(self._log.name)).read_text()[-3000:]
        found: Raw = json.loads(line)
        return found

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

    def notes(self, text: str) -> list[Path]:
        """Return the files below Airflow's folder of logs that hold a text."""
        files = (self._folder / "airflow/logs").rglob("*.log")
        return [file for file in files if text in json.loads(file.read_text().splitlines()[0]).get("event", "")]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._log.close()


@pytest.fixture(params=AIRFLOWS)
def start(request: pytest.FixtureRequest, api: Api, tmp_path: Path) -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def start(kubeconfig: Path = api.plane.kubeconfig, **more: str) -> Scheduler:
        made.append(Scheduler(api, request.param, tmp_path, kubeconfig, more))
        return made[-1]

    yield start
    for scheduler in made:
        scheduler.stop()
    api.kubectl("delete", "taskruns,secrets", "--all", "--wait=true")


@pytest.fixture
def link(api: Api) -> Iterator[Link]:
    made = Link("127.0.0.1", int(Reached.by(api.plane.kubeconfig).server.rpartition(":")[2]))
    yield made
    made.close()


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
    api: Api, start: Callable[..., Scheduler]
) -> None:
    scheduler = start()
    names = [f"task-{number}" for number in range(7)]
    ids = scheduler.ask("queue", tasks=[{"name": name, "queue": "golang"} for name in names])["answer"]
    assert task_runs(api) == {}, "nothing is done while the scheduler holds its lock"
    scheduler.ask("heartbeat")
    api.wait(lambda: set(task_runs(api)) == set(names))
    run = task_runs(api)["task-0"]
    assert run["metadata"]["name"] == f"af-{ids['task-0']}"
    assert (run["spec"]["queue"], run["spec"]["priority"], run["spec"]["timeouts"]["pending"]) == ("golang", 3, "480s")
    # one Secret for all, which goes with the last of them
    [secret] = [item for item in api.items("secrets") if item["type"] == "polypod.dev/workloads"]
    workload = json.loads(base64.b64decode(secret["data"][run["spec"]["workloadSecretRef"]["key"]]))
    assert (workload["token"], workload["ti"]["task_id"]) == ("a token", "task-0")
    api.wait(lambda: len(api.items("secrets")[0]["metadata"].get("ownerReferences", [])) == 7)

    end(api, "task-0", "Succeeded", "success", "TaskSucceeded", REPORTED)
    end(api, "task-1", "Failed", "failed", "TaskFailed", {**REPORTED, "state": "failed"})
    end(api, "task-2", "Failed", "failed", "OOMKilled", {**REPORTED, "reported": False}, message="reached its limit")
    end(api, "task-3", "Failed", "failed", "ServerTerminated", {**REPORTED, "reason": "ServerTerminated"})
    api.kubectl("delete", "taskrun", f"af-{ids['task-4']}")
    # its bridge has told Airflow that it got SIGTERM, and does not know why
    deleted = {**REPORTED, "state": "up_for_retry", "reason": "PodDeleted"}
    end(api, "task-5", "Failed", "up_for_retry", "PodDeleted", deleted, message="the pod was deleted")
    found = scheduler.until(lambda state: state["running"] == ["task-6"])
    assert "PodDeleted: the pod was deleted" in found["told"]
    api.wait(lambda: scheduler.notes("PodDeleted: the pod was deleted"))
    assert found["events"] == {
        "task-2": ["failed", "OOMKilled: reached its limit"],
        "task-3": ["success", "ServerTerminated"],
        "task-4": [
            "failed",
            f"TaskRunDeleted: TaskRun 'af-{ids['task-4']}' was deleted before its final status was observed",
        ],
    }


@pytest.mark.either
def test_a_scheduler_that_starts_anew_adopts_what_is_there_and_makes_nothing_twice(
    api: Api, start: Callable[..., Scheduler]
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
    # it is in the attempt's log although another scheduler knew where that is
    api.wait(lambda: second.notes("NodeLost"))
    assert second.ask("adopt", tasks=tasks[2:])["answer"] == [], "asked again, it is the same"
    assert len(task_runs(api)) == 5


@pytest.mark.either
def test_of_a_task_that_is_queued_again_only_the_newest_taskrun_counts(
    api: Api, start: Callable[..., Scheduler]
) -> None:
    scheduler = start()
    queued = {"name": "task", "queue": "golang", "external_id": str(uuid.uuid4())}
    again = {**queued, "external_id": str(uuid.uuid4())}
    for task in (queued, again):
        scheduler.ask("queue", tasks=[task])
        scheduler.ask("heartbeat")
    api.wait(lambda: len(api.items("taskruns")) == 2)
    scheduler.process.kill()
    second = start()
    # a scheduler that has adopted the first meets the second, as after a requeue by another one
    assert second.ask("adopt", tasks=[queued])["answer"] == []
    assert second.ask("adopt", tasks=[again])["answer"] == []
    for task, reason in ((queued, "NodeLost"), (again, "OOMKilled")):
        status = {"phase": "Failed", "state": "failed", "reason": reason, "attempts": [{**REPORTED, "reported": False}]}
        api.kubectl("patch", "taskrun", f"af-{task['external_id']}", "--subresource=status", "--type=merge",
                    "-p", json.dumps({"status": status}))  # fmt: skip
    assert second.until(lambda state: state["running"] == [])["events"] == {"task": ["failed", "OOMKilled"]}


@pytest.mark.either
def test_what_waits_says_why_and_what_is_revoked_goes(api: Api, start: Callable[..., Scheduler]) -> None:
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


@pytest.mark.either
def test_a_link_that_is_cut_without_a_word_costs_no_end(
    api: Api, start: Callable[..., Scheduler], link: Link, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "link.kubeconfig"
    api.plane.write_kubeconfig(kubeconfig, f"https://127.0.0.1:{link.port}")
    scheduler = start(kubeconfig)
    scheduler.ask("queue", tasks=[{"name": "one", "queue": "golang"}, {"name": "two", "queue": "golang"}])
    scheduler.until(lambda state: set(task_runs(api)) == {"one", "two"})
    assert link.freeze() > 0
    end(api, "one", "Failed", "failed", "NodeLost", {**REPORTED, "reported": False})
    api.kubectl("delete", "taskrun", task_runs(api)["two"]["metadata"]["name"])
    found = scheduler.until(lambda state: len(state["events"]) == 2)
    assert (found["events"]["one"], found["running"]) == (["failed", "NodeLost"], [])


@pytest.fixture
def proxy(api: Api, tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(Reached.by(api.plane.kubeconfig))
    made.write_kubeconfig(tmp_path / "proxy.kubeconfig")
    yield made
    made.stop()


@pytest.mark.either
def test_a_watch_that_has_expired_is_opened_again_and_nothing_is_lost(
    api: Api, start: Callable[..., Scheduler], proxy: Proxy, tmp_path: Path
) -> None:
    scheduler = start(tmp_path / "proxy.kubeconfig")
    names = [f"task-{number}" for number in range(4)]
    scheduler.ask("queue", tasks=[{"name": name, "queue": "golang"} for name in names])
    scheduler.until(lambda state: set(task_runs(api)) == set(names))
    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
    for name, lines, refused in (
        ("task-0", [json.dumps(expired).encode()], []),
        ("task-1", [json.dumps(expired).encode()], [410, 410]),
        ("task-2", [b"no JSON"], [500, 429]),
        ("task-3", [b'{"type": "MODIFIED", "object": 3}'], []),
    ):
        opened = proxy.opened
        proxy.swallow = {"ADDED", "MODIFIED"}
        end(api, name, "Failed", "failed", "NodeLost", {**REPORTED, "reported": False})
        proxy.refuse = list(refused)
        api.wait(lambda lines=lines: all(proxy.put(line) for line in lines))  # type: ignore[misc]
        proxy.swallow = set()
        scheduler.until(lambda state, name=name: name in state["events"])  # type: ignore[misc]
        api.wait(lambda opened=opened: proxy.opened > opened)  # type: ignore[misc]
        assert proxy.refuse == []
    assert scheduler.ask("heartbeat")["running"] == []


@pytest.mark.either
def test_an_api_server_that_restarts_loses_no_end_and_what_is_queued_meanwhile_is_made_later(
    api: Api, start: Callable[..., Scheduler]
) -> None:
    scheduler = start()
    scheduler.ask("queue", tasks=[{"name": "before", "queue": "golang"}])
    scheduler.until(lambda state: set(task_runs(api)) == {"before"})
    api.plane.services.stop("kube-apiserver")
    scheduler.ask("queue", tasks=[{"name": "meanwhile", "queue": "golang"}])
    looked = [scheduler.ask("heartbeat") for _ in range(5)]
    assert [state["running"] for state in looked] == [["before", "meanwhile"]] * 5
    api.plane.start_api_server()
    api.wait(lambda: set(task_runs(api)) == {"before", "meanwhile"})
    for name in ("before", "meanwhile"):
        end(api, name, "Failed", "failed", "OOMKilled", {**REPORTED, "reported": False})
    found = scheduler.until(lambda state: state["running"] == [])
    assert found["events"] == {name: ["failed", "OOMKilled"] for name in ("before", "meanwhile")}


@pytest.mark.either
def test_a_task_that_cannot_be_sent_fails_at_once_and_says_why(api: Api, start: Callable[..., Scheduler]) -> None:
    scheduler = start()
    bad = {"name": "bad", "queue": "golang", "executor_config": {"pod_spec": {}}}
    # the API server refuses this name of a Dag: it is longer than a label or a status can have
    long = {"name": "long", "queue": "q" * 5000}
    scheduler.ask("queue", tasks=[bad, long, {"name": "good", "queue": "golang"}])
    found = scheduler.until(lambda state: len(state["events"]) == 2)
    assert found["events"]["bad"][1].startswith("InvalidPodTemplate: executor_config has pod_spec; Polypod takes")
    assert found["events"]["long"][1].startswith("TaskRunRefused: ")
    assert found["running"] == ["good"]
    api.wait(lambda: set(task_runs(api)) == {"good"})


@pytest.mark.either
def test_whatever_an_executor_config_holds_it_fails_its_own_task_only(
    api: Api, start: Callable[..., Scheduler]
) -> None:
    scheduler = start()
    tasks = [{"name": f"good-{number}", "queue": "golang"} for number in range(20)]
    bad = ["moment", "set", "bytes", "itself", "deep", "nan", "surrogate", "object", "raises"]
    tasks[10:10] = [{"name": name, "queue": "golang", "odd_config": name} for name in bad]
    scheduler.ask("queue", tasks=tasks)
    found = scheduler.until(lambda state: len(state["events"]) == len(bad))
    assert set(found["events"]) == set(bad)
    for name, (state, info) in found["events"].items():
        assert state == "failed", name
        assert info.startswith(("InvalidPodTemplate: executor_config: ", "InvalidWorkload: ")), (name, info)
    api.wait(lambda: len(task_runs(api)) == 20)
    api.wait(lambda: len(api.items("secrets")[0]["metadata"].get("ownerReferences", [])) == 20)
    # each attempt's log says why
    logs = [scheduler.notes(found["events"][name][1]) for name in bad]
    assert all(logs), dict(zip(bad, logs, strict=True))


@pytest.mark.either
def test_without_a_way_to_the_api_server_the_scheduler_goes_on_and_the_audit_log_says_why(
    api: Api, start: Callable[..., Scheduler], tmp_path: Path
) -> None:
    scheduler = start(tmp_path / "no kubeconfig")
    scheduler.ask("queue", tasks=[{"name": "waits", "queue": "golang"}])
    found = scheduler.until(lambda state: state["told"])
    assert "no kubeconfig: No such file" in found["told"][0]
    assert (found["events"], found["running"]) == ({}, ["waits"])


@pytest.mark.either
def test_the_pods_of_a_second_airflow_call_the_second(api: Api, start: Callable[..., Scheduler]) -> None:
    urls = {}
    for name, url in (("one", "http://one.example:8080/execution/"), ("two", "https://two.example/execution/")):
        scheduler = start(AIRFLOW__CORE__EXECUTION_API_SERVER_URL=url, AIRFLOW__POLYPOD__AIRFLOW_ID=name)
        scheduler.ask("queue", tasks=[{"name": name, "queue": "golang"}])
        scheduler.until(lambda state, name=name: name in task_runs(api))  # type: ignore[misc]
        urls[name] = task_runs(api)[name]["spec"]["executionApi"]["url"]
    assert urls == {"one": "http://one.example:8080/execution/", "two": "https://two.example/execution/"}


@pytest.mark.either
def test_what_airflow_does_not_want_any_more_is_deleted_before_it_has_a_pod(
    api: Api, start: Callable[..., Scheduler]
) -> None:
    """The driver's tasks are in no database: as if each had been cleared or deleted while it was queued."""
    scheduler = start()
    scheduler.ask("migrate")
    scheduler.ask("queue", tasks=[{"name": "one", "queue": "golang"}])
    found = scheduler.until(lambda state: state["running"] == [])
    assert found["events"] == {}
    api.wait(lambda: not task_runs(api))


@pytest.mark.either
def test_a_callback_fails_and_the_scheduler_goes_on(api: Api, start: Callable[..., Scheduler]) -> None:
    scheduler = start()
    [event] = scheduler.ask("callback")["answer"]
    assert event[0] == "failed"
    assert "name another executor first" in event[1]


def test_secrets_that_a_killed_scheduler_left_are_owned_or_deleted(api: Api) -> None:
    cluster, given = Cluster(connection(str(api.plane.kubeconfig))), Settings("default", "airflow")
    works = [Work(str(uuid.uuid4()), "golang", "dag", "task", "run", number, 1, "{}") for number in range(3)]
    used, unused = secret(works[:2], given), secret(works[2:], given)
    for document in (used, unused, *(task_run(work, used["metadata"]["name"], given) for work in works[:2])):
        assert api.create(document).returncode == 0
    assert delete_leftovers(cluster, given) == 0, "its TaskRun may be about to be created"
    found = {item["metadata"]["name"]: item["metadata"] for item in api.items("secrets")}
    assert {owner["name"] for owner in found[used["metadata"]["name"]]["ownerReferences"]} == {
        work.name for work in works[:2]
    }
    assert delete_leftovers(cluster, given, timedelta(seconds=-1)) == 1
    assert [item["metadata"]["name"] for item in api.items("secrets")] == [used["metadata"]["name"]]
    cluster.close()
    api.kubectl("delete", "taskruns,secrets", "--all", "--wait=true")
