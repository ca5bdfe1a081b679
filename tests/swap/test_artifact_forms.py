"""Every form of artifact, run in every way: `polypod run`, a workload of Airflow 3.4, and through the pod's launcher."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.airflow import Airflow
from support.api import Store
from support.artifacts import FORMS, language, make_forms
from support.bridge import PATIENT, Bridge
from support.paths import EXECUTABLE_CLASSPATH, JAVA_CLASSPATH, NODE, NODE_CLASSPATH

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

CLASSPATHS = {"golang": EXECUTABLE_CLASSPATH, "jvm": JAVA_CLASSPATH, "typescript": NODE_CLASSPATH}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_forms(tmp_path_factory.mktemp("forms") / "artifacts")


def coordinator(form: str) -> dict[str, Any]:
    queue = language(form)
    node = {"node_executable": str(NODE)} if queue == "typescript" else {}
    return {"classpath": CLASSPATHS[queue], "kwargs": {"task_handler_bundle_name": form, **PATIENT, **node}}


@pytest.fixture(scope="module")
def routing(artifacts: Path) -> Path:
    """A routing in Airflow 3.4's words, with a queue for each form."""
    document = {
        "coordinators": {form: coordinator(form) for form in FORMS},
        "queue_to_coordinator": {form: form for form in FORMS},
        "dag_bundle_to_coordinator": {"dags-folder": "go"},
        "dag_bundles": {form: {"path": f"artifacts/{form}"} for form in FORMS},
    }
    path = artifacts.parent / "routing.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def polypod(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polypod_cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_polypod_run(routing: Path, tmp_path: Path) -> None:
    def task_run(form: str) -> dict[str, Any]:
        spec = {"queue": form, "dagId": "conformance", "taskId": "success", "runId": form}
        return {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "metadata": {"name": form}, "spec": spec}

    file = tmp_path / "taskruns.yaml"
    file.write_text(yaml.safe_dump_all(task_run(form) for form in FORMS))
    done = polypod("run", "-f", file, "--routing", routing, "-o", "json")
    items = json.loads(done.stdout)["items"]
    assert {item["metadata"]["name"]: item["status"]["state"] for item in items} == dict.fromkeys(FORMS, "success")


@pytest.mark.parametrize("form", FORMS)
def test_a_workload(airflow_34: Airflow, routing: Path, tmp_path: Path, form: str) -> None:
    run_id = f"form-{form}"
    [workload] = airflow_34.queue(run_id, "success", queue=form).values()
    # as a later Airflow may send it
    workload |= {"a_new_field": {"x": 1}, "ti": {**workload["ti"], "another": 2}}
    file, log = tmp_path / "workload.json", tmp_path / "task.log"
    file.write_text(json.dumps(workload))
    done = polypod("run", "--workload", file, "--execution-api-url", airflow_34.url, "--routing", routing,
                   "--log-file", log)  # fmt: skip
    assert (done.returncode, airflow_34.state(run_id, "success")["state"]) == (0, "success"), done.stderr
    [told] = [
        line for line in map(json.loads, log.read_text().splitlines()) if "ignoring unknown fields" in line["event"]
    ]
    assert told["fields"] == ["a_new_field", "ti.another"]


@pytest.mark.parametrize("form", FORMS)
def test_through_the_launcher(filled: Store, artifacts: Path, tmp_path: Path, form: str) -> None:
    ti_id = filled.add("success", queue=form)
    config = filled.config(ti_id, form, {form: coordinator(form)}) | {"dag_bundles": {form: str(artifacts / form)}}
    result = Bridge(tmp_path, config, launched=True).run()
    assert result.log[-1]["event"] == "task finished", result.log
    assert filled.ti(ti_id).state == "success", result.log


@pytest.mark.parametrize("form", FORMS)
def test_the_artifact_that_airflow_has_bound_the_task_to(
    airflow_34: Airflow, artifacts: Path, tmp_path: Path, form: str
) -> None:
    """As Airflow's main sends it (ADR 0013): the bundle by its name, and the path in there."""
    run_id = f"bound-{form}"
    queue = language(form)
    [workload] = airflow_34.queue(run_id, "success", queue=queue).values()
    [name] = [path.name for path in (artifacts / form).iterdir() if path.name not in ("lib",) and is_main(path)]
    workload["task_handler_artifact"] = {"bundle_info": {"name": "all", "version": None}, "rel_path": f"{form}/{name}"}
    file = tmp_path / "workload.json"
    file.write_text(json.dumps(workload))
    kwargs = {**PATIENT, **({"node_executable": str(NODE)} if queue == "typescript" else {})}
    if queue == "jvm":
        # a jar's class path is that of its bundle
        workload["task_handler_artifact"]["rel_path"] = name
        file.write_text(json.dumps(workload))
    document = {
        "coordinators": {queue: {"classpath": CLASSPATHS[queue], "kwargs": kwargs}},
        "queue_to_coordinator": {queue: queue},
        "dag_bundles": {"all": {"path": str(artifacts / form if queue == "jvm" else artifacts)}},
    }
    path = tmp_path / "routing.yaml"
    path.write_text(yaml.safe_dump(document))
    done = polypod("run", "--workload", file, "--execution-api-url", airflow_34.url, "--routing", path)
    assert (done.returncode, airflow_34.state(run_id, "success")["state"]) == (0, "success"), done.stderr


def is_main(path: Path) -> bool:
    return path.suffix != ".jar" or path.name.startswith("conformance")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dag_bundles": {}}, ["task_handler_bundle_name", "'go'", "dag_bundles.go"]),
        ({"queue_to_coordinator": {"x": "go"}}, ["'go' is not in queue_to_coordinator"]),
        ({"dag_bundle": {}}, ["unknown key 'dag_bundle'; did you mean 'dag_bundles'?"]),
    ],
)
def test_a_routing_mistake_leaves_nothing_queued(
    airflow_34: Airflow, routing: Path, tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    run_id = f"mistake-{tmp_path.name}"
    [workload] = airflow_34.queue(run_id, "success", queue="go").values()
    file, wrong, log = tmp_path / "workload.json", tmp_path / "routing.yaml", tmp_path / "task.log"
    file.write_text(json.dumps(workload))
    document = yaml.safe_load(routing.read_text())
    document["coordinators"] = {"go": document["coordinators"]["go"]}
    document |= {"queue_to_coordinator": {"go": "go"}, "dag_bundle_to_coordinator": {}} | change
    wrong.write_text(yaml.safe_dump(document))
    done = polypod("run", "--workload", file, "--execution-api-url", airflow_34.url, "--routing", wrong,
                   "--log-file", log)  # fmt: skip
    assert (done.returncode, airflow_34.state(run_id, "success")["state"]) == (2, "failed"), done.stderr
    [told] = [line["event"] for line in map(json.loads, log.read_text().splitlines()) if line["level"] == "error"]
    assert all(word in told for word in words), told
