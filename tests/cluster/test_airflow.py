"""Airflow's tasks on a cluster, by the chart with `executionApi.mode: airflow`: a real Airflow queues them, hears of
their ends, and shows their logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.airflow import Airflow

from cluster.lab import Lab, Namespace, Raw, share_folder
from cluster.node import ADDRESS, Node

pytestmark = [pytest.mark.shares("installed"), pytest.mark.needs("node", "postgresql", "airflow")]

PORT = 8793
QUEUES = ("golang", "jvm", "typescript")


@pytest.fixture
def peer(tmp_path: Path, node: Node) -> Iterator[Airflow]:
    """An Airflow whose api-server listens inside the cluster's network."""
    made = Airflow(tmp_path / "airflow", version="3.4", port=PORT, host=ADDRESS, enter=node.enter)
    try:
        made.start()
        made.ask("secrets", connections={}, variables={"conformance_in": "a variable"})
        yield made
    finally:
        made.stop()


@pytest.fixture
def installed(lab: Lab, peer: Airflow) -> Iterator[None]:
    """Polypod with Airflow's Execution API, and with logs on a volume that Airflow has too; afterwards as it was."""
    values = {**lab.values, "logs": {"persistentVolumeClaim": "airflow-logs"}}
    lab.helm.install({**values, "executionApi": {"mode": "airflow", "airflow": {"url": peer.url}}})
    yield
    lab.helm.install(lab.values)


@pytest.fixture
def logs(lab: Lab, namespace: Namespace, peer: Airflow) -> Iterator[None]:
    name = share_folder(lab, namespace, peer.home / "logs")
    yield
    lab.kubectl("delete", "persistentvolume", name, "--wait=false")


def task_run(name: str, workload: Raw) -> list[Raw]:
    """Return what an executor makes of a workload."""
    ti = workload["ti"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-workload"},
              "stringData": {"workload.json": json.dumps(workload)}}  # fmt: skip
    spec = {"queue": ti["queue"], "dagId": ti["dag_id"], "taskId": ti["task_id"], "runId": ti["run_id"],
            "workloadSecretRef": {"name": f"{name}-workload", "key": "workload.json"}}  # fmt: skip
    return [secret, {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "metadata": {"name": name}, "spec": spec}]


def test_airflows_tasks_run_in_their_own_images_and_airflow_shows_their_logs(
    lab: Lab, namespace: Namespace, peer: Airflow, installed: None, logs: None
) -> None:
    assert lab.kubectl("-n", "polypod-system", "get", "deployment", "polypod-api", check=False).returncode != 0
    runs = {}
    for queue in QUEUES:
        runs[queue] = f"manual__2026-01-02T03:04:05+00:00-{queue}"
        workload = peer.queue(runs[queue], "success", queue=queue)["success"]
        namespace.apply(*task_run(queue, workload))
    failing = peer.queue("failing", "fail", queue="golang", retries=1)["fail"]
    namespace.apply(*task_run("failing", failing))
    # what cannot be routed fails in Airflow as well, and is not left queued there
    lost = peer.queue("lost", "success", queue="nowhere")["success"]
    namespace.apply(*task_run("lost", lost))
    found = namespace.finish_all([*QUEUES, "failing", "lost"])
    assert (found["lost"]["state"], found["lost"]["reason"]) == ("failed", "InvalidRouting")
    assert "queue 'nowhere' is not in queue_to_coordinator" in found["lost"]["message"]
    assert peer.state("lost", "success")["state"] == "failed"
    for queue, run in runs.items():
        assert found[queue]["state"] == "success"
        seen = peer.state(run, "success")
        assert (seen["state"], set(seen["xcoms"])) == ("success", {"return_value"})
        url = found[queue]["attempts"][0]["log"]["url"]
        assert url.endswith(f"/dag_id=conformance/run_id={run}/task_id=success/attempt=1.log")
    # the next try is Airflow's to make, with a workload of its own
    assert (found["failing"]["phase"], peer.state("failing", "fail")["state"]) == ("Failed", "up_for_retry")
    namespace.wait(lambda: all(item["status"]["phase"] in ("Succeeded", "Failed") for item in namespace.pods()))
    namespace.kubectl("delete", "pods", "--all", "--wait")
    for queue, run in runs.items():
        shown = [item["event"] for item in peer.shown_log(run, "success")]
        assert "task finished" in shown, (queue, shown)
        assert not [event for event in shown if event.startswith("{")], "a line was not understood"
    assert "the task failed" in [item["event"] for item in peer.shown_log("failing", "fail")]
