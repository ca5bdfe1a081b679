"""A pod can act only as its own TaskRun, and the task has no credentials within its reach."""

from __future__ import annotations

import json
from typing import Any

from cluster.lab import Lab, Namespace

PROBE = """
import json, sys, urllib.request, urllib.error
own, other, url = sys.argv[1:]
token = open("/var/run/polypod/token/token").read()
def ask(token, ti):
    request = urllib.request.Request(f"{url}task-instances/{ti}/heartbeat", method="PUT",
        data=json.dumps({"hostname": "x", "pid": 1}).encode(),
        headers={"authorization": "Bearer " + token, "content-type": "application/json",
                 "airflow-api-version": "2026-06-30"})
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
header, payload, signature = token.split(".")
forged = ".".join((header, payload, signature[:-8] + "AAAAAAAA"))
print(json.dumps({"own": ask(token, own), "other": ask(token, other), "forged": ask(forged, own), "none": ask("", own)}))
"""
URL = "http://polypod-api.polypod-system.svc.cluster.local:8080/execution/"


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


def _config(namespace: Namespace, pod: str) -> Any:
    raw = namespace.lab.get("-n", namespace.name, "pod", pod)
    [bridge] = raw["spec"]["initContainers"]
    [task] = raw["spec"]["containers"]
    mounted = {mount["name"] for mount in task["volumeMounts"]}
    # neither the cluster's token nor the Execution API's
    assert mounted == {"polypod-run", "tmp"}
    assert raw["spec"]["automountServiceAccountToken"] is False
    return json.loads(bridge["env"][0]["value"])
