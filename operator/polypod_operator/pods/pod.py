"""From a TaskRun and its route to the pod of one attempt. Pure: the same input gives the same pod.

The pod: a native sidecar `bridge`, which carries the launcher and installs it into a volume in memory; then the
container `task`, the language image as it is, whose command is the launcher.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
from polypod_bridge.comm.answers import BundleInfo, TaskInstance
from polypod_bridge.config import BridgeConfig, ExecutionApiConfig, PodConfig, Refusal
from polypod_bridge.config import Timeouts as BridgeTimeouts
from polypod_core.durations import seconds
from polypod_core.errors import UserError
from polypod_core.identity import pod_name, task_instance_id
from polypod_core.kinds import (
    API_VERSION,
    ATTEMPT_LABEL,
    COORDINATOR_ANNOTATION,
    DAG_ID_ANNOTATION,
    KIND,
    LOG_ANNOTATION,
    QUEUE_ANNOTATION,
    RUN_ID_ANNOTATION,
    TASK_ID_ANNOTATION,
    TASKRUN_LABEL,
    TRY_LABEL,
    UID_LABEL,
)
from polypod_core.pod_tokens import AUDIENCE
from polypod_core.reasons import Reason
from polypod_core.routing import ArtifactSource, CoordinatorSpec
from polypod_crds.taskrun import TaskRunSpec

from polypod_operator.model.objects import (
    BRIDGE,
    COPY,
    TASK,
    TaskRunObject,
)
from polypod_operator.pods import security
from polypod_operator.pods.log_storage import LogSettings, in_log_group, log_storage, log_volumes, stored_log
from polypod_operator.pods.merge import merge
from polypod_operator.pods.template import check_template, check_whole, container

LAUNCHER = "/polypod/launcher"
INSTALL = "/usr/local/bin/polypod-launcher"
SECRETS = "/var/run/polypod"
STATE = "/var/lib/polypod"
_LONGEST = (1 << 31) - 1
_DEADLINE_MARGIN = 120.0
"""Seconds that a pod may outlive its task's timeouts before the kubelet ends it."""


BRIDGE_RESOURCES: Mapping[str, Any] = {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "512Mi"}}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator knows and a TaskRun does not.

    Attributes:
        bridge_image: the bridge's image.
        execution_api: the base URL of the Execution API that pods use by default.
        image_volumes: True if the cluster can mount an image as a volume; else artifacts are copied.
        logging_level: what runtimes are told to log.
        log_format: of the bridge's own log: json or console.
        bridge_pull_policy: when the bridge's image is pulled, None for Kubernetes' own rule.
        bridge_pull_secrets: the Secrets, in each TaskRun's namespace, that the bridge's image is pulled with.
        bridge_resources: the bridge's requests and limits.
        outcome_url: where bridges send their outcomes to; empty if they are not to.
        authority: what the bridge trusts for both, PEM; empty for plain HTTP, or public authorities.
        log: where logs are kept; None if they end with their pods.
        airflow: settings of Airflow that runtimes find in their environment, by variable.
    """

    bridge_image: str
    execution_api: str
    image_volumes: bool = True
    logging_level: str = "INFO"
    log_format: str = "json"
    bridge_pull_policy: str | None = None
    bridge_pull_secrets: Sequence[str] = ()
    bridge_resources: Mapping[str, Any] = field(default_factory=lambda: BRIDGE_RESOURCES)
    outcome_url: str = ""
    authority: str = ""
    log: LogSettings | None = None
    airflow: Mapping[str, str] = field(default_factory=dict)

    def build(self, run: TaskRunObject, number: int, try_number: int, route: Route) -> dict[str, Any]:
        """Return the manifest of an attempt's pod; see the function `build`."""
        return build(run, number, try_number, route, self)

    def refuse(self, run: TaskRunObject, number: int, try_number: int, reason: str, message: str) -> dict[str, Any]:
        """Return the manifest of a pod that only tells Airflow why there is none; see the function `refusal`."""
        return refusal(run, number, try_number, Refusal(reason=reason, message=message), self)


class PodMaker(Protocol):
    """Makes the manifest of an attempt's pod."""

    def build(self, run: TaskRunObject, number: int, try_number: int, route: Route) -> dict[str, Any]:
        """Return the manifest for attempt `number`, which is the user's try `try_number`.

        Raises:
            UserError: there can be no such pod.
        """

    def refuse(self, run: TaskRunObject, number: int, try_number: int, reason: str, message: str) -> dict[str, Any]:
        """Return the manifest of a pod that tells whoever started the task that it cannot run, and why."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a queue leads.

    Attributes:
        name: the coordinator's name in the routing.
        spec: its entry, with what the queue changes.
        templates: pod templates of the coordinator and the queue, to be merged in that order.
        dag_bundles: the folder of each Dag bundle that the pod can see.
    """

    name: str
    spec: CoordinatorSpec
    templates: list[dict[str, Any]]
    dag_bundles: Mapping[str, str] = field(default_factory=dict)


