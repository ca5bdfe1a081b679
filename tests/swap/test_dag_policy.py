"""Which executor the task policy gives to a task, in real Airflows: a Dag file is parsed whatever the cluster is like."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.paths import AIRFLOWS, ROOT, airflow_venv
from support.ports import free_port

pytestmark = pytest.mark.needs("airflow")

EXECUTOR = "polypod_airflow.executor.PolypodExecutor"
Task = tuple[str, dict[str, Any]]
OWN = {"own": "native"}
"""What Airflow's own coordinators run."""


@pytest.fixture(params=AIRFLOWS)
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def applied(*tasks: Task, config: str = "", home: Path = tmp_path / "home", **more: str) -> list[dict[str, Any]]:
        kubeconfig = tmp_path / "kubeconfig"
        if config:
            kubeconfig.write_text(config)
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "KUBE"))},
            "PYTHONPATH": str(ROOT / "executor"),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__EXECUTOR": f"LocalExecutor,polypod:{EXECUTOR}",
            "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": json.dumps(OWN),
            "AIRFLOW__POLYPOD__KUBECONFIG": str(kubeconfig),
            **more,
        }
        python = airflow_venv(request.param) / "bin/python"
        command = [str(python), str(ROOT / "tests/airflow_env/drive_policy.py"), json.dumps(tasks)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return found

    return applied


def unreachable() -> str:
    cluster = {"server": f"http://127.0.0.1:{free_port()}"}
    document = {
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": cluster}], "users": [{"name": "u", "user": {}}],
    }  # fmt: skip
    return json.dumps(document)


def executors(found: list[dict[str, Any]]) -> list[Any]:
    return [answer.get("executor") for answer in found]


KINDS: list[Task] = [
    ("stub", {"queue": "other"}), ("mapped", {"queue": "other"}), ("stub", {"queue": "own"}),
    ("mapped", {"queue": "own"}), ("python", {"queue": "other"}), ("stub", {"queue": "other", "executor": "LocalExecutor"}),
]  # fmt: skip


@pytest.mark.parametrize("config", ["", "no kubeconfig", unreachable()])
def test_a_dag_is_parsed_while_nobody_knows_the_routing_and_airflow_keeps_what_it_can_run(
    policy: Callable[..., list[dict[str, Any]]], config: str
) -> None:
    many: list[Task] = [("stub", {"queue": "other"})] * 20
    found = policy(*KINDS, *many, config=config)
    assert executors(found)[:6] == ["polypod", "polypod", None, None, None, "LocalExecutor"]
    assert executors(found)[6:] == ["polypod"] * 20
    # what could not be read is asked for once, and not by each task of the file
    assert sum(answer["took"] for answer in found) < 15


def test_a_home_that_cannot_be_written_to_costs_one_call_for_each_file(
    policy: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "polypod-queues.json").mkdir(parents=True)
    found = policy(*[("stub", {"queue": "other"})] * 20, config=unreachable(), home=home)
    assert executors(found) == ["polypod"] * 20
    assert sum(answer["took"] for answer in found) < 15


@pytest.mark.parametrize("own", ["{", "[1]", "null"])
def test_a_mistake_in_airflows_own_mapping_is_not_ours_to_raise(
    policy: Callable[..., list[dict[str, Any]]], own: str
) -> None:
    found = policy(("stub", {"queue": "other"}), AIRFLOW__SDK__QUEUE_TO_COORDINATOR=own)
    assert executors(found) == ["polypod"]


def test_a_mapped_queue_is_ours_and_no_other(policy: Callable[..., list[dict[str, Any]]]) -> None:
    tasks: list[Task] = [("stub", {"queue": "own"}), ("mapped", {"queue": "own"}), ("stub", {"queue": "other"})]
    assert executors(policy(*tasks, AIRFLOW__POLYPOD__QUEUES="own")) == ["polypod", "polypod", None]


def test_a_queue_that_nothing_maps_is_named_when_its_dag_is_read(policy: Callable[..., list[dict[str, Any]]]) -> None:
    """Airflow's own executor fails the task later, in words that name neither queue nor routing."""
    tasks: list[Task] = [("stub", {"queue": "nowhere"}), ("stub", {"queue": "own"}), ("stub", {"queue": "mine"})]
    [nowhere, own, mine] = policy(*tasks, AIRFLOW__POLYPOD__QUEUES="mine,yours")
    [line] = nowhere["told"]
    assert (
        "queue 'nowhere' is neither in Polypod's routing (it has mine, yours) nor in [sdk] queue_to_coordinator" in line
    )
    assert own["told"] == mine["told"] == []


def test_without_any_queue_nothing_new_comes_to_polypod(policy: Callable[..., list[dict[str, Any]]]) -> None:
    """As before going back to one's own executor: what names ours is left as it is."""
    found = policy(*KINDS, ("stub", {"queue": "own", "executor": "polypod"}), AIRFLOW__POLYPOD__QUEUES="none")
    assert executors(found) == [None, None, None, None, None, "LocalExecutor", "polypod"]


def test_a_mistake_of_the_dag_is_an_error_that_names_the_task(policy: Callable[..., list[dict[str, Any]]]) -> None:
    tasks: list[Task] = [
        ("python", {"queue": "q", "executor": "polypod"}),
        ("python", {"queue": "q", "executor": EXECUTOR}),
        ("stub", {"queue": "mine", "executor_config": [1]}),
        ("mapped", {"queue": "mine", "executor_config": "text"}),
        ("stub", {"queue": "q", "executor": "polypod", "executor_config": [1]}),
        ("stub", {"queue": "q", "executor_config": [1]}),
    ]
    found = policy(*tasks, AIRFLOW__POLYPOD__QUEUES="mine")
    for number, said in enumerate([*["runs no Python"] * 2, "is a list", "is a str", "is a list"]):
        assert f"task 't{number}'" in found[number]["refused"]
        assert said in found[number]["refused"]
    assert found[5]["executor"] is None
