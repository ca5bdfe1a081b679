"""The admission policy that ships as an example, on a real API server: what it lets through and what it does not."""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from polypod_crds import crd
from support.paths import ROOT

from cluster.api import Api
from cluster.lab import task_run

pytestmark = pytest.mark.needs("api-server")

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
BY_FIELD: dict[str, tuple[Any, Any] | None] = {
    "connectionsFrom[].secretRef.name": ("database", "task-database"),
    "variablesFrom[].secretRef.name": ("database", "task-v"),
    "workloadSecretRef.name": ("database", "task-w"),
    "executionApi.tokenSecretRef.name": ("database", "task-t"),
    "artifacts.image": ("elsewhere/x:1", "registry.example/x:1"),
    "artifacts.persistentVolumeClaim": ("theirs", "task-jars"),
    "podTemplate": ({"spec": {"serviceAccountName": "admin"}}, {"spec": {"serviceAccountName": "tasks"}}),
    # a key within a Secret that has been let through, or a ConfigMap of the same namespace
    "workloadSecretRef.key": None,
    "executionApi.tokenSecretRef.key": None,
    "variablesFrom[].configMapRef.name": None,
    # what the task is, and when it runs
    **dict.fromkeys(
        (
            "queue", "dagId", "taskId", "runId", "mapIndex", "arguments[].name", "arguments[].value",
            "arguments[].fromXCom.taskId", "dependsOn[].taskId", "dependsOn[].when", "params", "logicalDate",
            "dataInterval.start", "dataInterval.end", "priority", "retries.limit", "retries.delay", "retries.backoff",
            "retries.maxDelay", "timeouts.pending", "timeouts.startup", "timeouts.execution", "coordinator", "cancel",
            "suspend", "ttlSecondsAfterFinished", "artifacts.imagePullPolicy", "artifacts.path", "artifacts.mountPath",
            "executionApi.url",
        )
    ),
}  # fmt: skip
"""Each field of a TaskRun's spec: a value that the policy refuses and one that it allows; None if any value is good."""
NEEDED: dict[str, dict[str, Any]] = {
    "workloadSecretRef.name": {"workloadSecretRef": {"key": "k"}},
    "executionApi.tokenSecretRef.name": {"executionApi": {"url": "http://a/", "tokenSecretRef": {"key": "k"}}},
}
"""What else such a field needs beside it."""


def fields(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of a schema's values."""
    if "properties" in schema:
        for name, part in schema["properties"].items():
            yield from fields(part, f"{path}.{name}" if path else name)
    elif schema.get("type") == "array":
        yield from fields(schema["items"], f"{path}[]")
    else:
        yield path


def put(path: str, value: Any, into: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a document that has a value at a path."""
    document: dict[str, Any] = copy.deepcopy(into or {})
    name, _, rest = path.partition(".")
    listed = name.endswith("[]")
    inner = put(rest, value, document.get(name)) if rest else value
    document[name.removesuffix("[]")] = [inner] if listed else inner
    return document


def test_each_field_of_a_taskrun_has_a_rule_or_needs_none(api: Api, fenced: str) -> None:
    found = set(fields(crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]))
    assert found == BY_FIELD.keys(), "say for a new field whether the example policy has to fence it"
    for path, values in BY_FIELD.items():
        if values is None:
            continue
        refused, allowed = (put(path, value, NEEDED.get(path)) for value in values)
        done = attempt(api, fenced, refused)
        assert done.returncode != 0, f"{path} is not fenced"
        assert "polypod-taskruns" in done.stderr, done.stderr
        done = attempt(api, fenced, allowed)
        assert done.returncode == 0, done.stderr


NAMES = re.compile(r"(?i)image$|secret|\.reference$|\.claimName$|serviceAccount(Name)?$|^volumes\[\]\.[^.]+$")
NO_NAME = re.compile(
    r"\.(optional|defaultMode|key|path|mode|readOnly|apiGroup|kind)$"
    # of a volume that is refused whatever is in it, or an empty one
    r"|^volumes\[\]\.(name|emptyDir|configMap|downwardAPI)$|automountServiceAccountToken$"
)


def pod_fields(schemas: dict[str, Any], name: str, path: str = "", seen: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the path of each field of a pod's spec, as this API server's own schema has them."""
    if name in seen:
        return
    for field, part in schemas[name].get("properties", {}).items():
        here = f"{path}.{field}" if path else field
        while part.get("allOf"):
            part = {**part, **part["allOf"][0], "allOf": None}
        if part.get("type") == "array":
            here += "[]"
            part = part["items"]
            part = {**part, **part["allOf"][0]} if part.get("allOf") else part
        yield here
        if "$ref" in part:
            yield from pod_fields(schemas, part["$ref"].rpartition("/")[2], here, (*seen, name))


def test_each_field_of_a_pod_that_names_an_image_a_secret_or_a_volume_is_fenced(api: Api, fenced: str) -> None:
    schemas = json.loads(api.kubectl("get", "--raw", "/openapi/v3/api/v1").stdout)["components"]["schemas"]
    every = list(pod_fields(schemas, "io.k8s.api.core.v1.PodSpec"))
    naming = [path for path in every if NAMES.search(path) and not NO_NAME.search(path)]
    # a part of what is named is named by a leaf of it
    leaves = [path for path in naming if not any(other.startswith(f"{path}.") for other in naming)]
    assert len(leaves) > 40, leaves
    open_ = []
    for path in leaves:
        value: Any = ["database"] if path.endswith("[]") else "database"
        document = put(path.removesuffix("[]"), value)
        if attempt(api, fenced, None, **document).returncode == 0:
            open_.append(path)
    assert open_ == []


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"serviceAccountName": "admin"}, "serviceAccountName may be"),
    ({}, {"containers": [{"name": "task", "image": "elsewhere/x:1"}]}, "images come from registry.example/"),
    ({}, {"initContainers": [{"name": "i", "image": "elsewhere/x:1"}]}, "images come from registry.example/"),
    ({"connectionsFrom": [{"secretRef": {"name": "database"}}]}, {}, "begin with 'task-'"),
    ({}, {"volumes": [{"name": "v", "secret": {"secretName": "database"}}]}, "begin with 'task-'"),
    ({}, {"volumes": [{"name": "v", "projected": {"sources": []}}]}, "a volume may be"),
    ({}, {"volumes": [{"name": "v", "brandNew": {}}]}, "a volume may be"),
    ({}, {"containers": [{**TASK, "envFrom": [{"secretRef": {"name": "database"}}]}]}, "read into the environment"),
    (
        {},
        {"containers": [{**TASK, "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "d", "key": "k"}}}]}]},
        "read into the environment",
    ),
]
LET_THROUGH: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({}, {"serviceAccountName": "tasks", "containers": [TASK]}),
    ({}, {"containers": [{"name": "task", "env": [{"name": "A", "value": "b"}]}]}),
    ({}, {"containers": [{"name": "task", "envFrom": [{"configMapRef": {"name": "any"}}]}]}),
    ({"variablesFrom": [{"configMapRef": {"name": "any"}}, {"secretRef": {"name": "task-v"}}]}, {}),
    ({}, {"volumes": [{"name": "v", "secret": {"secretName": "task-x"}}, {"name": "w", "emptyDir": {}}]}),
    ({}, {"volumes": [{"name": "v", "image": {"reference": "registry.example/x:1"}}]}),
    ({}, {"imagePullSecrets": [{"name": "task-registry"}]}),
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
