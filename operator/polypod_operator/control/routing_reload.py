"""The routing ConfigMap: parsed, tried on the API server, and taken into use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from polypod_core.errors import UserError
from polypod_core.reasons import Reason

from polypod_operator.control.cache import Cache
from polypod_operator.control.recorder import Recorder
from polypod_operator.decide.routing import RoutingState, parse
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.model import events
from polypod_operator.pods.pod import Settings
from polypod_operator.pods.trial import INVALID, trials
from polypod_operator.serve.metrics import Metrics

log = logging.getLogger("polypod.operator")


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
        metrics.queues = lambda: self.state.current.queue_to_coordinator if self.state.current is not None else ()

    async def saw(self, raw: Raw | None, where: str) -> None:
        """Take the routing ConfigMap over, and look at every TaskRun that may have waited for it.

        Args:
            where: its namespace and name, for messages.
        """
        state = self.state
        good_before = state.problem == ""
        if not state.load(raw, where, await self._try(raw, where)):
            return
        self._metrics.routing_reloads.labels("invalid" if state.problem else "loaded").inc()
        self._metrics.routing_valid.set(not state.problem)
        if state.problem:
            use = "the last valid one stays in use" if state.current is not None else "no TaskRun can start"
            log.error("the routing is invalid; %s: %s", use, state.problem)
            await self._record(raw, True, Reason.ROUTING_INVALID, state.problem)
            return
        log.info("routing loaded", extra={"config_map": where})
        if state.flaw:
            message = f"in use, except for coordinators that no queue maps to: {state.flaw}"
            log.warning("%s", message)
            await self._record(raw, True, Reason.ROUTING_INVALID, message)
        elif not good_before:
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

    async def _try(self, raw: Raw | None, where: str) -> str:
        """Return what the API server says of the pods that a routing makes, empty if it takes them, or cannot say."""
        if raw is None:
            return ""
        try:
            candidate, _ = parse(raw, where)
        except UserError:
            return ""
        if candidate == self.state.current:
            return ""
        namespace = self._namespaces[0] if self._namespaces else where.partition("/")[0]
        problems = []
        for name, tried in trials(candidate, namespace, self._settings()):
            problem = tried if isinstance(tried, str) else await self._refused(tried)
            if problem:
                problems.append(f"{name}: {problem}")
        return "; ".join(problems)

    async def _refused(self, manifest: dict[str, Any]) -> str:
        try:
            await self._api.create_pod(manifest, dry_run=True)
        except ApiError as error:
            if error.status in INVALID:
                return error.message
            # of this namespace, or of this moment: it says nothing of the template
            log.debug("a pod of the routing could not be tried: %s", error)
        return ""
