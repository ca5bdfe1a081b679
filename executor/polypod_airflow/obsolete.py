"""Which TaskRuns that wait for their pod Airflow does not want any more: cleared, marked or deleted meanwhile.

A bridge that runs hears so by its heartbeat. Before there is one, nobody tells an executor; Airflow's database knows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from queue import SimpleQueue

log = logging.getLogger(__name__)

_AT_ONCE = 500
"""External ids in a query."""


class Watchman(threading.Thread):
    """Asks the database, by connections of its own, so that the scheduler neither waits nor shares a transaction."""

    def __init__(self) -> None:
        """Prepare; `start` begins."""
        super().__init__(name="polypod-watchman", daemon=True)
        self.obsolete: SimpleQueue[str] = SimpleQueue()
        """External ids that no task instance which is queued or runs has."""
        self._asked: SimpleQueue[Collection[str] | None] = SimpleQueue()
        self._busy = threading.Event()

    def ask(self, external_ids: Collection[str]) -> None:
        """Have some looked up; without effect while it is still busy with others."""
        if external_ids and not self._busy.is_set():
            self._busy.set()
            self._asked.put(external_ids)

    def close(self) -> None:
        """End soon; the thread is not waited for."""
        self._asked.put(None)

    def run(self) -> None:
        """Look up what is asked for, until stopped."""
        while (ids := self._asked.get()) is not None:
            try:
                for external_id in set(ids) - wanted(ids):
                    self.obsolete.put(external_id)
            except Exception as error:
                # the database may be away; they are asked for again
                log.warning("cannot find out which TaskRuns Airflow still needs: %s", error)
            self._busy.clear()


def wanted(external_ids: Collection[str]) -> set[str]:
    """Return those that are of a task instance which is queued, runs or is about to be restarted."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import TaskInstanceState as State
    from sqlalchemy import select

    held = (State.QUEUED, State.RUNNING, State.RESTARTING)
    column = TaskInstance.external_executor_id
    ids, found = sorted(external_ids), set()
    with create_session(scoped=False) as session:
        for first in range(0, len(ids), _AT_ONCE):
            part = ids[first : first + _AT_ONCE]
            found.update(session.scalars(select(column).where(column.in_(part), TaskInstance.state.in_(held))))
    return found
