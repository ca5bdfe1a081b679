"""A cluster in miniature for random histories: what an API server keeps, and the calls of the operator, which may fail.

It stands for the API server in tests of millions of interleavings, which no real one could be put through; the same
faults are put to real ones in tests/cluster.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from polypod_core.kinds import ATTEMPT_LABEL, UID_LABEL
from polypod_operator.control.history import HistoryUnavailable
from polypod_operator.kube.api import ApiError, ListMeta, Page
from polypod_operator.kube.pace import Pace
from polypod_operator.kube.writes import Flight

Raw = dict[str, Any]
Fault = Literal["none", "busy", "unreachable", "answer lost", "killed before", "killed after"]


class Killed(BaseException):
    """The operator was killed in the middle of a call."""


class Violated(BaseException):
    """Something that must hold does not. No Exception: the operator must not take it for a failed call."""


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violated(otherwise)


def ended(pod: Raw) -> bool:
    """Tell whether the task of a pod has ended, whatever its bridge and the kubelet still do."""
    return pod["gone"] or pod["told"] is not None or pod["raw"]["status"].get("phase") in ("Succeeded", "Failed")


class Cluster:
    """TaskRuns and pods as they are, and the news that the operator's watches have not been shown yet."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.version = 100
        self.runs: dict[str, Raw] = {}
        self.gone: dict[str, Raw] = {}
        """The specs of those that were deleted."""
        self.pods: dict[str, Raw] = {}
        self.news: list[tuple[str, str, Raw]] = []
        self.refusing = False
        self.edited: set[str] = set()
        """Of which TaskRuns the status is not as the operator wrote it."""
        self.created: dict[str, int] = {}
        self.ended: dict[str, list[str]] = {}
        """Task → the states that its TaskRuns have ended in, those that were deleted since included."""

    def stamp(self, raw: Raw) -> None:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)

    def changed(self, kind: str, event: str, raw: Raw) -> None:
        self.stamp(raw)
        self.news.append((kind, event, copy.deepcopy(raw)))

    def add_run(self, name: str, spec: Raw) -> None:
        raw = {
            "metadata": {
                "name": name, "namespace": "ns", "uid": f"uid-{name}-{self.version}", "generation": 1,
                "creationTimestamp": self.now.isoformat(),
            },
            "spec": {"dagId": "d", "taskId": name, "runId": "r", "queue": "q", **spec},
        }  # fmt: skip
        self.runs[name] = raw
        self.gone.pop(name, None)
        self.changed("taskruns", "ADDED", raw)

    def edit_run(self, name: str, **spec: Any) -> None:
        raw = self.runs[name]
        raw["spec"].update(spec)
        raw["metadata"]["generation"] += 1
        self.changed("taskruns", "MODIFIED", raw)

    def edit_status(self, name: str, status: Raw) -> None:
        """Write a status as somebody with the right to it may do."""
        raw = self.runs[name]
        raw["status"] = status
        self.edited.add(name)
        self.changed("taskruns", "MODIFIED", raw)

    def delete_run(self, name: str) -> None:
        raw = self.runs.pop(name)
        self.gone[name] = raw["spec"]
        self.changed("taskruns", "DELETED", raw)

    def pods_of(self, uid: str) -> list[Raw]:
        return [pod for pod in self.pods.values() if pod["raw"]["metadata"]["labels"][UID_LABEL] == uid]

    def alive(self) -> list[Raw]:
        return [pod for pod in self.pods.values() if not pod["gone"] and not ended(pod)]

    def set_pod(self, pod: Raw, **status: Any) -> None:
        pod["raw"]["status"].update(status)
        self.changed("pods", "MODIFIED", pod["raw"])

    def remove_pod(self, pod: Raw) -> None:
        pod["gone"] = True
        self.changed("pods", "DELETED", pod["raw"])

    def collect(self) -> None:
        """Do what the garbage collector does: pods whose TaskRun is no more go."""
        uids = {raw["metadata"]["uid"] for raw in self.runs.values()}
        for pod in self.pods.values():
            if not pod["gone"] and pod["raw"]["metadata"]["labels"][UID_LABEL] not in uids:
                self.remove_pod(pod)


