"""What the state of a TaskRun means to Airflow. Pure.

The bridge tells Airflow itself how a task ended; an executor's event about that can only come late, and fails a task
that has been resumed meanwhile (apache/airflow 71580, 72716). So there is an event only for what Airflow cannot know.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from polypod_airflow.taskruns import LOG_PATH, PREFIX

_QUIET = frozenset({"", "PodStarting", "QueueLimit", "WaitingForUpstream", "Replacing", "Suspended"})
"""Why a TaskRun may be pending without a problem that somebody has to solve."""
_ENDED_BY_SERVER = "ServerTerminated"
"""The bridge's reason when Airflow had it end its task: cleared, marked or deleted."""
_EXPIRED = "WorkloadExpired"
"""The bridge's reason when the workload's token had died in the queue. In Airflow the task instance is still queued,
and is queued again as one that was stuck; a failure would cost it a try."""
_OF_THE_POD = frozenset({
    "ArtifactCopyFailed", "BridgeLost", "BridgeUnreachable", "DeadlineExceeded", "Evicted", "ExitStatusLost",
    "InitContainerFailed", "LauncherFailed", "LauncherLost", "NoOutcome", "OOMKilled", "PodDeleted", "PodLost",
    "StorageLimitExceeded",
})  # fmt: skip
"""Reasons that Polypod's operator knows from the kubelet: a bridge that has reported the end does not know them."""
_LONGEST = 10_000
"""Characters of a text in Airflow's audit log."""
_PASSED = frozenset({"success", "skipped"})
_ENDED = ("Succeeded", "Failed")


class Annotations(msgspec.Struct):
    """Of an object's annotations, what we read."""

    log_path: str = msgspec.field(default="", name=LOG_PATH)


class Metadata(msgspec.Struct, rename="camel"):
    """Of an object of Kubernetes, what we read."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    annotations: Annotations = msgspec.field(default_factory=Annotations)


class Log(msgspec.Struct):
    """Where a log is kept."""

    url: str = ""


class Attempt(msgspec.Struct, rename="camel"):
    """Of an attempt, what we read."""

    reason: str = ""
    pod_name: str | None = None
    reported: bool | None = None
    log: Log | None = None


class Status(msgspec.Struct, rename="camel"):
    """Of a TaskRun's status, what we read."""

    phase: str = "Pending"
    state: str | None = None
    reason: str = ""
    message: str = ""
    attempts: list[Attempt] = []


class Spec(msgspec.Struct, rename="camel"):
    """Of a TaskRun's spec, what we read: which task instance it is of."""

    dag_id: str = ""
    task_id: str = ""
    run_id: str = ""
    map_index: int = -1


class TaskRun(msgspec.Struct):
    """A TaskRun, as far as the executor reads it: there may be very many."""

    metadata: Metadata
    spec: Spec = msgspec.field(default_factory=Spec)
    status: Status = msgspec.field(default_factory=Status)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def external_id(self) -> str:
        """The UUID that Airflow's scheduler gave this queueing of the task instance."""
        return self.name.removeprefix(PREFIX)

    @property
    def log_path(self) -> str:
        """The path of the attempt's log, below Airflow's folder of logs; empty if it leads out of there."""
        path = self.metadata.annotations.log_path
        # whoever may edit a TaskRun must not choose which file a scheduler writes
        return "" if path.startswith("/") or ".." in path.split("/") else path

    @property
    def last(self) -> Attempt:
        """The attempt that it has come to."""
        return self.status.attempts[-1] if self.status.attempts else Attempt()


class Event(Enum):
    """What the executor tells the scheduler."""

    NONE = "none"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a TaskRun.

    Attributes:
        info: why, for Airflow's audit log.
        unlogged: no log that Airflow reads says why.
        unaudited: Airflow's audit log does not say why, as there is no event.
    """

    event: Event
    info: str = ""
    unlogged: bool = False
    unaudited: bool = False


def verdict(run: TaskRun) -> Verdict | None:
    """Return what the end of a TaskRun means, None if it has not ended."""
    status = run.status
    if status.phase not in _ENDED:
        return None
    info = said(status)
    if run.last.reason == _ENDED_BY_SERVER:
        # a cleared task waits for its executor's word: after a failure Airflow 3.3 adds the retry delay, after a
        # success it starts at once; one that was marked keeps its state either way
        return Verdict(Event.SUCCESS, info)
    if run.last.reason == _EXPIRED or run.last.reported:
        kept = run.last.log is not None and run.last.log.url
        of_pod = reported_failure(run) and run.last.reason in _OF_THE_POD
        unlogged = status.phase == "Failed" and (of_pod or not kept)
        return Verdict(Event.NONE, info, unlogged, unaudited=of_pod)
    passed = status.state in _PASSED
    return Verdict(Event.SUCCESS if passed else Event.FAILED, info, unlogged=not passed)


def reported_failure(run: TaskRun) -> bool:
    """Tell whether a TaskRun has ended with a failure, final or with tries left, that its bridge has told Airflow."""
    last, status = run.last, run.status
    return (
        status.phase in _ENDED
        and status.state in ("failed", "up_for_retry")
        and bool(last.reported)
        and last.reason not in (_ENDED_BY_SERVER, _EXPIRED)
    )


def lost(name: str) -> Verdict:
    """Return what it means that a TaskRun is not there any more, and its end was not seen."""
    info = f"TaskRunDeleted: TaskRun {name!r} was deleted before its final status was observed"
    return Verdict(Event.FAILED, info, unlogged=True)


def problem(run: TaskRun) -> str:
    """Return what keeps a TaskRun from starting and needs somebody's attention, empty if nothing does."""
    waits = run.status.phase == "Pending" and run.status.reason not in _QUIET
    return said(run.status) if waits else ""


def storable(text: str) -> str:
    """Return a text as Airflow's database takes it: one that it refuses would end the scheduler's loop.

    PostgreSQL refuses NUL, all of them unpaired surrogates, and MySQL more than 64 KiB.
    """
    text = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def said(status: Status) -> str:
    """Return a status's reason and message."""
    reason = status.reason or "Unknown"
    return f"{reason}: {status.message}" if status.message else reason
