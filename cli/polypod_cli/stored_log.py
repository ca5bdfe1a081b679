"""A log that is kept after its pod: read by a pod made for that, which has what the task's own pod had.

So whoever may make pods in the namespace can read it, and nobody needs the storage's keys or its network on a laptop.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from polypod_bridge.logs.storage import PRINTED
from polypod_core.errors import UserError
from polypod_core.kinds import API_VERSION, KIND
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES

from polypod_cli.interrupts import unwinding

if TYPE_CHECKING:
    from polypod_cli.cluster import Cluster

Raw = Mapping[str, Any]
CONTAINER = "reader"
STARTS_WITHIN = 120.0
"""Seconds in which the pod that reads must start."""
_USER = 65532
_OPTIONS, _VOLUME = "/var/run/polypod/log", "/var/log/polypod"
_OURS = b"polypod-bridge: "
_TRIES = 3
"""How many pods in a row may end without printing any of the log."""


def read(cluster: Cluster, run: Raw, attempt: Raw, *, skip: int = 0) -> Generator[bytes]:
    """Yield the lines of an attempt's stored log, without their ends.

    Args:
        skip: the lines at its beginning that are not wanted.

    Raises:
        UserError: it cannot be read; the message says why.
    """
    done, more, silent = skip, True, 0
    while more:
        lines, more = yield from _part(cluster, run, attempt, done)
        done += lines
        silent = silent + 1 if more and not lines else 0
        if silent == _TRIES:
            raise UserError(Reason.INVALID_CONFIG, f"{_name(attempt)}: the reader pods printed nothing")


def _part(cluster: Cluster, run: Raw, attempt: Raw, done: int) -> Generator[bytes, None, tuple[int, bool]]:
    """Yield as many lines as one pod prints, after the first `done`; return how many, and whether more may follow.

    The kubelet gives a container's log to the end only if it is not rotated meanwhile: so a pod prints no more than
    fits, and says how many lines that were.
    """
    from polypod_cli.cluster import Unreachable

    where, lines, said = _name(attempt), 0, ""
    with unwinding():
        name = cluster.create_pod(manifest(run, attempt, done))["metadata"]["name"]
        try:
            _wait_for_start(cluster, name, where)
            for line in cluster.log(name, CONTAINER, follow=True):
                if line.startswith(_OURS):
                    said = line.removeprefix(_OURS).decode("utf-8", "replace")
                else:
                    lines += 1
                    yield line
        except Unreachable:
            # the connection broke: the next pod goes on from here
            pass
        finally:
            cluster.delete_pod(name)
    ended = PRINTED.fullmatch(said)
    if said and ended is None:
        raise UserError(Reason.INVALID_CONFIG, f"{where}: {said}")
    if ended is not None and int(ended["lines"]) != lines:
        raise UserError(
            Reason.INVALID_CONFIG,
            f"{where}: of {ended['lines']} lines after line {done} the kubelet gave {lines}; "
            "its containerLogMaxSize must be 10Mi or more",
        )
    # one that was cut off is read on from there
    return lines, ended is None or ended["rest"] == "more follow"


def _name(attempt: Raw) -> str:
    return f"the stored log of attempt {attempt['number']}, {attempt['log']['url']}"


def manifest(run: Raw, attempt: Raw, skip: int = 0) -> dict[str, Any]:
    """Return the pod that prints an attempt's stored log. It ends with its TaskRun, if nobody else ends it. Pure.

    Args:
        skip: the lines that are not printed again.
    """
    log, metadata = attempt["log"], run["metadata"]
    arguments = ["--stored-log", log["url"], "--pod", attempt["podName"]]
    if skip:
        arguments += ["--skip-lines", str(skip)]
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    if log.get("secretName"):
        arguments += ["--options-dir", _OPTIONS]
        volumes.append({"name": "options", "secret": {"secretName": log["secretName"]}})
        mounts.append({"name": "options", "mountPath": _OPTIONS, "readOnly": True})
    if log.get("persistentVolumeClaim"):
        claim = {"claimName": log["persistentVolumeClaim"], "readOnly": True}
        volumes.append({"name": "volume", "persistentVolumeClaim": claim})
        mounts.append({"name": "volume", "mountPath": _VOLUME, "readOnly": True})
    container = {
        "name": CONTAINER,
        "image": log["readerImage"],
        "args": arguments,
        "resources": {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 3600,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if log.get("serviceAccountName"):
        spec["serviceAccountName"] = log["serviceAccountName"]
    if log.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [{"name": name} for name in log["imagePullSecrets"]]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "polypod-logs-",
            "labels": {"app.kubernetes.io/managed-by": "polypod", "app.kubernetes.io/name": "polypod-logs"},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _wait_for_start(cluster: Cluster, name: str, where: str) -> None:
    give_up = time.monotonic() + STARTS_WITHIN
    while True:
        pod = cluster.pod(name)
        if pod is None:
            raise UserError(Reason.INVALID_CONFIG, f"{where}: pod {name}, which should read it, was deleted")
        [state] = [item.get("state") or {} for item in pod["status"].get("containerStatuses") or ()] or [{}]
        if "running" in state or "terminated" in state or pod["status"].get("phase") in FINISHED_PHASES:
            return
        if time.monotonic() > give_up:
            waiting = state.get("waiting") or {}
            why = ": ".join(part for part in (waiting.get("reason"), waiting.get("message")) if part)
            why = why or "it is not scheduled, or a volume of it cannot be mounted"
            raise UserError(
                Reason.INVALID_CONFIG,
                f"{where}: pod {name}, which should read it, did not start within {STARTS_WITHIN:.0f} s: {why}",
            )
        time.sleep(0.2)
