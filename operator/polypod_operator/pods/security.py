"""The pod stays `restricted` (Pod Security Standards), and the bridge stays out of the task's reach.

What a template leaves open is filled with the safe value. What is not known to be safe is refused, unless the routing
allows it for that coordinator by its name in `allow`: a field that the next Kubernetes adds is refused until somebody
has looked at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polypod_operator.model.objects import BRIDGE, COPY, TASK
from polypod_operator.pods.merge import merge

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
WRITTEN_BY_COPY = "polypod-artifacts"
"""The only volume of Polypod's that a container other than the bridge writes to: the copy, before the task starts."""

SAFE_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
"""The volume types of `restricted`."""
OTHER_VOLUMES = (
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
)

SAFE_POD = frozenset(
    {
        "activeDeadlineSeconds",
        "affinity",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostname",
        "hostUsers",
        "imagePullSecrets",
        "initContainers",
        "nodeName",
        "nodeSelector",
        "os",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "readinessGates",
        "resources",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "setHostnameAsFQDN",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
    }
)
"""Fields of a pod's spec that weaken nothing, whatever they hold."""
CHECKED_POD = frozenset({"automountServiceAccountToken", "restartPolicy", "securityContext", "volumes"})
"""Those whose content is looked at."""
SAFE_CONTAINER = frozenset(
    {
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "name",
        "resizePolicy",
        "resources",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeDevices",
        "workingDir",
    }
)
PROBES = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
CHECKED_CONTAINER = frozenset({"ports", "restartPolicy", "securityContext", "volumeMounts", *PROBES})
SAFE_CONTEXT = frozenset(
    {
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsGroup",
        "seLinuxChangePolicy",
        "supplementalGroups",
        "supplementalGroupsPolicy",
    }
)
CHECKED_CONTEXT = frozenset(
    {"allowPrivilegeEscalation", "appArmorProfile", "capabilities", "privileged", "procMount", "readOnlyRootFilesystem",
     "runAsNonRoot", "runAsUser", "seLinuxOptions", "seccompProfile", "sysctls"}
)  # fmt: skip
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
"""Pod Security Standards, baseline, §SELinux."""
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"

