"""What the operator's metrics and log say of attempts and TaskRuns."""

from __future__ import annotations

import logging
from datetime import datetime

from polypod_core.states import FINISHED_PHASES
from polypod_crds.taskrun import Attempt, TaskRunStatus

from polypod_operator.control.log_fields import about
from polypod_operator.decide.decision import Place
from polypod_operator.decide.store import Store
from polypod_operator.model.objects import TaskRunObject
from polypod_operator.model.packed import queue_of
from polypod_operator.serve.metrics import Metrics

log = logging.getLogger("polypod.operator")


class Telemetry:
    """Counts what has happened."""

    def __init__(self, metrics: Metrics, store: Store) -> None:
        """Have `metrics` show the TaskRuns in `store` that have not finished."""
        self._metrics = metrics
        metrics.active = store.active

    def left_the_line(self, run: TaskRunObject, before: Place, after: Place, now: datetime) -> None:
        """Count how long a TaskRun has waited in line for its queue, if it does no longer."""
        if before == "waits" and after == "holds":
            ended = run.status.attempts[-1].finish_time if run.status.attempts else None
            queue = self._metrics.queue(queue_of(run))
            self._metrics.queue_wait.labels(queue).observe(_seconds(ended or run.created, now))

    def pod_created(self, run: TaskRunObject, pod: str, now: datetime) -> None:
        log.info("pod created", extra=about(run, pod=pod, under_way=True))
        if not run.status.attempts and run.spec is not None:
            self._metrics.pod_wait.labels(self._metrics.queue(queue_of(run))).observe(_seconds(run.created, now))

    def status_written(self, run: TaskRunObject, status: TaskRunStatus, now: datetime) -> None:
        """Count the attempts that a status has closed, and the TaskRun if it has finished.

        Args:
            run: as it was before.
        """
        open_before = {item.number for item in run.status.attempts if item.state in ("queued", "running")}
        known = {item.number for item in run.status.attempts} - open_before
        for attempt in status.attempts:
            if attempt.number not in known and attempt.state not in ("queued", "running"):
                log.info("attempt ended", extra=about(run, attempt, under_way=True))
                self._attempt_ended(attempt)
        if status.phase != run.status.phase and status.phase in FINISHED_PHASES:
            labels = self._metrics.queue(queue_of(run)), status.phase
            # its finish time is by the clock of a node, its creation and `now` by that of the API server
            self._metrics.whole_time.labels(*labels).observe(_seconds(run.created, now))

    def _attempt_ended(self, attempt: Attempt) -> None:
        metrics, coordinator = self._metrics, attempt.coordinator or ""
        metrics.ended(attempt.state, attempt.reason, coordinator)
        created, started, finished = attempt.create_time, attempt.start_time, attempt.finish_time
        if created is not None and started is not None:
            metrics.start_wait.labels(coordinator).observe(_seconds(created, started))
        if created is not None and attempt.connect_time is not None:
            metrics.connect_wait.labels(coordinator).observe(_seconds(created, attempt.connect_time))
        if started is not None and finished is not None:
            metrics.task_time.labels(coordinator).observe(_seconds(started, finished))
        if attempt.cpu_seconds is not None:
            metrics.cpu.labels(coordinator).observe(attempt.cpu_seconds)
        if attempt.peak_memory_bytes is not None:
            metrics.memory.labels(coordinator).observe(attempt.peak_memory_bytes)


def _seconds(begin: datetime, end: datetime) -> float:
    # clocks of different machines need not agree
    return max(0.0, (end - begin).total_seconds())
