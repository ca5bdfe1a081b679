"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from polypod_core.routing import parse_routing
from support.artifacts import make_forms, make_jar
from support.bridge import COORDINATORS
from support.cli import POLYPOD, polypod, routing, run_json, task_run, write
from support.paths import EXECUTABLE_CLASSPATH, GO_ROOT, JAVA_CLASSPATH, JAVA_ROOT, NODE_CLASSPATH, ROOT, SALES
from support.processes import alive, children
from support.waiting import wait_until

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "examples")]


def test_the_sales_pipeline_runs_in_three_languages() -> None:
    done = polypod("run", "-f", SALES / "taskruns.yaml", "--routing", SALES / "routing.yaml", "--show-xcoms")
    assert done.returncode == 0, done.stderr
    assert 'report return_value: {"customer": "Alan", "total": 210}' in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:4] for row in rows[1:4]] == [
        ["extract", "sales.extract", "success", "1"],
        ["summarize", "sales.summarize", "success", "1"],
        ["report", "sales.report", "success", "1"],
    ]
    assert "best customer: Alan with 210.00" in done.stderr
    assert "correct-horse" not in done.stderr + done.stdout


def test_json_output_is_a_kubernetes_list_and_nothing_else(tmp_path: Path) -> None:
    code, items, stderr = run_json(tmp_path, task_run("success"), task_run("run_context", params={"a": [1]}))
    assert code == 0, stderr
    status = items[0]["status"]
    assert (status["phase"], status["state"], status["xcoms"]) == ("Succeeded", "success", ["return_value"])
    [attempt] = status["attempts"]
    assert attempt["exitCode"] == 0
    assert attempt["reason"] == "TaskSucceeded"
    assert attempt["peakMemoryBytes"] > 1 << 20
    assert attempt["cpuSeconds"] >= 0
    assert attempt["startTime"] < attempt["finishTime"]


def test_arguments_reach_the_function_by_position_and_by_name(tmp_path: Path) -> None:
    arguments = [
        {"name": "text", "value": "t"},
        {"name": "number", "value": 7},
        {"name": "list", "value": ["a", "b"]},
        {"name": "upstream", "fromXCom": {"taskId": "success"}},
    ]
    named = [
        {"name": "upstream", "fromXCom": {"taskId": "success"}},
        {"name": "region_code", "value": "uk"},
        {"name": "RowLimit", "value": 3},
    ]
    for queue in ("golang", "jvm"):
        runs = [task_run("success", queue), task_run("bind_by_name", queue, arguments=named)]
        if queue == "golang":
            runs.append(task_run("bind_by_position", queue, arguments=arguments))
        code, items, stderr = run_json(tmp_path, *runs)
        assert code == 0, stderr
        assert all(item["status"]["xcoms"] == ["return_value"] for item in items)


@pytest.mark.parametrize("queue", ["golang", "jvm"])
@pytest.mark.parametrize(("name", "value"), [("region_code", {"a": 1}), ("row_limit", "x")])
def test_an_argument_that_does_not_fit_fails_before_the_body(
    tmp_path: Path, queue: str, name: str, value: object
) -> None:
    given = {"region_code": "uk", "row_limit": 3, "upstream": "text", name: value}
    arguments = [{"name": key, "value": one} for key, one in given.items()]
    code, items, stderr = run_json(tmp_path, task_run("bind_by_name", queue, arguments=arguments))
    assert code == 1
    status = items[0]["status"]
    assert status["state"] == "failed"
    assert re.search(rf"argument \W?{name}\W? does not fit", stderr), stderr
    assert status.get("xcoms", []) == []


def test_retries_with_backoff_and_each_try_in_the_status(tmp_path: Path) -> None:
    retries = {"limit": 2, "delay": "100ms", "backoff": "exponential"}
    code, items, _ = run_json(tmp_path, task_run("fail", retries=retries))
    status = items[0]["status"]
    assert code == 1
    assert (status["phase"], status["state"]) == ("Failed", "failed")
    assert [attempt["state"] for attempt in status["attempts"]] == ["up_for_retry", "up_for_retry", "failed"]
    assert [attempt["number"] for attempt in status["attempts"]] == [1, 2, 3]
    assert status["attempts"][0]["message"] == "this task fails"


