"""Secrets with workloads whose scheduler ended before it had created their TaskRuns."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import msgspec

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.reading import decode
from polypod_airflow.taskruns import LABEL, MERGE, Settings, collection, owners, secrets

log = logging.getLogger(__name__)

_UNOWNED_FOR = timedelta(hours=1)
"""The age from which a Secret that nothing uses is left over."""
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Tokens are not read for it."""


class _Meta(msgspec.Struct, rename="camel", kw_only=True):
    name: str
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime
    owner_references: list[Any] = []


class _Secret(msgspec.Struct):
    metadata: _Meta


class _Secrets(msgspec.Struct):
    items: list[_Secret] | None = None


class _Reference(msgspec.Struct):
    name: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    workload_secret_ref: _Reference = msgspec.field(default_factory=_Reference)


class _TaskRun(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


class _TaskRuns(msgspec.Struct):
    items: list[_TaskRun] = []


def delete_leftovers(cluster: Cluster, settings: Settings, unowned_for: timedelta = _UNOWNED_FOR) -> int:
    """Delete the Secrets of this Airflow that are an hour old and that no TaskRun uses; return how many.

    Their age is by the API server's clock alone.

    One that TaskRuns use and do not own yet, as its scheduler ended in between, goes with them from now on.

    Raises:
        ClusterError: they cannot be listed, changed or deleted.
    """
    params = {"labelSelector": f"{LABEL}={settings.airflow}"}
    raw = cluster.call("GET", secrets(settings.namespace), params=params, accept=_METADATA_ONLY)
    unowned = [item.metadata for item in (decode(raw, _Secrets).items or []) if not item.metadata.owner_references]
    now = cluster.time()
    if not unowned:
        return 0
    # listed after the Secrets: a TaskRun is created after its Secret
    raw = cluster.call("GET", collection(settings.namespace), params=params)
    users: dict[str, list[_Meta]] = {}
    for run in decode(raw, _TaskRuns).items:
        users.setdefault(run.spec.workload_secret_ref.name, []).append(run.metadata)
    deleted = 0
    for secret in unowned:
        path = secrets(settings.namespace, secret.name)
        if secret.name in users:
            _own(cluster, path, secret, users[secret.name])
        elif now is not None and now - secret.creation_timestamp > unowned_for:
            cluster.call("DELETE", path)
            deleted += 1
    return deleted


def _own(cluster: Cluster, path: str, secret: _Meta, users: list[_Meta]) -> None:
    """Have a Secret go with its users, unless its scheduler, which knows them all, has just done so."""
    patch = owners([{"metadata": {"name": user.name, "uid": user.uid}} for user in users])
    patch["metadata"]["resourceVersion"] = secret.resource_version
    try:
        cluster.call("PATCH", path, patch, content_type=MERGE)
    except ClusterError as error:
        if error.status != 409:
            raise


def sweep(cluster: Cluster, settings: Settings) -> None:
    """Do the same when a scheduler starts; it goes on if that fails."""
    try:
        found = delete_leftovers(cluster, settings)
    except ClusterError as error:
        log.warning("leftover Secrets cannot be deleted: %s", error)
        return
    if found:
        log.info("deleted %d leftover Secrets", found)
