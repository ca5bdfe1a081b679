"""The kopf handlers: start, end, and news of the routing. `on.event` only: no finalizer, no annotation."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import kopf
from aiohttp import web

from polypod_operator.api import ApiError
from polypod_operator.controller import WORKERS, Controller
from polypod_operator.health import Health
from polypod_operator.leader import Leader
from polypod_operator.outcomes import Outcomes, serve
from polypod_operator.tls import Tls, TlsSettings

log = logging.getLogger("polypod.operator")
RETRY_START = 3.0
_REST = 5.0
"""Seconds that calls under way may take when we end."""


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
        self.health = Health(controller.watches)
        self.outcomes = Outcomes(controller.api, controller.told)
        # what is under way must not reach the API server any more: nothing is tidied up
        self.leader = Leader(controller.api, lease, identity, lost=lambda: os._exit(1)) if lease is not None else None
        self.tls = Tls(controller.api, tls, self.leads, controller.trust) if tls is not None else None
        self._tasks: list[asyncio.Task[None]] = []
        self._servers: list[web.AppRunner] = []

    async def begin(self, addresses: Addresses) -> None:
        """Open what others reach us by, and stand by."""
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
        self._keep("the operator's work", self._live())

    async def _serve_outcomes(self, address: str) -> None:
        if self.tls is not None:
            await self.tls.ready.wait()
        context = self.tls.context if self.tls is not None else None
        self._servers.append(await serve(self.outcomes.application(), address, context))

    def leads(self) -> bool:
        return self.leader is None or self.leader.leading

    def _keep(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        self.health.watch_over(task)
        return task

    async def _live(self) -> None:
        if self.leader is not None:
            # a standby is as ready as it can be
            self.health.ready = True
            await self.leader.acquire()
            self.health.ready = False
            self._keep("the lease", self.leader.keep())
        if self.tls is not None:
            # pods that are made without certificates could not trust anybody
            await self.tls.ready.wait()
        while True:
            try:
                await self.controller.start(self.routing)
                break
            except ApiError as error:
                hint = "; apply crds/taskruns.yaml first" if error.status == 404 else ""
                log.error("the objects cannot be read: %s%s", error, hint)
                await asyncio.sleep(RETRY_START)
        await self.outcomes.prepare()
        self.outcomes.open = True
        workers = [self._keep("a worker", self.controller.work()) for _ in range(WORKERS)]
        watches = [self._keep(f"the watch of {watch.plural}", watch.run()) for watch in self.controller.watches]
        self.controller.metrics.leading.set(1)
        self.health.ready = True
        await asyncio.gather(*workers, *watches)

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


def register(registry: kopf.OperatorRegistry, operator: Operator, addresses: Addresses) -> None:
    """Register the handlers."""

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        # neither namespaces nor CRDs are looked for: so it needs no permission for that
        settings.scanning.disabled = True
        settings.watching.field_selectors["configmaps"] = f"metadata.name={operator.routing[1]}"
        settings.networking.enforce_retry_after = True
        settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 4, 8)
        await operator.begin(addresses)

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await operator.end()

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def config_map(event: kopf.RawEvent, namespace: str | None, name: str | None, **_: Any) -> None:
        if (namespace, name) == operator.routing and operator.leads():
            # a standby reads it when it begins to lead
            raw = None if event["type"] == "DELETED" else event["object"]
            await operator.controller.saw_routing(raw, "/".join(operator.routing))
