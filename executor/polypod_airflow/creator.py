"""Makes and deletes TaskRuns over several connections, so that Airflow's scheduler waits for none of it."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

from polypod_airflow.cluster import CONNECTIONS, Cluster, ClusterError
from polypod_airflow.reading import task_run as read
from polypod_airflow.taskruns import (
    MERGE,
    Settings,
    Work,
    batches,
    collection,
    owners,
    secret,
    secrets,
    task_run,
)
from polypod_airflow.verdicts import TaskRun

log = logging.getLogger(__name__)

_INVALID = frozenset({400, 413, 422})
"""Answers that stay the same however often a TaskRun is sent."""
_NO_CRD = "the API server has no TaskRuns: the CRD is not installed; install Polypod's chart"
_PAUSE = 10.0
"""Seconds before a TaskRun that was refused is sent again: a quota, or a role that is missing."""


@dataclass(frozen=True, slots=True)
class Made:
    """A TaskRun is there."""

    name: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A TaskRun could not be made. `for_good`: and never will be; otherwise it is tried again."""

    name: str
    why: str
    for_good: bool


@dataclass(frozen=True, slots=True)
class Absent:
    """A TaskRun is not there."""

    name: str


Result = Made | Refused | Absent


class _Gone(Exception):
    """A TaskRun was there and is deleted."""


