"""Where the logs of attempts are kept when their pods are gone: what pods and statuses are told of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polypod_bridge.config import LogStorage
from polypod_bridge.logs.storage import joined, log_path
from polypod_crds.taskrun import StoredLog

from polypod_operator.model.objects import BRIDGE, TaskRunObject

SPOOL = LogStorage(base="", path="", pod="").spool_dir
LOG_OPTIONS, LOG_VOLUME = "/var/run/polypod/log", "/var/log/polypod"
GROUP = 0
"""The group of Airflow's image, whose user is 50000: it makes folders with mode 775, which the group may write to."""
_SPOOL_LIMIT = "320Mi"
"""More than the bridge lets wait for the storage: a pod above it is evicted."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where logs are kept when their pods are gone.

    Attributes:
        url: what all are below; `{namespace}` in it stands for the TaskRun's. Empty with a claim: all of its volume.
        secret: a Secret with the storage's options, in each TaskRun's namespace.
        claim: a PersistentVolumeClaim, in each TaskRun's namespace.
    """

    url: str = ""
    secret: str | None = None
    claim: str | None = None

    def base(self, namespace: str) -> str:
        """Return what the logs of a namespace are below."""
        return self.url.replace("{namespace}", namespace) or f"file://{LOG_VOLUME}"


def log_storage(run: TaskRunObject, number: int, pod: str, log: LogSettings) -> LogStorage:
    """Return what the bridge in the pod `pod` is told of where attempt `number`'s log goes."""
    assert run.spec is not None
    spec = run.spec
    return LogStorage(
        base=log.base(run.namespace),
        path=log_path(spec.dag_id, spec.run_id, spec.task_id, spec.map_index, number),
        pod=pod,
        options_dir=LOG_OPTIONS if log.secret else "",
    )


def stored_log(
    run: TaskRunObject, number: int, pod: str, reader_image: str, log: LogSettings, spec: Mapping[str, Any]
) -> StoredLog:
    """Return what the status will say of an attempt's log.

    Args:
        pod: its pod's name.
        reader_image: the bridge's.
        spec: its pod's.
    """
    storage = log_storage(run, number, pod, log)
    return StoredLog(
        url=joined(storage.base, storage.path),
        secret_name=log.secret,
        persistent_volume_claim=log.claim,
        service_account_name=spec.get("serviceAccountName"),
        image_pull_secrets=[item["name"] for item in spec.get("imagePullSecrets") or ()],
        reader_image=reader_image,
    )


def in_log_group(spec: Mapping[str, Any], log: LogSettings | None) -> dict[str, Any]:
    """Return a pod's spec whose bridge is in the group that Airflow's image writes its logs with.

    The task is not: it does not see the volume. A group that the pod template names stays, for other images than
    Airflow's official one.
    """
    if log is None or not log.claim or (spec.get("securityContext") or {}).get("runAsGroup") is not None:
        return dict(spec)
    containers = [
        {**item, "securityContext": {"runAsGroup": GROUP}} if item.get("name") == BRIDGE else item
        for item in spec["initContainers"]
    ]
    return {**spec, "initContainers": containers}


def log_volumes(log: LogSettings | None) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return what keeping the log takes: volume name, its source, and its mount in the bridge."""
    if log is None:
        return []
    found: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("polypod-log", {"emptyDir": {"sizeLimit": _SPOOL_LIMIT}}, {"mountPath": SPOOL})
    ]
    if log.secret:
        source = {"secret": {"secretName": log.secret}}
        found.append(("polypod-log-options", source, {"mountPath": LOG_OPTIONS, "readOnly": True}))
    if log.claim:
        claim = {"persistentVolumeClaim": {"claimName": log.claim}}
        found.append(("polypod-log-volume", claim, {"mountPath": LOG_VOLUME}))
    return found
