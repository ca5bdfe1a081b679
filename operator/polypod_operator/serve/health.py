"""Liveness and readiness: `GET /healthz` and `GET /readyz`. Any answer proves that the event loop runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from polypod_operator.kube.own_state import OwnState, State

STALE = 300.0
"""Seconds without an event or a try after which a watch is not alive; opening one is tried for ever."""


LONG_PAUSE = 60.0
"""Seconds for which it may be paused although the API server answers, before it is not alive."""


class Heard(Protocol):
    """What a watch tells of itself: `heard` is when it last received something, on the loop's clock; 0 before."""

    plural: str
    heard: float


class Health:
    """What the probes ask for.

    Attributes:
        problem: why it is not alive; empty if it is.
    """

    def __init__(self, watches: Sequence[Heard], state: OwnState) -> None:
        self._watches, self._state = watches, state
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """True once this operator leads and has read everything, or knows that another one leads; not in a pause."""
        return self._state.now in (State.STANDBY, State.LEADING)

    def watch_over(self, task: asyncio.Task[None]) -> None:
        """Have the operator not alive if a task that should never end does."""
        self._tasks.append(task)

    @property
    def problem(self) -> str:
        now = asyncio.get_running_loop().time()
        ended = [task.get_name() for task in self._tasks if task.done()]
        if ended:
            return f"{', '.join(ended)} ended"
        if self._state.now is State.PAUSED:
            # the watches wait as well; a restart does not bring the API server back
            hopeless = self._state.refused and self._state.lasted > LONG_PAUSE
            return f"paused: {self._state.why}" if hopeless else ""
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
        why = f": {self._state.why}" if self._state.why else ""
        return web.Response(status=200 if self.ready else 503, text=f"{self._state.now}{why}")
