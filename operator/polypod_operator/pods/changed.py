"""The pod that the API server has made, compared with the one that was asked for. Pure.

An admission policy or webhook may change a pod. What it adds is its owner's business: labels, sidecars, tolerations,
defaults, a mirror of an image. What it takes away from Polypod's own labels and containers, and what it weakens in
them, is found here, so that the attempt does not run otherwise than was asked.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from polypod_core.kinds import ATTEMPT_LABEL, GROUP, UID_LABEL

from polypod_operator.pods import security
from polypod_operator.pods.merge import KEYS

_OWN = f"{GROUP}/"
_WHICH = frozenset({UID_LABEL, ATTEMPT_LABEL})
"""Labels that say which attempt a pod is; its try is counted in the status, which somebody may have edited since."""
_POD_FIELDS = ("automountServiceAccountToken", "enableServiceLinks", "hostUsers", "restartPolicy", "runtimeClassName",
               "serviceAccountName", "volumes")  # fmt: skip
"""Of a pod's spec, what has to be as asked; where it runs, and when, may be changed."""
_CONTAINER_FIELDS = ("args", "command", "env", "envFrom", "lifecycle", "restartPolicy", "volumeDevices", "volumeMounts",
                     "workingDir")  # fmt: skip
"""Of a container, likewise; its image may be a mirror's, and its resources a policy's."""
_CONTEXT_FIELDS = ("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsNonRoot")
"""Of a security context, what is safe only if it is there; the rest is `security.findings`."""
_TRUE_BY_DEFAULT = frozenset({"allowPrivilegeEscalation", "automountServiceAccountToken", "enableServiceLinks",
                              "hostUsers"})  # fmt: skip
_IGNORED = frozenset({"sizeLimit", "divisor", "requests", "limits", "reference"})
"""Quantities, which the API server writes its own way, and the image of a volume, which may be a mirror's."""
_HARMLESS = frozenset({"unknownFields", "resourceClaims"})
"""Findings that say nothing of a change: fields of a newer Kubernetes, and devices."""


def changes(
    asked: Mapping[str, Any], made: Mapping[str, Any], *, allow: Collection[str] = (), whole: bool = True
) -> list[str]:
    """Return what was taken away from a pod, or weakened in it, a phrase each; nothing if it is as asked.

    Args:
        allow: what the coordinator's `allow` holds: somebody else may add it, too.
        whole: compare everything, and not only which attempt it is and what it may do: a pod that was made a while ago
            may be of another routing, or of another version of the operator.
    """
    spec = _spec(asked["spec"], made["spec"]) if whole else ()
    identity = _identity(asked["metadata"], made["metadata"], whole)
    return list(dict.fromkeys([*identity, *spec, *_weakened(asked, made, allow)]))


def by_whom(made: Mapping[str, Any], ours: str) -> str:
    """Return who else than `ours` has written to a new pod, by its managedFields; empty if they do not tell."""
    fields = made["metadata"].get("managedFields") or ()
    # the kubelet writes the status
    return ", ".join(sorted({str(item.get("manager")) for item in fields if not item.get("subresource")} - {ours}))


def _identity(asked: Mapping[str, Any], made: Mapping[str, Any], whole: bool) -> Iterator[str]:
    for field in ("labels", "annotations") if whole else ("labels",):
        found = made.get(field) or {}
        for name, value in (asked.get(field) or {}).items():
            wanted = name.startswith(_OWN) if whole else name in _WHICH
            if wanted and found.get(name) != value:
                yield f"metadata.{field}[{name}] was {'changed' if name in found else 'taken away'}"
    owners = made.get("ownerReferences") or ()
    for owner in asked.get("ownerReferences") or ():
        if not any(_missing("", owner, item) is None for item in owners):
            yield "metadata.ownerReferences was changed or taken away"


