"""Events, for people: what happened to a TaskRun or to the routing."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from polypod_core.kinds import API_VERSION, GROUP, KIND

from polypod_operator.kube.raw import Raw
from polypod_operator.model.objects import TaskRunObject

MAX_MESSAGE = 1024


def about_run(run: TaskRunObject) -> dict[str, str]:
    """Return the reference to a TaskRun."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": run.name, "namespace": run.namespace, "uid": run.uid,
            "resourceVersion": run.resource_version}  # fmt: skip


def about_object(raw: Raw) -> dict[str, str]:
    """Return the reference to an object that cannot be read otherwise."""
    metadata = raw.get("metadata") or {}
    found = {name: str(raw.get(name, "")) for name in ("apiVersion", "kind")}
    return found | {name: str(metadata.get(name, "")) for name in ("name", "namespace", "uid")}


def about_routing(raw: Raw) -> dict[str, str]:
    """Return the reference to the routing ConfigMap."""
    metadata = raw["metadata"]
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": metadata["name"], "namespace": metadata["namespace"],
            "uid": metadata["uid"]}  # fmt: skip


def event(about: dict[str, str], warning: bool, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """Return an Event."""
    when = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about['name']}.{secrets.token_hex(8)}", "namespace": about["namespace"]},
        "involvedObject": about,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "type": "Warning" if warning else "Normal",
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
        "source": {"component": "polypod-operator"},
        "reportingComponent": f"{GROUP}/operator",
    }
