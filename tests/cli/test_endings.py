"""How a runtime ends: what a task has said counts, however it goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.bridge import COORDINATORS
from support.cli import polypod, routing, run_json, task_run, write
from support.halves import HALVES, make_halves

pytestmark = pytest.mark.needs("conformance")


def attempt(items: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = items[0]["status"]["attempts"]
    assert isinstance(found, dict)
    return found


def test_a_go_task_that_ends_its_goroutine_fails_and_says_why(tmp_path: Path) -> None:
    code, items, log = run_json(tmp_path, task_run("goexit"))
    assert (code, items[0]["status"]["state"]) == (1, "failed")
    assert "runtime.Goexit" in log


def test_calls_go_on_after_a_go_task_was_told_to_end(tmp_path: Path) -> None:
    env = {"AIRFLOW_VAR_CONFORMANCE_IN": "a variable"}
    code, items, log = run_json(tmp_path, task_run("finish_late", timeouts={"execution": "2s"}), env=env)
    assert (code, items[0]["status"]["state"], items[0]["status"]["xcoms"]) == (0, "success", ["return_value"]), log


def test_a_java_task_may_leave_the_common_pool_full(tmp_path: Path) -> None:
    code, items, log = run_json(tmp_path, task_run("busy_pool", "jvm"))
    assert (code, items[0]["status"]["state"], attempt(items)["exitCode"]) == (0, "success", 0), log


def test_shutdown_hooks_run_although_a_java_task_ignores_that_it_is_told_to_end(tmp_path: Path) -> None:
    code, items, log = run_json(tmp_path, task_run("stubborn", "jvm", timeouts={"execution": "3s"}))
    assert (code, items[0]["status"]["state"], items[0]["status"]["reason"]) == (1, "failed", "ExecutionTimeout"), log
    assert "interrupted, and going on" in log
    assert "the shutdown hook ran" in log
    assert attempt(items)["exitCode"] == 128 + 15, log


def test_half_a_character_in_a_java_log_line_costs_nothing_else(tmp_path: Path) -> None:
    code, _, log = run_json(tmp_path, task_run("half_characters", "jvm"))
    assert code == 0, log
    assert "malformed" not in log
    assert [("[error" in line) for line in log.splitlines() if "cut \ufffd" in line][:1] == [True], log
    assert "\ufffd\ufffd whole \U0001f600" in log
    assert "value\ufffd" in log
    # the trace is on lines of its own
    assert any(
        line.split("|")[-1].strip().startswith("at conformance.Main$HalfCharacters") for line in log.splitlines()
    )


@pytest.mark.parametrize(
    ("queue", "said"), [("golang", "this task fails"), ("jvm", "this task fails"), ("typescript", "this task fails")]
)
def test_a_task_that_failed_says_why_in_its_status(tmp_path: Path, queue: str, said: str) -> None:
    code, items, log = run_json(tmp_path, task_run("fail", queue))
    status = items[0]["status"]
    assert (code, status["reason"]) == (1, "TaskFailed"), log
    assert said in status["message"]
    assert status["message"] == attempt(items)["message"]
    assert "\n" not in status["message"]


@pytest.mark.parametrize("half", HALVES)
def test_half_a_jar_is_named_in_the_status(tmp_path: Path, half: str) -> None:
    _, _, reason, said = HALVES[half]
    make_halves(tmp_path / "halves")
    kwargs = {**COORDINATORS["jvm"]["kwargs"], "jars_root": str(tmp_path / "halves" / half)}
    coordinators = {"jvm": {**COORDINATORS["jvm"], "kwargs": kwargs}}
    path = routing(tmp_path, coordinators=coordinators, queue_to_coordinator={"jvm": "jvm"})
    done = polypod("run", "-f", write(tmp_path, task_run("success", "jvm")), "--routing", path, "-o", "json")
    if reason == "InvalidArtifact":
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        return
    status = json.loads(done.stdout)["items"][0]["status"]
    assert (status["state"], status["reason"]) == ("failed", reason), done.stderr
    assert said in status["message"]


@pytest.mark.parametrize(
    ("value", "said"),
    [("nan", "value: nan is not a number"), ("text", "a text is not valid UTF-8"), ("bytes", "JSON has no bytes")],
)
def test_the_status_says_what_a_typescript_task_is_not_told(tmp_path: Path, value: str, said: str) -> None:
    _, items, log = run_json(tmp_path, task_run("special", "typescript"), env={"AIRFLOW_VAR_SPECIAL": value})
    status = items[0]["status"]
    assert (status["state"], status["reason"]) == ("failed", "TaskFailed"), log
    assert "SetXCom failed: GENERIC_ERROR: SetXCom: " in status["message"]
    assert said in status["message"]
