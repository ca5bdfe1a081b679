"""The kopf handlers: start, end, and news of the routing. `on.event` only: no finalizer, no annotation."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import kopf
from aiohttp import web

from polypod_operator.api import ApiError
from polypod_operator.controller import WORKERS, Controller
from polypod_operator.outcomes import Outcomes, serve

RETRY_START = 3.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """HOST:PORT of what we serve; empty if it is not served."""

    outcomes: str = ""
    metrics: str = ""


def register(
    registry: kopf.OperatorRegistry, controller: Controller, routing: tuple[str, str], addresses: Addresses
) -> None:
    """Register the handlers; `routing` is the namespace and name of the routing ConfigMap."""
    tasks: list[asyncio.Task[None]] = []
    servers: list[web.AppRunner] = []

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        # neither namespaces nor CRDs are looked for: so it needs no permission for that
        settings.scanning.disabled = True
        settings.watching.field_selectors["configmaps"] = f"metadata.name={routing[1]}"
        settings.networking.enforce_retry_after = True
        settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 4, 8)
        await controller.api.open()
        try:
            await controller.start(routing)
        except ApiError as error:
            hint = "; apply crds/taskruns.yaml first" if error.status == 404 else ""
            raise kopf.TemporaryError(f"the objects cannot be read: {error}{hint}", delay=RETRY_START) from None
        if addresses.metrics:
            servers.append(await serve(controller.metrics.application(), addresses.metrics))
        if addresses.outcomes:
            outcomes = Outcomes(controller.api, controller.told)
            await outcomes.prepare()
            servers.append(await serve(outcomes.application(), addresses.outcomes))
        tasks.extend(asyncio.create_task(controller.work()) for _ in range(WORKERS))
        for watch in controller.watches:
            tasks.append(asyncio.create_task(watch.run()))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in servers:
            await server.cleanup()
        await controller.api.close()

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def config_map(event: kopf.RawEvent, namespace: str | None, name: str | None, **_: Any) -> None:
        if (namespace, name) == routing:
            raw = None if event["type"] == "DELETED" else event["object"]
            await controller.saw_routing(raw, f"{routing[0]}/{routing[1]}")
