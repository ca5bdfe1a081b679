"""What is let in to the application, when, and of what size: no caller slows others down or fills the memory."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, defaultdict
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext

from fastapi.concurrency import run_in_threadpool
from polypod_core.pod_tokens import InvalidToken
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polypod_execution_api.cluster import ClusterAccess, ClusterUnavailable
from polypod_execution_api.metrics import Metrics
from polypod_execution_api.turns import Turns

LARGEST = 16 << 20
"""Bytes of a request's body: JSON takes up to twenty times its size while it is parsed."""
SMALL = 64 << 10
"""Bytes of a body, or a part of an answer, of which each connection may hold one."""
LARGE_AT_ONCE = 2
"""Larger ones that a namespace may have in memory at once."""
BODY_WITHIN, ANSWER_WITHIN = 60.0, 120.0
"""Seconds in which a body must arrive, and in which a part of an answer must be taken."""
_REMEMBERED = 10_000


class _Refused(Exception):
    """A request is answered before the application sees it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class _Gone(Exception):
    """The caller has closed the connection."""


class Admission:
    """The middleware. A request waits for its namespace's turn when its body is here, and only for its work.

    So neither a body that arrives slowly nor an answer that is read slowly keeps a place from others.
    """

    def __init__(
        self, app: ASGIApp, cluster: ClusterAccess, places: int, largest: int = LARGEST, metrics: Metrics | None = None
    ) -> None:
        """Stand before an application.

        Args:
            places: requests that are worked on at once.
            largest: bytes of a body.
            metrics: where requests are counted.
        """
        self._metrics = metrics
        self._app, self._cluster, self._places, self._largest = app, cluster, places, largest
        self._turns: Turns | None = None
        self._namespaces: OrderedDict[str, str] = OrderedDict()
        self._large: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LARGE_AT_ONCE))
        self._parsing = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and self._metrics is not None:
                self._metrics.answered(scope["method"], message["status"])
            await send(message)

        try:
            async with AsyncExitStack() as held:
                await self._serve(scope, receive, counted, held)
        except _Refused as error:
            await _answer(counted, error)
        except _Gone:
            return

    async def _serve(self, scope: Scope, receive: Receive, send: Send, held: AsyncExitStack) -> None:
        headers = Headers(scope=scope)
        who = await self._namespace(headers.get("authorization", ""))
        large = _Once(held, self._large[who])
        body = await self._body(headers, receive, large)
        scope.setdefault("state", {})["size"] = len(body)
        clock = asyncio.get_running_loop().time
        here = clock()
        parsing = _Once(held, self._parsing)
        if self._turns is None:
            self._turns = Turns(self._places, clock)
        with self._waiting():
            await self._turns.enter(who)
        turns, working = self._turns, True

        def finished() -> None:
            nonlocal working
            if working:
                working = False
                turns.leave(who)
                parsing.give_back()
                if self._metrics is not None:
                    self._metrics.seconds.observe(clock() - here)

        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        async def answer(message: Message) -> None:
            # its work is done, and committed
            finished()
            if len(message.get("body", b"")) > SMALL:
                await large.take()
            async with asyncio.timeout(ANSWER_WITHIN):
                await send(message)

        try:
            if len(body) > SMALL:
                # its owner works and waits for nothing
                await parsing.take()
            await self._app(scope, replay, answer)
        finally:
            finished()

    def _waiting(self) -> AbstractContextManager[None]:
        return self._metrics.waiting.track_inprogress() if self._metrics is not None else nullcontext()

    async def _body(self, headers: Headers, receive: Receive, large: _Once) -> bytes:
        too_large = _Refused(
            413, "too_large",
            f"the body has more than {self._largest} bytes; put large values into an object store and pass their place",
        )  # fmt: skip
        said = headers.get("content-length", "")
        if said.isdecimal() and int(said) > self._largest:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_WITHIN) as within:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._largest:
                        raise too_large
                    if not message.get("more_body", False):
                        return b"".join(parts)
                    if size > SMALL and not large.taken:
                        await large.take()
                        # the wait was ours
                        within.reschedule(asyncio.get_running_loop().time() + BODY_WITHIN)
        except TimeoutError:
            raise _Refused(408, "timeout", f"the body did not arrive within {BODY_WITHIN:.0f} s") from None

    async def _namespace(self, authorization: str) -> str:
        """Return the namespace whose pod has sent a request; "" for all whose token is not good, and for others."""
        token = authorization.partition(" ")[2]
        known = self._namespaces.get(token)
        if known is not None:
            return known
        try:
            claims = await run_in_threadpool(self._cluster.check, token)
        except (InvalidToken, ClusterUnavailable):
            return ""
        self._namespaces[token] = claims.namespace
        if len(self._namespaces) > _REMEMBERED:
            self._namespaces.popitem(last=False)
        return claims.namespace


class _Once:
    """A place that is taken at most once, and given back at the end at the latest."""

    def __init__(self, held: AsyncExitStack, places: asyncio.Semaphore) -> None:
        self._places = places
        self.taken = False
        held.callback(self.give_back)

    async def take(self) -> None:
        if not self.taken:
            await self._places.acquire()
            self.taken = True

    def give_back(self) -> None:
        if self.taken:
            self.taken = False
            self._places.release()


async def _answer(send: Send, error: _Refused) -> None:
    body = json.dumps({"detail": {"reason": error.reason, "message": str(error)}}).encode()
    # what is still to come of the body is not waited for
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
