"""Laying one pod template over another: maps merge, lists of named things merge by name, other lists are replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "hostAliases": ("ip",),
}
"""Lists in which an element is known by some of its fields, as in Kubernetes' own strategic merge.

Of ports it is both, as in server-side apply: 53/TCP and 53/UDP are two."""
_DEFAULTS = {"protocol": "TCP"}

APPENDED = frozenset({"tolerations", "topologySpreadConstraints", "envFrom"})
"""Lists that grow."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid over it; null in `over` takes a field away. Neither is changed."""
    result = dict(base)
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(key, result.get(key), value)
    return result


def _merged(key: str, old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return merge(old, new)
    if isinstance(new, Mapping):
        return merge({}, new)
    if isinstance(old, list) and isinstance(new, list):
        if key in APPENDED:
            return old + [item for item in new if item not in old]
        if key in KEYS and all(isinstance(item, Mapping) and KEYS[key][0] in item for item in [*old, *new]):
            return _by_key(KEYS[key], old, new)
    return new


def _by_key(names: tuple[str, ...], old: list[Any], new: list[Any]) -> list[Any]:
    def identity(item: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(item.get(name) or _DEFAULTS.get(name) for name in names)

    changes = {identity(item): item for item in new}
    kept = [merge(item, changes.pop(identity(item))) if identity(item) in changes else item for item in old]
    return kept + [merge({}, item) for item in changes.values()]