def test_a_task_may_fail_for_good_or_choose_its_own_delay(tmp_path: Path) -> None:
    retries = {"limit": 1, "delay": "100ms"}
    for queue in ("golang", "jvm"):
        _, items, _ = run_json(tmp_path, task_run("fail_for_good", queue, retries=retries))
        assert len(items[0]["status"]["attempts"]) == 1
        _, items, _ = run_json(tmp_path, task_run("retry_after", queue, retries=retries))
        first, second = items[0]["status"]["attempts"]
        from datetime import datetime

        wait = datetime.fromisoformat(second["startTime"]) - datetime.fromisoformat(first["finishTime"])
        assert wait.total_seconds() >= 1.5


def test_connections_and_variables_come_from_manifests_then_the_environment(tmp_path: Path) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "stringData": {"AIRFLOW_CONN_CONFORMANCE_DB": "postgres://user:s3cr3t-pa55@db.example:5432/sales"},
    }
    run = task_run("connection", connectionsFrom=[{"secretRef": {"name": "s"}}])
    code, items, stderr = run_json(
        tmp_path, secret, run, task_run("variables"), env={"AIRFLOW_VAR_CONFORMANCE_IN": "env"}
    )
    assert code == 0, stderr
    assert "s3cr3t-pa55" not in stderr
    assert all(item["status"]["state"] == "success" for item in items)


def test_the_execution_timeout_of_a_taskrun(tmp_path: Path) -> None:
    code, items, _ = run_json(tmp_path, task_run("wait", timeouts={"execution": "1s"}))
    assert code == 1
    assert items[0]["status"]["attempts"][0]["reason"] == "ExecutionTimeout"


