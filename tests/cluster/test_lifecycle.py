"""The chart on a cluster of its own: installed with its defaults, used, upgraded while tasks run, rolled back, removed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from support.sizes import SIZES

from cluster import polypod
from cluster.conftest import need_own_node
from cluster.lab import POLYPOD_NAMESPACE, Lab, Namespace, task_run

pytestmark = pytest.mark.needs("node")

OWNED = "-l=app.kubernetes.io/instance=polypod"
KINDS = "deployments,services,configmaps,serviceaccounts,roles,rolebindings,persistentvolumeclaims,networkpolicies,pods,jobs"


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A cluster with nothing on it; the images are those of the other."""
    need_own_node()
    made = Lab(tmp_path_factory.mktemp("fresh"))
    try:
        made.start()
        yield made
    finally:
        made.down()


def test_installed_used_upgraded_rolled_back_and_removed(fresh: Lab) -> None:
    values = polypod.image_values(fresh.images)
    values["hello"]["enabled"] = True
    fresh.kubectl("apply", "-f", "-", stdin=json.dumps(POLYPOD_NAMESPACE))
    # the chart asks for a volume, and nobody here makes them
    fresh.kubectl("apply", "-f", "-", stdin=json.dumps(fresh.disk("database")))
    fresh.helm.install(values)
    assert "Phase:          Succeeded" in fresh.helm("test", "polypod", "--timeout=240s")

    # three languages, by routing from the values
    routed: dict[str, Any] = {**values, "routing": fresh.make_routing()}
    fresh.helm.install(routed)
    namespace = Namespace(fresh)
    names = [namespace.run(queue, "success", queue) for queue in ("golang", "jvm", "typescript")]
    assert {status["state"] for status in namespace.finish_all(names).values()} == {"success"}

    # an upgrade that restarts both programs while tasks run
    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    variables = [{"configMapRef": {"name": "variables"}}]
    names = [f"run-{number:02d}" for number in range(SIZES.upgrade_tasks)]
    # longer than it takes to start these pods and to upgrade, also on a busy machine
    namespace.apply(*(task_run(name, "slow", params={"seconds": 120}, variablesFrom=variables) for name in names))

    def all_have_started() -> bool:
        phases = [str(raw.get("status", {}).get("phase")) for raw in namespace.taskruns().values()]
        assert phases.count("Succeeded") + phases.count("Failed") == 3, "the first ended before the last had started"
        return phases.count("Running") == len(names)

    namespace.wait(all_have_started)
    before = pods_of_ours(fresh)
    fresh.helm.install({**routed, "extraAnnotations": {"example.com/upgraded": "yes"}})
    assert not before & pods_of_ours(fresh), "nothing was restarted"
    running = [raw["status"]["phase"] for raw in namespace.taskruns().values()]
    assert "Running" in running, "the upgrade has outlived the tasks; nothing was shown"
    found = namespace.finish_all(names)
    ends = {name: (status["state"], status["tries"], len(status["attempts"])) for name, status in found.items()}
    assert {ends[name] for name in names} == {("success", 1, 1)}, [
        found[name] for name in names if ends[name][0] != "success"
    ]

    fresh.helm("rollback", "polypod", "--wait", "--timeout=240s")
    assert "Phase:          Succeeded" in fresh.helm("test", "polypod", "--timeout=240s")

    # its database was on the volume all the time
    assert "return_value" in xcoms(fresh, namespace)

    kept = secrets_of_ours(fresh)
    said = fresh.helm("uninstall", "polypod", "--wait")
    assert len(namespace.taskruns()) == 3 + len(names)
    # helm waits for Deployments, and not for their pods
    namespace.wait(lambda: not fresh.get("-n", polypod.NAMESPACE, "pods", OWNED)["items"])
    left = fresh.kubectl("get", KINDS, "--all-namespaces", OWNED, "-o", "name").stdout.split()
    left += fresh.kubectl("get", "clusterroles,clusterrolebindings", OWNED, "-o", "name").stdout.split()
    left += fresh.kubectl("-n", polypod.NAMESPACE, "get", "leases,secrets,configmaps", "-o", "name").stdout.split()
    state = ["persistentvolumeclaim/polypod-api", "secret/polypod-authority", "secret/polypod-tls"]
    assert sorted(left) == ["configmap/kube-root-ca.crt", *state]
    assert all(item.partition("/")[2] in said for item in state), said
    assert fresh.kubectl("get", "crd", "taskruns.polypod.dev", "-o", "name").stdout.strip()
    # another release is told how to see whose that is
    other = {**values, "crds": {"install": False}}
    said = fresh.helm("install", "other", str(polypod.CHART), "--dry-run=server", values=other)
    [command] = [line.strip() for line in said.splitlines() if "custom-columns" in line]
    shown = fresh.kubectl(*shlex.split(command)[1:]).stdout.split()
    for item in state:
        assert shown[shown.index(item.partition("/")[2]) + 1] == "polypod"
    # and the same release comes back to what is there
    fresh.helm.install(values)
    assert secrets_of_ours(fresh) == kept
    assert "return_value" in xcoms(fresh, namespace)
    assert "Phase:          Succeeded" in fresh.helm("test", "polypod", "--timeout=240s")


def xcoms(lab: Lab, namespace: Namespace) -> str:
    """Return what the Execution API lists of the run of the TaskRun `jvm`."""
    run = namespace.taskrun("jvm")["spec"]["runId"]
    return lab.kubectl("-n", polypod.NAMESPACE, "exec", "deployment/polypod-api", "--", "python3", "-m",
                       "polypod_execution_api.main", "xcoms", f"--namespace={namespace.name}", "--dag-id=conformance",
                       f"--run-id={run}").stdout  # fmt: skip


def secrets_of_ours(lab: Lab) -> dict[str, Any]:
    items = lab.get("-n", polypod.NAMESPACE, "secrets", OWNED)["items"]
    return {item["metadata"]["name"]: item["data"] for item in items}


def pods_of_ours(lab: Lab) -> set[str]:
    items = lab.get("-n", polypod.NAMESPACE, "pods", OWNED)["items"]
    return {item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]}
