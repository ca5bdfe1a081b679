"""`polypod run` and `validate`: tasks in their order, at the same time where they may, and decided as on a cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import POLYPOD, polypod, routing, run_json, task_run, write
from support.paths import SALES
from support.waiting import Patience

pytestmark = pytest.mark.needs("conformance", "examples")


def after(*task_ids: str, when: str = "succeeded") -> dict[str, Any]:
    return {"dependsOn": [{"taskId": task_id, "when": when} for task_id in task_ids]}


def states(items: list[dict[str, Any]]) -> dict[str, tuple[str, str, str]]:
    return {
        item["metadata"]["name"]: (item["status"]["phase"], item["status"].get("state"), item["status"]["reason"])
        for item in items
    }


def test_the_sales_example_in_reverse_order(tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((SALES / "taskruns.yaml").read_text()))
    path = write(tmp_path, *documents[::-1])
    done = polypod("run", "-f", path, "--routing", SALES / "routing.yaml", "-o", "json")
    assert done.returncode == 0, done.stderr
    started = {item["metadata"]["name"]: item["status"]["startTime"] for item in json.loads(done.stdout)["items"]}
    assert sorted(started, key=started.__getitem__) == ["extract", "summarize", "report"]
    assert "best customer: Alan with 210.00" in done.stderr


def test_what_comes_after_a_failure_is_not_started_and_the_rest_goes_on(tmp_path: Path) -> None:
    code, items, stderr = run_json(
        tmp_path,
        task_run("run_context", **after("success", "fail", when="finished")),
        task_run("settings", **after("fail")),
        task_run("success"),
        task_run("fail", retries={"limit": 1, "delay": "100ms"}),
        task_run("skip"),
        task_run("variables", **after("skip")),
    )
    assert code == 1
    assert states(items) == {
        "run-context": ("Succeeded", "success", "TaskSucceeded"),
        "settings": ("Failed", "upstream_failed", "UpstreamFailed"),
        "success": ("Succeeded", "success", "TaskSucceeded"),
        "fail": ("Failed", "failed", "TaskFailed"),
        "skip": ("Succeeded", "skipped", "TaskSkipped"),
        "variables": ("Succeeded", "skipped", "UpstreamSkipped"),
    }, stderr
    # each line of the log says whose it is
    assert re.search(r"^success +\| ", stderr, re.MULTILINE)


def test_nothing_more_is_started_after_a_failure_if_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, task_run("fail"), task_run("success"))
    options = ("--routing", routing(tmp_path), "-o", "json", "--max-parallel", "1")
    items = json.loads(polypod("run", "-f", path, *options, "--fail-fast").stdout)["items"]
    assert [item["status"]["phase"] for item in items] == ["Failed", "Pending"]
    items = json.loads(polypod("run", "-f", path, *options).stdout)["items"]
    assert [item["status"]["phase"] for item in items] == ["Failed", "Succeeded"]


def overlap(items: list[dict[str, Any]]) -> int:
    times = [
        (datetime.fromisoformat(item["status"]["attempts"][0][key]), step)
        for item in items
        for key, step in (("startTime", 1), ("finishTime", -1))
    ]
    running = most = 0
    for _, step in sorted(times):
        running += step
        most = max(most, running)
    return most


def test_independent_tasks_run_at_the_same_time_within_the_limits(tmp_path: Path) -> None:
    runs = [task_run("slow", params={"seconds": 2}) for _ in range(3)]
    for index, run in enumerate(runs):
        run["metadata"]["name"] = f"slow-{index}"
        run["spec"]["mapIndex"] = index
    path = write(tmp_path, *runs)
    for arguments, limits, most in (("3", {}, 3), ("1", {}, 1), ("3", {"golang": 2}, 2)):
        file = routing(tmp_path, queue_limits=limits)
        env = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
        done = polypod("run", "-f", path, "--routing", file, "-o", "json", "--max-parallel", arguments, env=env)
        assert done.returncode == 0, done.stderr
        assert overlap(json.loads(done.stdout)["items"]) == most


MISTAKES: list[tuple[str, list[dict[str, Any]], str]] = [
    (
        "missing",
        [task_run("success", **after("sucess"))],
        r"taskruns.yaml:\d+: TaskRun 'success' waits for task 'sucess'",
    ),
    (
        "nearest",
        [task_run("success"), task_run("fail", arguments=[{"name": "a", "fromXCom": {"taskId": "succes"}}])],
        r"did you mean 'success'\?",
    ),
    ("itself", [task_run("success", **after("success"))], r"cannot wait for itself"),
    (
        "circle",
        [
            task_run("success", **after("fail")),
            task_run("fail", **after("settings")),
            task_run("settings", **after("success")),
        ],
        r"in a cycle: success → fail → settings → success",
    ),
    ("name", [task_run("success"), task_run("success")], r"TaskRun 'success' is defined twice"),
    (
        "task",
        [task_run("success"), {**task_run("success"), "metadata": {"name": "other"}}],
        r"task 'success' of run 'run-1' is defined twice, first in .*taskruns.yaml:1;",
    ),
    ("coordinator", [task_run("success", coordinator="nonexistent")], r"coordinator 'nonexistent' is not in coord"),
]


@pytest.mark.parametrize(("documents", "words"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_what_cannot_run_is_refused_before_anything_does(
    tmp_path: Path, documents: list[dict[str, Any]], words: str
) -> None:
    path = write(tmp_path, *documents)
    done = polypod("run", "-f", path, "--routing", routing(tmp_path))
    assert done.returncode == 2
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    checked = polypod("validate", "-f", path, "--routing", routing(tmp_path))
    if "which is not in these files" in done.stderr:
        # a cluster may have it
        assert (checked.returncode, "it must be on the cluster already" in checked.stderr) == (0, True)
    else:
        assert (checked.returncode, checked.stderr) == (2, done.stderr)


def test_a_taskrun_may_name_its_coordinator(tmp_path: Path) -> None:
    code, [item], stderr = run_json(tmp_path, task_run("success", "golang", coordinator="jvm"))
    assert (code, item["status"]["coordinator"]) == (0, "jvm"), stderr


def test_a_suspended_taskrun_does_not_keep_the_command_waiting(tmp_path: Path) -> None:
    code, items, _ = run_json(tmp_path, task_run("success", suspend=True), task_run("settings", **after("success")))
    assert code == 1
    assert [item["status"]["reason"] for item in items] == ["Suspended", "WaitingForUpstream"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_nothing_secret_is_left_when_the_terminal_closes(tmp_path: Path, number: signal.Signals) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "stringData": {"AIRFLOW_VAR_X": "hidden"},
    }
    wait = task_run("wait", variablesFrom=[{"secretRef": {"name": "s"}}])
    command = [POLYPOD, "run", "-f", str(write(tmp_path, secret, wait)), "--routing", str(routing(tmp_path))]
    folder = tmp_path / "tmp"
    folder.mkdir()
    env = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env)
    assert process.stderr is not None
    assert any("waiting" in line for line in process.stderr)
    assert list(folder.glob("polypod-run-*"))
    process.send_signal(number)
    process.communicate(timeout=60)
    if number == signal.SIGKILL:
        # nobody could clear up; the next run does
        patience = Patience(60)
        while list(folder.glob("polypod-run-*")):
            patience.check("that the next run clears up")
            checked = polypod("run", "-f", write(tmp_path, task_run("success")), "--routing", routing(tmp_path),
                              env={"TMPDIR": str(folder)})  # fmt: skip
            assert checked.returncode == 0, checked.stderr
    assert not list(folder.glob("polypod-run-*"))
