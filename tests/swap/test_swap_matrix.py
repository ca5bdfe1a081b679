"""Real parts on both sides: our SDKs under upstream's supervisor, upstream's SDK and server under ours.

Every cell must show the same final state, XComs and log lines.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.airflow import Airflow
from support.api import Store
from support.bridge import COORDINATORS, Bridge, workload_config

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

VALUE = {
    "text": "grüße ✓",
    "integer": 2**53,
    "negative": -5,
    "float": 1.5,
    "flag": True,
    "none": None,
    "list": [1, "two", {"three": 3}],
}
LANGUAGES = ("golang", "jvm", "typescript")
_runs = itertools.count()

EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "success": ("success", {"return_value": VALUE}),
    "fail": ("failed", {}),
    "fail_for_good": ("failed", {}),
    "skip": ("skipped", {}),
    "crash": ("failed", {}),
    "not_in_the_bundle": ("removed", {}),
    "connection": (
        "success",
        {
            "return_value": {
                "type": "postgres", "host": "db.example", "port": 5432, "login": "user", "schema": "sales",
                "password_length": 11,
            }
        },
    ),
    "missing_connection": ("success", {"return_value": True}),
    "variables": ("success", {"return_value": ["a variable", "a variable!", True]}),
    "concurrent": ("success", {"return_value": [f"value {n}" for n in range(20)]}),
}  # fmt: skip
TYPESCRIPT = ("success", "fail", "crash", "not_in_the_bundle", "connection", "missing_connection", "concurrent")
"""The tasks that the official TypeScript SDK can be asked for."""
WITH_LINES = ("success", "connection")
"""The tasks that log, or print, something of their own in every language."""


def task_lines(log: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the lines that the task itself wrote, without what differs from run to run."""
    lines = []
    for record in log:
        if record["logger"] not in ("task", "task.stdout", "task.stderr", "noisy.part", "platform"):
            continue
        if "error_detail" in record or record["event"].startswith(("Process exited", "2026/")):
            continue
        if record["logger"] == "task" and record["event"] in ("the task failed",):
            continue
        extra = {k: v for k, v in record.items() if k not in ("timestamp", "level", "event", "logger", "ti_id")}
        lines.append((record["logger"], record["level"], record["event"], tuple(sorted(extra.items(), key=str))))
    return sorted(lines, key=str)


_on_our_api: dict[tuple[str, str], list[tuple[Any, ...]]] = {}


def run_against_our_api(store: Store, folder: Path, language: str, task: str) -> list[tuple[Any, ...]]:
    """Run a task against our own Execution API, once for both Airflows; check how it ended, and return its log lines."""
    if (language, task) in _on_our_api:
        return _on_our_api[language, task]
    state, xcoms = EXPECTED[task]
    ti_id = store.add(task, queue=language)
    result = Bridge(folder, store.config(ti_id, language, COORDINATORS), log_name="our-api.log").run()
    assert result.outcome["state"] == state, result.stderr + str(result.log[-5:])
    assert store.ti(ti_id).state == state
    assert store.xcoms(task) == xcoms
    assert result.returncode == (1 if state == "failed" else 0)
    lines = task_lines(result.log)
    # else the comparison would be of nothing with nothing
    assert lines or task not in WITH_LINES, result.log
    _on_our_api[language, task] = lines
    return lines


@pytest.mark.either
@pytest.mark.parametrize("task", EXPECTED)
@pytest.mark.parametrize("language", ["golang", "jvm"])
def test_same_outcome_under_upstream_and_under_ours(
    airflow: Airflow, filled: Store, tmp_path: Path, language: str, task: str
) -> None:
    state, xcoms = EXPECTED[task]
    theirs_run, ours_run = f"theirs-{next(_runs)}", f"ours-{next(_runs)}"
    theirs = airflow.queue(theirs_run, task, queue=language)[task]
    upstream = airflow.run_upstream(theirs)
    ours = airflow.queue(ours_run, task, queue=language)[task]
    result = Bridge(tmp_path, workload_config(ours, airflow.url)).run()

    seen_theirs, seen_ours = airflow.state(theirs_run, task), airflow.state(ours_run, task)
    assert seen_theirs["state"] == state, upstream.stdout[-3000:]
    assert seen_ours["state"] == state, result.stderr + str(result.log[-5:])
    assert seen_theirs["xcoms"] == xcoms
    assert seen_ours["xcoms"] == xcoms
    assert result.outcome["state"] == state
    assert result.outcome["reported"] is True
    assert task_lines(result.log) == task_lines(airflow.log_of(theirs))
    assert task_lines(result.log) == run_against_our_api(filled, tmp_path, language, task)


