"""What a pod template may not change: the bridge, and what makes the container `task` Polypod's own. Pure.

How a template could weaken the pod's security is another subject: `security.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polypod_coordinators.config import PodConfig

from polypod_operator import security
from polypod_operator.errors import PodError
from polypod_operator.objects import BRIDGE, TASK
from polypod_operator.reasons import Reason

_BRIDGE_FIELDS = frozenset({"name", "resources", "imagePullPolicy"})
_POD_FIELDS = frozenset({"metadata", "spec"})
_METADATA_FIELDS = frozenset({"labels", "annotations"})


def check_template(overlay: Mapping[str, Any]) -> None:
    """Refuse what a template cannot change: the bridge, and what makes the task's container ours.

    Raises:
        PodError: the message names the field.
    """
    for part in sorted(_POD_FIELDS & set(overlay)):
        if not isinstance(overlay[part], Mapping):
            seen = type(overlay[part]).__name__
            raise PodError(Reason.INVALID_POD_TEMPLATE, f"the pod template's {part} is {seen}, not a mapping")
    metadata = set(overlay.get("metadata", {})) - _METADATA_FIELDS
    unknown = sorted({*(set(overlay) - _POD_FIELDS), *(f"metadata.{name}" for name in metadata)})
    if unknown:
        raise PodError(
            Reason.INVALID_POD_TEMPLATE,
            f"the pod template has {', '.join(unknown)}; it may have metadata.labels, metadata.annotations and spec",
        )
    spec = overlay.get("spec", {})
    for kind in ("containers", "initContainers", "volumes"):
        items = spec.get(kind, [])
        if not isinstance(items, list) or not all(isinstance(item, Mapping) and item.get("name") for item in items):
            raise PodError(
                Reason.INVALID_POD_TEMPLATE, f"the pod template's spec.{kind} must be a list whose items have a name"
            )
    for item in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if item["name"] == BRIDGE and not set(item) <= _BRIDGE_FIELDS:
            changed = ", ".join(sorted(set(item) - _BRIDGE_FIELDS))
            raise PodError(
                Reason.FORBIDDEN_POD_TEMPLATE,
                f"the pod template changes {changed} of the bridge; only its resources and imagePullPolicy can be set",
            )
        if item["name"] == TASK and {"command", "args", "lifecycle"} & set(item):
            raise PodError(
                Reason.FORBIDDEN_POD_TEMPLATE,
                "the pod template sets command, args or lifecycle of container 'task', which runs Polypod's launcher; "
                "what is run comes from the artifact (see the coordinator's kwargs)",
            )
    for volume in spec.get("volumes") or ():
        if str(volume["name"]).startswith(security.RESERVED):
            raise PodError(
                Reason.FORBIDDEN_POD_TEMPLATE,
                f"the pod template has a volume {volume['name']!r}; names that begin with "
                f"{security.RESERVED!r} are Polypod's own",
            )


def check_whole(spec: Mapping[str, Any]) -> None:
    """Refuse a template that has taken away what the launcher needs.

    Raises:
        PodError: the message says what is missing.
    """
    task = container(spec, TASK)
    mounts = {mount.get("mountPath"): mount.get("name") for mount in task.get("volumeMounts") or ()}
    names = {item.get("name"): item.get("value") for item in task.get("env") or ()}
    if mounts.get("/polypod") != "polypod-run" or names.get("POLYPOD_SOCKET") != PodConfig().socket:
        raise PodError(
            Reason.FORBIDDEN_POD_TEMPLATE,
            "the pod template takes /polypod or POLYPOD_SOCKET away from container 'task'; the launcher needs both",
        )


def container(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the container of that name, which must be there."""
    found: dict[str, Any] = next(item for item in spec["containers"] if item["name"] == name)
    return found
