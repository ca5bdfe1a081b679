"""What a task's `executor_config` says about its pod. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = ("pod_template", "pod_override")
"""`pod_template` is a TaskRun's `spec.podTemplate`; `pod_override` a V1Pod, as KubernetesExecutor takes it."""
_BASE, _TASK = "base", "task"
"""How KubernetesExecutor and Polypod name the container that runs the task."""
_METADATA = ("labels", "annotations")


class TemplateProblem(Exception):
    """`executor_config` cannot be used; the message says what would be right."""


def pod_template(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the TaskRun's `spec.podTemplate`, empty if the task asks for nothing.

    Raises:
        TemplateProblem: it has other keys than `KEYS`, both of them, or a value of another kind.
    """
    given = {key: value for key, value in (config or {}).items() if value is not None}
    unknown = sorted(str(key) for key in given if key not in KEYS)
    if unknown:
        raise TemplateProblem(f"executor_config has {', '.join(unknown)}; Polypod takes {' or '.join(KEYS)}")
    if len(given) == len(KEYS):
        raise TemplateProblem(f"executor_config has {' and '.join(KEYS)}; give one of them")
    for key, value in given.items():
        return _of(key, value)
    return {}


def _of(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value) if key == "pod_template" else _override(dict(value))
    if not hasattr(value, "openapi_types"):
        wanted = "a mapping such as {'spec': {…}}, or a kubernetes.client.V1Pod"
        raise TemplateProblem(f"executor_config: {key} is a {type(value).__name__}; it must be {wanted}")
    return _override(_serialized(value))


def _serialized(model: Any) -> dict[str, Any]:
    """Return a model of the `kubernetes` package as the API has it; who made one has the package."""
    from importlib import import_module

    found: dict[str, Any] = import_module("kubernetes.client").ApiClient().sanitize_for_serialization(model)
    return found


def _override(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that was meant for KubernetesExecutor as a template: its container `base` is our `task`."""
    found: dict[str, Any] = {}
    metadata = {name: pod["metadata"][name] for name in _METADATA if (pod.get("metadata") or {}).get(name)}
    if metadata:
        found["metadata"] = metadata
    spec = dict(pod.get("spec") or {})
    if isinstance(spec.get("containers"), list):
        spec["containers"] = [
            {**item, "name": _TASK} if isinstance(item, dict) and item.get("name") == _BASE else item
            for item in spec["containers"]
        ]
        if not spec["containers"]:
            del spec["containers"]
    if spec:
        found["spec"] = spec
    return found
