"""The log of a container that may still be written: each line once, also across breaks of the connection."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from polypod_core.outcome import decode
from polypod_core.states import FINISHED_PHASES

if TYPE_CHECKING:
    from polypod_cli.cluster import Cluster

Raw = Mapping[str, Any]
PATIENCE = 120.0
"""Seconds for which an API server may be away: it restarts, or another one takes its place."""
PAUSE = 0.5
_BRIEF = 3.0
"""Seconds, for a log that is only to be printed: a node that is away is to be seen soon."""
_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d) ")
"""A line as the kubelet gives it when it is asked for times."""
_T = TypeVar("_T")


def patiently(call: Callable[[], _T]) -> _T:
    """Return what a call returns, as soon as the cluster answers.

    Raises:
        UserError: it is refused, or there was no answer for PATIENCE seconds.
    """
    from polypod_cli.cluster import Unreachable

    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except Unreachable:
            if time.monotonic() > give_up:
                raise
            time.sleep(PAUSE)


def lines(cluster: Cluster, pod: str, container: str, *, follow: bool) -> Generator[bytes]:
    """Yield the lines of a container's log, without their ends.

    Args:
        follow: until the container has ended, or its pod is gone.

    Raises:
        UserError: it cannot be read.
    """
    from polypod_cli.cluster import NotFound, Unreachable

    place = _Place()
    give_up: float | None = None
    while True:
        # asked before: what is read then is all that there is
        over = not follow or _has_ended(patiently(lambda: cluster.pod(pod)), container)
        try:
            for line in place.after(cluster.log(pod, container, follow=not over, since=place.since)):
                give_up = None
                yield line
            if over:
                return
        except NotFound:
            if not place.since:
                raise
            # the pod went while it was followed
            return
        except Unreachable:
            give_up = give_up or time.monotonic() + (PATIENCE if follow or place.since else _BRIEF)
            if time.monotonic() > give_up:
                raise
        time.sleep(PAUSE)


class _Place:
    """How far a log was read: the time of the last line, and how many lines have that time."""

    def __init__(self) -> None:
        self._last = 0
        self._same = 0
        self.since = ""
        """From when to read on, RFC 3339; empty before the first line."""

    def after(self, stamped: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines that were not read yet, without their times."""
        last, known = self._last, self._same
        for item in stamped:
            found = _STAMPED.match(item)
            if found is None:
                # not the log's: what the kubelet says of it
                yield item
                continue
            when = _nanoseconds(found)
            if when < last:
                continue
            if when == last and known:
                known -= 1
                continue
            if when > last:
                # what follows is new, whatever its time: a clock may be set back
                last = 0
            self._same = self._same + 1 if when == self._last else 1
            self._last = when
            self.since = (found[1] + found[3]).decode()
            yield item[found.end() :]


def _nanoseconds(found: re.Match[bytes]) -> int:
    seconds = datetime.fromisoformat((found[1] + found[3]).decode()).timestamp()
    return int(seconds) * 10**9 + int((found[2] or b"0").ljust(9, b"0")[:9])


def statuses(pod: Raw) -> list[Raw]:
    """Return the statuses of a pod's containers, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _has_ended(pod: Raw | None, container: str) -> bool:
    if pod is None or (pod.get("status") or {}).get("phase") in FINISHED_PHASES:
        return True
    return any(item["name"] == container and "terminated" in (item.get("state") or {}) for item in statuses(pod))


def written(pod: Raw | None, container: str) -> int:
    """Return how many lines a bridge says that its log has; 0 if it has said nothing yet."""
    for item in statuses(pod or {}):
        message = ((item.get("state") or {}).get("terminated") or {}).get("message") or ""
        if item["name"] == container and message.startswith("{"):
            try:
                return decode(message.encode()).log_lines
            except msgspec.MsgspecError:
                pass
    return 0