class Api:
    """The operator's calls to that cluster; those that are to fail do."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.pace = Pace()
        self.faults: list[Fault] = []
        self.dead = False
        self.limits: dict[str, int] = {}

    async def _begin(self) -> Fault:
        # others may be at work between a decision and its call
        await asyncio.sleep(0)
        if self.dead:
            raise Killed
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "killed before":
            self.dead = True
            raise Killed
        if fault == "busy":
            self.pace.refused()
            raise ApiError(429, "TooManyRequests", "too many requests", 1.0)
        if fault == "unreachable":
            raise ApiError(0, "Unreachable", "no answer")
        return fault

    def _end(self, fault: Fault) -> None:
        if fault == "killed after":
            self.dead = True
            raise Killed
        if fault == "answer lost":
            raise ApiError(0, "Unreachable", "the answer was lost")

    async def create_pod(self, manifest: Mapping[str, Any], dry_run: bool = False, flight: Flight | None = None) -> Raw:
        if dry_run:
            return {}
        fault = await self._begin()
        cluster = self.cluster
        name = manifest["metadata"]["name"]
        if name in cluster.pods and not cluster.pods[name]["gone"]:
            raise ApiError(409, "AlreadyExists", "it is there")
        if cluster.refusing:
            raise ApiError(403, "Forbidden", "exceeded quota")
        self._check(manifest)
        raw = copy.deepcopy(dict(manifest))
        cluster.created[name] = cluster.created.get(name, 0) + 1
        raw["metadata"] |= {"uid": f"pod-{name}-{cluster.created[name]}", "creationTimestamp": cluster.now.isoformat()}
        raw["status"] = {"phase": "Pending"}
        cluster.pods[name] = {"raw": raw, "gone": False, "told": None}
        cluster.changed("pods", "ADDED", raw)
        self._end(fault)
        return copy.deepcopy(raw)

    def _check(self, manifest: Mapping[str, Any]) -> None:
        """Hold what must hold whenever a pod is made."""
        cluster = self.cluster
        uid = manifest["metadata"]["labels"][UID_LABEL]
        number = int(manifest["metadata"]["labels"][ATTEMPT_LABEL])
        own = cluster.pods_of(uid)
        must(all(ended(pod) for pod in own), "a second attempt while the first runs")
        must(all(int(pod["raw"]["metadata"]["labels"][ATTEMPT_LABEL]) <= number for pod in own), "back in time")
        queue = manifest["metadata"]["annotations"]["polypod.dev/queue"]
        # those whose TaskRun was deleted count as well, until they have ended
        others = {
            pod["raw"]["metadata"]["labels"][UID_LABEL]
            for pod in self.cluster.alive()
            if pod["raw"]["metadata"]["annotations"]["polypod.dev/queue"] == queue
        }
        must(len(others - {uid}) < self.limits.get(queue, 1000), "the queue's limit is exceeded")
        run = next((raw for raw in cluster.runs.values() if raw["metadata"]["uid"] == uid), None)
        if run is None:
            return
        must((run.get("status") or {}).get("phase") not in ("Succeeded", "Failed"), "a pod of what has finished")
        if number == 1:
            for other in run["spec"].get("dependsOn", ()):
                states = cluster.ended.get(other["taskId"], [])
                good = states if other["when"] == "finished" else {"success", "skipped"} & set(states)
                must(bool(good), f"a pod before {other['taskId']}, which it depends on, has ended")

    async def answers_others(self, since: float, path: str) -> bool:
        return True

    async def get_pod(self, namespace: str, name: str) -> Raw:
        await self._begin()
        pod = self.cluster.pods.get(name)
        if pod is None or pod["gone"]:
            raise ApiError(404, "NotFound", "no such pod")
        found: Raw = copy.deepcopy(pod["raw"])
        return found

    async def delete_pod(self, namespace: str, name: str, uid: str, force: bool = False) -> None:
        fault = await self._begin()
        pod = self.cluster.pods.get(name)
        if pod is not None and not pod["gone"] and pod["raw"]["metadata"]["uid"] == uid:
            if force:
                self.cluster.remove_pod(pod)
            elif "deletionTimestamp" not in pod["raw"]["metadata"]:
                pod["raw"]["metadata"]["deletionTimestamp"] = self.cluster.now.isoformat()
                self.cluster.changed("pods", "MODIFIED", pod["raw"])
        self._end(fault)

    async def delete(self, path: str, uid: str) -> None:
        await self._begin()
        raise Violated("nothing here has a ttl")

    async def patch_status(self, path: str, version: str, status: Mapping[str, Any]) -> Raw:
        fault = await self._begin()
        name = path.rpartition("/")[2]
        raw = self.cluster.runs.get(name)
        if raw is None:
            raise ApiError(404, "NotFound", "no such TaskRun")
        if raw["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "Conflict", "it has changed")
        before = raw.get("status") or {}
        raw["status"] = {key: value for key, value in json.loads(json.dumps(status)).items() if value is not None}
        if name in self.cluster.edited:
            self.cluster.edited.discard(name)
        elif before.get("phase") in ("Succeeded", "Failed"):
            # that an edit was seen is written, and nothing else
            same = {**raw["status"], "observedGeneration": before["observedGeneration"]} == before
            must(same and raw["status"] != before, "a final status is written again")
        elif raw["status"]["phase"] in ("Succeeded", "Failed"):
            self.cluster.ended.setdefault(raw["spec"]["taskId"], []).append(raw["status"]["state"])
        self.cluster.changed("taskruns", "MODIFIED", raw)
        self._end(fault)
        return copy.deepcopy(raw)

    async def events(self, namespace: str, pod_uid: str) -> list[Raw]:
        await self._begin()
        return []

    async def post_event(self, event: Mapping[str, Any]) -> None:
        await self._begin()

    async def ended(
        self, namespace: str, dag_id: str, run_id: str, task_ids: tuple[str, ...], authority: str
    ) -> dict[str, str]:
        """Return what the Execution API knows, which is not asked about tasks that never had a pod."""
        try:
            await self._begin()
        except ApiError as error:
            raise HistoryUnavailable(str(error)) from None
        known = {task_id: self.cluster.ended.get(task_id, [])[-1:] for task_id in task_ids}
        return {task_id: states[0] for task_id, states in known.items() if states}

    async def call(self, method: str, path: str, body: Any = None) -> Raw:
        if "/taskruns/" not in path:
            raise ApiError(404, "NotFound", "the routing comes by its watch")
        await self._begin()
        name = path.rpartition("/")[2]
        if name not in self.cluster.runs:
            raise ApiError(404, "NotFound", "no such TaskRun")
        return copy.deepcopy(self.cluster.runs[name])

    async def pages(self, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[Page]:
        await self._begin()
        if path.endswith("/pods"):
            found = [pod["raw"] for pod in self.cluster.pods.values() if not pod["gone"]]
        else:
            found = list(self.cluster.runs.values())
        items = [msgspec.Raw(msgspec.json.encode(raw)) for raw in found]
        yield Page(ListMeta(resource_version=str(self.cluster.version)), items)
