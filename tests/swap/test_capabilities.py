"""Every "yes" in sdks/capabilities.yaml, proved by running it; and the README's table is what the file says."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.airflow import Airflow
from support.api import Store
from support.bridge import COORDINATORS, Bridge, Result, workload_config
from support.dag_processor import ask_as_dag_processor
from support.paths import ROOT
from support.waiting import wait_until
from test_swap_matrix import VALUE

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

CAPABILITIES: list[dict[str, Any]] = yaml.safe_load((ROOT / "sdks/capabilities.yaml").read_text())
QUEUES = {"go": "golang", "java": "jvm", "typescript": "typescript"}
CLAIMS = [(sdk, row["name"]) for row in CAPABILITIES for sdk in QUEUES if row[sdk] is True]


class Lab:
    """Runs a conformance task of one SDK."""

    def __init__(self, store: Store, folder: Path, queue: str) -> None:
        self.store = store
        self.folder = folder
        self.queue = queue

    def bridge(self, task: str, **spec: Any) -> Bridge:
        ti_id = self.store.add(task, queue=self.queue, **spec)
        return Bridge(self.folder, self.store.config(ti_id, self.queue, COORDINATORS))

    def run(self, task: str, **spec: Any) -> Result:
        return self.bridge(task, **spec).run()

    def value(self, task: str, **spec: Any) -> Any:
        result = self.run(task, **spec)
        assert result.outcome["state"] == "success", result.log[-5:]
        return self.store.xcoms(task)["return_value"]


def logging(lab: Lab) -> None:
    result = lab.run("success")
    loggers = {record["logger"] for record in result.log}
    assert {"task.stdout", "task.stderr"} <= loggers
    assert loggers - {"task.stdout", "task.stderr", "supervisor"}, "no record came over the logs socket"


def test_what_java_logs_before_the_socket_is_there_comes_first(filled: Store, tmp_path: Path) -> None:
    result = Lab(filled, tmp_path, "jvm").run("success")
    assert result.events("task")[0] == "logged before there is a socket"
    assert result.events("task").count("logged before there is a socket") == 1


def up_for_retry(lab: Lab) -> None:
    result = lab.run("fail", retries=1)
    assert result.outcome["state"] == "up_for_retry"
    assert result.outcome["message"] == "this task fails"


def xcom(lab: Lab) -> None:
    assert lab.value("success") == VALUE
    assert lab.value("xcom") == {"seen": VALUE, "none": True}


def by_name(lab: Lab) -> None:
    lab.value("success")
    bindings = [
        {"kind": "literal", "name": "region_code", "value": "uk", "from_default": False},
        {"kind": "literal", "name": "ROWLIMIT", "value": 3, "from_default": True},
        {"kind": "xcom", "name": "upstream", "task_id": "success"},
    ]
    assert lab.value("bind_by_name", arg_bindings=bindings) == {"region": "uk", "limit": 3, "upstream": "grüße ✓"}


def by_position(lab: Lab) -> None:
    lab.value("success")
    values = {"a": "t", "b": 2**53, "c": ["x"]}
    bindings = [{"kind": "literal", "name": k, "value": v, "from_default": False} for k, v in values.items()]
    bindings.append({"kind": "xcom", "name": "d", "task_id": "success"})
    expected = {"text": "t", "number": 2**53, "list": ["x"], "upstream": "grüße ✓"}
    assert lab.value("bind_by_position", arg_bindings=bindings) == expected


def masked(lab: Lab) -> None:
    result = lab.run("mask")
    assert result.outcome["state"] == "success"
    assert "logged in with ***" in result.events("task")
    assert "found-at-run-time" not in str(result.log)


def cancellation(lab: Lab) -> None:
    bridge = lab.bridge("wait").start()
    wait_until(
        lambda: "waiting" in [record["event"] for record in bridge.read_log()],
        "that the task waits",
        seen=bridge.read_log,
    )
    assert bridge.process is not None
    bridge.process.send_signal(signal.SIGTERM)
    result = bridge.finish()
    assert result.outcome["exitCode"] == 0, "the runtime was killed instead of ending by itself"
    assert "ended early" in str(result.log)


def retry_delay(lab: Lab) -> None:
    bridge = lab.bridge("retry_after", retries=1)
    assert bridge.run().outcome["state"] == "up_for_retry"
    import uuid

    assert lab.store.ti(uuid.UUID(bridge.config["ti"]["id"])).retry_delay_seconds == 1.5


def the_dag_processor_is_answered(lab: Lab) -> None:
    """Both questions, put to the program on real sockets, as the Dag processor does."""
    bundles, handlers = (ask_as_dag_processor(lab.queue, question) for question in
                         ("DagFileParseRequest", "TaskHandlerParseRequest"))  # fmt: skip
    assert bundles == {"type": "DagFileParsingResult", "fileloc": "/the/artifact", "serialized_dags": []}
    assert (handlers["type"], handlers["fileloc"]) == ("TaskHandlerParsingResult", "/the/artifact")
    declared = {item["task_id"]: item for item in handlers["task_handlers"]["conformance"]}
    assert {"success", "bind_by_name", "bind_by_position"} <= declared.keys()
    assert (declared["success"]["binding"], declared["success"]["params"]) == ("named", [])
    named, positional = declared["bind_by_name"], declared["bind_by_position"]
    assert named["binding"] == "named"
    assert {"regioncode", "rowlimit", "upstream"} == {
        param["name"].replace("_", "").lower() for param in named["params"]
    }
    assert positional["binding"] == "positional"
    types = [(param["value_schema"] or {}).get("type") for param in positional["params"]]
    assert types[:3] == ["string", "integer", "array"]


def state(task: str, expected: str) -> Callable[[Lab], None]:
    def prove(lab: Lab) -> None:
        assert lab.run(task).outcome["state"] == expected

    return prove


def equals(task: str, expected: Any) -> Callable[[Lab], None]:
    def prove(lab: Lab) -> None:
        assert lab.value(task) == expected

    return prove


CONNECTION = {
    "type": "postgres", "host": "db.example", "port": 5432, "login": "user", "schema": "sales", "password_length": 11,
}  # fmt: skip
VARIABLES = ["a variable", "a variable!", True]


class OnAirflow:
    """Runs conformance tasks of one SDK for a real Airflow."""

    def __init__(self, airflow: Airflow, folder: Path, queue: str) -> None:
        self.airflow = airflow
        self.folder = folder
        self.queue = queue
        self.run_id = f"{queue}-{time.time_ns()}"

    def run(self, task: str) -> Any:
        """Run a task, and return its state and what it left."""
        [workload] = self.airflow.queue(self.run_id, task, queue=self.queue).values()
        result = Bridge(self.folder, workload_config(workload, self.airflow.url)).run()
        seen = self.airflow.state(self.run_id, task)
        assert seen["state"] == result.outcome["state"], result.log[-5:]
        return seen["state"], seen["xcoms"].get("return_value")


def task_state(lab: Lab) -> None:
    import uuid

    from polypod_execution_api import registry
    from sqlalchemy.orm import Session

    first = lab.bridge("task_state", retries=1)
    assert first.run().outcome["state"] == "up_for_retry"
    with Session(lab.store.engine) as session, session.begin():
        again = registry.next_try(session, uuid.UUID(first.config["ti"]["id"])).id
    second = Bridge(lab.folder, lab.store.config(again, lab.queue, COORDINATORS))
    assert second.run().outcome["state"] == "success"
    assert lab.store.xcoms("task_state")["return_value"] == [2, False]


def rescheduled(lab: Lab) -> None:
    before = time.time()
    outcome = lab.run("reschedule").outcome
    assert outcome["state"] == "up_for_reschedule"
    assert before < datetime.fromisoformat(outcome["rescheduleTime"]).timestamp() < time.time() + 60


def deferred(on: OnAirflow) -> None:
    assert on.run("wait_for_run") == ("deferred", None)


def awaiting_input(on: OnAirflow) -> None:
    assert on.run("ask") == ("awaiting_input", None)
    on.airflow.ask("respond", dag_id="conformance", run_id=on.run_id, task_id="ask", chosen=["yes"])
    assert on.run("ask") == ("success", ["yes"])


def asset_state(on: OnAirflow) -> None:
    assert on.run("asset_state") == ("success", [True, 3, False])


def asset_events(on: OnAirflow) -> None:
    assert on.run("asset_read")[0] == "success"
    before = on.run("asset_read")[1]
    assert on.run("asset_emit") == ("success", None)
    name, uri, both, later = on.run("asset_read")[1]
    assert [name, uri] == [before[0] + 1, before[1] + 1]
    assert (both, later) == (1, 0)


def a_run_is_started(on: OnAirflow) -> None:
    on.run("wait_for_run")
    state = on.airflow.ask("run", dag_id="conformance", run_id=f"triggered-{on.run_id}")
    assert state == {"state": "queued", "conf": {"a": 1}, "note": None}


def noted(on: OnAirflow) -> None:
    assert on.run("note")[0] == "success"
    assert on.airflow.ask("run", dag_id="conformance", run_id=on.run_id)["note"] == "a note of the task's"


SETTINGS = {
    "AIRFLOW__API__BASE_URL": "/",
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "False",
    "AIRFLOW__TRIGGERER__QUEUES_ENABLED": "False",
    "AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS": "30",
}

ON_AIRFLOW: dict[str, Callable[[OnAirflow], None]] = {
    "state: deferred": deferred,
    "state: awaiting_input": awaiting_input,
    "asset state store": asset_state,
    "asset event emit": asset_events,
    "asset event read": asset_events,
    "starting a Dag run": a_run_is_started,
    "Dag run note": noted,
}
"""What needs a real Airflow."""

PROOFS: dict[str, Callable[[Lab], None]] = {
    "state: success": state("success", "success"),
    "state: failed": state("fail", "failed"),
    "state: up_for_retry": up_for_retry,
    "state: skipped": state("skip", "skipped"),
    "state: removed": state("not_in_the_bundle", "removed"),
    "task logging": logging,
    "XCom read and write": xcom,
    "connection read": equals("connection", CONNECTION),
    "variable read": equals("concurrent", [f"value {n}" for n in range(20)]),
    "variable write": equals("variables", VARIABLES),
    "variable delete": equals("variables", VARIABLES),
    "arguments by name": by_name,
    "arguments by position": by_position,
    "self-contained bundle": state("success", "success"),
    "several requests in flight": equals("concurrent", [f"value {n}" for n in range(20)]),
    "masking a value in the log": masked,
    "cancellation": cancellation,
    "retry delay of the task's choice": retry_delay,
    "task state store": task_state,
    "state: up_for_reschedule": rescheduled,
    "Dag processor's questions": the_dag_processor_is_answered,
    "Airflow's settings": equals("settings", SETTINGS),
}


def of_ours(name: str) -> bool:
    return name != "stub target" and name not in ON_AIRFLOW


@pytest.mark.parametrize(("sdk", "name"), [claim for claim in CLAIMS if claim[1] in ON_AIRFLOW])
def test_what_an_sdk_claims_of_airflow_it_does(airflow_34: Airflow, tmp_path: Path, sdk: str, name: str) -> None:
    ON_AIRFLOW[name](OnAirflow(airflow_34, tmp_path, QUEUES[sdk]))


@pytest.mark.parametrize("sdk", ["go", "java"])
def test_the_rest_needs_no_newer_airflow(airflow_33: Airflow, tmp_path: Path, sdk: str) -> None:
    for name, prove in ON_AIRFLOW.items():
        if name != "Dag run note":
            prove(OnAirflow(airflow_33, tmp_path, QUEUES[sdk]))


@pytest.mark.parametrize(("sdk", "name"), [claim for claim in CLAIMS if of_ours(claim[1])])
def test_what_an_sdk_claims_it_does(filled: Store, tmp_path: Path, sdk: str, name: str) -> None:
    PROOFS[name](Lab(filled, tmp_path, QUEUES[sdk]))


@pytest.mark.parametrize("sdk", [claim[0] for claim in CLAIMS if claim[1] == "stub target"])
def test_a_stub_task_of_a_real_dag_is_run(airflow: Airflow, tmp_path: Path, sdk: str) -> None:
    run_id = f"stub-{sdk}-{time.time_ns()}"
    workload = airflow.queue(run_id, "success", queue=QUEUES[sdk])["success"]
    assert Bridge(tmp_path, workload_config(workload, airflow.url)).run().outcome["state"] == "success"
    assert airflow.state(run_id, "success")["xcoms"] == {"return_value": VALUE}


def test_the_readme_shows_what_the_file_says() -> None:
    sys.path.insert(0, str(ROOT / "sdks"))
    from generate_table import rendered

    readme = (ROOT / "README.md").read_text()
    assert rendered(readme) == readme, "run `make generated`"


@pytest.mark.parametrize("sdk", QUEUES)
def test_both_flags_are_required(sdk: str) -> None:
    from support.paths import GO_ROOT, JAVA_ROOT, NODE, TYPESCRIPT_ROOT

    commands = {
        "go": [str(GO_ROOT / "conformance")],
        "java": ["java", "-cp", ":".join(map(str, JAVA_ROOT.glob("*.jar"))), "conformance.Main"],
        "typescript": [str(NODE), str(TYPESCRIPT_ROOT / "bundle.mjs")],
    }
    for flags in ([], ["--comm=127.0.0.1:1"], ["--logs=127.0.0.1:1"]):
        done = subprocess.run([*commands[sdk], *flags], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "--logs" in done.stderr or "--comm" in done.stderr
