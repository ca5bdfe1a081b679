"""The kopf handlers: they say which object has changed, and no more. `on.event` only: no finalizer, no annotation."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
from polypod_crds.taskrun import GROUP, PLURAL, VERSION

from polypod_operator.api import ApiError
from polypod_operator.controller import Controller
from polypod_operator.objects import LABELLED

WORKERS = 16
RETRY_START = 3.0
RESYNC = 300.0
"""Seconds between two readings of everything."""


def register(registry: kopf.OperatorRegistry, controller: Controller, routing: tuple[str, str]) -> None:
    """Register the handlers; `routing` is the namespace and name of the routing ConfigMap."""
    tasks: list[asyncio.Task[None]] = []

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False
        settings.watching.label_selectors["pods"] = LABELLED
        settings.watching.field_selectors["configmaps"] = f"metadata.name={routing[1]}"
        settings.networking.enforce_retry_after = True
        settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 4, 8)
        await controller.api.open()
        try:
            await controller.start(routing)
        except ApiError as error:
            hint = "; apply crds/taskruns.yaml first" if error.status == 404 else ""
            raise kopf.TemporaryError(f"the objects cannot be read: {error}{hint}", delay=RETRY_START) from None
        for _number in range(WORKERS):
            tasks.append(asyncio.create_task(controller.work()))
        tasks.append(asyncio.create_task(_resync(controller)))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await controller.api.close()

    def served(namespace: str | None, **_: Any) -> bool:
        # the routing's namespace is watched as well, but need not be one that is served
        return not controller.namespaces or namespace in controller.namespaces

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, when=served)
    async def task_run(event: kopf.RawEvent, **_: Any) -> None:
        controller.saw_run(event["object"], deleted=event["type"] == "DELETED")

    @kopf.on.event("", "v1", "pods", registry=registry, when=served)
    async def pod(event: kopf.RawEvent, **_: Any) -> None:
        controller.saw_pod(event["object"], deleted=event["type"] == "DELETED")

    @kopf.on.event("", "v1", "configmaps", registry=registry)
    async def config_map(event: kopf.RawEvent, namespace: str | None, name: str | None, **_: Any) -> None:
        if (namespace, name) == routing:
            raw = None if event["type"] == "DELETED" else event["object"]
            await controller.saw_routing(raw, f"{routing[0]}/{routing[1]}")


async def _resync(controller: Controller) -> None:
    while True:
        await asyncio.sleep(RESYNC)
        await controller.resync()
