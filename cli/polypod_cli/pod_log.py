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


class PodGone(Exception):
    """The pod was deleted before its log was read to the end."""


def patiently(call: Callable[[], _T], *, until: float | None = None) -> _T:
    """Return what a call returns, as soon as the cluster answers.

    Args:
        until: a time on the monotonic clock after which it is not called again.

    Raises:
        UserError: it is refused, or there was no answer for PATIENCE seconds, or until that time.
    """
    from polypod_cli.cluster import Unreachable

    give_up = time.monotonic() + PATIENCE
    give_up = give_up if until is None else min(give_up, until)
    while True:
        try:
            return call()
        except Unreachable:
            if time.monotonic() + PAUSE > give_up:
                raise
            time.sleep(PAUSE)


def lines(cluster: Cluster, pod: str, container: str, *, follow: bool) -> Generator[bytes]:
    """Yield the lines of a container's log, without their ends.

    Args:
        follow: until the container has ended.

    Raises:
        PodGone: its pod was deleted, so there may have been more.
        UserError: it cannot be read.
    """
    from polypod_cli.cluster import NotFound, Unreachable

    place = _Place()
    give_up: float | None = None
    while True:
        over = not follow
        if follow:
            # asked before: what is read then is all that there is
            seen = patiently(lambda: cluster.pod(pod))
            if seen is None:
                raise PodGone
            over = _has_ended(seen, container)
            if not over and _is_waiting(seen, container):
                # it is started again: until then there is no log to be asked for
                time.sleep(PAUSE)
                continue
        try:
            for line in place.after(cluster.log(pod, container, follow=not over, since=place.since)):
                give_up = None
                yield line
            if over:
                return
        except NotFound:
            raise PodGone from None
        except Unreachable:
            give_up = give_up or time.monotonic() + (PATIENCE if follow or place.since else _BRIEF)
            if time.monotonic() > give_up:
                raise
        time.sleep(PAUSE)


class _Place:
    """How far a log was read: the time of the last line, and how many lines have that time.

    A node's clock may be set back: then lines that were read before have later times than the last one. They come
    again, and end with the last line before that, which is known by its time.
    """

    def __init__(self) -> None:
        self._last = self._same = 0
        self._before_jump = self._same_before_jump = self._latest = 0
        self.since = ""
        """From when to read on, RFC 3339; empty before the first line."""

    def after(self, stamped: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the lines that were not read yet, without their times."""
        last, known, before_jump = self._last, self._same, self._same_before_jump
        found_again = not self.since
        for item in stamped:
            found = _STAMPED.match(item)
            if found is None:
                # not the log's: what the kubelet says of it
                yield item
                continue
            when = _nanoseconds(found)
            if before_jump and when <= self._latest:
                before_jump -= when == self._before_jump
                continue
            before_jump = 0
            if not found_again and (when < last or (when == last and known)):
                known -= when == last
                continue
            # what follows is new, whatever its time
            found_again = True
            if when < self._last:
                self._before_jump, self._same_before_jump = self._last, self._same
                self._latest = max(self._latest, self._last)
            self._same = self._same + 1 if when == self._last else 1
            self._last = when
            self.since = (found[1] + found[3]).decode()
            yield item[found.end() :]
        if before_jump:
            # the kubelet has rotated them away
            self._same_before_jump = 0


def _nanoseconds(found: re.Match[bytes]) -> int:
    seconds = datetime.fromisoformat((found[1] + found[3]).decode()).timestamp()
    return int(seconds) * 10**9 + int((found[2] or b"0").ljust(9, b"0")[:9])


def statuses(pod: Raw) -> list[Raw]:
    """Return the statuses of a pod's containers, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _state(pod: Raw, container: str) -> Raw:
    return next((item.get("state") or {} for item in statuses(pod) if item["name"] == container), {})


def _is_waiting(pod: Raw, container: str) -> bool:
    return "waiting" in _state(pod, container) or "terminated" in _state(pod, container)


def _has_ended(pod: Raw, container: str) -> bool:
    """Tell whether a container has ended for good: a sidecar is started again as long as the others run."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    if status.get("phase") in FINISHED_PHASES:
        return True
    if "terminated" not in _state(pod, container):
        return False
    if not any(item["name"] == container and item.get("restartPolicy") for item in spec.get("initContainers") or ()):
        return True
    others = status.get("containerStatuses") or ()
    return bool(others) and all("terminated" in (item.get("state") or {}) for item in others)


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
