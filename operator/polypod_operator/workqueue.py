"""A queue of keys: each at most once in it, and never worked on twice at the same time.

What is to begin goes before what is to be written down: in a burst, pods first. Some workers do it the other way round,
so that neither waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to look at, now or later. What is added while it is worked on comes again afterwards."""

    def __init__(self) -> None:
        self._first: deque[K] = deque()
        self._then: deque[K] = deque()
        self._ready = asyncio.Semaphore(0)
        self._waiting: dict[K, bool] = {}
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K, *, first: bool = False) -> None:
        """Have the key looked at as soon as there is somebody to do so; `first`: before those that are not."""
        if key in self._waiting:
            return
        self._waiting[key] = first
        if key not in self._working:
            self._put(key)

    def _put(self, key: K) -> None:
        (self._first if self._waiting[key] else self._then).append(key)
        self._ready.release()

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

    async def get(self, *, first: bool = True) -> K:
        """Wait for a key; it is the caller's until `done`.

        Args:
            first: whether what is to go first does, for this caller.
        """
        await self._ready.acquire()
        preferred, other = (self._first, self._then) if first else (self._then, self._first)
        key = (preferred or other).popleft()
        del self._waiting[key]
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._waiting:
            self._put(key)

    def __len__(self) -> int:
        return len(self._first) + len(self._then)
