"""What a task's `executor_config` says about its pod. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

KEYS = ("pod_template", "pod_override")
"""`pod_template` is a TaskRun's `spec.podTemplate`; `pod_override` a V1Pod, as KubernetesExecutor takes it."""
_CHOICE = " or ".join(KEYS)
_BASE, _TASK = "base", "task"
"""How KubernetesExecutor and Polypod name the container that runs the task."""
_METADATA = ("labels", "annotations")
_DEEPEST = 64
"""Levels of a template: a pod has about ten, and a value that contains itself has no end."""
_PATH = 200
"""Characters of a path that a message shows."""
_INTEGER = 1 << 63


class TemplateProblem(Exception):
    """`executor_config` cannot be used; the message says what would be right."""


def pod_template(config: Any) -> dict[str, Any]:
    """Return the TaskRun's `spec.podTemplate`, empty if the task asks for nothing.

    Args:
        config: what the Dag has as `executor_config`. Airflow pickles it, so it may be anything.

    Raises:
        TemplateProblem: it is no mapping, has other keys than `KEYS`, both of them, or a value that is no JSON.
    """
    if config is not None and not isinstance(config, Mapping):
        raise TemplateProblem(f"executor_config is a {type(config).__name__}; it must be a mapping with {_CHOICE}")
    given = {key: value for key, value in (config or {}).items() if value is not None}
    unknown = sorted(str(key) for key in given if key not in KEYS)
    if unknown:
        raise TemplateProblem(f"executor_config has {', '.join(unknown)}; Polypod takes {_CHOICE}")
    if len(given) == len(KEYS):
        raise TemplateProblem(f"executor_config has {' and '.join(KEYS)}; give one of them")
    for key, value in given.items():
        return _of(key, value)
    return {}


def _of(key: str, value: Any) -> dict[str, Any]:
    model = hasattr(value, "openapi_types")
    if not model and not isinstance(value, Mapping):
        wanted = "a mapping such as {'spec': {…}}, or a kubernetes.client.V1Pod"
        raise TemplateProblem(f"executor_config: {key} is a {type(value).__name__}; it must be {wanted}")
    found: dict[str, Any] = _json(_serialized(key, value) if model else value, key)
    return _override(key, found) if model or key == "pod_override" else found


def _serialized(key: str, model: Any) -> Any:
    """Return a model of the `kubernetes` package as the API has it; who made one has the package."""
    from importlib import import_module

    try:
        return import_module("kubernetes.client").ApiClient().sanitize_for_serialization(model)
    except Exception as error:
        # one that another version of the package has pickled may lack anything
        why = f"{type(error).__name__}: {error}"
        raise TemplateProblem(
            f"executor_config: {key} is a {type(model).__name__} that cannot be read: {why}"
        ) from None


def _json(value: Any, path: str, depth: int = 0) -> Any:
    """Return a value with JSON's types only, so that no call to the API server fails because of it.

    What an encoder would change on the way (NaN, bytes, a number as a key) is refused as well.
    """
    if depth > _DEEPEST:
        raise TemplateProblem(f"executor_config: {_short(path)} is nested more than {_DEEPEST} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int) and -_INTEGER <= value < _INTEGER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [_json(item, f"{path}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, path): _json(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    number = f" ({value})" if isinstance(value, float) else ""
    seen = "an integer of more than 64 bits" if isinstance(value, int) else f"a {type(value).__name__}{number}"
    raise TemplateProblem(f"executor_config: {_short(path)} is {seen}; Kubernetes takes JSON: {_hint(value)}")


def _hint(value: Any) -> str:
    return "write it as a string" if hasattr(value, "isoformat") else "text, numbers, booleans, lists and mappings"


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise TemplateProblem(f"executor_config: {_short(path)} has the key {key!r}; a key must be a string")
    return _text(key, path)


def _text(value: str, path: str) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        # the path may contain it
        raise TemplateProblem(f"executor_config: {_short(path)!a} has text that is not valid Unicode") from None
    return text


def _short(path: str) -> str:
    return path if len(path) <= _PATH else f"{path[:_PATH]}…"


def _override(key: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that was meant for KubernetesExecutor as a template: its container `base` is our `task`."""
    found: dict[str, Any] = {}
    given = _mapping(pod, "metadata", key)
    metadata = {name: given[name] for name in _METADATA if given.get(name)}
    if metadata:
        found["metadata"] = metadata
    spec = _mapping(pod, "spec", key)
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


def _mapping(pod: dict[str, Any], name: str, key: str) -> dict[str, Any]:
    found = pod.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise TemplateProblem(f"executor_config: {key}.{name} is a {type(found).__name__}; it must be a mapping")
    return dict(found)
