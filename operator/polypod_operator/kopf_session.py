"""The session that kopf watches TaskRuns by: what kopf leaves open is made good here, where its calls pass.

kopf reads a line with the json module, which gives up at about 1,000 levels of nesting; it ends the operator at any
error of a watch but 410; it does not tell what was deleted while a watch was broken; and it processes our own writes,
which are most of what a watch shows. So each watch that kopf opens begins where we know everything (`Watch.list` reads
it and compares it with the store), errors are sat out, and of its lines kopf is shown those that are news, cut to a
depth that it can read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import aiohttp

from polypod_operator import reading
from polypod_operator.api import KubernetesApi
from polypod_operator.watch import Watch, lines


def session(api: KubernetesApi, watches: Sequence[Watch]) -> aiohttp.ClientSession:
    """Return a session for kopf, which closes it.

    Args:
        watches: what kopf watches, each with what is known of it.
    """
    by_path = {watch.path: watch for watch in watches}

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        watch = by_path.get(request.url.path)
        if watch is None or "watch" not in request.url.query:
            request.headers.update(api.authorization())
            return await handler(request)
        return await _open(api, watch, request, handler)

    return api.session_of_another(middleware)


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
                answer.content = cast(aiohttp.StreamReader, _News(answer.content, watch))
                return answer
            raise api.refused(answer.status, await answer.read(), answer.headers)
        except Exception as error:
            watch.broke(error)


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
                if self._watch.news(line) is not None:
                    yield reading.bounded(line) + b"\n"
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
