"""A queue of keys: each at most once in it, and never worked on twice at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to look at, now or later. What is added while it is worked on comes again afterwards."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        """Have the key looked at as soon as there is somebody to do so."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Have the key looked at after a time, or earlier if that is wanted already."""
        loop = asyncio.get_running_loop()
        old = self._timers.get(key)
        due = loop.time() + max(0.0, seconds)
        if old is not None:
            if old.when() <= due:
                return
            old.cancel()
        self._timers[key] = loop.call_at(due, self._ring, key)

    def _ring(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def forget(self, key: K) -> None:
        """Drop the timer of a key that is no more."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> K:
        """Wait for a key; it is the caller's until `done`."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._waiting:
            self._ready.put_nowait(key)

    def __len__(self) -> int:
        return self._ready.qsize()
