"""Which of a stub's callbacks are requested for an end that its bridge has reported, in real Airflows."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from support.airflow import Airflow
from support.bridge import Bridge, workload_config
from support.waiting import wait_until

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

Raw = dict[str, Any]


def reported(workload: Raw, external_id: str, state: str, **attempt: Any) -> Raw:
    """Return a TaskRun as the operator shows it once the bridge has reported an end."""
    ti = workload["ti"]
    return {
        "metadata": {"name": f"af-{external_id}"},
        "spec": {"dagId": ti["dag_id"], "taskId": ti["task_id"], "runId": ti["run_id"], "mapIndex": ti["map_index"]},
        "status": {
            "phase": "Failed", "state": state, "reason": "TaskFailed", "message": "on purpose",
            "attempts": [{"reason": "TaskFailed", "reported": True, **attempt}],
        },
    }  # fmt: skip


def ended(airflow: Airflow, folder: Path, task: str, retries: int) -> tuple[Raw, Raw]:
    """Run a task by our bridge; return its workload and its TaskRun."""
    run_id = f"callbacks-{uuid.uuid4()}"
    workload = airflow.queue(run_id, task, queue="golang", retries=retries)[task]
    external_id = str(uuid.uuid4())
    airflow.ask("queued_as", dag_id="conformance", run_id=run_id, task_id=task, external_id=external_id)
    result = Bridge(folder, workload_config(workload, airflow.url)).run()
    assert result.outcome["reported"] is True, result.log[-5:]
    state = result.outcome["state"]
    assert airflow.state(run_id, task)["state"] == state
    return workload, reported(workload, external_id, state)


@pytest.mark.parametrize(
    ("task", "retries", "wanted"),
    [
        ("fail", 1, ["on_retry_callback"]),
        ("crash", 1, ["on_retry_callback"]),
        ("fail", 0, ["on_failure_callback", "email_on_failure"]),
        ("fail_for_good", 0, []),
    ],
)
def test_an_end_that_the_bridge_has_reported_has_its_callbacks_requested_once(
    airflow: Airflow, tmp_path: Path, task: str, retries: int, wanted: list[str]
) -> None:
    workload, run = ended(airflow, tmp_path, task, retries)
    airflow.ask("take_callbacks")
    assert airflow.ask("callbacks", run=run, times=3) == [wanted, [], []]
    taken = airflow.ask("take_callbacks")
    # taken by the Dag processor, it is not requested again
    assert airflow.ask("callbacks", run=run, times=1) == [[]]
    assert airflow.ask("take_callbacks") == []
    found = [item.get("task_callback_type") or f"mail: {item['email_type']}" for item in taken]
    names = {"on_retry_callback": "up_for_retry", "on_failure_callback": "failed", "email_on_failure": "mail: failure"}
    assert sorted(found) == sorted(names[name] for name in wanted)
    for item in taken:
        assert (item["ti"]["id"], item["ti"]["try_number"]) == (workload["ti"]["id"], 1)
        assert (item["filepath"], item["bundle_name"]) == ("conformance.py", "dags-folder")
        assert item["msg"] == "TaskFailed: on purpose"
    run_id = workload["ti"]["run_id"]
    entries = [item["extra"] for item in airflow.ask("audit", dag_id="conformance", run_id=run_id)]
    assert entries == ([f"{run['metadata']['name']}: requested {', '.join(wanted)}"] if wanted else [])


def test_the_dag_processor_runs_what_is_requested(airflow: Airflow, tmp_path: Path) -> None:
    airflow.ask("take_callbacks")
    wanted = []
    for kind, retries in (("retry", 1), ("failure", 0)):
        workload, run = ended(airflow, tmp_path, "fail", retries)
        airflow.ask("callbacks", run=run, times=2)
        wanted.append(f"{kind} {workload['ti']['run_id']} fail -1 1")
    alerts = airflow.home / "alerts"
    with (tmp_path / "dag-processor.log").open("wb") as log:
        command = [str(airflow.venv / "bin/airflow"), "dag-processor", "--bundle-name", "dags-folder"]
        processor = subprocess.Popen(command, env=airflow.env, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(
            lambda: alerts.exists() and len(alerts.read_text().splitlines()) >= 2, "that both callbacks have run",
            limit=120, seen=lambda: (tmp_path / "dag-processor.log").read_text()[-3000:],
        )  # fmt: skip
    finally:
        os.killpg(processor.pid, signal.SIGKILL)
        processor.wait()
    assert sorted(alerts.read_text().splitlines()) == sorted(wanted)


@pytest.mark.either
def test_nothing_is_requested_for_what_is_not_in_the_database_any_more(airflow: Airflow, tmp_path: Path) -> None:
    workload, run = ended(airflow, tmp_path, "fail", 0)
    airflow.ask("take_callbacks")
    other = reported(workload, str(uuid.uuid4()), "failed")
    gone = {**run, "spec": {**run["spec"], "runId": "deleted"}}
    removed = {**run, "spec": {**run["spec"], "taskId": "not in the Dag any more"}}
    for odd in (other, gone, removed):
        assert airflow.ask("callbacks", run=odd, times=1) == [[]]
    assert airflow.ask("take_callbacks") == []
