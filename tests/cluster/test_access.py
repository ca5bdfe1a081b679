"""A pod can act only as its own TaskRun, and the task has no credentials within its reach."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api import SECRET, Store, make_store

from cluster.lab import Lab, Namespace
from cluster.node import ADDRESS, Node

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

PROBE = """
import json, os, ssl, sys, urllib.request, urllib.error
authority = json.loads(os.environ["POLYPOD_CONFIG"])["execution_api"]["authority"]
trusting = ssl.create_default_context(cadata=authority)
own, other, url = sys.argv[1:]
token = open("/var/run/polypod/token/token").read()
def ask(token, ti):
    request = urllib.request.Request(f"{url}task-instances/{ti}/heartbeat", method="PUT",
        data=json.dumps({"hostname": "x", "pid": 1}).encode(),
        headers={"authorization": "Bearer " + token, "content-type": "application/json",
                 "airflow-api-version": "2026-06-30"})
    try:
        return urllib.request.urlopen(request, timeout=20, context=trusting).status
    except urllib.error.HTTPError as error:
        return error.code
header, payload, signature = token.split(".")
forged = ".".join((header, payload, signature[:-8] + "AAAAAAAA"))
print(json.dumps({"own": ask(token, own), "other": ask(token, other), "forged": ask(forged, own), "none": ask("", own)}))
"""
URL = "https://polypod-api.polypod-system.svc.cluster.local:8080/execution/"


def test_a_pods_token_reaches_its_own_task_instance_only(lab: Lab, namespace: Namespace) -> None:
    for name in ("mine", "theirs"):
        namespace.run(name, "wait")
    pods = {name: namespace.running(name) for name in ("mine", "theirs")}
    ids = {name: _config(namespace, pod)["ti"]["id"] for name, pod in pods.items()}
    done = namespace.kubectl(
        "exec", "-i", pods["mine"], "-c", "bridge", "--", "python3", "-", ids["mine"], ids["theirs"], URL, stdin=PROBE
    )
    # 409: known, but that is not the process which runs it
    assert json.loads(done.stdout) == {"own": 409, "other": 403, "forged": 403, "none": 401}
    for name in ("mine", "theirs"):
        namespace.patch(name, cancel=True)
    namespace.finish_all(["mine", "theirs"])


def test_the_execution_api_tells_what_it_serves_and_what_each_namespace_keeps(lab: Lab, namespace: Namespace) -> None:
    namespace.finish(namespace.run("keeps", "success"))
    kept = f'polypod_execution_api_namespace_bytes{{namespace="{namespace.name}"}}'
    patched = 'polypod_execution_api_requests_total{code="200",method="PATCH"}'

    def replica_that_started_it() -> dict[str, float]:
        """Scrape one replica, whichever the Service picks; each counts its own requests."""
        found = lab.metrics("api")
        return found if found.get(kept, 0) > 200 and found.get(patched, 0) > 0 else {}

    found = namespace.wait(replica_that_started_it)
    assert found["polypod_execution_api_namespace_limit_bytes"] == 512 << 20
    assert found["polypod_execution_api_request_seconds_count"] > 0


ASK = """
import json, os, ssl, sys, urllib.request, urllib.error
authority = json.loads(os.environ["POLYPOD_CONFIG"])["execution_api"]["authority"]
trusting = ssl.create_default_context(cadata=authority)
token = open("/var/run/polypod/token/token").read()
found = {}
for path in sys.argv[2:]:
    request = urllib.request.Request(sys.argv[1] + path, headers={"authorization": "Bearer " + token})
    try:
        found[path] = urllib.request.urlopen(request, timeout=20, context=trusting).status
    except urllib.error.HTTPError as error:
        found[path] = error.code
