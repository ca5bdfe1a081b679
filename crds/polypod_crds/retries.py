"""The user's rule for the time between tries."""

from __future__ import annotations

from polypod_core.durations import seconds

from polypod_crds.taskrun import Retries


def retry_delay(retries: Retries, failed: int) -> float:
    """Return the seconds to wait after the try that was failure number `failed`, counted from 1."""
    wait = seconds(retries.delay)
    if retries.backoff == "exponential":
        wait *= 2.0 ** min(failed - 1, 62)
    return min(wait, seconds(retries.max_delay))
