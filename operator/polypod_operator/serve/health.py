"""Liveness and readiness: `GET /healthz` and `GET /readyz`. Any answer proves that the event loop runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web

STALE = 300.0
"""Seconds without an event or a try after which a watch is not alive; opening one is tried for ever."""


class Heard(Protocol):
    """What a watch tells of itself: `heard` is when it last received something, on the loop's clock; 0 before."""

    plural: str
    heard: float


class Health:
    """What the probes ask for.

    Attributes:
        ready: True once this operator leads and has read everything, or knows that another one leads.
        problem: why it is not alive; empty if it is.
    """

    def __init__(self, watches: Sequence[Heard], paused: Callable[[], bool] = lambda: False) -> None:
        """Begin.

        Args:
            paused: tells whether everything waits for the API server, which a restart of ours would not bring back.
        """
        self._watches, self._paused = watches, paused
        self._tasks: list[asyncio.Task[None]] = []
        self.ready = False

    def watch_over(self, task: asyncio.Task[None]) -> None:
        """Have the operator not alive if a task that should never end does."""
        self._tasks.append(task)

    @property
    def problem(self) -> str:
        now = asyncio.get_running_loop().time()
        ended = [task.get_name() for task in self._tasks if task.done()]
        if ended:
            return f"{', '.join(ended)} ended"
        if self._paused():
            return ""
        silent = [watch.plural for watch in self._watches if watch.heard and now - watch.heard > STALE]
        return f"nothing was received from the watch of {', '.join(silent)} for {STALE:.0f} s" if silent else ""

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        return application

    async def _healthz(self, request: web.Request) -> web.Response:
        problem = self.problem
        return web.Response(status=503 if problem else 200, text=problem or "ok")

    async def _readyz(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503, text="ok" if self.ready else "not yet")
