"""List and watch, for what comes by the thousand: TaskRuns and pods. What a break has hidden, a new list brings.

Not kopf's: it took half of the operator's CPU in a burst, does not tell of what was deleted during a break, and ends
the operator at a watch's error other than 410 (docs/decisions/0010).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec

from polypod_operator import reading
from polypod_operator.api import ApiError, KubernetesApi
from polypod_operator.objects import Meta, Raw

log = logging.getLogger("polypod.operator")
RELIST = 600.0
"""Seconds after which everything is read anew: no watch is to be trusted for ever."""
_SILENCE = 100.0
"""Seconds without a word after which a watch is taken for dead: the API server sends a bookmark every 60 s."""
_PAUSE, _PAUSE_MAX = 0.2, 15.0


class Head(msgspec.Struct):
    """The beginning of an object; the rest is skipped."""

    metadata: Meta = msgspec.field(default_factory=Meta)
    code: int = 0
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a watch puts what it sees.

    Attributes:
        knows: tells from its metadata whether an object is no news, so that it need not be read.
        saw: takes an object over; True if it was deleted.
        listed: called after each list with the uids that were in it, and the namespace, empty for all.
    """

    knows: Callable[[Meta], bool]
    saw: Callable[[Raw, bool], None]
    listed: Callable[[set[str], str], Awaitable[None]]


class Watch:
    """Keeps up with the objects of one kind, in one namespace or in all."""

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
            restarted: told of every new beginning, and why: "closed", "expired", "silent" or "failed".
        """
        self.api, self.sink, self.namespace, self.plural = api, sink, namespace, plural
        self._path = f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"
        self._params = dict(params or {})
        self._restarted = restarted
        self._version = ""
        self._listed_at = 0.0
        self.heard = 0.0
        """When something was heard last, by the loop's clock; 0 before the first list."""

    async def list(self) -> None:
        """Read everything; the watch goes on from there.

        Raises:
            ApiError: it cannot be read.
        """
        seen: set[str] = set()
        async for page in self.api.pages(self._path, self._params):
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

    async def run(self) -> None:
        """Watch for ever, after the first `list`."""
        failures = 0
        while True:
            try:
                if not self._version or asyncio.get_running_loop().time() - self._listed_at > RELIST:
                    await self.list()
                why = await self._watch()
                failures = 0
            except ApiError as error:
                why = "expired" if error.status == 410 else "failed"
                if error.status == 410:
                    self._version = ""
                else:
                    failures += 1
                    log.warning("the watch of %s is broken: %s", self.plural, error)
            except Exception:
                # nothing that comes by a watch ends it
                why = "failed"
                failures += 1
                log.exception("the watch of %s failed and is begun anew", self.plural)
            self._restarted(self.plural, why)
            await asyncio.sleep(min(_PAUSE_MAX, _PAUSE * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _watch(self) -> str:
        """Watch once; return why it has ended."""
        params = {
            **self._params,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(random.randint(240, 480)),  # noqa: S311 - so that not all end at once
        }
        opened = False
        try:
            async with self.api.stream(self._path, params, _SILENCE) as lines:
                opened = True
                async for line in lines:
                    self.heard = asyncio.get_running_loop().time()
                    self._take(reading.decode(line, _Event))
        except TimeoutError:
            return "silent"
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            if not opened:
                raise ApiError(0, "Unreachable", str(error)) from None
        return "closed"

    def _take(self, event: _Event) -> None:
        head = reading.decode(event.object, Head)
        if event.type == "ERROR":
            raise ApiError(head.code, "Watch", head.message)
        if event.type == "DELETED" or (event.type != "BOOKMARK" and not self.sink.knows(head.metadata)):
            self._show(head.metadata, event.object, event.type == "DELETED")
        self._version = head.metadata.resource_version

    def _show(self, meta: Meta, raw: msgspec.Raw, deleted: bool) -> None:
        """Hand an object on. One that cannot be read, whoever made it, must not keep us from all others."""
        try:
            self.sink.saw(reading.decode(raw), deleted)
        except Exception:
            log.exception("%s %s/%s cannot be read and is left out", self.plural, meta.namespace, meta.name)