print(json.dumps(found))
"""


def test_a_namespace_reaches_nothing_of_another(lab: Lab, namespace: Namespace) -> None:
    """The same Dag and run in two namespaces: real pods, real tokens."""
    other = Namespace(lab)
    try:
        namespace.run("success", "success", runId="nightly")
        assert namespace.finish("success")["state"] == "success"
        paths = ["xcoms/conformance/nightly/success/return_value", "dag-runs/conformance/nightly",
                 "task-instances/breadcrumbs?dag_id=conformance&run_id=nightly"]  # fmt: skip
        seen = {}
        for who in (namespace, other):
            who.run("asks", "wait", runId="nightly")
            pod = who.running("asks")
            done = who.kubectl("exec", "-i", pod, "-c", "bridge", "--", "python3", "-", URL, *paths, stdin=ASK)
            seen[who.name] = list(json.loads(done.stdout).values())
            # nor could it read the other's Secrets: it has no token for the cluster at all
            mounted = who.kubectl("exec", pod, "-c", "bridge", "--", "python3", "-c",
                                  "import os; print(os.path.exists('/var/run/secrets/kubernetes.io'))")  # fmt: skip
            assert mounted.stdout.strip() == "False"
            who.patch("asks", cancel=True)
            who.finish("asks")
        # its own run is there, with nothing in it
        assert seen == {namespace.name: [200, 200, 200], other.name: [404, 200, 200]}
    finally:
        other.delete()


def test_a_namespace_that_is_made_again_reads_nothing_of_its_predecessor(lab: Lab, namespace: Namespace) -> None:
    first = Namespace(lab)
    paths = ["xcoms/conformance/nightly/success/return_value", "dag-runs/conformance/nightly"]

    def asked(who: Namespace) -> list[int]:
        who.run("asks", "wait", runId="nightly")
        pod = who.running("asks")
        done = who.kubectl("exec", "-i", pod, "-c", "bridge", "--", "python3", "-", URL, *paths, stdin=ASK)
        who.patch("asks", cancel=True)
        who.finish("asks")
        return list(json.loads(done.stdout).values())

    for who in (first, namespace):
        who.run("success", "success", runId="nightly")
        assert who.finish("success")["state"] == "success"
    assert asked(first) == [200, 200]
    lab.kubectl("delete", "namespace", first.name, "--timeout=240s")
    second = Namespace(lab, first.name)
    try:
        # what waits for the task of the first is not told that it had succeeded
        second.run("waits", "never-run", runId="nightly", dependsOn=[{"taskId": "success"}])
        second.until("waits", reason="WaitingForUpstream")
        assert asked(second) == [404, 200]
        assert second.status("waits")["phase"] == "Pending"
    finally:
        second.delete()
    assert asked(namespace) == [200, 200], "another namespace has lost nothing"


def _config(namespace: Namespace, pod: str) -> Any:
    raw = namespace.lab.get("-n", namespace.name, "pod", pod)
    [bridge] = raw["spec"]["initContainers"]
    [task] = raw["spec"]["containers"]
    mounted = {mount["name"] for mount in task["volumeMounts"]}
    # neither the cluster's token nor the Execution API's
    assert mounted == {"polypod-run", "tmp"}
    assert raw["spec"]["automountServiceAccountToken"] is False
    return json.loads(bridge["env"][0]["value"])


@pytest.fixture
def own_api(node: Node, tmp_path: Path) -> Iterator[tuple[str, Store]]:
    """An Execution API other than the cluster's, on the node's address, which knows its own tokens only."""
    store = make_store(tmp_path)
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET)
    name = f"own-api-{tmp_path.name}"
    command = [sys.executable, "-m", "polypod_execution_api.main", "serve", f"--host={ADDRESS}", "--port=9090"]
    command += [f"--database-url=sqlite:///{tmp_path}/execution-api.db", f"--secret-file={secret}"]
    node.services.start(name, [*node.enter, *command])
    yield f"http://{ADDRESS}:9090/execution/", store
    node.services.stop(name)
    store.engine.dispose()


def test_a_token_or_a_workload_of_ones_own(lab: Lab, namespace: Namespace, own_api: tuple[str, Store]) -> None:
    """What an Airflow executor does: an API of one's own, and a Secret with the token or the whole workload."""
    url, store = own_api
    by_token, by_workload = store.add("skip", queue="golang"), store.add("fail", run_id="run-2", retries=1)
    ti = store.config(by_workload, "golang", {"golang": {}})["ti"]
    workload = {
        "token": store.signer.issue(by_workload),
        "ti": {**ti, "pool_slots": 1},
        "dag_rel_path": "dag.py",
        "bundle_info": {"name": "b", "version": None},
        "log_path": "x.log",
        "type": "ExecuteTask",
    }
    data: dict[str, str] = {
        "token": store.signer.issue(by_token),
        "workload.json": json.dumps(workload),
        "nothing": "x",
    }
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "airflow"}, "stringData": data})
    token = {"url": url, "tokenSecretRef": {"name": "airflow", "key": "token"}}
    namespace.run("by-token", "skip", executionApi=token)
    reference = {"name": "airflow", "key": "workload.json"}
    namespace.run("by-workload", "fail", executionApi={"url": url}, workloadSecretRef=reference)
    broken = {**reference, "key": "nothing"}
    namespace.run("broken", "fail", executionApi={"url": url}, workloadSecretRef=broken)
    found = namespace.finish_all(["by-token", "by-workload", "broken"])
    assert (found["by-token"]["state"], store.ti(by_token).state) == ("skipped", "skipped")
    # the next try is the scheduler's: this TaskRun is over, in the state that Airflow knows
    assert (found["by-workload"]["phase"], found["by-workload"]["state"]) == ("Failed", "up_for_retry")
    assert store.ti(by_workload).state == "up_for_retry"
    assert found["broken"]["reason"] == "InvalidConfig"
    assert "holds no ExecuteTask workload" in found["broken"]["message"]
    everything = namespace.kubectl("get", "taskruns,pods,events", "-o", "json").stdout
    for secret in (data["token"], str(workload["token"])):
        assert secret not in everything
