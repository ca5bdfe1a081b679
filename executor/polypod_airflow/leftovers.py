"""Secrets with workloads whose scheduler ended before it had created their TaskRuns."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.taskruns import LABEL, Settings, secrets

log = logging.getLogger(__name__)

_UNOWNED_FOR = timedelta(hours=1)
"""The age from which a Secret that nothing owns is left over."""
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Tokens are not read for it."""


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    creation_timestamp: datetime
    owner_references: list[Any] = []


class _Secret(msgspec.Struct):
    metadata: _Meta


class _Secrets(msgspec.Struct):
    items: list[_Secret] = []


def delete_leftovers(cluster: Cluster, settings: Settings, now: datetime) -> int:
    """Delete the Secrets of this Airflow that are an hour old and that no TaskRun owns; return how many.

    Raises:
        ClusterError: they cannot be listed or deleted.
    """
    params = {"labelSelector": f"{LABEL}={settings.airflow}"}
    raw = cluster.call("GET", secrets(settings.namespace), params=params, accept=_METADATA_ONLY)
    found = [
        item.metadata.name
        for item in msgspec.json.decode(raw, type=_Secrets).items
        if not item.metadata.owner_references and now - item.metadata.creation_timestamp > _UNOWNED_FOR
    ]
    for name in found:
        cluster.call("DELETE", secrets(settings.namespace, name))
    return len(found)


def sweep(cluster: Cluster, settings: Settings) -> None:
    """Do the same when a scheduler starts; it goes on if that fails."""
    try:
        found = delete_leftovers(cluster, settings, datetime.now(UTC))
    except ClusterError as error:
        log.warning("Secrets that are left over cannot be deleted: %s", error)
        return
    if found:
        log.info("%d Secrets were left over and have been deleted", found)
