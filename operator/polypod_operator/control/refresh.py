"""Reads TaskRuns and pods again: what a list did not show, what was written by others, what is large."""

from __future__ import annotations

import asyncio

from polypod_core.kinds import API_VERSION, PLURAL, UID_LABEL, Key, task_run_path

from polypod_operator.control.cache import Cache
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.kube.watch import Sink, Watch
from polypod_operator.model import objects
from polypod_operator.model.objects import PodObject, TaskRunObject
from polypod_operator.serve.metrics import Metrics


class Refresh:
    """Brings the cache up to date with the API server.

    Attributes:
        pods: the watches of pods, by namespace.
        runs: those of TaskRuns.
    """

    def __init__(self, api: KubernetesApi, cache: Cache) -> None:
        self._api, self._cache = api, cache
        self.pods: list[Watch] = []
        self.runs: list[Watch] = []
        self._asking: set[asyncio.Future[None]] = set()

    def watch(self, namespaces: list[str], metrics: Metrics) -> None:
        """Prepare what is watched, by namespace: pods, and TaskRuns, whose news kopf brings.

        Args:
            namespaces: nothing for all.
        """
        cache, api, told = self._cache, self._api, metrics.watch_restarted
        pods = Sink(cache.store.knows_pod, self._saw_pod, self._listed_pods)
        runs = Sink(cache.store.knows_run, cache.saw_run, self._listed_runs)
        labelled, names = {"labelSelector": UID_LABEL}, namespaces or [""]
        self.pods = [Watch(api, "/api/v1", "pods", pods, name, labelled, told) for name in names]
        self.runs = [Watch(api, f"/apis/{API_VERSION}", PLURAL, runs, name, None, told) for name in names]

    def wrote_pod(self, namespace: str, answer: Raw) -> None:
        """Note the answer to a write of ours to a pod."""
        for watch in self.pods:
            watch.wrote(namespace, answer)

    def wrote_run(self, namespace: str, answer: Raw) -> None:
        """Note the answer to a write of ours to a TaskRun."""
        for watch in self.runs:
            watch.wrote(namespace, answer)

    def _saw_pod(self, raw: Raw, deleted: bool) -> None:
        if deleted and "deletionTimestamp" not in raw["metadata"]:
            # gone at once, or only out of our sight, as somebody has changed its labels
            asking = asyncio.ensure_future(self._ask_for_pod(raw))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        else:
            self._cache.saw_pod(raw, deleted)

    async def _ask_for_pod(self, raw: Raw) -> None:
        metadata = raw["metadata"]
        try:
            found = await self._api.get_pod(metadata["namespace"], metadata["name"])
        except ApiError as error:
            if error.status == 404:
                self._cache.saw_pod(raw, True)
            # else the next list has it asked for again
            return
        if found["metadata"]["uid"] != metadata["uid"]:
            self._cache.saw_pod(raw, True)
        self._cache.saw_pod(found, False)

    async def _listed_pods(self, uids: set[str], namespace: str) -> None:
        """Look for the pods that were not in a list: it may be older than what we know."""
        for pod in self._cache.store.pods():
            if pod.uid not in uids and not pod.gone and namespace in ("", pod.namespace):
                await self._pod(pod)

    async def _pod(self, pod: PodObject) -> None:
        """Take over that a pod is gone or has a successor of its name, if that is so."""
        try:
            found = objects.pod(await self._api.get_pod(pod.namespace, pod.name))
        except ApiError as error:
            if error.status != 404:
                raise
            found = objects.replace_gone(pod)
        self._cache.take_pod(found)

    async def _listed_runs(self, uids: set[str], namespace: str) -> None:
        """Look for the TaskRuns that were not in a list."""
        store = self._cache.store
        for key, uid in store.uids():
            run = store.run(key) if uid not in uids and namespace in ("", key[0]) else None
            if run is not None:
                await self.run(run)
        for node in list(store.graph.nodes()):
            if node.uid not in uids and namespace in ("", node.key[0]) and store.run(node.key) is None:
                self._cache.leave_graph(node.key, node.uid)

    async def run(self, run: TaskRunObject) -> None:
        """Read a TaskRun again and look at it; let it go if it is gone."""
        try:
            raw = await self._api.call("GET", run.path)
        except ApiError as error:
            if error.status != 404:
                raise
            self._cache.lost(run)
            return
        self._cache.put_run(objects.task_run(raw), raw)
        self._cache.queue.add(run.key)

    async def whole(self, key: Key) -> TaskRunObject | None:
        """Return a TaskRun with all of its spec, as it is now; None if there is nothing to do for it."""
        cache = self._cache
        known, unread = cache.store.run(key), key in cache.unread
        # news that come while it is read have it read once more
        cache.unread.discard(key)
        try:
            raw = await self._api.call("GET", task_run_path(*key))
        except ApiError as error:
            if error.status != 404:
                if unread:
                    cache.unread.add(key)
                raise
            if known is not None:
                cache.lost(known)
            return None
        try:
            return cache.read(raw, reparse=True)
        except Exception as error:
            cache.unreadable(raw, f"TaskRun cannot be parsed: {type(error).__name__}: {error}")
            return None
