"""A real Airflow with PolypodExecutor beside LocalExecutor, on a real cluster: stubs run as TaskRuns."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import AIRFLOWS, ROOT, airflow_venv
from support.sizes import SIZES

from cluster.airflow_stack import Component, Stack
from cluster.conftest import need_own_node
from cluster.lab import Lab

pytestmark = [pytest.mark.shares("installed"), pytest.mark.needs("node", "postgresql", "airflow", "browser")]

PORTS = range(8796, 8798)
MAIN = ("success", "produce", "connection", "variables", "fail", "reschedule", "run_context")
CONNECTION = {
    "type": "postgres", "host": "db.example", "port": 5432, "login": "user", "schema": "sales", "password_length": 11,
}  # fmt: skip


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, entry points included, in a folder of its own."""
    folder = tmp_path_factory.mktemp("polypod-airflow")
    command = [ROOT / ".venv/bin/uv", "pip", "install", "--quiet", "--no-deps", "--python", airflow_venv(AIRFLOWS[0]) / "bin/python",
               "--target", folder, ROOT / "executor"]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True)
    return folder


@pytest.fixture(scope="module", params=AIRFLOWS)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lab: Lab, distribution: Path
) -> Iterator[Stack]:
    need_own_node()
    assert lab.node is not None
    made = Stack(lab, lab.node, request.param, tmp_path_factory.mktemp("stack"), distribution, PORTS)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def scheduler(stack: Stack) -> Component:
    return stack.scheduler()


def test_stubs_run_as_taskruns_and_python_where_it_ran_before(stack: Stack, scheduler: Component) -> None:
    stack.trigger("one", *MAIN)
    found = stack.ends("one")
    states = {name: (task["state"], task["try_number"]) for name, task in found.items()}
    assert states == {
        "choose": ("success", 1), "success": ("success", 1), "produce": ("success", 1), "connection": ("success", 1),
        "variables": ("success", 1), "fail": ("failed", 2), "reschedule": ("success", 1), "xcom": ("success", 1),
        **{f"run_context[{number}]": ("success", 1) for number in range(3)}, "after": ("success", 1),
    }  # fmt: skip
    assert found["success"]["executor"] == "polypod"
    assert found["choose"]["executor"] in (None, "LocalExecutor")
    # TypeScript reads what the JVM has left, and Python what Go has
    read = stack.xcom("one", "xcom")
    assert (read["seen"], read["none"]) == (stack.xcom("one", "success"), True)
    assert stack.xcom("one", "after") == {"produced": {"text": "grüße ✓"}}
    assert stack.xcom("one", "connection") == CONNECTION
    assert stack.xcom("one", "variables") == ["a variable", "a variable!", True]
    # a task that asked to be started again at a later time is the same try
    assert (stack.xcom("one", "reschedule"), len(stack.runs("reschedule", "one"))) == (1, 2)
    assert sorted(run["spec"]["mapIndex"] for run in stack.runs("run_context", "one")) == [0, 1, 2]
    for name in ("success", "produce", "xcom"):
        shown = stack.shown_log("one", name)
        assert shown.count("task finished") == 1, (name, shown)
    assert not any("hunter2" in event for event in stack.shown_log("one", "connection"))


def test_callbacks_of_a_failure_that_a_pod_reports_run_once_however_many_schedulers_there_are(
    stack: Stack, scheduler: Component
) -> None:
    second = stack.scheduler()
    alerts = stack.peer.home / "alerts"

    def lines() -> list[str]:
        found = alerts.read_text().splitlines() if alerts.exists() else []
        return [line for line in found if " alerts " in line]

    stack.trigger("alerts", "fail")
    found = stack.ends("alerts")
    assert (found["fail"]["state"], found["fail"]["try_number"]) == ("failed", 2)
    stack.wait(lambda: len(lines()) >= 2, "alerts", 120)
    second.kill()
    # another one lists the TaskRuns from the start
    third = stack.scheduler()
    time.sleep(20)
    third.kill()
    assert lines() == ["retry alerts fail 1", "failure alerts fail 2"]


