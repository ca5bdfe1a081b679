"""How many TaskRuns are worked on at once: more while the API server keeps up, fewer while its answers take long. Pure.

A full API server answers everybody later with each call that waits for it, and closes watches that it cannot serve in
time. Its answers to our own writes tell how full it is (docs/decisions/0021).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

LEAST, FIRST, MOST = 8, 32, 64
"""The fewest TaskRuns that are worked on at once, how many it begins with, and the most."""
_WINDOW = 1.0
"""Seconds of answers that are judged together; earlier, if there are many."""
_MANY = 50
_LONG = 0.5
"""Seconds that an answer may take on a full API server. One that is far away may always take ten times its shortest."""
_MEMORY = 60.0
"""Seconds after which the shortest median is forgotten: twice that at most."""


class Pace:
    """The limit, by the answers to our writes.

    Attributes:
        limit: how many TaskRuns are worked on at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; `clock` gives seconds that never go back."""
        self._clock = clock
        self.limit = FIRST
        self._took: list[float] = []
        self._began = clock()
        self._shortest = self._before = float("inf")
        self._remembered = self._began

    def answered(self, seconds: float) -> None:
        """Take note of how long the API server took for a write."""
        self._took.append(seconds)
        if len(self._took) >= _MANY or self._clock() - self._began >= _WINDOW:
            self._judge()

    def refused(self) -> None:
        """Take note that it was too busy for one (429, 503, no answer)."""
        self.limit = max(LEAST, self.limit // 2)
        self._begin()

    def _judge(self) -> None:
        median, many = statistics.median(self._took), len(self._took) >= self.limit // 2
        if self._clock() - self._remembered >= _MEMORY:
            self._before, self._shortest, self._remembered = self._shortest, median, self._clock()
        self._shortest = min(self._shortest, median)
        long = max(_LONG, 10 * min(self._shortest, self._before))
        if median > long:
            self.limit = max(LEAST, self.limit * 4 // 5)
        elif median < long / 2 and many:
            # one that idles tells nothing of what more would do
            self.limit = min(MOST, self.limit + 2)
        self._begin()

    def _begin(self) -> None:
        self._took.clear()
        self._began = self._clock()
