"""List and watch. A relist recovers events that were missed while disconnected.

Pods and the routing are watched here; TaskRuns are watched by kopf, and listed here (kopf_session.py,
docs/decisions/0018).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from polypod_operator.kube import reading
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Meta, Raw, version

log = logging.getLogger("polypod.operator")
RELIST = 600.0
"""Seconds after which everything is listed again: no watch is trusted for ever."""
SILENCE = 40.0
"""Seconds of silence after which a watch counts as stalled: the API server sends a bookmark before it ends one."""
_SHORTEST, _LONGEST = 20, 30
"""Seconds that a watch lasts, if nothing happens to it; to open it again costs no list."""
OVERDUE = 5.0
"""Seconds of silence after which a watch counts as stalled that has not shown what we have written ourselves."""
_PAUSE, _PAUSE_MAX, _PAUSE_CLOSED = 0.2, 15.0, 2.0
_SHORT = 3.0
"""Seconds that a watch lasts, at least, not to count among those that are closed again and again."""


class Head(msgspec.Struct):
    """The beginning of an object; the rest is skipped."""

    metadata: Meta = msgspec.field(default_factory=Meta)
    code: int = 0
    message: str = ""


class Event(msgspec.Struct):
    """A line of a watch."""

    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a watch puts what it sees.

    Attributes:
        knows: tells from its metadata whether an object has not changed, so that it need not be read.
        saw: takes an object over; True if it was deleted.
        listed: called after each list with the uids that were in it, and the namespace, empty for all.
    """

    knows: Callable[[Meta], bool]
    saw: Callable[[Raw, bool], None]
    listed: Callable[[set[str], str], Awaitable[None]]