def test_ctrl_c_ends_the_runtime_cleanly(tmp_path: Path) -> None:
    command = [
        POLYPOD,
        "run",
        "-f",
        str(write(tmp_path, task_run("wait"), task_run("success", dependsOn=[{"taskId": "wait"}]))),
    ]
    process = subprocess.Popen(
        [*command, "--routing", str(routing(tmp_path)), "-o", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    for line in process.stderr:
        if "waiting" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    first, second = json.loads(out)["items"]
    assert first["status"]["attempts"][0]["reason"] == "Cancelled"
    for status in (first["status"], second["status"]):
        assert (status["phase"], status["reason"]) == ("Failed", "Cancelled")
        assert status["message"] == "polypod run was interrupted"
    assert second["status"]["attempts"] == []
    assert "stopping; cleaning up" in err


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    command = [POLYPOD, "run", "-f", str(write(tmp_path, task_run("wait")))]
    process = subprocess.Popen(
        [*command, "--routing", str(routing(tmp_path))],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting" in line:
            break
    [bridge] = children(process.pid)
    [runtime] = children(bridge)
    process.kill()
    # well below the time in which failed heartbeats alone would end them; the bridge may take its whole grace
    wait_until(lambda: not alive(bridge) and not alive(runtime), "the end of bridge and runtime")
    process.communicate()


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
BROKEN: list[tuple[str, Any, str]] = [
    ("field", task_run("success", taskid="x"), r"taskruns.yaml:10: unknown field spec.taskid; did you mean 'taskId'\?"),
    ("missing", {**task_run("success"), "spec": {"queue": "q"}}, r"taskruns.yaml:5: spec.dagId is missing"),
    ("kind", {**task_run("success"), "kind": "TaskRuns"}, r"kind 'TaskRuns' is unknown; did you mean 'TaskRun'\?"),
    ("version", {**task_run("success"), "apiVersion": "v1"}, r"it must be 'polypod.dev/v1alpha1'"),
    ("duration", task_run("success", retries={"delay": "5 sec"}), r"'5 sec' is not a duration; write it like 30s"),
    ("argument", task_run("success", arguments=[{"name": "x"}]), r"needs exactly one of value and fromXCom"),
    ("secret", task_run("success", connectionsFrom=[{"secretRef": {"name": "s"}}]), r"Secret 's' is not in these files"),
    ("type", task_run("success", mapIndex="x"), r"spec.mapIndex: .*integer"),
    ("metadata", {**SECRET, "metadata": "x"}, r"taskruns.yaml:3: metadata: .*valid dictionary"),
    ("name", {**SECRET, "metadata": {"name": ["x"]}}, r"metadata.name: .*valid string"),
    ("data", {**SECRET, "kind": "ConfigMap", "data": [1]}, r"data: .*valid dictionary"),
    ("base64", {**SECRET, "data": {"A": "p4ss!"}}, r"data.A: not base64; plain text goes to stringData$"),
    ("number", {**SECRET, "stringData": {"A": 4711}}, r"stringData.A: .*valid string$"),
    ("key", {**SECRET, "kind": "ConfigMap", "data": {"../a": "b"}}, r"data: a key has letters, digits, .* only"),
    ("secret field", {**SECRET, "stringdata": {}}, r"unknown field stringdata; did you mean 'stringData'\?"),
    ("queue", task_run("success", queue="golan"), r"'golan' is not in queue_to_coordinator; did you mean 'golang'\?"),
    ("dag", {**task_run("success"), "spec": {**task_run("success")["spec"], "dagId": "none"}}, r"with Dag 'none'"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "message"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_mistake_is_one_message_and_exit_code_2(tmp_path: Path, document: Any, message: str) -> None:
    path = write(tmp_path, document)
    for command in (["run"], ["validate"]):
        done = polypod(*command, "-f", path, "--routing", routing(tmp_path))
        assert done.returncode == 2
        assert re.search(message, done.stderr, re.M), done.stderr
        assert "Traceback" not in done.stderr


def coordinator(name: str, **kwargs: Any) -> dict[str, Any]:
    spec = COORDINATORS[name]
    return {**COORDINATORS, name: {**spec, "kwargs": {**spec["kwargs"], **kwargs}}}


def test_mistakes_in_the_routing_and_the_image(tmp_path: Path) -> None:
    flipped = tmp_path / "flipped"
    flipped.mkdir()
    raw = bytearray((GO_ROOT / "conformance").read_bytes())
    raw[1000] ^= 1
    (flipped / "conformance").write_bytes(raw)
    (flipped / "conformance").chmod(0o755)
    old_node = tmp_path / "node"
    old_node.write_text("#!/bin/sh\necho v20.1.0\n")
    old_node.chmod(0o755)
    old_java = tmp_path / "java"
    old_java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_292\"' >&2\n")
    old_java.chmod(0o755)
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("jvm", {"coordinators": coordinator("jvm", java_executable="/no/java")}, "'/no/java' does not exist"),
        ("jvm", {"coordinators": coordinator("jvm", java_executable="no-java-here")}, "is not on PATH"),
        ("jvm", {"coordinators": coordinator("jvm", java_executable=str(old_java))}, "is Java 8; conformance.Main was compiled for Java 11"),
        ("jvm", {"coordinators": coordinator("jvm", jars_root=["/no/jars"])}, "'/no/jars' does not exist"),
        ("jvm", {"coordinators": coordinator("jvm", jar_args=[])}, "has no keyword 'jar_args'"),
        ("typescript", {"coordinators": coordinator("typescript", node_executable=str(old_node))}, "is Node 20; TypeScript bundles need Node 22"),
        ("golang", {"coordinators": coordinator("golang", executables_root=[str(flipped)])}, "binary_sha256 mismatch"),
        ("golang", {"queue_to_coordinator": {"golang": "nativ"}}, "which is not in coordinators"),
        ("golang", {"queue_to_cordinator": {}}, "unknown key 'queue_to_cordinator'; did you mean 'queue_to_coordinator'?"),
    ]  # fmt: skip
    for queue, changes, message in cases:
        done = polypod(
            "run", "-f", write(tmp_path, task_run("success", queue)), "--routing", routing(tmp_path, **changes)
        )
        assert done.returncode == 2, (message, done.stderr)
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_yaml_that_is_none_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("a: 1\nb: [1,\nc: 2\n")
    done = polypod("validate", "-f", path)
    assert done.returncode == 2
    assert re.search(r"bad.yaml:4:1: not valid YAML", done.stderr)
    assert polypod("validate", "-f", tmp_path / "none.yaml").returncode == 2


def test_validate_says_what_would_run() -> None:
    done = polypod("validate", "-f", SALES / "taskruns.yaml", "--routing", SALES / "routing.yaml")
    assert done.returncode == 0
    assert "taskruns.yaml:16: extract: ok, jdk-17 runs" in done.stdout, done.stdout


@pytest.mark.parametrize("language", ["golang", "jvm", "typescript"])
def test_validate_knows_the_tasks_of_every_kind_of_artifact(tmp_path: Path, language: str) -> None:
    done = polypod("validate", "-f", write(tmp_path, task_run("success", language)), "--routing", routing(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "not checked" not in done.stdout
    done = polypod("validate", "-f", write(tmp_path, task_run("sucess", language)), "--routing", routing(tmp_path))
    assert done.returncode == 2
    assert re.search(r"has no task 'sucess' in Dag 'conformance'; known: .*\bsuccess\b", done.stderr), done.stderr


def test_validate_says_that_an_artifact_lists_no_tasks(tmp_path: Path) -> None:
    shutil.copytree(JAVA_ROOT, tmp_path / "jars")
    listing = next((tmp_path / "jars").glob("conformance-*.jar"))
    make_jar(listing, "conformance.Main")
    coordinators = {"jvm": {**COORDINATORS["jvm"], "kwargs": {"jars_root": [str(tmp_path / "jars")]}}}
    done = polypod("validate", "-f", write(tmp_path, task_run("sucess", "jvm")),
                   "--routing", routing(tmp_path, coordinators=coordinators, queue_to_coordinator={"jvm": "jvm"}))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"runs {listing}; it lists no tasks, so taskId was not checked\n")


@pytest.mark.parametrize(
    ("template", "said", "needs_routing"),
    [
        (
            {"spec": {"containers": [{"name": "task", "env": {"A": "b"}}]}},
            "spec.containers[0].env is a mapping with 'A'; it must be a list of mappings",
            False,
        ),
        ({"spec": {"containers": [{"name": "task", "command": ["sh"]}]}}, "sets command, args or lifecycle", False),
        ({"kind": "Pod"}, "the pod template has kind", False),
        ({"spec": {"hostNetwork": True}}, "hostNetwork", True),
        ({"spec": {"nodeSelecter": {"a": "b"}}}, "nodeSelecter", True),
    ],
    ids=str,
)
def test_validate_says_what_the_operator_would_say_of_a_pod_template(
    tmp_path: Path, template: dict[str, Any], said: str, needs_routing: bool
) -> None:
    document = yaml.safe_load((SALES / "taskruns.yaml").read_text().split("---")[-1])
    document["spec"].pop("arguments", None)
    document["spec"].pop("dependsOn", None)
    document["spec"]["podTemplate"] = template
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    options: list[list[str | Path]] = [[], ["--routing", SALES / "routing.yaml"]]
    for given in options:
        done = polypod("validate", "-f", path, *given)
        if given or not needs_routing:
            assert done.returncode == 2, done.stdout
            assert said in done.stderr
            assert re.search(r"run\.yaml:\d+: ", done.stderr)
        else:
            # what a template may do is in the routing
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("language", ["golang", "jvm"])
def test_a_task_is_started_again_at_the_time_that_it_asks_for(tmp_path: Path, language: str) -> None:
    code, [item], _ = run_json(tmp_path, task_run("reschedule", language))
    assert (code, item["status"]["state"]) == (0, "success")
    states = [(attempt["number"], attempt["state"]) for attempt in item["status"]["attempts"]]
    assert states[0] == (1, "up_for_reschedule")
    assert states[-1] == (len(states), "success")


def test_bundles_of_every_kind_are_inspected_and_verified(tmp_path: Path) -> None:
    go = GO_ROOT / "conformance"
    shown = yaml.safe_load(polypod("bundle", "inspect", go).stdout)
    assert shown["kind"] == "executable bundle"
    assert "success" in shown["dags"]["conformance"]["tasks"]
    assert "package main" in polypod("bundle", "inspect", "--source", go).stdout
    sdk = next(JAVA_ROOT.glob("polypod-sdk-*.jar"))
    assert yaml.safe_load(polypod("bundle", "inspect", sdk).stdout)["supervisor_schema_version"] == "2026-10-30"
    script = ROOT / "sdks/conformance/typescript/dist/bundle.mjs"
    assert yaml.safe_load(polypod("bundle", "inspect", script).stdout)["sdk"]["language"] == "typescript"
    jar = next(JAVA_ROOT.glob("conformance-*.jar"))
    assert "success" in yaml.safe_load(polypod("bundle", "inspect", jar).stdout)["dags"]["conformance"]["tasks"]
    assert polypod("bundle", "verify", go, sdk, jar, script).returncode == 0
    broken = tmp_path / "broken"
    broken.write_bytes(go.read_bytes()[:-1])
    assert polypod("bundle", "verify", broken).returncode == 2


def test_artifacts_without_dag_ids_are_inspected_verified_and_packed(tmp_path: Path) -> None:
    forms = make_forms(tmp_path / "forms")
    bundle, script = forms / "go-unnamed/conformance", forms / "minified-unnamed/tasks.min.mjs"
    [jar] = (forms / "jars-digest").glob("conformance*.jar")
    assert polypod("bundle", "verify", bundle, script, jar).returncode == 0
    shown = yaml.safe_load(polypod("bundle", "inspect", bundle).stdout)
    assert (shown["dags"], shown["sdk"]["language"]) == ({}, "go")
    assert "source 'main.ts'" in yaml.safe_load(polypod("bundle", "inspect", script).stdout)["sha256"]
    assert polypod("bundle", "inspect", "--source", script).stdout == "// the source\n"
    assert yaml.safe_load(polypod("bundle", "inspect", jar).stdout)["cache_digest"] == "0123abcd"
    manifest = tmp_path / "airflow-metadata.yaml"
    manifest.write_text(yaml.safe_dump({key: shown[key] for key in ("airflow_bundle_metadata_version", "sdk")}))
    packed = tmp_path / "packed"
    assert polypod("bundle", "pack", manifest, "--manifest", manifest, "-o", packed).returncode == 0
    assert yaml.safe_load(polypod("bundle", "inspect", packed).stdout)["dags"] == {}


AIRFLOW_33: dict[str, dict[str, Any]] = {
    "java": {"classpath": JAVA_CLASSPATH, "kwargs": {"jars_root": ["/jars"], "jvm_args": ["-Xmx1g"]},
             "extra": {"pod_template_file": "/java.yaml"}},
    "python": {"classpath": "my.own.Coordinator"},
}  # fmt: skip
AIRFLOW_34 = {
    "go": {"classpath": EXECUTABLE_CLASSPATH, "kwargs": {"task_handler_bundle_name": "handlers", "new_keyword": 1}},
    "ts": {"classpath": NODE_CLASSPATH, "kwargs": {"task_handler_bundle_name": "stored"}},
}
LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
BUNDLES = [
    {"name": "handlers", "classpath": LOCAL, "kwargs": {"path": "/opt/handlers"}},
    {"name": "stored", "classpath": "airflow.providers.amazon.aws.bundles.s3.S3DagBundle", "kwargs": {}},
]


def test_a_routing_is_made_from_airflows_configuration(tmp_path: Path) -> None:
    config = tmp_path / "airflow.cfg"
    coordinators = json.dumps(AIRFLOW_33, indent=4).replace("\n", "\n    ")
    config.write_text(
        f"[sdk]\ncoordinators = {coordinators}\n"
        'queue_to_coordinator = {"jvm": "java", "py": "python"}\n[core]\nother = %(x)s\n'
    )
    older = polypod("routing", "from-airflow", config)
    assert older.returncode == 0, older.stderr
    assert yaml.safe_load(older.stdout) == {
        "coordinators": {"java": {key: AIRFLOW_33["java"][key] for key in ("classpath", "kwargs")}},
        "queue_to_coordinator": {"jvm": "java"},
    }
    parse_routing(yaml.safe_load(older.stdout), "older")
    for words in ("coordinators.java.extra.pod_template_file", "coordinators.python: classpath 'my.own.Coordinator'",
                  "queue_to_coordinator.py"):  # fmt: skip
        assert f"# - {words}" in older.stdout
    environ = {
        "AIRFLOW__SDK__COORDINATORS": json.dumps(AIRFLOW_34),
        "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": '{"golang": "go"}',
        "AIRFLOW__SDK__DAG_BUNDLE_TO_COORDINATOR": '{"handlers": "go"}',
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLES),
    }
    newer = polypod("routing", "from-airflow", config, env=environ)
    document = yaml.safe_load(newer.stdout)
    assert document["dag_bundles"] == {"handlers": {"path": "/opt/handlers"}}
    assert "# - coordinators.go.kwargs.new_keyword: Polypod has no such keyword" in newer.stdout
    assert "# - dag_bundles.stored: airflow.providers.amazon.aws.bundles.s3.S3DagBundle; add it" in newer.stdout
    document["dag_bundles"]["stored"] = {"image": "registry/handlers:1"}
    parsed = parse_routing(document, "newer")
    _, entry = parsed.for_queue("golang", "a task")
    assert (entry.artifacts, parsed.bundle_folders(entry)["handlers"]) == (None, "/opt/handlers")


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "no [sdk] coordinators found"),
        ({"AIRFLOW__SDK__COORDINATORS": "{"}, "AIRFLOW__SDK__COORDINATORS: it is not JSON"),
        ({"AIRFLOW__SDK__COORDINATORS": "[]"}, "AIRFLOW__SDK__COORDINATORS: it is list; Airflow takes dict there"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_explained(environ: dict[str, str], words: str) -> None:
    done = polypod("routing", "from-airflow", env=environ)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_a_program_of_any_language_can_be_packed(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    manifest = tmp_path / "airflow-metadata.yaml"
    manifest.write_text(
        'airflow_bundle_metadata_version: "1.0"\nsdk: {language: c, version: "1", supervisor_schema_version: "2026-10-30"}\n'
        "source: main.c\ndags: {d: {tasks: [t]}}\n"
    )
    source = tmp_path / "main.c"
    source.write_text("int main;")
    packed = tmp_path / "out" / "bundle"
    done = polypod("bundle", "pack", program, "--manifest", manifest, "--source", source, "-o", packed)
    assert done.returncode == 0, done.stderr
    assert polypod("bundle", "inspect", "--source", packed).stdout == "int main;"
    manifest.write_text("dags: {}")
    assert polypod("bundle", "pack", program, "--manifest", manifest, "-o", packed).returncode == 2


def test_help_is_worth_reading() -> None:
    text = polypod("--help").stdout
    assert "polypod run -f" in text
    assert "Exit codes" in text
    for command in ("run", "validate", "bundle"):
        assert "Usage" in polypod(command, "--help").stdout


def test_an_airflow_workload_runs_with_the_same_command(airflow: Any, tmp_path: Path) -> None:
    run_id = f"cli-{time.time_ns()}"
    workload = airflow.queue(run_id, "success", queue="golang")["success"]
    path = tmp_path / "workload.json"
    path.write_text(json.dumps(workload))
    log = tmp_path / "task.log"
    done = polypod(
        "run", "--workload", path, "--execution-api-url", airflow.url, "--routing", routing(tmp_path), "--log-file", log
    )
    assert done.returncode == 0, done.stderr
    assert airflow.state(run_id, "success")["state"] == "success"
    assert "an info line" in log.read_text()


def test_a_mistake_in_the_routing_leaves_no_airflow_task_running(airflow: Any, tmp_path: Path) -> None:
    run_id = f"cli-{time.time_ns()}"
    workload = airflow.queue(run_id, "success", queue="golang")["success"]
    path = tmp_path / "workload.json"
    path.write_text(json.dumps(workload))
    (tmp_path / "empty").mkdir()
    broken = routing(tmp_path, coordinators=coordinator("golang", executables_root=[str(tmp_path / "empty")]))
    done = polypod("run", "--workload", path, "--execution-api-url", airflow.url, "--routing", broken)
    assert done.returncode == 2
    assert "dag_id" in done.stderr
    assert airflow.state(run_id, "success")["state"] == "failed"


@pytest.mark.parametrize("locale", ["C", "POSIX", "", "en_US.ISO-8859-1"])
def test_jars_may_lie_in_a_folder_that_is_not_ascii(tmp_path: Path, locale: str) -> None:
    shutil.copytree(JAVA_ROOT, tmp_path / "größe")
    kwargs = {"jars_root": [str(tmp_path / "größe")], "task_startup_timeout": 60}
    where = routing(tmp_path, coordinators={"jvm": {"classpath": JAVA_CLASSPATH, "kwargs": kwargs}},
                    queue_to_coordinator={"jvm": "jvm"})  # fmt: skip
    env = {"LC_ALL": locale, "LC_CTYPE": "", "LANG": ""}
    done = polypod("run", "-f", write(tmp_path, task_run("success", "jvm")), "--routing", where, env=env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-", "| true", "2>&1 | true"])
def test_the_exit_code_is_about_the_tasks_whoever_listens(tmp_path: Path, closed: str) -> None:
    file, where = write(tmp_path, task_run("success")), routing(tmp_path)
    command = f"{POLYPOD} run -f {file} --routing {where} {closed}; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", command], check=False, capture_output=True, timeout=240).returncode == 0
    file = write(tmp_path, task_run("fail"))
    assert subprocess.run(["bash", "-c", command], check=False, capture_output=True, timeout=240).returncode == 1


def test_a_bundle_without_its_executable_bit_is_verified_with_a_warning(tmp_path: Path) -> None:
    [bundle] = [path for path in GO_ROOT.iterdir() if path.is_file()]
    copy = Path(shutil.copy(bundle, tmp_path / "copy"))
    copy.chmod(0o644)
    done = polypod("bundle", "verify", copy)
    assert (done.returncode, done.stdout) == (0, f"{copy}: ok, executable bundle\n")
    assert "not executable" in done.stderr
    assert polypod("bundle", "verify", bundle).stderr == ""


def test_logback_beside_the_sdk_does_not_take_the_logs_over(tmp_path: Path) -> None:
    # first on the class path, as SLF4J takes the first provider that it finds
    roots = [str(JAVA_ROOT.with_name("logback")), str(JAVA_ROOT)]
    kwargs = {"jars_root": roots, "task_startup_timeout": 60}
    where = routing(tmp_path, coordinators={"jvm": {"classpath": JAVA_CLASSPATH, "kwargs": kwargs}},
                    queue_to_coordinator={"jvm": "jvm"})  # fmt: skip
    manifest = write(tmp_path, task_run("success", "jvm"))
    done = polypod("run", "-f", manifest, "--routing", where, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    logged = {record["event"]: (record["logger"], record["level"]) for record in records}
    assert logged["an error line"] == ("task", "error")
    assert not any(record["logger"] == "task.stderr" and "SLF4J" in record["event"] for record in records)
