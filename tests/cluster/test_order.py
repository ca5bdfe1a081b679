"""The order of a run's tasks: the sales example in one `kubectl apply`, however its documents are ordered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cli import polypod as polypod_command
from support.cli import routing as local_routing
from support.cli import write

from cluster import polypod
from cluster.lab import Lab, Namespace, Raw, task_run

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql", "examples")]

TASKS = ["extract", "summarize", "report"]


@pytest.fixture(scope="module")
def sales(lab: Lab) -> Iterator[list[Raw]]:
    """The documents of the sales example; their queues lead to its images."""
    names = lab.push(polypod.sales_images())
    routing = yaml.safe_load((polypod.SALES / "cluster-routing.yaml").read_text())["data"]
    sales = {key: yaml.safe_load(value) for key, value in routing.items()}
    for entry in sales["coordinators"].values():
        image = entry["image"].partition(":")[0]
        entry["image"] = names[image]
    merged = {key: {**lab.routing.get(key, {}), **value} for key, value in sales.items()}
    merged["queue_to_coordinator"] = {
        **lab.routing["queue_to_coordinator"],
        **{f"sales-{queue}": name for queue, name in sales["queue_to_coordinator"].items()},
    }
    lab.put_routing(merged)
    documents = list(yaml.safe_load_all((polypod.SALES / "taskruns.yaml").read_text()))
    for document in documents:
        if document["kind"] == "TaskRun":
            document["spec"]["queue"] = f"sales-{document['spec']['queue']}"
            document["spec"].pop("retries", None)
    yield documents
    lab.put_routing(lab.routing)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}


def pick(documents: list[Raw], name: str) -> Raw:
    return next(item for item in documents if item["metadata"]["name"] == name)


def xcoms(lab: Lab, namespace: Namespace) -> dict[str, Any]:
    """Return what the tasks have left: their task ids, and the values."""
    said = lab.kubectl(
        "-n", polypod.NAMESPACE, "exec", "deployment/polypod-api", "--", "python3", "-m",
        "polypod_execution_api.main", "xcoms", f"--namespace={namespace.name}", "--dag-id=sales",
        "--run-id=manual-2026-11-21",
    ).stdout  # fmt: skip
    lines = (line.partition(" return_value: ") for line in said.splitlines())
    return {task: json.loads(value) for task, _, value in lines}


def test_three_languages_in_images_that_hold_nothing_else(lab: Lab, namespace: Namespace, sales: list[Raw]) -> None:
    """Applied in one go, as a user does it: XComs flow, the log is complete and masked."""
    namespace.apply(*sales)
    for status in namespace.finish_all(TASKS).values():
        assert (status["phase"], status["state"]) == ("Succeeded", "success"), namespace.describe()
        assert conditions(status) == {
            "Routed": ("True", "Routed"),
            "Started": ("True", "Running"),
            "Complete": ("True", "TaskSucceeded"),
            "Succeeded": ("True", "TaskSucceeded"),
        }
    [extract] = namespace.status("extract")["attempts"]
    assert extract["exitCode"] == 0
    assert extract["peakMemoryBytes"] > 10 << 20
    assert extract["cpuSeconds"] > 0
    assert (extract["nodeName"] != "", extract["coordinator"]) == (True, "jdk-17")
    pod = namespace.status("report")["attempts"][0]["podName"]
    events = [record["event"] for record in namespace.records(pod)]
    assert "best customer: Alan with 210.00" in events
    assert "best customer: Alan with 210.00" in namespace.logs(pod, "task")
    # what kubectl shows by default is the whole log
    assert "best customer" in namespace.kubectl("logs", pod).stdout
    assert "correct-horse" not in "".join(
        namespace.logs(item["metadata"]["name"], container)
        for item in namespace.pods()
        for container in ("bridge", "task")
    )
    for item in namespace.pods():
        assert "correct-horse" not in json.dumps(item)
        [task] = item["spec"]["containers"]
        assert task["command"] == ["/polypod/launcher"]


def test_documents_in_reverse_order_and_applied_again(lab: Lab, namespace: Namespace, sales: list[Raw]) -> None:
    # one by one, so that each waits for a task that is not there yet
    namespace.apply(pick(sales, "report"))
    waiting = namespace.until("report", reason="WaitingForUpstream")
    assert waiting["message"] == "waits for task 'summarize' of this run, for which there is no TaskRun yet"
    namespace.apply(pick(sales, "summarize"))
    namespace.until("report", message="waits for task 'summarize' to end")
    assert not namespace.pods()
    namespace.apply(*sales[::-1])
    found = namespace.finish_all(TASKS)
    assert {status["state"] for status in found.values()} == {"success"}
    left = xcoms(lab, namespace)
    assert left["summarize"], "summarize ran without its argument"
    # deleted and applied again: what it depends on has succeeded, whether its TaskRun is still there or not
    namespace.kubectl("delete", "taskrun", "summarize")
    namespace.apply(pick(sales, "summarize"))
    assert namespace.finish("summarize")["state"] == "success"
    namespace.kubectl("delete", "taskruns", "extract", "summarize")
    namespace.apply(pick(sales, "summarize"))
    assert namespace.finish("summarize")["state"] == "success"
    assert xcoms(lab, namespace) == left


def test_when_a_task_fails_those_after_it_do_not_start(namespace: Namespace, sales: list[Raw]) -> None:
    # without its Secret there is no connection
    documents = json.loads(json.dumps([item for item in sales if item["kind"] != "Secret"]))
    del pick(documents, "extract")["spec"]["connectionsFrom"]
    clean_up = json.loads(json.dumps(pick(documents, "extract")))
    clean_up["metadata"]["name"] = "clean-up"
    clean_up["spec"] |= {"taskId": "clean-up", "dependsOn": [{"taskId": "report", "when": "finished"}]}
    namespace.apply(*documents, clean_up)
    found = namespace.finish_all([*TASKS, "clean-up"])
    assert {name: (status["phase"], status["state"], status["reason"]) for name, status in found.items()} == {
        "extract": ("Failed", "failed", "TaskFailed"),
        "summarize": ("Failed", "upstream_failed", "UpstreamFailed"),
        "report": ("Failed", "upstream_failed", "UpstreamFailed"),
        # it was started, however the others have ended
        "clean-up": ("Failed", "removed", "TaskRemoved"),
    }
    assert found["clean-up"]["attempts"]
    assert found["summarize"]["message"] == "task 'extract' (TaskRun 'extract') ended in state failed"
    assert {pod["metadata"]["labels"]["polypod.dev/taskrun"] for pod in namespace.pods()} == {"extract", "clean-up"}


def test_a_circle_ends_and_says_where_it_goes(namespace: Namespace, sales: list[Raw]) -> None:
    circle = [json.loads(json.dumps(pick(sales, name))) for name in TASKS]
    circle[0]["spec"]["dependsOn"] = [{"taskId": "report"}]
    namespace.apply(*circle)
    found = namespace.finish_all(TASKS)
    assert {status["phase"] for status in found.values()} == {"Failed"}
    reasons = {status["reason"] for status in found.values()}
    assert "DependencyCycle" in reasons <= {"DependencyCycle", "UpstreamFailed"}
    [said, *_] = [status["message"] for status in found.values() if status["reason"] == "DependencyCycle"]
    assert "→ 'report'" in said or "→ report" in said
    refused = namespace.kubectl("apply", "-f", "-", stdin=json.dumps(itself(sales)), check=False)
    assert "a task cannot wait for itself" in refused.stderr


BOTH_WAYS: list[tuple[str, Raw]] = [
    ("success", {}),
    ("fail", {"retries": {"limit": 1, "delay": "1s"}}),
    ("fail_for_good", {"retries": {"limit": 3}}),
    ("retry_after", {"retries": {"limit": 1, "delay": "1s"}}),
    ("skip", {}),
    ("reschedule", {}),
    ("panic", {"retries": {"limit": 1, "delay": "1s"}}),
    ("wait", {"timeouts": {"execution": "2s"}}),
    ("settings", {"dependsOn": [{"taskId": "skip"}]}),
    ("variables", {"dependsOn": [{"taskId": "fail"}, {"taskId": "success"}]}),
    ("run_context", {"dependsOn": [{"taskId": "fail", "when": "finished"}]}),
]
OF_A_PLACE = {"podName", "podUid", "nodeName", "image", "peakMemoryBytes", "cpuSeconds", "xcoms", "lastTransitionTime"}


def normal(status: Any) -> Any:
    """Return a status without what differs from one run to the next: times and sizes become True."""
    if isinstance(status, list):
        return [normal(item) for item in status]
    if isinstance(status, dict):
        found = {key: normal(value) for key, value in status.items() if key not in OF_A_PLACE}
        found |= {key: True for key in found if key.endswith("Time")}
        if "conditions" in found:
            found["conditions"] = sorted(found["conditions"], key=lambda item: str(item["type"]))
        return found
    return status


def test_the_status_is_the_same_on_this_machine_and_on_a_cluster(namespace: Namespace, tmp_path: Path) -> None:
    """The same TaskRuns both ways, compared field by field."""
    documents = []
    for task_id, spec in BOTH_WAYS:
        document = task_run(task_id.replace("_", "-"), task_id, **spec)
        document["spec"]["runId"] = "both-ways"
        documents.append(document)
    namespace.apply(*documents)
    done = polypod_command("run", "-f", write(tmp_path, *documents), "--routing", local_routing(tmp_path), "-o", "json")
    local = {item["metadata"]["name"]: normal(item["status"]) for item in json.loads(done.stdout)["items"]}
    cluster = {name: normal(status) for name, status in namespace.finish_all(list(local)).items()}
    for side in (local, cluster):
        # a runtime that is ended may still say so, or be ended in the middle of that
        [attempt] = side["wait"]["attempts"]
        del attempt["exitCode"]
    for name, status in cluster.items():
        assert local[name] == status, name


def itself(sales: list[Raw]) -> Raw:
    made: Raw = json.loads(json.dumps(pick(sales, "summarize")))
    made["metadata"]["name"] = "itself"
    made["spec"]["arguments"][0]["fromXCom"]["taskId"] = "summarize"
    return made