class Watch:
    """Keeps up with the objects of one kind, in one namespace or in all.

    Attributes:
        path: of the list, from the API server's root.
        heard: when something was heard last, or a break was noticed, by the loop's clock; 0 before the first list.
        close: closes the stream that is open, so that it is opened again from where we are.
    """

    def __init__(
        self,
        api: KubernetesApi,
        group: str,
        plural: str,
        sink: Sink,
        namespace: str = "",
        params: Mapping[str, str] | None = None,
        restarted: Callable[[str, str], None] = lambda plural, why: None,
    ) -> None:
        """Prepare.

        Args:
            group: the path of the API group and version, such as /api/v1.
            restarted: told of every new beginning before its time, and why: "closed", "expired", "silent" or "failed".
        """
        self.api, self.sink, self.namespace, self.plural = api, sink, namespace, plural
        self.path = f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"
        self._params = dict(params or {})
        self._restarted = restarted
        self._version = ""
        self._listed_at = 0.0
        self._failures = 0
        self._ended = ""
        self._opened = 0.0
        self._stalled = False
        self._written = 0
        self.close: Callable[[], None] | None = None
        self.heard = 0.0

    async def list(self) -> None:
        """Read everything; the watch goes on from there.

        Raises:
            ApiError: it cannot be read.
        """
        seen: set[str] = set()
        async for page in self.api.pages(self.path, self._params):
            for raw in page.items or ():
                meta = reading.decode(raw, Head).metadata
                seen.add(meta.uid)
                if not self.sink.knows(meta):
                    self._show(meta, raw, False)
            version = page.metadata.resource_version
            # a long list must not keep the loop from everything else
            await asyncio.sleep(0)
        await self.sink.listed(seen, self.namespace)
        self._version = version
        self._listed_at = self.heard = asyncio.get_running_loop().time()

    async def params(self) -> dict[str, str]:
        """Return what is asked for to watch from where we are; if that is not known, or long ago, we list first.

        Raises:
            ApiError: it cannot be read.
        """
        if not self._version or asyncio.get_running_loop().time() - self._listed_at > RELIST:
            await self.list()
        return {
            **self._params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(random.randint(_SHORTEST, _LONGEST)),  # noqa: S311 - not all at once
        }

    def opened(self, close: Callable[[], None]) -> None:
        """Note that a stream is open; `close` closes it."""
        self.close, self._opened = close, asyncio.get_running_loop().time()

    def wrote(self, namespace: str, raw: Raw) -> None:
        """Note the answer to a write of ours: the watch is to show it soon."""
        if self.namespace in ("", namespace):
            self._written = max(self._written, version(raw["metadata"]["resourceVersion"]))

    def check(self) -> None:
        """Close a stream that has stalled: nothing is heard by it, although it has something to show, or for long."""
        if self.close is None:
            return
        silent = asyncio.get_running_loop().time() - self.heard
        if silent > SILENCE or (silent > OVERDUE and self._written > version(self._version)):
            log.warning("the watch of %s has shown nothing for %.0f s; opening it again", self.plural, silent)
            close, self.close = self.close, None
            # what is never shown must not have it opened again for ever
            self._stalled, self._written = True, 0
            close()

    def news(self, line: bytes) -> Event | None:
        """Take a line over and return its event; None if there is nothing in it that we do not know already.

        Raises:
            ApiError: it is an error.
            msgspec.DecodeError: it is no event.
        """
        self.heard = asyncio.get_running_loop().time()
        event = reading.decode(line, Event)
        head = reading.decode(event.object, Head)
        if event.type == "ERROR":
            raise ApiError(head.code, "Watch", head.message)
        if event.type != "BOOKMARK" and not head.metadata.name:
            # kopf stops at an object without metadata
            raise msgspec.DecodeError(f"{event.type} of an object without a name")
        self._version = head.metadata.resource_version
        if event.type == "BOOKMARK" or (event.type != "DELETED" and self.sink.knows(head.metadata)):
            return None
        return event

    def ended(self, why: str) -> None:
        """Note why a watch has ended, in one word."""
        now = asyncio.get_running_loop().time()
        if self._stalled:
            why, self._stalled = "silent", False
        lasted = now - self._opened
        again = why == "failed" or (why == "closed" and lasted < _SHORT)
        self._failures = self._failures + 1 if again else 0
        self._ended, self.heard, self.close = why, now, None
        if why != "closed" or lasted < _SHORTEST:
            # others end because we have asked for no more
            self._restarted(self.plural, why)

    def broke(self, error: Exception) -> None:
        """Note that a watch has ended by an error: nothing that comes by it ends the operator."""
        if isinstance(error, ApiError) and error.status == 410:
            self._version = ""
            self.ended("expired")
        elif isinstance(error, (ApiError, aiohttp.ClientError, OSError)):
            log.warning("the watch of %s is broken: %s", self.plural, error)
            self.ended("failed")
        else:
            # the same line must not come again for ever
            self._version = ""
            log.error("the watch of %s failed; starting it again", self.plural, exc_info=error)
            self.ended("failed")

    async def pause(self) -> None:
        """Wait before the next beginning: for longer, the more in a row have failed."""
        if self._ended == "failed" or self._failures:
            longest = _PAUSE_MAX if self._ended == "failed" else _PAUSE_CLOSED
            most = min(longest, _PAUSE * 2.0 ** min(self._failures - 1, 10))
            await asyncio.sleep(most * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def run(self) -> None:
        """Watch for ever, after the first `list`."""
        while True:
            await self.pause()
            try:
                await self._watch()
                self.ended("closed")
            except Exception as error:
                self.broke(error)

    async def _watch(self) -> None:
        """Watch once."""
        opened = False
        try:
            # `check` sees to one that is open; an API server may take the call and not even answer it
            async with self.api.stream(self.path, await self.params(), 2 * SILENCE) as answer:
                opened = True
                self.opened(answer.close)
                async for line in lines(answer.content):
                    event = self.news(line)
                    if event is not None:
                        meta = reading.decode(event.object, Head).metadata
                        self._show(meta, event.object, event.type == "DELETED")
        except (aiohttp.ClientError, OSError):
            # one that was open and is closed, gracefully or not, is what watches come to
            if not opened:
                raise

    def _show(self, meta: Meta, raw: msgspec.Raw, deleted: bool) -> None:
        """Hand an object on. One that cannot be read, whoever made it, must not keep us from all others."""
        try:
            self.sink.saw(reading.decode(raw), deleted)
        except Exception:
            log.exception("%s %s/%s cannot be read and is left out", self.plural, meta.namespace, meta.name)


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of an answer, however long they are."""
    rest = b""
    async for chunk in content.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            yield line