@dataclass(slots=True)
class _Batch:
    """Workloads that share a Secret."""

    secret: str
    left: int
    made: list[TaskRun] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Creator:
    """Threads that carry out what is asked for; what came of it is in `results`."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        """Prepare; `start` begins."""
        self.results: SimpleQueue[Result] = SimpleQueue()
        self._cluster, self._settings = cluster, settings
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._underway: dict[str, bool] = {}
        """TaskRuns that are asked for and not settled, and whether they are still wanted."""
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, name=f"polypod-creator-{number}", daemon=True)
            for number in range(CONNECTIONS)
        ]
        self._closing = threading.Event()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def create(self, works: Sequence[Work]) -> None:
        """Make TaskRuns, and before them the Secrets with their workloads."""
        with self._lock:
            self._underway |= {work.name: True for work in works}
        for batch in batches(works):
            self._jobs.put(lambda batch=batch: self._begin(batch))  # type: ignore[misc]

    def carry_out(self, job: Callable[[], None]) -> None:
        """Do something else that may take a while."""
        self._jobs.put(job)

    def delete(self, name: str) -> None:
        """Delete a TaskRun, or make it no more if it is still to be made."""
        with self._lock:
            if name in self._underway:
                self._underway[name] = False
        self._jobs.put(lambda: self._delete(name))

    def look_for(self, name: str) -> None:
        """Ask whether a TaskRun is there; a result comes if it is not."""
        self._jobs.put(lambda: self._look_for(name))

    def close(self, within: float) -> None:
        """Finish what was asked for, at most that many seconds."""
        self._closing.set()
        give_up = time.monotonic() + within
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                # whatever it is, the thread goes on with other TaskRuns
                log.exception("a call for a TaskRun failed")

    def _begin(self, works: list[Work]) -> None:
        try:
            wanted = secret(works, self._settings)
            self._cluster.call("POST", secrets(self._settings.namespace), wanted)
        except ClusterError as error:
            if error.reason != "AlreadyExists":
                self._not_begun(works, error)
                return
        except Exception as error:
            self._not_begun(works, error)
            return
        batch = _Batch(wanted["metadata"]["name"], len(works))
        for work in works:
            self._jobs.put(lambda work=work: self._create(work, batch))  # type: ignore[misc]

    def _not_begun(self, works: list[Work], error: Exception) -> None:
        if _for_good(error) and len(works) > 1:
            # it is the fault of one of them, and says nothing about the others
            for work in works:
                self._jobs.put(lambda work=work: self._begin([work]))  # type: ignore[misc]
            return
        for work in works:
            self._refused(work.name, error)
            if _for_good(error):
                self._over(work.name)
        if not _for_good(error):
            self._later(lambda: self._begin(works))

    def _create(self, work: Work, batch: _Batch) -> None:
        if not self._underway[work.name]:
            self._over(work.name)
            self._settle(batch, None)
            return
        try:
            made = self._post(work, batch)
        except _Gone:
            # to create it again would run its workload twice
            self._over(work.name)
            self.results.put(Absent(work.name))
            self._settle(batch, None)
            return
        except Exception as error:
            self._refused(work.name, error)
            if not _for_good(error):
                self._later(lambda: self._create(work, batch))
                return
            self._over(work.name)
            self._settle(batch, None)
            if not isinstance(error, ClusterError):
                # it failed on our side of the call, so the TaskRun may be there
                self._delete(work.name)
            return
        self.results.put(Made(work.name))
        self._settle(batch, made)
        if not self._over(work.name):
            # whatever was deleted meanwhile, a call that was tried again may have created it after that
            self._delete(work.name)

    def _over(self, name: str) -> bool:
        """Have nothing more create a TaskRun; tell whether it is still wanted."""
        with self._lock:
            return self._underway.pop(name)

    def _post(self, work: Work, batch: _Batch) -> TaskRun:
        path = collection(self._settings.namespace)
        try:
            raw = self._cluster.call("POST", path, task_run(work, batch.secret, self._settings))
        except ClusterError as error:
            if error.reason != "AlreadyExists":
                raise
            # the answer was lost, or another scheduler's life had made it
            try:
                raw = self._cluster.call("GET", f"{path}/{work.name}")
            except ClusterError as missing:
                if missing.status == 404:
                    raise _Gone from None
                raise
        return read(raw)

    def _settle(self, batch: _Batch, made: TaskRun | None) -> None:
        """Have the Secret go with its TaskRuns, once all of them are made or given up."""
        with batch.lock:
            batch.left -= 1
            if made is not None:
                batch.made.append(made)
            if batch.left:
                return
        self._own(batch)

    def _own(self, batch: _Batch) -> None:
        path = secrets(self._settings.namespace, batch.secret)
        try:
            if batch.made:
                given = [{"metadata": {"name": run.name, "uid": run.metadata.uid}} for run in batch.made]
                self._cluster.call("PATCH", path, owners(given), content_type=MERGE)
            else:
                self._cluster.call("DELETE", path)
        except ClusterError as error:
            if error.status not in (404, *_INVALID):
                self._later(lambda: self._own(batch))

    def _delete(self, name: str) -> None:
        try:
            self._cluster.call("DELETE", collection(self._settings.namespace, name))
        except ClusterError as error:
            if error.status != 404:
                log.warning("TaskRun %s cannot be deleted: %s", name, error)
                self._later(lambda: self._delete(name))

    def _look_for(self, name: str) -> None:
        try:
            self._cluster.call("GET", collection(self._settings.namespace, name))
        except ClusterError as error:
            if error.status == 404:
                self.results.put(Absent(name))
            else:
                self._later(lambda: self._look_for(name))

    def _refused(self, name: str, error: Exception) -> None:
        if isinstance(error, ClusterError):
            why = _NO_CRD if _lacks_crd(error) else error.message
        else:
            log.error("TaskRun %s cannot be created: %s", name, without_text(error))
            why = unsendable(error)
        self.results.put(Refused(name, f"TaskRunRefused: {why}", _for_good(error)))

    def _later(self, job: Callable[[], None]) -> None:
        if self._closing.is_set():
            return
        timer = threading.Timer(_PAUSE, lambda: self._jobs.put(job))
        timer.daemon = True
        timer.start()


def _for_good(error: Exception) -> bool:
    """Tell whether the same call will always fail: it is refused as invalid, or cannot even be sent."""
    return not isinstance(error, ClusterError) or error.status in _INVALID


def _lacks_crd(error: ClusterError) -> bool:
    """Tell whether the API server does not know the kind: the path is unknown, not the object or its namespace."""
    return error.status == 404 and ("page not found" in error.message or "requested resource" in error.message)


def unsendable(error: Exception) -> str:
    """Return what a task's log says about an unexpected error."""
    return f"it cannot be sent ({type(error).__name__}); the scheduler's log has the details"


def without_text(error: Exception) -> str:
    """Return where an error was raised, without its text: that may quote the workload, and so a token."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
