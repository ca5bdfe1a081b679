"""The one way to wait in these tests: for a condition, within a limit that grows as the machine gets slower.

A limit is a number of seconds of an idle machine. On one where four programs share two processors, or whose processor
is half as fast, it lasts twice as long; so a limit says that something hangs, and not that the machine is busy. A
wait that fails says what it waited for, for how long, how slow the machine was, and what was last seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT = 60.0
_BLOCK = bytes(1 << 20)
_IDLE_MACHINE = 0.0036
"""Seconds of CPU that hashing the block takes on the machine that the limits were chosen on."""
_MEASURE_EVERY = 5.0
_SLOWEST = 5.0
"""Beyond this a limit would outlast pytest's own, which cannot say what was waited for."""


class NotInTime(AssertionError):
    """A condition was not met within its limit."""


def slowness() -> float:
    """Return how many times longer work takes now than on an idle machine, from 1 to 5.

    It is measured: the CPU time of a fixed piece of work, and how many programs want each processor (the load average
    of the last minute).
    """
    began = time.thread_time()
    hashlib.blake2s(_BLOCK).digest()
    work = time.thread_time() - began
    slow = max(1.0, work / _IDLE_MACHINE) * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    return min(slow, _SLOWEST)


class Patience:
    """What is left of a limit; each second that passes costs as much less as the machine is slower."""

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left = seconds
        self._began = self._looked = time.monotonic()
        self._slowness, self._measured = slowness(), self._began

    def check(self, what: str = "", seen: Callable[[], object] | object = None) -> None:
        """Raise if the limit has been reached.

        Args:
            what: what is waited for.
            seen: what was seen last, or a function that says it.

        Raises:
            NotInTime: the limit has been reached; the message has all of this.
        """
        now = time.monotonic()
        if now - self._measured > _MEASURE_EVERY:
            self._slowness, self._measured = slowness(), now
        self._left -= (now - self._looked) / self._slowness
        self._looked = now
        if self._left < 0:
            last = seen() if callable(seen) else seen
            raise NotInTime(
                f"{what or 'condition'}: not met within {now - self._began:.0f} s (limit: {self._seconds:.0f} s of an "
                f"idle machine; this one is {self._slowness:.1f} times slower now); last seen: {last}"
            )


def wait_until(
    ready: Callable[[], T],
    what: str = "",
    *,
    limit: float = LIMIT,
    seen: Callable[[], object] | None = None,
    every: float = 0.05,
) -> T:
    """Wait until a condition holds; return what it returned.

    Args:
        ready: the condition; anything true ends the wait.
        what: what is waited for, for the message.
        limit: seconds, of an idle machine.
        seen: says what there is to see when the wait fails; by default what the condition returned last.
        every: seconds between two looks.

    Raises:
        NotInTime: the limit was reached.
    """
    patience = Patience(limit)
    while not (found := ready()):
        patience.check(what, seen or repr(found))
        time.sleep(every)
    return found


async def until(
    ready: Callable[[], T], what: str = "", *, limit: float = LIMIT, seen: Callable[[], object] | None = None
) -> T:
    """Wait as `wait_until` does, in an event loop that goes on meanwhile."""
    patience = Patience(limit)
    while not (found := ready()):
        patience.check(what, seen or repr(found))
        await asyncio.sleep(0.02)
    return found