def build(run: TaskRunObject, number: int, try_number: int, route: Route, settings: Settings) -> dict[str, Any]:
    """Return the manifest of the pod for attempt `number`, which is the user's try `try_number`.

    Raises:
        UserError: there is no image, or the template weakens the pod's security.
    """
    assert run.spec is not None
    template = _template(run, number, try_number, route, settings)
    try:
        for overlay in [*route.templates, run.spec.pod_template]:
            check_template(overlay)
            template = merge(template, overlay)
        check_whole(template["spec"])
        template["spec"] = security.harden(in_log_group(template["spec"], settings.log))
        annotations = template["metadata"].get("annotations") or {}
        found = security.violations(template["spec"], route.spec.allow, annotations)
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
        # something has a shape that no pod has, where `check_shape` does not look
        message = f"the pod template cannot be merged: {type(error).__name__}: {error}"
        raise UserError(Reason.INVALID_POD_TEMPLATE, message) from error
    if found:
        raise UserError(Reason.FORBIDDEN_POD_TEMPLATE, "the pod template is not allowed: " + "; ".join(found))
    task = container(template["spec"], TASK)
    if not task.get("image"):
        raise UserError(
            Reason.NO_IMAGE,
            f"coordinator {route.name!r} has no image: set coordinators.{route.name}.image or "
            f"queue_to_image.{run.spec.queue} in the routing",
        )
    for item in template["spec"]["initContainers"]:
        if item["name"] != BRIDGE:
            # the end of its log says why it failed
            item.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    template["metadata"] |= _identity(run, number, try_number, route, template["metadata"])
    template["metadata"]["annotations"].pop(LOG_ANNOTATION, None)
    if settings.log is not None:
        name = pod_name(run.name, run.uid, number)
        stored = stored_log(run, number, name, settings.bridge_image, settings.log, template["spec"])
        template["metadata"]["annotations"][LOG_ANNOTATION] = stored.model_dump_json(by_alias=True, exclude_none=True)
    return {"apiVersion": "v1", "kind": "Pod", **template}


def refusal(run: TaskRunObject, number: int, try_number: int, why: Refusal, settings: Settings) -> dict[str, Any]:
    """Return the manifest of a pod without a language container: its bridge fails the task in Airflow and ends.

    Only the bridge sees the workload, and with it the token: the operator cannot tell Airflow itself.
    """
    assert run.spec is not None
    route = Route("", CoordinatorSpec(classpath=""), [])
    config = bridge_config(run, number, try_number, route, replace(settings, log=None))
    config.refusal = why
    volumes, mounts = [{"name": "polypod-state", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}], []
    for name, volume, path in _secret_volumes(run.spec, bool(settings.outcome_url)):
        volumes.append({"name": name, **volume})
        mounts.append({"name": name, "mountPath": path, "readOnly": True})
    bridge = _bridge(config, [{"name": "polypod-state", "mountPath": STATE}, *mounts], settings)
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [bridge],
        "volumes": volumes,
        **_pull_secrets(settings.bridge_pull_secrets),
    }
    metadata = _identity(run, number, try_number, route, {})
    del metadata["annotations"][COORDINATOR_ANNOTATION]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": security.harden(spec)}


