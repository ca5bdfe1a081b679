"""A queue of keys: each at most once in it, and never worked on twice at the same time.

What is to begin goes before what is to be written down: in a burst, pods first, those of the oldest TaskRuns before
others, also if they come for a second time. Writing goes on meanwhile, but few at a time: a flood of writes slows the
API server's watches down for everybody, ours of new TaskRuns included (measured: bench/RESULTS.md, burst). The longer
writes have waited, the more of them may go at once, so that none waits for ever. How many keys are worked on in all
follows the API server's answers (`Pace`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from polypod_operator.kube.pace import Pace

K = TypeVar("K", bound=Hashable)
_RECENT = 1.0
"""Seconds for which something that was to begin has the others held back."""
_SHARE = 16
"""One of how many is for the others even then."""
_PATIENCE = 5.0
"""Seconds that the eldest of the others has waited, for each one more; they never take more than half."""


class WorkQueue(Generic[K]):
    """Keys to look at, now or later. What is added while it is worked on comes again afterwards.

    Attributes:
        urgent: tells whether a key is to begin, so that it goes before the others whatever has brought it here.
        age: what those that go first are ordered by, the smallest first; equal ones as they come.
    """

    def __init__(self, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        """Make an empty one.

        Args:
            pace: how many keys are worked on at once.
            clock: seconds that never go back.
        """
        self._pace, self._clock = pace, clock
        self.urgent: Callable[[K], bool] = lambda key: False
        self.age: Callable[[K], float] = lambda key: 0.0
        self._first: list[tuple[float, int, K]] = []
        self._added = count()
        self._held: OrderedDict[K, float] = OrderedDict()
        self._let_in: deque[K] = deque()
        self._writing: set[K] = set()
        self._last_first = -_RECENT
        self._ready = asyncio.Semaphore(0)
        self._waiting: dict[K, bool] = {}
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K, *, priority: bool = False) -> None:
        """Queue a key; `priority`: before those without it, as if it were to begin."""
        if self._waiting.get(key):
            return
        priority = priority or self.urgent(key)
        if key in self._waiting and not priority:
            return
        was_held = self._held.pop(key, None) is not None
        let_in = key in self._waiting and key not in self._working and not was_held
        self._waiting[key] = priority
        if key not in self._working and not let_in:
            self._put(key)

    def _put(self, key: K) -> None:
        if self._waiting[key]:
            self._last_first = self._clock()
            heappush(self._first, (self.age(key), next(self._added), key))
        else:
            self._held[key] = self._clock()
        self._admit()

    def _admit(self) -> None:
        """Let in as many as may be worked on now."""
        while self.busy + len(self._let_in) < self._pace.limit:
            if self._held and len(self._writing) < self._allowed():
                key, _ = self._held.popitem(last=False)
                self._writing.add(key)
            elif self._first:
                key = heappop(self._first)[2]
            else:
                return
            self._let_in.append(key)
            self._ready.release()

    def _allowed(self) -> int:
        """Return how many of those that are held back may be worked on now."""
        now, limit = self._clock(), self._pace.limit
        if not self._first and now - self._last_first >= _RECENT:
            return limit
        eldest = next(iter(self._held.values()))
        return min(limit // 2, max(1, limit // _SHARE) + int((now - eldest) / _PATIENCE))

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
        await self._ready.acquire()
        key = self._let_in.popleft()
        del self._waiting[key]
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        self._writing.discard(key)
        if key in self._waiting:
            self._put(key)
        self._admit()

    @property
    def busy(self) -> int:
        """How many keys are worked on."""
        return len(self._working)

    @property
    def ready(self) -> int:
        """How many keys `get` has without waiting."""
        return len(self._let_in)

    @property
    def begins(self) -> bool:
        """True if keys that are to begin wait for their turn."""
        return bool(self._first)

    def __len__(self) -> int:
        return len(self._let_in) + len(self._first) + len(self._held)
