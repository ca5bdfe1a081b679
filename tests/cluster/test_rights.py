"""What the chart lets our two programs do is what they do, by the API server's audit log: nothing missing or unused."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from cluster import polypod
from cluster.control_plane import Reached
from cluster.lab import Lab, Namespace, task_run
from cluster.node import Node

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

Right = tuple[str, str, str, str]
"""Who, the API group, the resource (with its subresource), the verb."""
ACCOUNT = f"system:serviceaccount:{polypod.NAMESPACE}:polypod-"
NEVER_CALLED = {
    # asked of the authorizer by an admission plugin (OwnerReferencesPermissionEnforcement) when a pod is made
    ("operator", "polypod.dev", "taskruns/finalizers", "update"),
    # asked of it when an apply (`patch`) makes what is not there
    ("operator", "", "secrets", "create"),
}


def granted(values: dict[str, Any]) -> set[Right]:
    """Return what the rendered roles grant, to whom."""
    helm = Path(sys.executable).with_name("helm")
    command = [str(helm), "template", "polypod", str(polypod.CHART), "--namespace", polypod.NAMESPACE, "-f", "-"]
    text = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=True).stdout
    found: set[Right] = set()
    for document in yaml.safe_load_all(text):
        if document and document["kind"] in ("Role", "ClusterRole") and not document["metadata"].get("annotations"):
            who = document["metadata"]["name"].removeprefix("polypod-").removesuffix("-own")
            if who.startswith("taskruns-"):
                # for people
                continue
            found |= {
                (who, group, resource, verb)
                for rule in document["rules"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


def used(node: Node) -> tuple[set[Right], list[dict[str, Any]]]:
    """Return what our programs have done, and what they were refused."""
    found: set[Right] = set()
    refused = []
    with open(node.api.audit_log, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            user = event["user"]["username"]
            if not user.startswith(ACCOUNT) or "resource" not in event.get("objectRef", {}):
                continue
            about = event["objectRef"]
            resource = "/".join(part for part in (about["resource"], about.get("subresource", "")) if part)
            who = user.removeprefix(ACCOUNT)
            found.add((who, about.get("apiGroup", ""), resource, event["verb"]))
            ended = about.get("namespace", "") in gone(event)
            if event["responseStatus"]["code"] == 403 and not ended:
                refused.append(event)
    return found, refused


def gone(event: dict[str, Any]) -> set[str]:
    """Return the namespace of a call that is refused because that is being deleted, which is no missing right."""
    message = event["responseStatus"].get("message", "")
    return {event["objectRef"].get("namespace", "")} if "being terminated" in message else set()


@pytest.fixture
def routing(lab: Lab) -> Iterator[None]:
    yield
    lab.put_routing(lab.routing)


def test_each_right_is_used_and_none_is_missing(lab: Lab, node: Node, namespace: Namespace, routing: None) -> None:
    # a start, an end, and what follows on it
    namespace.run("short", "success", ttlSecondsAfterFinished=1)
    namespace.wait(lambda: "short" not in namespace.taskruns())
    # a pod that does not start for a reason that only Events tell; then it is cancelled
    missing = [{"secretRef": {"name": "none"}}]
    namespace.run("stuck", "success", connectionsFrom=missing)
    namespace.until("stuck", reason="MountFailed")
    namespace.patch("stuck", cancel=True)
    assert namespace.finish("stuck")["reason"] == "Cancelled"
    # an attempt whose pod went while nobody looked
    namespace.run("lost", "wait")
    pod = namespace.running("lost")
    scale(lab, 0)
    namespace.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    scale(lab, 1)
    namespace.until("lost", reason="Running", phase="Running")
    namespace.patch("lost", cancel=True)
    # a routing that is not valid
    lab.put_routing({**lab.routing, "coordinators": "["})
    namespace.wait(lambda: lab.metrics().get("polypod_routing_valid") == 0)
    lab.put_routing(lab.routing)
    namespace.wait(lambda: lab.metrics().get("polypod_routing_valid") == 1)
    # the Lease is deleted
    lab.kubectl("-n", polypod.NAMESPACE, "delete", "lease", "polypod-operator")
    namespace.wait(lambda: ("operator", "coordination.k8s.io", "leases", "create") in used(node)[0])
    # a Secret with certificates is deleted
    lab.kubectl("-n", polypod.NAMESPACE, "delete", "secret", "polypod-tls")
    namespace.wait(lambda: ("operator", "", "secrets", "patch") in used(node)[0])
    # a status that somebody has changed meanwhile: until that has happened
    conflict = ("operator", "polypod.dev", "taskruns", "get")
    for _ in range(30):
        if conflict in used(node)[0]:
            break
        name = f"edited-{secrets.token_hex(3)}"
        namespace.apply(task_run(name, "success"))
        edit_until_it_ends(node, namespace, name)

    done, refused = used(node)
    assert refused == [], [(event["user"]["username"], event["requestURI"]) for event in refused]
    wanted = granted(lab.values) - NEVER_CALLED
    assert len(wanted) > 15
    assert wanted - done == set(), "these are granted and were not used"
    assert done - wanted == set(), "these were used by another role's leave"


def edit_until_it_ends(node: Node, namespace: Namespace, name: str) -> None:
    """Write to a TaskRun as fast as that goes: sooner or later the operator's write meets one of these."""
    reached = Reached.by(node.kubeconfig)
    pool = urllib3.PoolManager(ca_certs=reached.authority)
    url = f"{reached.server}/apis/polypod.dev/v1alpha1/namespaces/{namespace.name}/taskruns/{name}"
    headers = {"authorization": f"Bearer {reached.token}", "content-type": "application/merge-patch+json"}
    phase = ""
    while phase not in ("Succeeded", "Failed"):
        change = {"metadata": {"annotations": {"edited": secrets.token_hex(4)}}}
        answer = pool.request("PATCH", url, body=json.dumps(change), headers=headers)
        assert answer.status == 200, answer.data
        phase = answer.json().get("status", {}).get("phase", "")


def scale(lab: Lab, replicas: int) -> None:
    lab.kubectl("-n", polypod.NAMESPACE, "scale", "deployment/polypod-operator", f"--replicas={replicas}")
    if replicas:
        lab.kubectl("-n", polypod.NAMESPACE, "rollout", "status", "deployment/polypod-operator", "--timeout=120s")
    else:
        pods = ("pod", "-l", "app.kubernetes.io/name=polypod-operator")
        lab.kubectl("-n", polypod.NAMESPACE, "wait", *pods, "--for=delete", "--timeout=120s")
