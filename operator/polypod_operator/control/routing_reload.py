"""The routing ConfigMap: parsed, tried on the API server, and taken into use."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from polypod_core.errors import UserError
from polypod_core.reasons import Reason

from polypod_operator.control.cache import Cache
from polypod_operator.control.recorder import Recorder
from polypod_operator.decide.routing import RoutingState, parse
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.model import events
from polypod_operator.pods.pod import Settings
from polypod_operator.pods.trial import trials
from polypod_operator.serve.metrics import Metrics

log = logging.getLogger("polypod.operator")
_PATIENCE = 10.0
"""Seconds that all trials of a routing may take: TaskRuns wait for it meanwhile."""
_RETRY, _RETRY_MAX = 15.0, 300.0
"""Seconds before a routing that could not be tried is tried again, doubled each time."""


class RoutingReload:
    """Takes the routing over; one that is invalid leaves the last valid one in use.

    Attributes:
        state: what is in use.
    """

    def __init__(
        self,
        api: KubernetesApi,
        cache: Cache,
        recorder: Recorder,
        metrics: Metrics,
        settings: Callable[[], Settings],
        namespaces: list[str],
    ) -> None:
        """Take over; `namespaces` is what is served, nothing for all."""
        self._api, self._cache, self._recorder, self._metrics = api, cache, recorder, metrics
        self._settings, self._namespaces = settings, namespaces
        self.state = RoutingState()
        self._raw: Raw | None = None
        self._where, self._tries = "", 0
        self._passed: set[bytes] = set()
        metrics.queues = lambda: self.state.current.queue_to_coordinator if self.state.current is not None else ()

    async def saw(self, raw: Raw | None, where: str) -> None:
        """Take the routing ConfigMap over, and look at every TaskRun that may have waited for it.

        Args:
            where: its namespace and name, for messages.
        """
        self._raw, self._where, self._tries = raw, where, 0
        self._passed.clear()
        await self._load()

    async def try_again(self) -> None:
        """Try the routing in use once more, as that was not possible when it was loaded."""
        self._tries += 1
        await self._load()

    @property
    def retry_after(self) -> float | None:
        """Seconds until the routing is to be tried again; None if that was done."""
        return min(_RETRY * 2.0 ** min(self._tries, 10), _RETRY_MAX) if self.state.untried else None

    async def _load(self) -> None:
        state, raw, where = self.state, self._raw, self._where
        good_before, in_use = state.problem == "", state.current
        refused, untried = await self._try(raw, where)
        if not state.load(raw, where, refused, untried):
            return
        self._metrics.routing_reloads.labels("invalid" if state.problem else "loaded").inc()
        self._metrics.routing_valid.set(not state.problem)
        self._metrics.routing_tried.set(not state.untried)
        if state.problem:
            use = "the last valid one stays in use" if state.current is not None else "no TaskRun can start"
            log.error("the routing is invalid; %s: %s", use, state.problem)
            await self._record(raw, True, Reason.ROUTING_INVALID, state.problem)
            if state.current is None:
                # what waits says why
                self._wake()
            return
        log.info("routing loaded", extra={"config_map": where})
        if state.untried:
            message = (
                f"in use; whether the API server accepts its pods is not known and is tried again: {state.untried}"
            )
            log.warning("the routing could not be tried; %s", message)
            await self._record(raw, True, Reason.ROUTING_UNTRIED, message)
        if state.flaw:
            message = f"in use, except for coordinators that no queue maps to: {state.flaw}"
            log.warning("%s", message)
            await self._record(raw, True, Reason.ROUTING_INVALID, message)
        elif not state.untried and (not good_before or in_use == state.current):
            await self._record(raw, False, Reason.ROUTING_LOADED, "the routing is valid and in use")
        self._wake()

    def _wake(self) -> None:
        cache, current = self._cache, self.state.current
        cache.wake(cache.places.set_limits(current.queue_limits if current is not None else {}))
        for key in cache.store.without_attempt():
            if cache.places.where(key) != "waits":
                cache.queue.add(key)

    async def _record(self, raw: Raw | None, warning: bool, reason: Reason, message: str) -> None:
        if raw is not None:
            await self._recorder.record(events.about_routing(raw), warning, reason, message)

    async def _try(self, raw: Raw | None, where: str) -> tuple[str, str]:
        """Return what the API server says against the pods that a routing makes, and why it could not say anything.

        Both are empty if it takes them. Only a pod that is not valid anywhere is a fault of the routing: an admission
        policy, a quota, a role or the network is of this namespace, or of this moment.
        """
        if raw is None:
            return "", ""
        try:
            candidate, _ = parse(raw, where)
        except UserError:
            return "", ""
        if candidate == self.state.current == self.state.tried:
            return "", ""
        namespaces = self._namespaces or [where.partition("/")[0]]
        problems, untried = [], ""
        try:
            async with asyncio.timeout(_PATIENCE):
                for name, tried in trials(candidate, namespaces[0], self._settings()):
                    problem, why = (tried, "") if isinstance(tried, str) else await self._refused(tried, namespaces)
                    if problem:
                        problems.append(f"{name}: {problem}")
                    if why:
                        untried = untried or f"{name}: {why}"
        except TimeoutError:
            untried = f"the API server took longer than {_PATIENCE:.0f} s; {len(self._passed)} pods are accepted so far"
        return "; ".join(problems), "" if problems else untried

    async def _refused(self, manifest: dict[str, Any], namespaces: list[str]) -> tuple[str, str]:
        """Try a pod in one namespace after the other, until one of them can tell."""
        why, mark = "", hashlib.sha256(msgspec.json.encode(manifest)).digest()
        if mark in self._passed:
            # by an earlier trial, which had no time for all
            return "", ""
        for namespace in namespaces:
            manifest["metadata"]["namespace"] = namespace
            try:
                await self._api.create_pod(manifest, dry_run=True)
            except ApiError as error:
                if error.invalid:
                    return error.message, ""
                log.debug("a pod of the routing could not be tried: %s", error)
                why = why or f"in namespace {namespace!r}: {error.message}"
            else:
                self._passed.add(mark)
                return "", ""
        return "", why