@pytest.mark.either
def test_the_log_of_a_task_that_runs_is_shown_and_each_line_once(stack: Stack, scheduler: Component) -> None:
    stack.trigger("log", "numbers", count=1, seconds=30)
    stack.wait(lambda: "slow[0]" in stack.in_state("log", "running"), "log")
    stack.wait(lambda: "waiting" in stack.shown_log("log", "slow", map_index=0), "log")
    shown = stack.shown_log("log", "slow", map_index=0)
    assert stack.tasks("log")["slow[0]"]["state"] == "running", "it had ended before its log was read"
    assert shown.count("waiting") == 1, shown
    assert any(event.startswith("pod ") for event in shown), "it does not say where the log is from"
    # and so does the UI itself
    page = stack.page("/dags/conformance/runs/log/tasks/slow/mapped/0", stack.peer.home / "log.png")
    assert ">waiting" in page, page[-5000:]
    stack.ends("log")
    assert stack.shown_log("log", "slow", map_index=0).count("waiting") == 1


@pytest.mark.either
def test_what_waits_says_why_and_goes_when_airflow_does_not_want_it_any_more(
    stack: Stack, scheduler: Component
) -> None:
    runs = ("marked", "cleared", "left")
    for run_id in runs:
        stack.trigger(run_id, "wait")
    for run_id in runs:
        stack.wait(lambda run_id=run_id: stack.in_state(run_id, "queued") == ["wait"], run_id)
        stack.wait(lambda run_id=run_id: stack.peer.ask("audit", dag_id="conformance", run_id=run_id), run_id)
    [why] = stack.peer.ask("audit", dag_id="conformance", run_id="marked")
    assert (why["task_id"], why["extra"].split(":")[0]) == ("wait", "Unschedulable"), why

    [marked] = stack.runs("wait", "marked")
    status, answer = stack.rest("PATCH", "/dagRuns/marked/taskInstances/wait", {"new_state": "success"})
    assert status == 200, answer
    began = time.monotonic()
    stack.wait(lambda: stack.runs("wait", "marked") == [], "marked", 60)
    assert stack.tasks("marked")["wait"]["state"] == "success"

    [cleared] = stack.runs("wait", "cleared")
    status, answer = stack.rest("POST", "/clearTaskInstances", {
        "dry_run": False, "dag_run_id": "cleared", "task_ids": ["wait"], "only_failed": False, "reset_dag_runs": True,
    })  # fmt: skip
    assert status == 200, answer
    names = {marked["metadata"]["name"], cleared["metadata"]["name"]}
    stack.wait(
        lambda: [run for run in stack.runs("wait", "cleared") if run["metadata"]["name"] not in names], "cleared", 60
    )
    stack.wait(lambda: cleared["metadata"]["name"] not in stack.namespace.taskruns(), "cleared", 60)
    print(f"given up and queued again within {time.monotonic() - began:.1f} s")
    assert stack.rest("PATCH", "/dagRuns/cleared/taskInstances/wait", {"new_state": "failed"})[0] == 200
    stack.wait(lambda: stack.runs("wait", "cleared") == [], "cleared", 60)

    # the one that nobody touches ends with that reason, also in its log, although it never had a pod
    found = stack.ends("left")
    assert found["wait"]["state"] == "failed"
    assert any("Unschedulable" in event or "PendingTimeout" in event for event in stack.shown_log("left", "wait"))


@pytest.mark.either
def test_a_queue_that_leads_nowhere_fails_at_once_and_names_it(stack: Stack, scheduler: Component) -> None:
    stack.trigger("lost", "skip")
    found = stack.ends("lost")
    assert found["skip"]["state"] == "failed"
    stack.wait(lambda: any("queue 'unmapped'" in event for event in stack.shown_log("lost", "skip")), "lost", 60)