ALLOWANCES = (
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostPort",
    "privileged",
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "runAsRoot",
    "seccompProfile",
    "seLinuxOptions",
    "writableRootFilesystem",
    "serviceAccountName",
    "serviceAccountToken",
    "shareProcessNamespace",
    "procMount",
    "probeHost",
    "resourceClaims",
    "unknownFields",
    *OTHER_VOLUMES,
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


def violations(spec: Mapping[str, Any], allow: list[str], annotations: Mapping[str, str] | None = None) -> list[str]:
    """Return what a merged and hardened pod may not do, a line each; nothing if all is well.

    Args:
        annotations: the pod's.
    """
    return [
        f"{where} is {shown(value)}, which needs {allowance!r} in the coordinator's allow"
        if allowance
        else f"{where}: {value}"
        for where, value, allowance in findings(spec, annotations)
        if allowance not in allow
    ]


Finding = tuple[str, Any, str]
"""Where, what is there, and the name that allows it; no name: nothing does."""


def findings(spec: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> list[Finding]:
    """Return what is not known to be safe in a pod."""
    return [*_weak(spec), *_weak_annotations(annotations or {})]


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _unknown(where: str, given: Mapping[str, Any], known: frozenset[str]) -> Iterator[Finding]:
    for name, value in given.items():
        if name not in known and value not in (None, False, "", [], {}):
            yield f"{where}.{name}", value, "unknownFields"


def _weak(spec: Mapping[str, Any]) -> Iterator[Finding]:
    host = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
    accounts = ("serviceAccountName", "serviceAccount")
    refused = frozenset({*host, *accounts, "ephemeralContainers", "resourceClaims"})
    for name in host:
        if spec.get(name):
            yield f"spec.{name}", True, name
    for name in accounts:
        if spec.get(name) not in (None, "", "default"):
            yield f"spec.{name}", spec[name], "serviceAccountName"
    if spec.get("automountServiceAccountToken"):
        yield "spec.automountServiceAccountToken", True, "serviceAccountToken"
    if spec.get("resourceClaims"):
        yield "spec.resourceClaims", spec["resourceClaims"], "resourceClaims"
    if spec.get("restartPolicy") != "Never":
        yield "spec.restartPolicy", "must be Never: Polypod creates a new pod for each attempt", ""
    if spec.get("ephemeralContainers"):
        yield "spec.ephemeralContainers", "not allowed in a new pod", ""
    yield from _unknown("spec", spec, SAFE_POD | CHECKED_POD | refused)
    yield from _weak_context("spec.securityContext", spec.get("securityContext") or {})
    yield from _weak_volumes(spec)
    for kind in ("initContainers", "containers"):
        for item in spec.get(kind, ()):
            yield from _weak_container(f"spec.{kind}[{item.get('name')}]", item, init=kind == "initContainers")


def _weak_annotations(annotations: Mapping[str, str]) -> Iterator[Finding]:
    for name, value in annotations.items():
        safe = value in ("", "runtime/default") or str(value).startswith("localhost/")
        if name.startswith(APPARMOR_ANNOTATION) and not safe:
            yield f"metadata.annotations[{name}]", value, "appArmorProfile"


def _weak_context(where: str, context: Mapping[str, Any]) -> Iterator[Finding]:
    if context.get("runAsNonRoot") is False:
        yield f"{where}.runAsNonRoot", False, "runAsRoot"
    if context.get("runAsUser") == 0:
        yield f"{where}.runAsUser", 0, "runAsRoot"
    for name in ("seccompProfile", "appArmorProfile"):
        profile = context.get(name)
        if profile is not None and profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{where}.{name}.type", profile.get("type"), name
    options = context.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield f"{where}.seLinuxOptions", dict(options), "seLinuxOptions"
    if context.get("procMount") not in (None, "", "Default"):
        yield f"{where}.procMount", context["procMount"], "procMount"
    if context.get("sysctls"):
        yield f"{where}.sysctls", "kernel parameters cannot be set from a pod template", ""
    yield from _unknown(where, context, SAFE_CONTEXT | CHECKED_CONTEXT)


def _weak_volumes(spec: Mapping[str, Any]) -> Iterator[Finding]:
    for volume in spec.get("volumes", ()):
        where = f"spec.volumes[{volume.get('name')}]"
        for kind in OTHER_VOLUMES:
            if kind in volume:
                yield f"{where}.{kind}", volume[kind], kind
        yield from _unknown(where, volume, SAFE_VOLUMES | {"name", *OTHER_VOLUMES})
        if str(volume.get("name")).startswith(RESERVED):
            continue
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in source:
                yield f"{where}.projected.serviceAccountToken", True, "serviceAccountToken"


def _weak_container(where: str, item: Mapping[str, Any], *, init: bool) -> Iterator[Finding]:
    context = item.get("securityContext") or {}
    yield from _weak_context(f"{where}.securityContext", context)
    if context.get("privileged"):
        yield f"{where}.securityContext.privileged", True, "privileged"
    if context.get("allowPrivilegeEscalation"):
        yield f"{where}.securityContext.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"
    if context.get("readOnlyRootFilesystem") is False:
        yield f"{where}.securityContext.readOnlyRootFilesystem", False, "writableRootFilesystem"
    capabilities = context.get("capabilities") or {}
    added = set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}
    if added or "ALL" not in (capabilities.get("drop") or ()):
        yield f"{where}.securityContext.capabilities", dict(capabilities), "capabilities"
    for port in item.get("ports") or ():
        if port.get("hostPort"):
            yield f"{where}.ports.hostPort", port["hostPort"], "hostPort"
    for kind in PROBES:
        for host in _hosts(item.get(kind) or {}):
            yield f"{where}.{kind}", f"host {host}", "probeHost"
    # a sidecar is an init container that is started again; everything else runs once
    if item.get("restartPolicy") not in (None, "", "Always" if init and item.get("name") != COPY else ""):
        yield f"{where}.restartPolicy", "containers are not restarted: Polypod creates a new pod for each attempt", ""
    yield from _unknown(where, item, SAFE_CONTAINER | CHECKED_CONTAINER)
    yield from mounts(where, item)


def _hosts(handler: Mapping[str, Any]) -> Iterator[str]:
    """Yield the hosts that a probe or lifecycle handler connects to, other than the pod itself."""
    for kind, value in handler.items():
        if kind in ("httpGet", "tcpSocket") and isinstance(value, Mapping) and value.get("host"):
            yield str(value["host"])
        elif kind in ("postStart", "preStop") and isinstance(value, Mapping):
            yield from _hosts(value)


def mounts(where: str, item: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the mounts of a container that it may not have."""
    own = OWN_MOUNTS.get(str(item.get("name")), frozenset())
    for mount in item.get("volumeMounts") or ():
        name = str(mount.get("name"))
        if mount.get("mountPropagation") not in (None, "", "None", "HostToContainer"):
            yield f"{where}.volumeMounts[{name}].mountPropagation", mount["mountPropagation"], "privileged"
        if own is None or not name.startswith(RESERVED):
            continue
        if name not in own:
            yield f"{where}.volumeMounts", f"volume {name!r} is reserved", ""
        elif not mount.get("readOnly") and not (item.get("name") == COPY and name == WRITTEN_BY_COPY):
            yield f"{where}.volumeMounts", f"volume {name!r} is reserved and can only be mounted read-only", ""
