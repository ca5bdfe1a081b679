"""What a pod template may not change: the bridge, and what makes the container `task` Polypod's own. Pure.

How a template could weaken the pod's security is another subject: `security.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polypod_bridge.config import PodConfig
from polypod_core.errors import UserError
from polypod_core.reasons import Reason

from polypod_operator.model.objects import BRIDGE, TASK
from polypod_operator.pods import security

_BRIDGE_FIELDS = frozenset({"name", "resources", "imagePullPolicy"})
_POD_FIELDS = frozenset({"metadata", "spec"})
_METADATA_FIELDS = frozenset({"labels", "annotations"})

# what the merge and the checks look into; the names mean the same wherever they appear in a pod
_LISTS_OF_MAPPINGS = frozenset(
    {"containers", "initContainers", "ephemeralContainers", "volumes", "env", "envFrom", "ports", "volumeMounts",
     "volumeDevices", "imagePullSecrets", "tolerations", "topologySpreadConstraints", "hostAliases", "resourceClaims",
     "schedulingGates", "readinessGates", "sources", "sysctls"}
)  # fmt: skip
_LISTS = frozenset({"add", "drop", "command", "args"})
_MAPPINGS = frozenset(
    {"metadata", "spec", "securityContext", "capabilities", "resources", "seccompProfile", "appArmorProfile",
     "seLinuxOptions", "projected", "affinity", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"}
)  # fmt: skip
_MAPPINGS_OF_STRINGS = frozenset({"labels", "annotations", "nodeSelector"})


def check_template(overlay: Mapping[str, Any]) -> None:
    """Refuse what a template cannot change: the bridge, and what makes the task's container ours.

    Raises:
        UserError: the message names the field.
    """
    check_shape(overlay)
    metadata = set(overlay.get("metadata") or {}) - _METADATA_FIELDS
    unknown = sorted({*(set(overlay) - _POD_FIELDS), *(f"metadata.{name}" for name in metadata)})
    if unknown:
        raise UserError(
            Reason.INVALID_POD_TEMPLATE,
            f"the pod template has {', '.join(unknown)}; it may have metadata.labels, metadata.annotations and spec",
        )
    spec = overlay.get("spec") or {}
    taken = [name for name in _POD_FIELDS if name in overlay and overlay[name] is None]
    taken += [f"spec.{kind}" for kind in ("containers", "initContainers", "volumes") if spec.get(kind, ()) is None]
    if taken:
        raise UserError(
            Reason.INVALID_POD_TEMPLATE,
            f"the pod template's {sorted(taken)[0]} is null; Polypod's own fields cannot be removed",
        )
    for kind in ("containers", "initContainers", "volumes"):
        for item in spec.get(kind) or ():
            if not isinstance(item.get("name"), str) or not item["name"]:
                raise UserError(
                    Reason.INVALID_POD_TEMPLATE,
                    f"the pod template's spec.{kind} has an item without a name; items are merged by name",
                )
    for item in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        if item["name"] == BRIDGE and not set(item) <= _BRIDGE_FIELDS:
            changed = ", ".join(sorted(set(item) - _BRIDGE_FIELDS))
            raise UserError(
                Reason.FORBIDDEN_POD_TEMPLATE,
                f"the pod template changes {changed} of the bridge; only its resources and imagePullPolicy can be set",
            )
        if item["name"] == TASK and {"command", "args", "lifecycle"} & set(item):
            raise UserError(
                Reason.FORBIDDEN_POD_TEMPLATE,
                "the pod template sets command, args or lifecycle of container 'task', which runs Polypod's launcher; "
                "the command comes from the artifact (see the coordinator's kwargs)",
            )
    for volume in spec.get("volumes") or ():
        if str(volume["name"]).startswith(security.RESERVED):
            raise UserError(
                Reason.FORBIDDEN_POD_TEMPLATE,
                f"the pod template has a volume {volume['name']!r}; names that start with "
                f"{security.RESERVED!r} are reserved",
            )


def check_shape(value: Any, where: str = "", name: str = "") -> None:
    """Refuse a template with a list where a mapping belongs, and the like; the API server looks at the rest.

    Raises:
        UserError: the message names the field, what is there and what belongs there.
    """
    if value is None:
        # takes a field away
        return
    if name in _LISTS or name in _LISTS_OF_MAPPINGS:
        inner = Mapping if name in _LISTS_OF_MAPPINGS else str
        word = "mappings" if inner is Mapping else "strings"
        if not isinstance(value, list) or not all(isinstance(item, inner) for item in value):
            raise _misshapen(where, value, f"a list of {word}")
    elif name in _MAPPINGS_OF_STRINGS:
        if not isinstance(value, Mapping) or not all(isinstance(item, str | None) for item in value.values()):
            raise _misshapen(where, value, "a mapping of strings (quote numbers and true or false)")
        return
    elif (name in _MAPPINGS or not where) and not isinstance(value, Mapping):
        raise _misshapen(where or "podTemplate", value, "a mapping")
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_shape(item, f"{where}.{key}" if where else str(key), str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_shape(item, f"{where}[{index}]")


def _misshapen(where: str, value: Any, wanted: str) -> UserError:
    seen = f"a mapping with {', '.join(map(repr, list(value)[:3]))}" if isinstance(value, Mapping) else repr(value)[:80]
    return UserError(Reason.INVALID_POD_TEMPLATE, f"the pod template's {where} is {seen}; it must be {wanted}")


def check_whole(spec: Mapping[str, Any]) -> None:
    """Refuse a template that has taken away what the launcher needs.

    Raises:
        UserError: the message says what is missing.
    """
    task = container(spec, TASK)
    mounts = {mount.get("mountPath"): mount.get("name") for mount in task.get("volumeMounts") or ()}
    names = {item.get("name"): item.get("value") for item in task.get("env") or ()}
    if mounts.get("/polypod") != "polypod-run" or names.get("POLYPOD_SOCKET") != PodConfig().socket:
        raise UserError(
            Reason.FORBIDDEN_POD_TEMPLATE,
            "the pod template removes /polypod or POLYPOD_SOCKET from container 'task'; the launcher needs both",
        )


def container(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the container of that name, which must be there."""
    found: dict[str, Any] = next(item for item in spec["containers"] if item["name"] == name)
    return found
