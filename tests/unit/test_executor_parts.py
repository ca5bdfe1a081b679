"""The executor's pure parts: what is asked of Kubernetes, what ends mean, which queues are mapped."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_airflow import routing, taskruns, template, verdicts
from polypod_airflow.execution_api import url_for_pods
from polypod_airflow.routing import RoutingProblem
from polypod_airflow.taskruns import Settings, Work
from polypod_airflow.verdicts import Event
from polypod_core.reasons import Reason
from polypod_crds.taskrun import TaskRun

SETTINGS = Settings("tasks", "airflow")


def work(number: int = 0, document: str = "{}", **more: Any) -> Work:
    fields = {"queue": "jvm", "dag_id": "dag", "task_id": "t", "run_id": "r", "map_index": -1, "priority": 1, **more}
    return Work(external_id=f"00000000-0000-0000-0000-{number:012}", document=document, **fields)


@given(
    priority=st.integers(), map_index=st.integers(-1, 10_000),
    run_id=st.sampled_from(["manual__2026-11-25T02:52:50+00:00", "scheduled__2026-11-25T00:00:00+00:00", "backfill"]),
)  # fmt: skip
def test_a_taskrun_is_one_that_the_crd_takes(priority: int, map_index: int, run_id: str) -> None:
    wanted = work(priority=priority, map_index=map_index, run_id=run_id, log_path=f"{run_id}/attempt=1.log")
    made = taskruns.task_run(wanted, "secret", SETTINGS)
    spec = TaskRun.model_validate(made).spec
    assert spec.workload_secret_ref is not None
    assert (spec.run_id, spec.map_index) == (run_id, map_index)
    read = msgspec.convert(made, verdicts.TaskRun)
    assert (read.log_path, read.spec.run_id) == (f"{run_id}/attempt=1.log", run_id)
    assert spec.priority == min(max(priority, -(1 << 31)), (1 << 31) - 1)


@pytest.mark.parametrize("path", ["/etc/cron.d/x", "../x", "dag_id=d/../../x", "..", "a/.."])
def test_no_annotation_leads_a_scheduler_out_of_its_folder_of_logs(path: str) -> None:
    made = taskruns.task_run(work(log_path=path), "secret", SETTINGS)
    assert msgspec.convert(made, verdicts.TaskRun).log_path == ""


@given(st.lists(st.integers(1, 400_000), max_size=40))
def test_every_workload_is_in_one_secret_that_fits(sizes: list[int]) -> None:
    works = [work(number, "x" * size) for number, size in enumerate(sizes)]
    found = list(taskruns.batches(works))
    assert [item for batch in found for item in batch] == works
    for batch in found:
        made = taskruns.secret(batch, SETTINGS)
        assert len(json.dumps(made)) < 1_048_576
        assert {name: base64.b64decode(text).decode() for name, text in made["data"].items()} == {
            item.name: item.document for item in batch
        }


def test_a_secret_of_the_same_workloads_has_the_same_name_and_no_workload_is_shown() -> None:
    works = [work(1, "a token"), work(2)]
    assert taskruns.secret(works, SETTINGS)["metadata"] == taskruns.secret(works, SETTINGS)["metadata"]
    assert "a token" not in repr(works)
    assert "a token" not in json.dumps(taskruns.task_run(works[0], "s", SETTINGS))


def seen(
    phase: str, state: str = "", reason: str = "", message: str = "", last: str = "", **attempt: Any
) -> verdicts.TaskRun:
    if last:
        attempt["reason"] = last
    status = {
        "phase": phase,
        "state": state,
        "reason": reason,
        "message": message,
        "attempts": [attempt] if attempt else [],
    }
    raw = {"metadata": {"name": "af-1", "uid": "u"}, "spec": {"queue": "q"}, "status": status}
    return msgspec.convert(raw, verdicts.TaskRun)


@pytest.mark.parametrize(
    ("run", "event"),
    [
        (seen("Pending"), None),
        (seen("Running", "running", reported=False), None),
        (seen("Succeeded", "success", "TaskSucceeded", reported=True), Event.NONE),
        (seen("Succeeded", "deferred", "Deferred", reported=True), Event.NONE),
        (seen("Failed", "failed", "TaskFailed", reported=True), Event.NONE),
        (seen("Failed", "up_for_retry", "RuntimeExited", reported=True), Event.NONE),
        (seen("Succeeded", "success", "TaskSucceeded"), Event.SUCCESS),
        (seen("Failed", "up_for_retry", "OOMKilled", "too much", reported=False), Event.FAILED),
        (seen("Failed", "failed", "ServerTerminated", reported=True), Event.NONE),
        (seen("Failed", "failed", "InvalidRouting", "queue 'x' is not mapped"), Event.FAILED),
    ],
)
def test_airflow_is_told_what_it_cannot_know(run: verdicts.TaskRun, event: Event | None) -> None:
    found = verdicts.verdict(run)
    assert (found.event if found is not None else None) == event
    if event is Event.FAILED:
        assert found is not None
        assert found.info.startswith(run.status.reason)


@pytest.mark.parametrize("state", ["failed", "up_for_retry"])
@pytest.mark.parametrize("kept", [None, {"url": "file:///logs/attempt=1.log"}])
@pytest.mark.parametrize(
    ("reason", "of_pod"),
    [("PodDeleted", True), ("Evicted", True), ("OOMKilled", True), ("PodLost", True), ("DeadlineExceeded", True),
     ("TaskFailed", False), ("Terminated", False), ("ServerTerminated", False)],
)  # fmt: skip
def test_why_a_pod_ended_is_in_the_audit_log_and_the_attempts_log_also_if_its_bridge_has_reported_the_end(
    reason: str, of_pod: bool, kept: Any, state: str
) -> None:
    found = verdicts.verdict(seen("Failed", state, reason, "why", last=reason, reported=True, log=kept))
    assert found is not None
    assert found.info == f"{reason}: why"
    assert found.event is not Event.FAILED, "the bridge has reported it"
    assert found.unaudited is of_pod
    if reason != "ServerTerminated":
        assert found.unlogged is (of_pod or kept is None)


def test_the_reasons_of_a_pod_are_reasons() -> None:
    assert set(verdicts._OF_THE_POD) <= {reason.value for reason in Reason}


def test_airflow_is_told_that_a_task_which_it_had_ended_is_over_and_waits_for_no_retry_delay() -> None:
    run = seen("Failed", "failed", "ServerTerminated")
    run.status.attempts = [verdicts.Attempt(reason="ServerTerminated", reported=True)]
    found = verdicts.verdict(run)
    assert found is not None
    assert found.event is Event.SUCCESS


@pytest.mark.parametrize(
    ("run", "failed"),
    [
        (seen("Failed", "failed", "TaskFailed", reported=True), True),
        (seen("Failed", "up_for_retry", "RetryRequested", reported=True), True),
        (seen("Failed", "failed", "OOMKilled", reported=False), False),
        (seen("Failed", "failed", "NodeLost"), False),
        (seen("Running", "failed", "TaskFailed", reported=True), False),
        (seen("Succeeded", "success", "TaskSucceeded", reported=True), False),
        (seen("Succeeded", "skipped", "TaskSkipped", reported=True), False),
        (seen("Succeeded", "deferred", "Deferred", reported=True), False),
        (seen("Failed", "removed", "TaskNotFound", reported=True), False),
        (seen("Failed", "failed", "ServerTerminated", last="ServerTerminated", reported=True), False),
        (seen("Failed", "failed", "WorkloadExpired", last="WorkloadExpired", reported=True), False),
    ],
)
def test_callbacks_are_requested_for_failures_only_that_the_scheduler_has_no_event_of(
    run: verdicts.TaskRun, failed: bool
) -> None:
    assert verdicts.reported_failure(run) is failed
    found = verdicts.verdict(run)
    assert not (failed and found is not None and found.event is not Event.NONE), (
        "the scheduler would request them as well"
    )


def test_only_what_somebody_has_to_solve_is_a_problem() -> None:
    assert (
        verdicts.problem(seen("Pending", reason="ImagePullFailed", message="no such image"))
        == "ImagePullFailed: no such image"
    )
    for run in (seen("Pending"), seen("Pending", reason="QueueLimit"), seen("Running", reason="Running")):
        assert verdicts.problem(run) == ""


def config_map(text: str) -> bytes:
    return json.dumps({"kind": "ConfigMap", "data": {"queue_to_coordinator": text}}).encode()


def test_queues_are_those_of_the_routing() -> None:
    assert routing.queues_of(config_map("{jvm: java, golang: native}"), "a/b") == {"jvm", "golang"}
    assert routing.queues_of(b'{"kind": "ConfigMap"}', "a/b") == frozenset()
    for text in ("[jvm]", "{", "jvm"):
        with pytest.raises(RoutingProblem, match="ConfigMap a/b, queue_to_coordinator"):
            routing.queues_of(config_map(text), "a/b")


def test_what_was_read_last_serves_while_it_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "queues.json"
    asked: list[str] = []

    def read(*queues: str) -> Any:
        def found() -> frozenset[str]:
            asked.append("")
            if not queues:
                raise RoutingProblem("no answer")
            return frozenset(queues)

        return found

    for _ in range(3):
        with pytest.raises(RoutingProblem, match="no answer"):
            routing.remembered(file, read(), -routing.FRESH)
    assert len(asked) == 1
    assert routing.remembered(file, read("a"), 1.0) == {"a"}
    assert routing.remembered(file, read("b"), 1.0 + routing.FRESH - 1) == {"a"}
    assert len(asked) == 2
    assert routing.remembered(file, read(), 1.0 + routing.FRESH) == {"a"}
    assert routing.remembered(file, read("b"), 1.0 + 2 * routing.FRESH) == {"b"}
    # a failure counts as asked, for the next process as well
    late = 1.0 + 4 * routing.FRESH
    assert routing.remembered(file, read(), late) == {"b"}
    before = len(asked)
    assert routing.remembered(file, read("c"), late + routing.FRESH - 1) == {"b"}
    assert len(asked) == before
    # a clock that was set back, and a file that is none
    assert routing.remembered(file, read("c"), 0.0) == {"c"}
    file.write_text("{")
    assert routing.remembered(file, read("d"), 0.0) == {"d"}


def test_of_a_workload_that_died_in_the_queue_nothing_is_told_as_airflow_queues_it_again() -> None:
    expired = seen("Failed", "failed", "WorkloadExpired", reported=False)
    expired.status.attempts = [verdicts.Attempt(reason="WorkloadExpired")]
    found = verdicts.verdict(expired)
    assert found is not None
    assert found.event is Event.NONE


@pytest.mark.parametrize(
    ("configured", "namespace", "expected"),
    [
        # a Service's name alone means one of Airflow's namespace; so the official chart names it
        (
            "http://airflow-api-server:8080/execution/",
            "airflow",
            "http://airflow-api-server.airflow.svc:8080/execution/",
        ),
        ("http://airflow-api-server/execution", "airflow", "http://airflow-api-server.airflow.svc/execution"),
        ("http://api.airflow:8080/execution/", "airflow", "http://api.airflow:8080/execution/"),
        ("https://airflow.example/two/execution/", "airflow", "https://airflow.example/two/execution/"),
        ("http://10.0.0.1:8080/execution/", "airflow", "http://10.0.0.1:8080/execution/"),
        ("http://[fd00::1]:8080/execution/", "airflow", "http://[fd00::1]:8080/execution/"),
        # outside a cluster there is no namespace to add
        ("http://host:8080/execution/", "", "http://host:8080/execution/"),
        # everybody may read a TaskRun
        ("http://user:hunter2@airflow.example:80/execution/", "airflow", "http://airflow.example:80/execution/"),
        # no pod can reach these
        ("http://localhost:8080/execution/", "airflow", ""),
        ("http://127.0.0.1:8080/execution/", "airflow", ""),
        ("http://[::1]:8080/execution/", "airflow", ""),
        ("http://0.0.0.0:8080/execution/", "airflow", ""),
        ("in-process://execution", "airflow", ""),
        ("http://[broken/execution/", "airflow", ""),
        ("http://host:many/execution/", "airflow", ""),
        ("", "airflow", ""),
    ],
)
def test_pods_call_the_execution_api_of_the_airflow_that_has_queued_them(
    configured: str, namespace: str, expected: str
) -> None:
    url = url_for_pods(configured, namespace)
    assert url == expected
    settings = Settings("tasks", "second", execution_api=url)
    spec = TaskRun.model_validate(taskruns.task_run(work(), "secret", settings)).spec
    assert (spec.execution_api.url if spec.execution_api is not None else "") == expected


CONTAINER = st.fixed_dictionaries({"name": st.sampled_from(["base", "task", "other"])}, optional={"image": st.text()})


@given(
    metadata=st.dictionaries(st.sampled_from(["name", "namespace", "labels", "annotations"]), st.just({"a": "b"})),
    spec=st.fixed_dictionaries(
        {}, optional={"containers": st.lists(CONTAINER), "nodeSelector": st.just({"disk": "ssd"})}
    ),
)
def test_a_pod_that_was_meant_for_kubernetesexecutor_is_a_template(metadata: Any, spec: Any) -> None:
    found = template.pod_template({"pod_override": {"metadata": metadata, "spec": spec}})
    # the pod's own name and namespace are Polypod's to give
    assert set(found.get("metadata", {})) == set(metadata) & {"labels", "annotations"}
    names = [item["name"] for item in found.get("spec", {}).get("containers", [])]
    assert names == [item["name"].replace("base", "task") for item in spec.get("containers", [])]
    assert found.get("spec", {}).get("nodeSelector") == spec.get("nodeSelector")
    TaskRun.model_validate(taskruns.task_run(work(pod_template=found), "secret", SETTINGS))


def test_a_v1pod_is_taken_as_the_api_has_it() -> None:
    from kubernetes import client

    resources = client.V1ResourceRequirements(limits={"memory": "1Gi"})
    container = client.V1Container(name="base", resources=resources, image_pull_policy="Always")
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(name="mine", labels={"team": "data"}),
        spec=client.V1PodSpec(containers=[container]),
    )
    expected = {
        "metadata": {"labels": {"team": "data"}},
        "spec": {
            "containers": [{"name": "task", "resources": {"limits": {"memory": "1Gi"}}, "imagePullPolicy": "Always"}]
        },
    }
    assert template.pod_template({"pod_override": pod}) == expected
    assert template.pod_template({"pod_template": pod}) == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"KubernetesExecutor": {}},
            "executor_config has KubernetesExecutor; Polypod takes pod_template or pod_override",
        ),
        (
            {"pod_template": {}, "pod_override": {}},
            "executor_config has pod_template and pod_override; give one of them",
        ),
        ({"pod_template": "spec"}, "executor_config: pod_template is a str; it must be a mapping"),
        ({"pod_override": [1]}, "executor_config: pod_override is a list; it must be a mapping"),
    ],
)
def test_an_executor_config_that_means_nothing_here_is_refused(config: Any, said: str) -> None:
    with pytest.raises(template.TemplateProblem) as raised:
        template.pod_template(config)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("config", [None, {}, {"pod_template": None}])
def test_no_executor_config_is_no_template(config: Any) -> None:
    assert template.pod_template(config) == {}
