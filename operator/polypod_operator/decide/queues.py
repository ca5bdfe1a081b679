"""Whose turn it is, for queues with a limit. No I/O; its state is rebuilt from the TaskRuns at each start.

TaskRuns in line are ordered by priority and age. A point of priority is worth an hour of age: a higher priority goes
first, and yet none waits for ever behind those that come later.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from polypod_core.kinds import Key

from polypod_operator.decide.decision import Place, QueuePosition

HOUR = 3600.0
Rank = tuple[float, Key]


def rank(priority: int, created: datetime, key: Key) -> Rank:
    """Return what TaskRuns are ordered by: the smallest goes first. It never changes, so the order does not either."""
    return created.timestamp() - priority * HOUR, key


@dataclass(slots=True)
class _Queue:
    holding: set[Key] = field(default_factory=set)
    waiting: list[Rank] = field(default_factory=list)


class Queues:
    """The places of all queues: which TaskRuns hold one, and which wait."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}
        self._queues: dict[str, _Queue] = {}
        self._where: dict[Key, tuple[str, Rank, Place]] = {}

    def set_limits(self, limits: Mapping[str, int]) -> list[Key]:
        """Take new limits over; return those whose turn has come by it."""
        self._limits = dict(limits)
        return [key for name, found in self._queues.items() for _, key in found.waiting[: self._free(name)]]

    def turn(self, key: Key, queue: str, rank: Rank) -> QueuePosition | None:
        """Return what a TaskRun would have to wait for, None if it may begin an attempt now."""
        limit = self._limits.get(queue)
        found = self._queues.get(queue)
        if limit is None or found is None or key in found.holding:
            return None if limit != 0 else QueuePosition(0, 1)
        place = bisect_left(found.waiting, rank) + 1
        free = limit - len(found.holding)
        return None if place <= free else QueuePosition(limit, place - max(0, free))

    def put(self, key: Key, queue: str, rank: Rank, place: Place) -> list[Key]:
        """Note where a TaskRun stands; return those whose turn has come by it."""
        was = self._where.get(key)
        if was == (queue, rank, place) or (was is None and place == "none"):
            return []
        self._leave(key)
        if place != "none":
            found = self._queues.setdefault(queue, _Queue())
            if place == "holds":
                found.holding.add(key)
            else:
                insort(found.waiting, rank)
            self._where[key] = (queue, rank, place)
        freed = was is not None and was[2] != "none" and place != "holds"
        return self.next(was[0]) if was is not None and freed else []

    def where(self, key: Key) -> Place:
        """Return where a TaskRun stands."""
        found = self._where.get(key)
        return found[2] if found is not None else "none"

    def forget(self, key: Key) -> list[Key]:
        """Let a TaskRun go; return those whose turn has come by it."""
        was = self._where.get(key)
        self._leave(key)
        return self.next(was[0]) if was is not None else []

    def _leave(self, key: Key) -> None:
        was = self._where.pop(key, None)
        if was is None:
            return
        name, rank, place = was
        found = self._queues[name]
        if place == "holds":
            found.holding.discard(key)
        else:
            del found.waiting[bisect_left(found.waiting, rank)]
        if not found.holding and not found.waiting:
            del self._queues[name]

    def next(self, queue: str) -> list[Key]:
        """Return those that wait and may begin now, in order; without a limit nobody waits for others to end."""
        if queue not in self._limits or queue not in self._queues:
            return []
        return [key for _, key in self._queues[queue].waiting[: self._free(queue)]]

    def _free(self, queue: str) -> int:
        """Return how many more may begin."""
        found, limit = self._queues[queue], self._limits.get(queue)
        return len(found.waiting) if limit is None else max(0, limit - len(found.holding))

    def depths(self) -> dict[str, tuple[int, int]]:
        """Return, for each queue: how many hold a place, and how many wait for one."""
        return {name: (len(found.holding), len(found.waiting)) for name, found in self._queues.items()}
