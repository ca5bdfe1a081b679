"""What becomes of the task's log beside the pod's own: opened when there is something to write."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from polypod_core.outcome import Outcome

from polypod_bridge.config import LogStorage

if TYPE_CHECKING:
    from polypod_bridge.logs.stored import StoredLog

_LOSS = "its log is not complete at"
_LONGEST = 1_500
"""Characters of a message that are kept beside the word that the log is not complete."""


class PodLog:
    """The log of a pod's attempt in its storage, if there is one."""

    def __init__(self, settings: LogStorage | None) -> None:
        self._settings = settings
        self._path = settings.path if settings is not None else ""
        self._log: StoredLog | None = None

    def at(self, path: str | None) -> None:
        """Have the log at Airflow's own path, if it has named one."""
        self._path = path or self._path

    @property
    def own_url(self) -> str:
        """Where the log is, if it is not where the operator takes it to be."""
        return self._url() if self._settings is not None and self._path != self._settings.path else ""

    def _url(self) -> str:
        from polypod_bridge.logs.storage import joined

        return joined(self._settings.base, self._path) if self._settings is not None else ""

    def open(self) -> StoredLog | None:
        """Begin the log, or go on with what an earlier start of this container has left."""
        if self._settings is not None and self._log is None:
            from polypod_bridge.logs.stored import open_stored_log

            settings = self._settings
            self._log = open_stored_log(self._url(), settings.spool_dir, settings.options_dir, settings.pod)
        return self._log

    def say(self, message: str) -> None:
        """Write an error of the bridge itself, here and to the pod's own log."""
        print(f"polypod-bridge: {message}", file=sys.stderr)
        log = self.open()
        if log is not None:
            event = {"level": "error", "event": message, "logger": "supervisor", "timestamp": datetime.now(UTC)}
            log.write([event])

    def account_for(self, outcome: Outcome) -> None:
        """Say in an outcome what of the log is lost already."""
        if self._log is not None:
            self._add(outcome, self._log.loss)

    def finish(self, outcome: Outcome) -> bool:
        """Bring the rest to the storage; tell whether the outcome says more now, as not all of it could be stored."""
        if self._log is None or self._settings is None:
            return False
        problem = self._log.finish(self._settings.stored_within)
        if problem:
            print(f"polypod-bridge: the log could not be stored at {self._url()}: {problem}", file=sys.stderr)
        return self._add(outcome, problem)

    def _add(self, outcome: Outcome, problem: str) -> bool:
        if not problem or _LOSS in outcome.message:
            return False
        message = outcome.message
        if len(message) > _LONGEST:
            # an outcome that is too long is cut at its end
            message = f"{message[:_LONGEST]}…"
        said = f"{_LOSS} {self._url()}: {problem}"
        outcome.message = f"{message}; {said}" if message else said
        return True