@pytest.mark.either
@pytest.mark.parametrize("how", ["cleared", "failed"])
def test_a_task_that_is_cleared_or_marked_while_it_runs_ends_at_once(
    stack: Stack, scheduler: Component, how: str
) -> None:
    run_id = f"running-{how}"
    stack.trigger(run_id, "numbers", count=2, seconds=120)
    stack.wait(lambda: {"slow[0]", "slow[1]"} <= set(stack.in_state(run_id, "running")), run_id)
    chosen, index = "slow[1]", 1
    before = [run for run in stack.runs("slow", run_id) if run["spec"]["mapIndex"] == index]
    if how == "cleared":
        ids = [["slow", index]]
        status, answer = stack.rest("POST", "/clearTaskInstances", {
            "dry_run": False, "dag_run_id": run_id, "task_ids": ids, "only_failed": False, "reset_dag_runs": True,
        })  # fmt: skip
    else:
        status, answer = stack.rest("PATCH", f"/dagRuns/{run_id}/taskInstances/slow/{index}", {"new_state": "failed"})
    assert status == 200, answer
    name = before[0]["metadata"]["name"]
    stack.wait(lambda: stack.namespace.status(name).get("reason") == "ServerTerminated", run_id, 60)
    if how == "cleared":
        stack.wait(
            lambda: len([r for r in stack.runs("slow", run_id) if r["spec"]["mapIndex"] == index]) == 2, run_id, 60
        )
    else:
        assert stack.tasks(run_id)[chosen]["state"] == "failed"
    # the whole run is given up: its pods go
    assert stack.rest("PATCH", f"/dagRuns/{run_id}", {"state": "failed"})[0] == 200
    stack.wait(lambda: not [run for run in stack.runs("slow", run_id) if run.get("status", {}).get("phase") not in
                            ("Succeeded", "Failed")], run_id, 120)  # fmt: skip


@pytest.mark.either
def test_tasks_run_on_while_schedulers_are_killed_and_stopped_and_airflows_api_restarts(
    stack: Stack, scheduler: Component
) -> None:
    second = stack.scheduler()
    # on a busy machine the first may end before the last has started
    stack.trigger("many", "numbers", count=SIZES.scheduler_tasks, seconds=120)

    def all_have_started() -> bool:
        started = stack.in_state("many", "running") + stack.in_state("many", "success")
        return sum(name.startswith("slow") for name in started) == SIZES.scheduler_tasks

    stack.wait(all_have_started, "many")
    assert stack.in_state("many", "running"), (
        "all ended before the last started: nothing runs while schedulers are killed"
    )
    scheduler.kill()
    stack.peer.stop_server()
    second.signal(signal.SIGSTOP)
    third = stack.scheduler()
    # longer than the threshold after which a scheduler counts as dead: the third takes over from both
    time.sleep(20)
    stack.peer.start_server()
    second.signal(signal.SIGCONT)
    found = stack.ends("many", 600)
    assert {(task["state"], task["try_number"]) for name, task in found.items() if name.startswith("slow")} == {
        ("success", 1)
    }
    runs = stack.runs("slow", "many")
    assert (len(runs), {len(run["status"]["attempts"]) for run in runs}) == (SIZES.scheduler_tasks, {1})
    second.kill()
    third.kill()


def test_the_commands_check_and_clean_up(stack: Stack) -> None:
    checked = stack.airflow("polypod", "check", "--queue", "golang")
    assert checked.returncode == 0, (checked.stdout, checked.stderr[-3000:])
    lines = [line for line in checked.stdout.splitlines() if line.startswith(("ok", "FAIL"))]
    reached = "ok   a pod of queue 'golang' reaches this Airflow's Execution API"
    assert any(line.startswith(reached) for line in lines), checked.stdout
    assert len(lines) > 10
    assert "Secrets deleted" in stack.airflow("polypod", "cleanup").stdout
    assert not [name for name in stack.namespace.taskruns() if "polypod-check" in name]
