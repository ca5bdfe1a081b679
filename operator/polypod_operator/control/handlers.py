"""The kopf handlers: start, end, and news of TaskRuns. `on.event` only: no finalizer, no annotation."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import kopf
from aiohttp import web
from polypod_core.kinds import GROUP, PLURAL, VERSION
from polypod_core.reasons import Reason

from polypod_operator.control import kopf_session
from polypod_operator.control.controller import Controller
from polypod_operator.kube.api import ApiError
from polypod_operator.kube.leader import Leader
from polypod_operator.kube.own_state import OwnState, State
from polypod_operator.kube.pace import MOST
from polypod_operator.kube.raw import Raw
from polypod_operator.kube.watch import SILENCE, Sink, Watch
from polypod_operator.model import events
from polypod_operator.serve.health import Health
from polypod_operator.serve.outcomes import Outcomes, serve
from polypod_operator.serve.tls import Tls, TlsSettings

log = logging.getLogger("polypod.operator")
RETRY_START = 3.0
_REST = 5.0
"""Seconds that calls under way may take when we end."""
_CHECK = 1.0
"""Seconds between two looks at whether a watch has stalled."""
_IDLE = 0.5
"""Seconds for which kopf keeps a task for an object of which nothing more comes."""

_REASONS = {State.LEADING: Reason.OPERATOR_LEADING, State.PAUSED: Reason.OPERATOR_PAUSED}
"""The states of which an Event on the Lease tells; the log has all."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """HOST:PORT of what we serve; empty if it is not served."""

    outcomes: str = ""
    metrics: str = ""
    health: str = ""


class Operator:
    """An operator's life: it stands by until it leads, then works until it ends."""

    def __init__(
        self,
        controller: Controller,
        routing: tuple[str, str],
        lease: tuple[str, str] | None,
        identity: str,
        tls: TlsSettings | None = None,
    ) -> None:
        """Prepare.

        Args:
            routing: the namespace and name of the routing ConfigMap.
            lease: the namespace and name of the Lease of whom leads; None if there is no other operator.
            identity: who we are, for the lease.
            tls: how our services are reached; None for plain HTTP.
        """
        self.controller, self.routing = controller, routing
        self.state = OwnState()
        self.health = Health(controller.watches, self.state)
        self.outcomes = Outcomes(controller.api, controller.cache.saw_outcome)
        # what is under way must not reach the API server any more: nothing is tidied up
        lost = partial(os._exit, 1)
        self.leader = Leader(controller.api, lease, identity, lost, self.state) if lease is not None else None
        self.state.changed = self._state_changed
        self.tls = Tls(controller.api, tls, self.leads, controller.trust) if tls is not None else None
        self._routing_news: asyncio.Queue[Raw | None] = asyncio.Queue()
        self._routing_watch = self._watch_of_routing()
        self._tasks: list[asyncio.Task[None]] = []
        self._servers: list[web.AppRunner] = []

    async def begin(self, addresses: Addresses) -> None:
        """Open what others reach us by, stand by until we lead, read everything, and begin to work."""
        await self.controller.api.open()
        for application, address in (
            (self.health.application(), addresses.health),
            (self.controller.metrics.application(), addresses.metrics),
        ):
            if address:
                self._servers.append(await serve(application, address))
        if self.tls is not None:
            self._keep("the certificates", self.tls.keep())
        if addresses.outcomes:
            self._tasks.append(asyncio.create_task(self._serve_outcomes(addresses.outcomes)))
        await self._lead()
        await self._read()
        await self.outcomes.prepare()
        self.outcomes.open = True
        for _ in range(MOST):
            self._keep("a worker", self.controller.work())
        for watch in (*self.controller.pods, self._routing_watch):
            self._keep(f"the watch of {watch.plural}", watch.run())
        self._keep("the routing", self._follow_routing())
        self._keep("the watch over watches", self._check_watches())
        self.state.become(State.LEADING)

    def _state_changed(self, state: State, why: str) -> None:
        self.controller.metrics.is_now(state)
        if self.leader is not None and state in _REASONS:
            posting = asyncio.create_task(self._post_state(self.leader, state, why))
            self._tasks.append(posting)
            posting.add_done_callback(self._tasks.remove)

    async def _post_state(self, leader: Leader, state: State, why: str) -> None:
        """Record an Event on the Lease, also in a pause."""
        warning, message = state is State.PAUSED, f"{leader.identity} is {state}" + (f": {why}" if why else "")
        event = events.event(leader.reference, warning, _REASONS[state], message, self.controller.api.clock.now())
        try:
            await self.controller.api.once("POST", f"/api/v1/namespaces/{leader.reference['namespace']}/events", event)
        except ApiError as error:
            log.debug("an Event could not be posted: %s", error)

    async def _lead(self) -> None:
        if self.leader is not None:
            await self.leader.acquire()
            self._keep("the lease", self.leader.keep())
        if self.tls is not None:
            # pods that are made without certificates could not trust anybody
            await self.tls.ready.wait()

    async def _read(self) -> None:
        while True:
            try:
                await self.controller.start(self.routing)
                break
            except ApiError as error:
                hint = "; apply crds/taskruns.yaml first" if error.status == 404 else ""
                log.error("the objects cannot be read: %s%s", error, hint)
                await asyncio.sleep(RETRY_START)

    def _watch_of_routing(self) -> Watch:
        async def listed(uids: set[str], namespace: str) -> None:
            if not uids:
                self._routing_news.put_nowait(None)

        def saw(raw: Raw, deleted: bool) -> None:
            self._routing_news.put_nowait(None if deleted else raw)

        namespace, name = self.routing
        sink = Sink(lambda meta: False, saw, listed)
        selector = {"fieldSelector": f"metadata.name={name}"}
        told = self.controller.metrics.watch_restarted
        return Watch(self.controller.api, "/api/v1", "configmaps", sink, namespace, selector, told)

    async def _check_watches(self) -> None:
        while True:
            await asyncio.sleep(_CHECK)
            for watch in (*self.controller.watches, self._routing_watch):
                watch.check()

    async def _follow_routing(self) -> None:
        routing = self.controller.routing
        while True:
            try:
                raw = await asyncio.wait_for(self._routing_news.get(), routing.retry_after)
            except TimeoutError:
                await routing.try_again()
            else:
                await routing.saw(raw, "/".join(self.routing))

    async def _serve_outcomes(self, address: str) -> None:
        if self.tls is not None:
            await self.tls.ready.wait()
        context = self.tls.certificate.context if self.tls is not None else None
        self._servers.append(await serve(self.outcomes.application(), address, context))

    def leads(self) -> bool:
        return self.leader is None or self.leader.leading

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        self.health.watch_over(task)
        return task

    async def end(self) -> None:
        """Stop; another operator may lead as soon as nothing of ours is under way."""
        await self.controller.rest(_REST)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.leader is not None:
            await self.leader.release()
        for server in self._servers:
            await server.cleanup()
        await self.controller.api.close()


