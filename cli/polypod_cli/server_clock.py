"""The API server's time, by the `Date` of its answers: its times and this machine's are never subtracted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


class ServerClock:
    """The time of the newest answer, and what has passed since."""

    def __init__(self) -> None:
        """Begin with this machine's time: the only one that there is before the first answer."""
        self._seen, self._at = datetime.now(UTC), time.monotonic()

    def saw(self, headers: Mapping[str, str]) -> None:
        """Take the time of an answer."""
        try:
            seen = parsedate_to_datetime(headers.get("Date", ""))
        except ValueError:
            # a proxy that leaves it out
            return
        self._seen, self._at = seen if seen.tzinfo else seen.replace(tzinfo=UTC), time.monotonic()

    def now(self) -> datetime:
        return self._seen + timedelta(seconds=time.monotonic() - self._at)
