"""The admission policy that ships as an example, on a real API server: what it lets through and what it does not."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from support.paths import ROOT

from cluster.api import Api
from cluster.lab import task_run

POLICY = ROOT / "examples/policies/taskruns.yaml"


@pytest.fixture(scope="module")
def fenced(api: Api) -> str:
    """A namespace where the policy is in force."""
    name = f"fenced-{secrets.token_hex(3)}"
    metadata = {"name": name, "labels": {"polypod.dev/fenced": "true"}}
    assert api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).returncode == 0
    done = api.kubectl("apply", "-f", str(POLICY))
    assert done.returncode == 0, done.stderr
    # the API server takes it up in a moment
    api.wait(lambda: attempt(api, name, containers=[{"name": "task", "image": "elsewhere/x:1"}]).returncode != 0)
    return name


def attempt(api: Api, namespace: str, spec: dict[str, Any] | None = None, **pod: Any) -> Any:
    document = task_run(f"run-{secrets.token_hex(4)}", "t", **(spec or {}))
    if pod:
        document["spec"]["podTemplate"] = {"spec": pod}
    return api.create(document, namespace)


TASK = {"name": "task", "image": "registry.example/x:1"}
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"serviceAccountName": "admin"}, "serviceAccountName may be"),
    ({}, {"containers": [{"name": "task", "image": "elsewhere/x:1"}]}, "images come from registry.example/"),
    ({}, {"initContainers": [{"name": "i", "image": "elsewhere/x:1"}]}, "images come from registry.example/"),
    ({"connectionsFrom": [{"secretRef": {"name": "database"}}]}, {}, "begin with 'task-'"),
    ({"variablesFrom": [{"secretRef": {"name": "database"}}]}, {}, "begin with 'task-'"),
    ({}, {"volumes": [{"name": "v", "secret": {"secretName": "database"}}]}, "begin with 'task-'"),
    ({}, {"volumes": [{"name": "v", "projected": {"sources": []}}]}, "begin with 'task-'"),
    ({}, {"containers": [{**TASK, "envFrom": [{"secretRef": {"name": "database"}}]}]}, "begin with 'task-'"),
    (
        {},
        {"containers": [{**TASK, "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]}]},
        "begin with 'task-'",
    ),
]
LET_THROUGH: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({}, {"serviceAccountName": "tasks", "containers": [TASK]}),
    ({}, {"containers": [{"name": "task", "env": [{"name": "A", "value": "b"}]}]}),
    ({"connectionsFrom": [{"secretRef": {"name": "task-database"}}]}, {}),
    ({"variablesFrom": [{"configMapRef": {"name": "any"}}, {"secretRef": {"name": "task-v"}}]}, {}),
    ({}, {"volumes": [{"name": "v", "secret": {"secretName": "task-x"}}, {"name": "w", "emptyDir": {}}]}),
]


@pytest.mark.parametrize(("spec", "pod", "said"), REFUSED)
def test_what_is_fenced_off(api: Api, fenced: str, spec: dict[str, Any], pod: dict[str, Any], said: str) -> None:
    done = attempt(api, fenced, spec, **pod)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(("spec", "pod"), LET_THROUGH)
def test_what_is_let_through(api: Api, fenced: str, spec: dict[str, Any], pod: dict[str, Any]) -> None:
    done = attempt(api, fenced, spec, **pod)
    assert done.returncode == 0, done.stderr


def test_other_namespaces_are_not_fenced(api: Api, fenced: str) -> None:
    done = attempt(api, "default", None, serviceAccountName="admin")
    assert done.returncode == 0, done.stderr
