"""The API server's time, by the Date of its answers and a clock of ours that never goes back. No I/O.

Objects carry times of the API server. A node's own clock may be minutes off, and be set; so it is not compared with
them: what the time is now is worked out from the same source.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

log = logging.getLogger("polypod.operator")
_EVERY = 5.0
"""Seconds between two looks at a Date."""
WARN = 5.0
"""Seconds by which this node's clock may differ from the API server's without a warning."""


class ServerClock:
    """Tells the API server's time.

    A Date is cut to whole seconds, and was written at some moment between the request and the answer: each gives an
    interval for the difference to our clock, and the next makes it smaller.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Begin with this node's time, until the API server has answered.

        Args:
            monotonic: seconds that never go back.
            wall: this node's time, in seconds since 1970.
        """
        self._monotonic, self._wall = monotonic, wall
        self._least = self._most = wall() - monotonic()
        self._measured_at: float | None = None
        self._warned = False

    def now(self) -> datetime:
        """Return the API server's time."""
        return datetime.fromtimestamp(self._monotonic() + (self._least + self._most) / 2, UTC)

    @property
    def skew(self) -> float:
        """Seconds by which this node's clock is ahead of the API server's, as far as the Dates tell."""
        ahead = self._wall() - self._monotonic()
        if self._measured_at is None or self._least <= ahead <= self._most:
            return 0.0
        return ahead - (self._least if ahead < self._least else self._most)

    def answered(self, date: str | None, asked: float) -> None:
        """Take an answer's Date over.

        Args:
            asked: when the request was sent, by the monotonic clock.
        """
        now = self._monotonic()
        if date is None or (self._measured_at is not None and now - self._measured_at < _EVERY):
            return
        try:
            written = parsedate_to_datetime(date).timestamp()
        except (ValueError, OverflowError):
            return
        least, most = written - now, written + 1 - asked
        first, self._measured_at = self._measured_at is None, now
        if first or max(least, self._least) > min(most, self._most):
            # the API server's clock was set, or another one answers
            self._least, self._most = least, most
        else:
            self._least, self._most = max(least, self._least), min(most, self._most)
        self._warn()

    def _warn(self) -> None:
        skew = self.skew
        if abs(skew) > WARN and not self._warned:
            log.warning(
                "this node's clock is %.0f s %s the API server's, whose time is used; check the node's time service",
                abs(skew), "ahead of" if skew > 0 else "behind",
            )  # fmt: skip
        self._warned = abs(skew) > WARN