@pytest.mark.either
@pytest.mark.parametrize("task", TYPESCRIPT)
def test_the_official_typescript_sdk_runs_against_a_real_airflow_and_ours(
    airflow: Airflow, filled: Store, tmp_path: Path, task: str
) -> None:
    state, xcoms = EXPECTED[task]
    run_id = f"typescript-{next(_runs)}"
    workload = airflow.queue(run_id, task, queue="typescript")[task]
    result = Bridge(tmp_path, workload_config(workload, airflow.url)).run()
    seen = airflow.state(run_id, task)
    assert (seen["state"], seen["xcoms"]) == (state, xcoms), result.log[-5:]
    assert result.outcome["state"] == state
    assert task_lines(result.log) == run_against_our_api(filled, tmp_path, "typescript", task)


@pytest.mark.parametrize("language", LANGUAGES)
def test_xcoms_flow_between_the_languages(filled: Store, tmp_path: Path, language: str) -> None:
    for number, producer in enumerate(LANGUAGES):
        run_id = f"run-{number}"
        first = filled.add("success", run_id=run_id, queue=producer)
        assert Bridge(tmp_path, filled.config(first, producer, COORDINATORS)).run().outcome["state"] == "success"
        second = filled.add("xcom", run_id=run_id, queue=language)
        result = Bridge(tmp_path, filled.config(second, language, COORDINATORS)).run()
        assert result.outcome["state"] == "success", result.log
        assert filled.xcoms("xcom", run_id) == {
            "return_value": {"seen": VALUE, "none": True},
            "a/key with spaces": {"pushed": True},
        }


@pytest.mark.either
@pytest.mark.parametrize("language", ["golang", "jvm"])
def test_a_failure_with_retries_left_is_up_for_retry_everywhere(
    airflow: Airflow, tmp_path: Path, language: str
) -> None:
    theirs_run, ours_run = f"theirs-{next(_runs)}", f"ours-{next(_runs)}"
    for task in ("fail", "retry_after"):
        theirs = airflow.queue(theirs_run, task, queue=language, retries=2)[task]
        airflow.run_upstream(theirs)
        ours = airflow.queue(ours_run, task, queue=language, retries=2)[task]
        result = Bridge(tmp_path, workload_config(ours, airflow.url)).run()
        assert airflow.state(theirs_run, task)["state"] == "up_for_retry"
        assert airflow.state(ours_run, task)["state"] == "up_for_retry"
        assert result.outcome["state"] == "up_for_retry"


def test_secrets_are_masked_alike_on_every_stream(airflow: Airflow, tmp_path: Path) -> None:
    run_id = f"masks-{next(_runs)}"
    for language in ("golang", "jvm"):
        theirs = airflow.queue(f"{run_id}-{language}-theirs", "connection", queue=language)["connection"]
        airflow.run_upstream(theirs)
        ours = airflow.queue(f"{run_id}-{language}", "connection", queue=language)["connection"]
        bridge = Bridge(tmp_path, workload_config(ours, airflow.url), log_name=f"{language}.log")
        result = bridge.run()
        text = bridge.log_file.read_text()
        assert "s3cr3t-pa55" not in text
        assert "extra-t0ken" not in text
        assert "stdout leaks ***" in result.events("task.stdout")
        assert "stderr leaks ***" in result.events("task.stderr")
        assert "leaking ***" in result.events("task")
        assert task_lines(result.log) == task_lines(airflow.log_of(theirs))
