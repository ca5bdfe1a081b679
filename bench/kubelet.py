"""The driver as a kubelet: it shows each pod as running START seconds after it was made, and as ended RUN s later.

It runs no container. Its writes are those of a kubelet: two statuses a pod.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec

START, RUN = 1.0, 3.0
_AT_ONCE = 1000
"""Writes that are under way at once; a kubelet's own limit is lower."""
OUTCOME = {"state": "success", "reason": "TaskSucceeded", "exitCode": 0, "reported": True, "cpuSeconds": 0.01}
PODS = "/api/v1/namespaces/default/pods"
Raw = dict[str, Any]


class Watched:
    """A watch of the driver's, as a user's would be: opened again when it is closed, and its closures are counted."""

    def __init__(self, session: aiohttp.ClientSession, path: str, saw: Callable[[str, Raw], None]) -> None:
        self._session, self._path, self._saw = session, path, saw
        self.closed = 0
        self.longest_silence = 0.0

    async def run(self) -> None:
        """Watch until it is cancelled; list again if its place is too old, as client-go does."""
        version = ""
        while True:
            version = version or await self._list()
            if version:
                version = await self._watch(version)
                self.closed += 1
            await asyncio.sleep(0.2)

    async def _list(self) -> str:
        async with self._session.get(self._path, params={"resourceVersion": "0"}) as answer:
            if answer.status != 200:
                return ""
            listed = msgspec.json.decode(await answer.read())
        for item in listed["items"]:
            self._saw("LISTED", item)
        return str(listed["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        params = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        try:
            async with self._session.get(self._path, params=params) as answer:
                if answer.status != 200:
                    return ""
                heard = time.monotonic()
                async for line in answer.content:
                    self.longest_silence = max(self.longest_silence, time.monotonic() - heard)
                    heard = time.monotonic()
                    event = msgspec.json.decode(line)
                    if event["type"] == "ERROR":
                        return ""
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._saw(event["type"], event["object"])
        except aiohttp.ClientError:
            pass
        return version


class Kubelet:
    """Moves pods on.

    Attributes:
        ended: called with a pod that has just been shown as ended.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._due: asyncio.Queue[tuple[float, str, Raw]] = asyncio.Queue()
        self._known: set[str] = set()
        self.late = 0.0

    def saw(self, pod: Raw) -> None:
        """Take a pod on that has not been seen before."""
        uid = pod["metadata"]["uid"]
        if uid not in self._known:
            self._known.add(uid)
            self._put(START, "Running", pod)

    def _put(self, after: float, phase: str, pod: Raw) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(after, self._due.put_nowait, (loop.time() + after, phase, pod))

    async def run(self) -> None:
        """Work until it is cancelled."""
        await asyncio.gather(*(self._work() for _ in range(_AT_ONCE)))

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, phase, pod = await self._due.get()
            await self._show(pod, phase)
            self.late = max(self.late, clock() - due)
            if phase == "Running":
                self._put(RUN, "Succeeded", pod)

    async def _show(self, pod: Raw, phase: str) -> None:
        name = pod["metadata"]["name"]
        body = json.dumps({"status": status(pod["spec"], phase)})
        headers = {"content-type": "application/merge-patch+json"}
        async with self._session.patch(f"{PODS}/{name}/status", data=body, headers=headers) as answer:
            await answer.read()
            assert answer.status in (200, 404), (answer.status, await answer.text())


def status(spec: Raw, phase: str) -> Raw:
    """Return the status of a pod, all of whose containers run or have ended well."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "phase": phase,
        "podIP": "10.0.0.1",
        "startTime": now,
        "conditions": [{"type": "Ready", "status": "True" if phase == "Running" else "False",
                        "lastTransitionTime": now}],
        "initContainerStatuses": [
            _container(item["name"], phase if item.get("restartPolicy") == "Always" else "Succeeded", now)
            for item in spec.get("initContainers") or ()
        ],
        "containerStatuses": [_container(item["name"], phase, now) for item in spec["containers"]],
    }  # fmt: skip


def _container(name: str, phase: str, now: str) -> Raw:
    state: Raw = {"running": {"startedAt": now}}
    if phase != "Running":
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
        if name == "bridge":
            state["terminated"]["message"] = json.dumps(OUTCOME)
    common = {"image": "x", "imageID": "x", "ready": phase == "Running", "restartCount": 0, "started": True}
    return {"name": name, **common, "state": state}
