"""The writes that are under way: whether the API server answers others while one of them waits. No I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Flight:
    """One call.

    Attributes:
        since: when its present try was sent, by time.monotonic(); None before it and between two tries.
    """

    since: float | None = None


class Writes:
    """The writes that are under way, by when they began.

    Attributes:
        newest_answered: when the one that began last, of those that were answered, began.
    """

    def __init__(self) -> None:
        self._under_way: set[float] = set()
        self.newest_answered = 0.0

    def begin(self) -> float:
        """Begin one; return what to `end` it with: no two begin at the same time."""
        now = time.monotonic()
        while now in self._under_way:
            now += 1e-6
        self._under_way.add(now)
        return now

    def end(self, write: float) -> None:
        self._under_way.discard(write)

    def answered(self, write: float) -> None:
        self.newest_answered = max(self.newest_answered, write)

    def waits(self, since: float) -> bool:
        """Tell whether one that began before a time has no answer yet."""
        return any(began < since for began in self._under_way)
