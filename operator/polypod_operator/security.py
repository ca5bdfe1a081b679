"""The pod stays `restricted` (Pod Security Standards), and the bridge stays out of the task's reach.

What a template leaves open is filled with the safe value. What it weakens is refused, unless the routing allows it for
that coordinator by its name in `allow`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polypod_operator.merge import merge
from polypod_operator.objects import BRIDGE, COPY, TASK

USER = 65532
"""The user that both containers run as, unless the template names another."""

POD_CONTEXT = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_CONTEXT = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
RESERVED = "polypod-"
"""Volumes of that prefix are Polypod's own."""

OWN_MOUNTS: dict[str, frozenset[str] | None] = {
    TASK: frozenset({"polypod-run", "polypod-artifacts"}),
    COPY: frozenset({"polypod-run", "polypod-artifacts"}),
    BRIDGE: None,
}
"""Which of Polypod's own volumes a container may see; None: all. Any other container sees none."""

ALLOWANCES = (
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostPath",
    "hostPort",
    "privileged",
    "allowPrivilegeEscalation",
    "capabilities",
    "runAsRoot",
    "seccompProfile",
    "writableRootFilesystem",
    "serviceAccountName",
    "serviceAccountToken",
    "shareProcessNamespace",
    "procMount",
)
"""What `allow` of a coordinator may hold."""


def harden(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a pod's spec with the safe value wherever a template has set none."""
    hardened = dict(spec)
    hardened["securityContext"] = merge(POD_CONTEXT, spec.get("securityContext") or {})
    for kind in ("initContainers", "containers"):
        hardened[kind] = [
            {**item, "securityContext": merge(CONTAINER_CONTEXT, item.get("securityContext") or {})}
            for item in spec.get(kind, ())
        ]
    return hardened


def violations(spec: Mapping[str, Any], allow: list[str]) -> list[str]:
    """Return what a merged and hardened pod spec may not do, a line each; nothing if all is well."""
    return [
        f"{where} is {_shown(value)}, which needs {allowance!r} in the coordinator's allow"
        if allowance
        else f"{where}: {value}"
        for where, value, allowance in _weak(spec)
        if allowance not in allow
    ]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


_Finding = tuple[str, Any, str]
"""Where, what is there, and the name that allows it; no name: nothing does."""


def _weak(spec: Mapping[str, Any]) -> Iterator[_Finding]:
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(name):
            yield f"spec.{name}", True, name
    for name in ("serviceAccountName", "serviceAccount"):
        if spec.get(name) not in (None, "", "default"):
            yield f"spec.{name}", spec[name], "serviceAccountName"
    if spec.get("automountServiceAccountToken"):
        yield "spec.automountServiceAccountToken", True, "serviceAccountToken"
    if spec.get("restartPolicy") != "Never":
        yield "spec.restartPolicy", "it must stay Never: attempts are Polypod's, each in a pod of its own", ""
    if spec.get("ephemeralContainers"):
        yield "spec.ephemeralContainers", "they cannot be part of a new pod", ""
    yield from _weak_context("spec.securityContext", spec.get("securityContext") or {})
    yield from _weak_volumes(spec)
    for kind in ("initContainers", "containers"):
        for item in spec.get(kind, ()):
            yield from _weak_container(f"spec.{kind}[{item.get('name')}]", item)


def _weak_context(where: str, context: Mapping[str, Any]) -> Iterator[_Finding]:
    if context.get("runAsNonRoot") is False:
        yield f"{where}.runAsNonRoot", False, "runAsRoot"
    if context.get("runAsUser") == 0:
        yield f"{where}.runAsUser", 0, "runAsRoot"
    profile = context.get("seccompProfile")
    if profile is not None and profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{where}.seccompProfile.type", profile.get("type"), "seccompProfile"
    if context.get("procMount") not in (None, "Default"):
        yield f"{where}.procMount", context["procMount"], "procMount"
    if context.get("sysctls"):
        yield f"{where}.sysctls", "kernel parameters cannot be set from a pod template", ""


def _weak_volumes(spec: Mapping[str, Any]) -> Iterator[_Finding]:
    for volume in spec.get("volumes", ()):
        where = f"spec.volumes[{volume.get('name')}]"
        if "hostPath" in volume:
            yield f"{where}.hostPath", volume["hostPath"].get("path"), "hostPath"
        if str(volume.get("name")).startswith(RESERVED):
            continue
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in source:
                yield f"{where}.projected.serviceAccountToken", True, "serviceAccountToken"


def _weak_container(where: str, item: Mapping[str, Any]) -> Iterator[_Finding]:
    context = item.get("securityContext") or {}
    yield from _weak_context(f"{where}.securityContext", context)
    if context.get("privileged"):
        yield f"{where}.securityContext.privileged", True, "privileged"
    if context.get("allowPrivilegeEscalation"):
        yield f"{where}.securityContext.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"
    if context.get("readOnlyRootFilesystem") is False:
        yield f"{where}.securityContext.readOnlyRootFilesystem", False, "writableRootFilesystem"
    capabilities = context.get("capabilities") or {}
    if capabilities.get("add") or "ALL" not in (capabilities.get("drop") or ()):
        yield f"{where}.securityContext.capabilities", dict(capabilities), "capabilities"
    for port in item.get("ports", ()):
        if port.get("hostPort"):
            yield f"{where}.ports.hostPort", port["hostPort"], "hostPort"
    own = OWN_MOUNTS.get(str(item.get("name")), frozenset())
    for mount in item.get("volumeMounts", ()):
        name = str(mount.get("name"))
        if own is not None and name.startswith(RESERVED) and name not in own:
            yield f"{where}.volumeMounts", f"volume {name!r} is Polypod's own", ""
