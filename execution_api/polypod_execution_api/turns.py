"""Whose request is served next: a few at a time, and namespaces take turns.

One process serves one request at a time as fast as many: more of them at once only wait inside, in no order. So a few
run, the rest wait here, and while several namespaces have requests none of them has more than half of the places.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

_LATELY = 1.0
"""Seconds for which a namespace counts as one that has requests, after its last."""


class Turns:
    """Places for requests. Of one event loop."""

    def __init__(self, places: int, clock: Callable[[], float]) -> None:
        """Begin, with nobody there."""
        self._places, self._clock = places, clock
        self._running: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._seen: dict[str, float] = {}

    async def enter(self, who: str) -> None:
        """Wait for a place; `leave` it afterwards."""
        self._seen[who] = self._clock()
        if who not in self._waiting and self._may(who):
            self._running[who] = self._running.get(who, 0) + 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(who)
            else:
                self._drop(who, turn)
            raise

    def leave(self, who: str) -> None:
        """Give a place back, and to those whose turn it is."""
        self._seen[who] = self._clock()
        self._running[who] -= 1
        if not self._running[who]:
            del self._running[who]
        while (following := next(self._next(), None)) is not None:
            turn = self._waiting[following].popleft()
            if not self._waiting[following]:
                del self._waiting[following]
            else:
                self._waiting.move_to_end(following)
            self._running[following] = self._running.get(following, 0) + 1
            turn.set_result(None)

    def _next(self) -> Iterator[str]:
        return (who for who in self._waiting if self._may(who))

    def _may(self, who: str) -> bool:
        return sum(self._running.values()) < self._places and self._running.get(who, 0) < self._share(who)

    def _share(self, who: str) -> int:
        now = self._clock()
        for name in [name for name, seen in self._seen.items() if now - seen > _LATELY]:
            if name not in self._running and name not in self._waiting:
                del self._seen[name]
        return self._places if self._seen.keys() <= {who} else max(1, self._places // 2)

    def _drop(self, who: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(who)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            if not waiting:
                del self._waiting[who]