def _bridge(config: BridgeConfig, mounts: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    """Return the bridge's container, as far as it is the same in every pod."""
    container: dict[str, Any] = {
        "name": BRIDGE,
        "image": settings.bridge_image,
        # the kubelet would replace $(NAME); two dollars stand for one
        "env": [{"name": "POLYPOD_CONFIG", "value": msgspec.json.encode(config).decode().replace("$(", "$$(")}],
        "resources": {**settings.bridge_resources},
        "volumeMounts": mounts,
    }
    if settings.bridge_pull_policy:
        container["imagePullPolicy"] = settings.bridge_pull_policy
    return container


def _pull_secrets(names: Sequence[str]) -> dict[str, Any]:
    """Return the field of a pod's spec, with each name once; nothing if there are none."""
    return {"imagePullSecrets": [{"name": name} for name in dict.fromkeys(names)]} if names else {}


def _identity(
    run: TaskRunObject, number: int, try_number: int, route: Route, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metadata that no template changes."""
    assert run.spec is not None
    spec = run.spec
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "name": pod_name(run.name, run.uid, number),
        "namespace": run.namespace,
        "ownerReferences": [owner],
        "labels": {
            **(given.get("labels") or {}),
            "app.kubernetes.io/managed-by": "polypod",
            TASKRUN_LABEL: _label(run.name),
            UID_LABEL: run.uid,
            ATTEMPT_LABEL: str(number),
            TRY_LABEL: str(try_number),
        },
        "annotations": {
            # the whole log of the task, masked, is the bridge's
            "kubectl.kubernetes.io/default-container": BRIDGE,
            **(given.get("annotations") or {}),
            COORDINATOR_ANNOTATION: route.name,
            QUEUE_ANNOTATION: spec.queue,
            DAG_ID_ANNOTATION: spec.dag_id,
            TASK_ID_ANNOTATION: spec.task_id,
            RUN_ID_ANNOTATION: spec.run_id,
        },
    }


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+$", "", name[:63])


def _template(run: TaskRunObject, number: int, try_number: int, route: Route, settings: Settings) -> dict[str, Any]:
    assert run.spec is not None
    spec, coordinator = run.spec, route.spec
    config = bridge_config(run, number, try_number, route, settings)
    volumes: list[dict[str, Any]] = [
        {"name": "polypod-run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "polypod-state", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    bridge_mounts: list[dict[str, Any]] = [
        {"name": "polypod-run", "mountPath": "/polypod"},
        {"name": "polypod-state", "mountPath": STATE},
    ]
    for name, volume, path in _secret_volumes(spec, bool(settings.outcome_url)):
        volumes.append({"name": name, **volume})
        bridge_mounts.append({"name": name, "mountPath": path, "readOnly": True})
    for name, volume, mount in log_volumes(settings.log):
        volumes.append({"name": name, **volume})
        bridge_mounts.append({"name": name, **mount})
    bridge = _bridge(config, bridge_mounts, settings) | {
        # native sidecar: started before the task's container, ended after it
        "restartPolicy": "Always",
        # the task's container starts only when this has succeeded
        "lifecycle": {"postStart": {"exec": {"command": [INSTALL, "install", LAUNCHER]}}},
    }
    startup = seconds(spec.timeouts.startup) if spec.timeouts.startup else 0.0
    patience = seconds(spec.timeouts.pending) + startup
    task: dict[str, Any] = {
        "name": TASK,
        "command": [LAUNCHER],
        # the task gets SIGTERM first, whatever STOPSIGNAL its image has
        "lifecycle": {"preStop": {"exec": {"command": [LAUNCHER, "stop"]}}},
        "env": [
            {"name": "POLYPOD_SOCKET", "value": PodConfig().socket},
            {"name": "POLYPOD_BRIDGE_WAIT", "value": f"{min(int(patience), _LONGEST)}"},
            *({"name": name, "value": value.replace("$(", "$$(")} for name, value in settings.airflow.items()),
        ],
        # read-only: a connection needs no more, and nothing of the task can replace the launcher
        "volumeMounts": [
            {"name": "polypod-run", "mountPath": "/polypod", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        ],
    }
    for key, value in (
        ("image", coordinator.image),
        ("imagePullPolicy", coordinator.image_pull_policy),
        ("resources", coordinator.resources),
    ):
        if value:
            task[key] = value
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 40,
        "initContainers": [bridge],
        "containers": [task],
        "volumes": volumes,
    }
    pod |= _pull_secrets([*coordinator.image_pull_secrets, *settings.bridge_pull_secrets])
    if spec.timeouts.execution is not None:
        # the pod may be pending, and then the bridge may be
        whole = 2 * patience + seconds(spec.timeouts.execution) + _DEADLINE_MARGIN
        pod["activeDeadlineSeconds"] = min(int(whole), _LONGEST)
    source = _artifacts(spec) or coordinator.artifacts
    if source is not None:
        # image volumes may be mounted noexec (KEP-4639), which suits jars and scripts but no native bundle
        mountable = settings.image_volumes and not coordinator.classpath.endswith("ExecutableCoordinator")
        _add_artifacts(pod, source, mountable)
    return {"metadata": {}, "spec": pod}


def _secret_volumes(spec: TaskRunSpec, sends: bool) -> list[tuple[str, dict[str, Any], str]]:
    """Return what only the bridge sees: volume name, its source, and where it is mounted."""
    found: list[tuple[str, dict[str, Any], str]] = []
    for index, connection in enumerate(spec.connections_from):
        name = f"polypod-connections-{index}"
        found.append((name, {"secret": {"secretName": connection.secret_ref.name}}, f"{SECRETS}/connections-{index}"))
    for index, variable in enumerate(spec.variables_from):
        name = f"polypod-variables-{index}"
        if variable.config_map_ref is not None:
            source: dict[str, Any] = {"configMap": {"name": variable.config_map_ref.name}}
        else:
            assert variable.secret_ref is not None
            source = {"secret": {"secretName": variable.secret_ref.name}}
        found.append((name, source, f"{SECRETS}/variables-{index}"))
    workload = spec.workload_secret_ref
    token = spec.execution_api.token_secret_ref if spec.execution_api is not None else None
    if workload is not None:
        items = [{"key": workload.key, "path": "workload.json"}]
        found.append(
            ("polypod-workload", {"secret": {"secretName": workload.name, "items": items}}, f"{SECRETS}/workload")
        )
    elif token is not None:
        items = [{"key": token.key, "path": "token"}]
        found.append(("polypod-token", {"secret": {"secretName": token.name, "items": items}}, f"{SECRETS}/token"))
    projected = {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}}
    if workload is None and token is None:
        found.append(("polypod-token", {"projected": {"sources": [projected]}}, f"{SECRETS}/token"))
    elif sends:
        found.append(("polypod-pod-token", {"projected": {"sources": [projected]}}, f"{SECRETS}/pod-token"))
    return found


def bridge_config(run: TaskRunObject, number: int, try_number: int, route: Route, settings: Settings) -> BridgeConfig:
    """Return the bridge's configuration. It holds no secret: those are files that only the bridge sees."""
    assert run.spec is not None
    spec = run.spec
    timeouts = spec.timeouts
    workload = spec.workload_secret_ref is not None
    own_token = spec.execution_api is not None and spec.execution_api.token_secret_ref is not None
    return BridgeConfig(
        ti=TaskInstance(
            id=str(task_instance_id(run.uid, number)),
            dag_id=spec.dag_id,
            task_id=spec.task_id,
            run_id=spec.run_id,
            try_number=try_number,
            dag_version_id=str(uuid.uuid5(uuid.NAMESPACE_URL, spec.dag_id)),
            map_index=spec.map_index,
            queue=spec.queue,
        ),
        bundle_info=BundleInfo(name="polypod"),
        execution_api=ExecutionApiConfig(url=settings.execution_api, authority=settings.authority)
        if spec.execution_api is None
        else ExecutionApiConfig(url=spec.execution_api.url),
        coordinator_name=route.name,
        coordinator=CoordinatorSpec(classpath=route.spec.classpath, kwargs=route.spec.kwargs),
        dag_bundles=dict(route.dag_bundles),
        timeouts=BridgeTimeouts(
            startup=seconds(timeouts.startup) if timeouts.startup else None,
            execution=seconds(timeouts.execution) if timeouts.execution else None,
        ),
        secrets_dirs=[
            *(f"{SECRETS}/connections-{index}" for index in range(len(spec.connections_from))),
            *(f"{SECRETS}/variables-{index}" for index in range(len(spec.variables_from))),
        ],
        logging_level=settings.logging_level,
        log_format=settings.log_format,
        token_file=None if workload else f"{SECRETS}/token/token",
        pod=PodConfig(
            workload_file=f"{SECRETS}/workload/workload.json" if workload else None,
            token_names_task=own_token,
            outcome_url=settings.outcome_url,
            outcome_authority=settings.authority if settings.outcome_url else "",
            pod_token_file=f"{SECRETS}/{'pod-token' if workload or own_token else 'token'}/token",
            log=log_storage(run, number, pod_name(run.name, run.uid, number), settings.log) if settings.log else None,
        ),
    )


def _artifacts(spec: TaskRunSpec) -> ArtifactSource | None:
    if spec.artifacts is None:
        return None
    return ArtifactSource(**spec.artifacts.model_dump())


def _add_artifacts(pod: dict[str, Any], source: ArtifactSource, mountable: bool) -> None:
    [task] = pod["containers"]
    mount: dict[str, Any] = {"name": "polypod-artifacts", "mountPath": source.mount_path, "readOnly": True}
    if source.persistent_volume_claim is not None:
        claim = {"claimName": source.persistent_volume_claim, "readOnly": True}
        pod["volumes"].append({"name": "polypod-artifacts", "persistentVolumeClaim": claim})
        if source.path.strip("/"):
            mount["subPath"] = source.path.strip("/")
    elif mountable:
        image: dict[str, Any] = {"reference": source.image}
        if source.image_pull_policy:
            image["pullPolicy"] = source.image_pull_policy
        pod["volumes"].append({"name": "polypod-artifacts", "image": image})
        if source.path.strip("/"):
            mount["subPath"] = source.path.strip("/")
    else:
        # the image may have no shell and no cp: the launcher, which the bridge has installed, copies
        pod["volumes"].append({"name": "polypod-artifacts", "emptyDir": {}})
        copy: dict[str, Any] = {
            "name": COPY,
            "image": source.image,
            "command": [LAUNCHER, "copy", "/" + source.path.strip("/"), "/polypod-artifacts"],
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "polypod-run", "mountPath": "/polypod", "readOnly": True},
                {"name": "polypod-artifacts", "mountPath": "/polypod-artifacts"},
            ],
        }
        if source.image_pull_policy:
            copy["imagePullPolicy"] = source.image_pull_policy
        pod["initContainers"].append(copy)
    task["volumeMounts"].append(mount)