def register(registry: kopf.OperatorRegistry, operator: Operator, addresses: Addresses, server: str) -> None:
    """Register the handlers.

    Args:
        server: the API server's URL.
    """

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        # neither namespaces nor CRDs are looked for: so it needs no permission for that
        settings.scanning.disabled = True
        # what a watch begins with is read by ourselves (kopf_session.py)
        settings.watching.initial_streaming = True
        # kopf sees neither bookmarks nor what has not changed
        settings.watching.inactivity_timeout = 2 * SILENCE
        settings.queueing.idle_timeout = _IDLE
        try:
            # kopf watches nothing before this is done: so a standby reads nothing, and pods are known before TaskRuns
            await operator.begin(addresses)
        except asyncio.CancelledError:
            # kopf does not clean up after a start that was broken off
            await operator.end()
            raise

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await operator.end()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = kopf_session.session(operator.controller.api, operator.controller.runs)
        return kopf.AiohttpSession(server=server, aiohttp_session=session)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def task_run(event: kopf.RawEvent, **_: Any) -> None:
        """Take over what has been created, resumed, changed or deleted."""
        raw, deleted = cast(Raw, event["object"]), event["type"] == "DELETED"
        if "spec" in raw or deleted:
            operator.controller.cache.saw_run(raw, deleted)
        else:
            operator.controller.cache.saw_large_run(raw)
