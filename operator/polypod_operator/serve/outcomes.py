"""Outcomes that bridges send: a task that has ended shows at once, and not when the kubelet has ended its pod.

A bridge shows the token of its pod, which says which pod that is; so it can tell of no other. What it sends is what it
leaves as its termination message, byte for byte: either way alone is enough, and both say the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable

import msgspec
from aiohttp import web
from polypod_core.outcome import MAX_SIZE, Outcome, decode
from polypod_core.pod_tokens import DISCOVERY, KEYS, InvalidToken, KeyCache, PodClaims

from polypod_operator.kube.api import ApiError, KubernetesApi

log = logging.getLogger("polypod.operator")


class Outcomes:
    """Takes outcomes at `POST /outcomes`."""

    def __init__(self, api: KubernetesApi, take: Callable[[PodClaims, Outcome], bool]) -> None:
        """Prepare. While `open` is False, callers are told to ask again.

        Args:
            take: takes an outcome over; returns False if the pod is none of those that we know.
        """
        self._api = api
        self._take = take
        self._keys = KeyCache()
        self._reads = 0
        self.open = False
        self._reading = asyncio.Lock()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=4 * MAX_SIZE)
        application.router.add_post("/outcomes", self._post)
        return application

    async def prepare(self) -> None:
        """Read the cluster's keys ahead, so that the first outcome need not wait for them."""
        try:
            await self._read()
        except ApiError as error:
            log.warning("the cluster's keys cannot be read: %s", error)

    async def _post(self, request: web.Request) -> web.Response:
        if not self.open:
            # a standby, or one that has not read everything yet
            return web.Response(status=503, text="this operator does not lead; ask again")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return web.Response(status=401, text="send the pod's token as 'Authorization: Bearer …'")
        try:
            claims = await self._check(token)
        except (InvalidToken, RecursionError) as error:
            return web.Response(status=403, text=f"the token is not valid: {error}")
        except ApiError as error:
            log.warning("an outcome cannot be taken, as the cluster's keys cannot be read: %s", error)
            return web.Response(status=503, text=f"the cluster's keys cannot be read: {error}")
        try:
            outcome = decode(await request.read())
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return web.Response(status=400, text=f"request body is not a valid outcome: {error}")
        if not self._take(claims, outcome):
            return web.Response(status=404, text=f"pod {claims.namespace}/{claims.name} is unknown")
        return web.Response(status=204)

    async def _check(self, token: str) -> PodClaims:
        if self._keys.renew():
            # outcomes must not be refused because the cluster's API server restarts
            with contextlib.suppress(ApiError):
                await self._read()
        claims = self._keys.claims(token)
        if claims is None:
            await self._read()
            claims = self._keys.claims(token)
        assert claims is not None
        return claims

    async def _read(self) -> None:
        reads = self._reads
        async with self._reading:
            # another request may have read them meanwhile
            if self._reads == reads:
                self._keys.put(await self._api.call("GET", DISCOVERY), await self._api.call("GET", KEYS))
                self._reads += 1


async def serve(application: web.Application, address: str, context: ssl.SSLContext | None = None) -> web.AppRunner:
    """Serve an application at HOST:PORT, with TLS if there is a context; the caller cleans the runner up."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    await web.TCPSite(runner, host.strip("[]") or None, int(port), ssl_context=context).start()
    return runner
