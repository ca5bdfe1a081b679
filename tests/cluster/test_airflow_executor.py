"""A real scheduler with PolypodExecutor beside LocalExecutor, on a real cluster: stubs run as TaskRuns."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.airflow import Airflow
from support.paths import AIRFLOWS, ROOT, airflow_venv

from cluster.lab import Lab, Namespace
from cluster.node import ADDRESS, Node
from cluster.test_airflow import logs

__all__ = ["logs"]
pytestmark = pytest.mark.airflow
PORT = 8794
DAG = ROOT / "tests/airflow_env/executor_dag.py"
EXECUTOR = "polypod_airflow.executor.PolypodExecutor"
ENDED = ("success", "failed")


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, entry points included, in a folder of its own."""
    folder = tmp_path_factory.mktemp("polypod-airflow")
    command = [ROOT / ".venv/bin/uv", "pip", "install", "--quiet", "--no-deps", "--python", airflow_venv(AIRFLOWS[0]) / "bin/python",
               "--target", folder, ROOT / "executor"]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True)
    return folder


@pytest.fixture(params=AIRFLOWS)
def peer(
    request: pytest.FixtureRequest, tmp_path: Path, node: Node, namespace: Namespace, distribution: Path
) -> Iterator[Airflow]:
    more = {
        "PYTHONPATH": str(distribution),
        "AIRFLOW__CORE__EXECUTOR": f"LocalExecutor,polypod:{EXECUTOR}",
        "AIRFLOW__POLYPOD__KUBECONFIG": str(node.api.inner_kubeconfig),
        "AIRFLOW__POLYPOD__NAMESPACE": namespace.name,
        "AIRFLOW__POLYPOD__QUEUES": "golang,jvm,typescript",
        # Python tasks make the folders of a run, and the bridge of a stub, which is another user, writes into them
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o777",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    }
    made = Airflow(tmp_path / "airflow", request.param, PORT, ADDRESS, DAG, more, enter=node.enter)
    try:
        made.start()
        made.ask("secrets", connections={}, variables={"conformance_in": "a variable"})
        yield made
    finally:
        made.stop()


@pytest.fixture
def installed(lab: Lab, peer: Airflow) -> Iterator[None]:
    values = {**lab.values, "logs": {"persistentVolumeClaim": "airflow-logs"}}
    lab.helm.install({**values, "executionApi": {"mode": "airflow", "airflow": {"url": peer.url}}})
    yield
    lab.helm.install(lab.values)


class Scheduler:
    """A scheduler of a real Airflow."""

    def __init__(self, peer: Airflow) -> None:
        command = [*peer.enter, str(peer.venv / "bin/airflow"), "scheduler", "--skip-serve-logs"]
        self._log = (peer.home / "scheduler.log").open("ab")
        self.process = subprocess.Popen(
            command, env=peer.env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True, umask=0
        )

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


@pytest.fixture
def scheduler(peer: Airflow, installed: None, logs: None) -> Iterator[Scheduler]:
    made = Scheduler(peer)
    yield made
    made.kill()


def tasks(peer: Airflow, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = peer.ask("tasks", dag_id="conformance", run_id=run_id)
    return found


def ends(peer: Airflow, namespace: Namespace, run_id: str) -> dict[str, Any]:
    def is_over() -> bool:
        return peer.ask("run", dag_id="conformance", run_id=run_id)["state"] in ENDED

    try:
        namespace.wait(is_over)
    except AssertionError as error:
        said = (peer.home / "scheduler.log").read_text()[-6000:]
        raise AssertionError(tasks(peer, run_id), said) from error
    return tasks(peer, run_id)


def test_stubs_run_as_taskruns_and_python_where_it_ran_before(
    peer: Airflow, namespace: Namespace, scheduler: Scheduler
) -> None:
    peer.ask("trigger", dag_id="conformance", run_id="one", conf={"seconds": 1})
    found = ends(peer, namespace, "one")
    states = {name: (task["state"], task["try_number"]) for name, task in found.items()}
    assert states == {
        "before": ("success", 1), "success": ("success", 1), "produce": ("success", 1), "fail": ("failed", 2),
        "xcom": ("success", 1), "slow": ("success", 1), "after": ("success", 1),
    }  # fmt: skip
    assert found["success"]["executor"] == "polypod"
    assert found["before"]["executor"] in (None, "LocalExecutor")
    # TypeScript reads what the JVM has left
    read = peer.state("one", "xcom")["xcoms"]["return_value"]
    assert (read["seen"], read["none"]) == (peer.state("one", "success")["xcoms"]["return_value"], True)
    assert peer.state("one", "after")["xcoms"]["return_value"] == {"produced": {"text": "grüße ✓"}}
    runs = namespace.taskruns()
    assert sorted(run["spec"]["taskId"] for run in runs.values()) == sorted(
        ["success", "produce", "fail", "fail", "xcom", "slow"]
    )
    assert all(name.startswith("af-") for name in runs)
    for name in ("success", "produce", "xcom"):
        shown = [item["event"] for item in peer.shown_log("one", name)]
        assert shown.count("task finished") == 1, (name, shown)


def test_a_scheduler_that_is_killed_loses_nothing_and_runs_nothing_twice(
    peer: Airflow, namespace: Namespace, scheduler: Scheduler
) -> None:
    peer.ask("trigger", dag_id="conformance", run_id="two", conf={"seconds": 60})
    namespace.wait(lambda: tasks(peer, "two").get("slow", {}).get("state") == "running")
    scheduler.kill()
    again = Scheduler(peer)
    try:
        found = ends(peer, namespace, "two")
    finally:
        again.kill()
    assert (found["slow"]["state"], found["slow"]["try_number"]) == ("success", 1)
    assert [run["spec"]["taskId"] for run in namespace.taskruns().values()].count("slow") == 1
