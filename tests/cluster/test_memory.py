"""What is killed as its memory limit is reached is back afterwards, and nothing is lost: operator, API and bridge."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.lab import Lab, Namespace, Raw

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

HOG = """
import os, time
while True:
    ready, filled = os.pipe()
    if os.fork() == 0:
        block = b"x" * (16 << 20)
        os.write(filled, b"x")
        time.sleep(600)
    os.read(ready, 1)
"""
"""Fills what its container may have with processes of which each takes less than the server: the kernel ends that."""


def container(lab: Lab, namespace: str, pod: str, name: str) -> Raw:
    """Return the status of a container."""
    status = lab.get("-n", namespace, "pod", pod)["status"]
    every = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    found: Raw = next(item for item in every if item["name"] == name)
    return found


def run_slow(namespace: Namespace, name: str, seconds: int, **spec: Any) -> str:
    """Run a task that reads a variable, waits, and returns a value."""
    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    variables = [{"configMapRef": {"name": "variables"}}]
    return namespace.run(name, "slow", params={"seconds": seconds}, variablesFrom=variables, **spec)


def fill_memory(lab: Lab, namespace: str, pod: str, name: str) -> None:
    # it ends with its container
    lab.kubectl("-n", namespace, "exec", pod, "-c", name, "--", "python3", "-c", HOG, check=False)


def pod_of(lab: Lab, component: str) -> str:
    raw = lab.get("-n", "polypod-system", "pods", "-l", f"app.kubernetes.io/name=polypod-{component}")
    name: str = raw["items"][0]["metadata"]["name"]
    return name


def test_operator_and_api_are_killed_for_memory_and_nothing_is_lost(lab: Lab, namespace: Namespace) -> None:
    before = [run_slow(namespace, f"long-{number}", 40) for number in range(4)]
    namespace.wait(lambda: all(namespace.status(name).get("phase") == "Running" for name in before))
    during = []
    for component, name in (("operator", "operator"), ("api", "api")):
        pod = pod_of(lab, component)
        restarts = container(lab, "polypod-system", pod, name)["restartCount"]
        fill_memory(lab, "polypod-system", pod, name)
        during += [namespace.run(f"{component}-{number}", "success") for number in range(3)]

        def is_back(pod: str = pod, name: str = name, restarts: int = restarts) -> bool:
            found = container(lab, "polypod-system", pod, name)
            return found["restartCount"] > restarts and bool(found["ready"])

        namespace.wait(is_back)
        ended = container(lab, "polypod-system", pod, name)["lastState"]["terminated"]
        assert ended["reason"] == "OOMKilled", ended
    found = namespace.finish_all([*before, *during])
    assert {(status["state"], status["reason"], status["tries"]) for status in found.values()} == {
        ("success", "TaskSucceeded", 1)
    }
    for name in before:
        assert len(found[name]["attempts"]) == 1


def test_a_bridge_that_is_killed_for_memory_is_told_apart_and_the_task_is_tried_again(
    lab: Lab, namespace: Namespace
) -> None:
    run_slow(namespace, "run", 20, retries={"limit": 1, "delay": "1s"})
    first = namespace.running("run")
    fill_memory(lab, namespace.name, first, "bridge")
    status = namespace.finish("run")
    assert (status["state"], status["tries"]) == ("success", 2), status
    ended = status["attempts"][0]
    assert ended["reason"] == "OOMKilled", ended
    assert "the bridge reached its memory limit" in ended["message"]