def _spec(asked: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    yield from _fields("spec", _POD_FIELDS, asked, made)
    for kind in ("initContainers", "containers"):
        found = {item.get("name"): item for item in made.get(kind) or ()}
        for item in asked.get(kind) or ():
            where, name = f"spec.{kind}[{item['name']}]", item["name"]
            if name not in found:
                yield f"{where} was taken away"
                continue
            yield from _fields(where, _CONTAINER_FIELDS, item, found[name])
            context = item.get("securityContext") or {}
            given = found[name].get("securityContext") or {}
            yield from _fields(f"{where}.securityContext", _CONTEXT_FIELDS, context, given)
    profile = (asked.get("securityContext") or {}).get("seccompProfile")
    if profile and not (made.get("securityContext") or {}).get("seccompProfile"):
        yield "spec.securityContext.seccompProfile was taken away"
    yield from _fields("spec.securityContext", ("runAsNonRoot",), asked.get("securityContext") or {},
                       made.get("securityContext") or {})  # fmt: skip


def _fields(where: str, names: Sequence[str], asked: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        if name in asked:
            found = _missing(f"{where}.{name}", asked[name], made.get(name), name)
            if found is not None:
                yield found


def _missing(where: str, asked: Any, made: Any, name: str = "") -> str | None:
    """Return the first thing that was asked and is not there; more may be there. None if all is."""
    if name in _IGNORED or _same(asked, made, name):
        return None
    if isinstance(asked, Mapping) and isinstance(made, Mapping):
        for key, value in asked.items():
            found = _missing(f"{where}.{key}", value, made.get(key), str(key))
            if found is not None:
                return found
        return None
    if isinstance(asked, list) and isinstance(made, list):
        if name == "drop" and set(asked) <= set(made):
            return None
        if not all(isinstance(item, Mapping) for item in asked):
            # the words of a command
            return f"{where} was changed"
        return _missing_items(where, asked, made, name)
    return f"{where} was {'taken away' if made is None else 'changed'}"


def _missing_items(where: str, asked: list[Any], made: list[Any], name: str) -> str | None:
    keys = KEYS.get(name)
    for index, item in enumerate(asked):
        if keys is None:
            if not any(_missing("", item, other) is None for other in made):
                return f"{where}[{index}] was changed or taken away"
            continue
        # the last one of a name counts, as in a container's environment
        other = next((other for other in reversed(made) if all(other.get(key) == item.get(key) for key in keys)), None)
        label = f"{where}[{item.get(keys[0])}]"
        if other is None:
            return f"{label} was taken away"
        found = _missing(label, item, other)
        if found is not None:
            return found
    return None


def _same(asked: Any, made: Any, name: str) -> bool:
    if asked == made:
        return True
    # what is empty or false is not sent back, unless it is true by default
    return not asked and not made and name not in _TRUE_BY_DEFAULT


def _weakened(asked: Mapping[str, Any], made: Mapping[str, Any], allow: Collection[str]) -> Iterator[str]:
    """Yield what is weaker in the pod, or in a container that was asked for, than it was."""
    harmless = {*_HARMLESS, *allow}
    if asked["spec"].get("automountServiceAccountToken"):
        # the admission of service accounts adds its volume
        harmless.add("serviceAccountToken")
    others = _for_others(made["spec"])
    before = {_mark(finding) for finding in security.findings(asked["spec"], asked["metadata"].get("annotations"))}
    names = {item["name"] for kind in ("initContainers", "containers") for item in asked["spec"].get(kind) or ()}
    spec = _without_others(made["spec"], names)
    for finding in security.findings(spec, made["metadata"].get("annotations")):
        where, value, allowance = finding
        if allowance == "hostPort" and asked["spec"].get("hostNetwork"):
            # every port is then the node's
            continue
        if where in others:
            continue
        if allowance not in harmless and _mark(finding) not in before:
            yield f"{where} is {security.shown(value)}" if allowance else f"{where}: {value}"
    for kind in ("initContainers", "containers"):
        for item in made["spec"].get(kind) or ():
            if item.get("name") not in names:
                # a sidecar of somebody else's, which must not see what only the bridge may
                yield from (f"{where}: {value}" for where, value, _ in security.mounts(f"spec.{kind}", item))


def _for_others(spec: Mapping[str, Any]) -> set[str]:
    """Return where tokens are that name their audience, which is not the API server: a cloud's webhook adds such."""
    found = set()
    for volume in spec.get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        tokens = [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]
        if tokens and all(token.get("audience") for token in tokens):
            found.add(f"spec.volumes[{volume.get('name')}].projected.serviceAccountToken")
    return found


def _mark(finding: tuple[str, Any, str]) -> tuple[str, str, str]:
    where, value, allowance = finding
    if allowance == "appArmorProfile":
        # the API server keeps field and annotation alike
        return "", "", allowance
    if where.startswith("spec.serviceAccount"):
        # two fields of the same meaning
        where = "spec.serviceAccountName"
    # the API server fills a volume's source with defaults
    shown = "" if where.startswith("spec.volumes") else json.dumps(value, sort_keys=True, default=str)
    return where, shown, allowance


def _without_others(spec: Mapping[str, Any], names: set[Any]) -> dict[str, Any]:
    """Return a pod's spec with the containers of these names, and the volumes that they see."""
    kinds = ("initContainers", "containers")
    own = {kind: [item for item in spec.get(kind) or () if item.get("name") in names] for kind in kinds}
    seen = {mount.get("name") for kind in kinds for item in own[kind] for mount in item.get("volumeMounts") or ()}
    volumes = [item for item in spec.get("volumes") or () if item.get("name") in seen]
    return {**spec, **own, "volumes": volumes}
