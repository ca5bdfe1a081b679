"""The HTTP session that kopf watches TaskRuns with: it adds, in one middleware, what kopf's own watch lacks.

kopf decodes lines with the json module, which fails at about 1,000 levels of nesting. It stops the operator at every
watch error except 410. It misses objects that were deleted while a watch was broken. It processes our own writes, which
are most of what a watch shows. Here, every watch that kopf opens starts from a version where we know everything
(`Watch.list` reads all and compares it with the store), and kopf sees only lines with news, cut to a depth that it can
decode. Errors are retried, also those of what kopf asks before it watches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import aiohttp
import msgspec
from polypod_core.kinds import API_VERSION, KIND

from polypod_operator.control.large import LARGE
from polypod_operator.kube import reading
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.kube.watch import Event, Watch, lines

log = logging.getLogger("polypod.operator")
_BUSY = frozenset({429, 500, 502, 503, 504})
_LONGEST_PAUSE = 5.0


def session(api: KubernetesApi, watches: Sequence[Watch]) -> aiohttp.ClientSession:
    """Return a session for kopf, which closes it.

    Args:
        watches: what kopf watches, each with what is known of it.
    """
    by_path = {watch.path: watch for watch in watches}

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        watch = by_path.get(request.url.path)
        if watch is None or "watch" not in request.url.query:
            return await _patiently(api, request, handler)
        return await _open(api, watch, request, handler)

    return api.session_of_another(middleware)


async def _patiently(
    api: KubernetesApi, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Send a call of kopf's that is no watch; again while the API server is busy, as its error ends the operator."""
    pause = 0.5
    while True:
        request.headers.update(api.authorization())
        try:
            answer = await handler(request)
            if answer.status not in _BUSY:
                return answer
            answer.release()
        except (aiohttp.ClientConnectionError, OSError) as error:
            log.warning("the API server cannot be reached: %s", error)
        await asyncio.sleep(pause)
        pause = min(_LONGEST_PAUSE, 2 * pause)


async def _open(
    api: KubernetesApi, watch: Watch, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Open a watch from where we know everything, in place of where kopf asks for; try for as long as it takes."""
    while True:
        await watch.pause()
        try:
            request.url = request.url.with_query(await watch.params())
            request.headers.update(api.authorization())
            answer = await handler(request)
            if answer.status < 400:
                watch.opened(answer.close)
                answer.content = cast(aiohttp.StreamReader, _News(answer.content, watch))
                return answer
            raise api.refused(answer.status, await answer.read(), answer.headers)
        except Exception as error:
            watch.broke(error)


class _Metadata(msgspec.Struct):
    metadata: msgspec.Raw


def _without_spec(event: Event) -> bytes:
    """Return an event with the metadata of its object alone: kopf would hold many large ones whole at once."""
    metadata = reading.decode(event.object, _Metadata).metadata
    kind = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}
    return msgspec.json.encode({"type": event.type, "object": kind})


class _News:
    """What comes by a watch, as kopf sees it; kopf asks for no more than `iter_chunked`, aiohttp for the rest."""

    def __init__(self, content: aiohttp.StreamReader, watch: Watch) -> None:
        self._content = content
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield the lines that kopf is to see; they end when the watch does, for whatever reason."""
        try:
            async for line in lines(self._content):
                event = self._watch.news(line)
                if event is not None:
                    yield reading.bounded(line if len(line) <= LARGE else _without_spec(event)) + b"\n"
        except asyncio.CancelledError:
            # kopf has waited for long enough
            self._watch.ended("silent")
            raise
        except aiohttp.ClientError:
            self._watch.ended("closed")
        except Exception as error:
            self._watch.broke(error)
        else:
            self._watch.ended("closed")
