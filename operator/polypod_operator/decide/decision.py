"""What `reconcile` is given and what it answers: the world around a TaskRun, and a decision with its actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from polypod_core.outcome import Outcome
from polypod_core.reasons import Reason
from polypod_crds.dependencies import Verdict
from polypod_crds.taskrun import TaskRunStatus

from polypod_operator.model.objects import PodEvent, PodObject


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Create a pod; `allow` is what its coordinator's `allow` holds."""

    manifest: dict[str, Any]
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete that very pod; by force: without its kubelet, which does not answer."""

    namespace: str
    name: str
    uid: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class VerifyPod:
    """Ask the API server whether a pod that we know nothing of is there."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class LookAtEvents:
    """Read the Events of a pod that does not start."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class AskForEnded:
    """Ask the Execution API how tasks of the run have ended that have no TaskRun."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteTaskRun:
    pass


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Post an Event on the TaskRun, for people."""

    warning: bool
    reason: str
    message: str


Action = CreatePod | DeletePod | VerifyPod | LookAtEvents | AskForEnded | DeleteTaskRun | RecordEvent


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server's answer to a pod that it did not make; for good, if the pod itself is not valid.

    Attributes:
        times: how many times in a row it was refused.
    """

    message: str
    for_good: bool
    when: datetime
    reason: Reason = Reason.POD_REFUSED
    times: int = 1


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """The queue is full: a TaskRun that would begin an attempt waits.

    Attributes:
        limit: how many attempts of the queue there may be at once.
        position: in line; 1 is next.
    """

    limit: int
    position: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the Execution API has said of tasks whose TaskRun is not there.

    Attributes:
        ended: task → the state that it has ended in; empty if nothing is known of it.
        problem: why the Execution API could not be asked, empty if it could; asked at `when`.
    """

    ended: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    when: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is around a TaskRun.

    Attributes:
        pods: its pods, by name; one that was deleted stays until its attempt is closed.
        absent: names of pods that the API server said are not there.
        refused: name of a pod → why the API server refused to make it.
        events: uid of a pod → the Event that says most of why it does not start.
        events_checked_at: uid of a pod → when its Events were read last.
        reported: uid of a pod → the outcome that its bridge has sent.
        closed_since: uid of a pod → when we first saw its attempt closed in the status.
        queue_position: set if the queue is at its limit.
        upstream: set if tasks that it depends on keep it from starting.
        earlier: what is known of those among them that have no TaskRun.
        interrupted: why everything is to end, empty if it is not.
    """

    pods: Mapping[str, PodObject] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    events: Mapping[str, PodEvent] = field(default_factory=dict)
    events_checked_at: Mapping[str, datetime] = field(default_factory=dict)
    reported: Mapping[str, Outcome] = field(default_factory=dict)
    closed_since: Mapping[str, datetime] = field(default_factory=dict)
    queue_position: QueuePosition | None = None
    upstream: Verdict | None = None
    earlier: Earlier = Earlier()
    interrupted: str = ""


Place = Literal["holds", "waits", "none"]
"""A TaskRun in its queue: it has an attempt, waits for its turn to begin one, or neither."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        status: the status to write, if it differs, before the actions.
        requeue_at: when to reconcile again, without a change.
        place: in its queue, from now on.
        write_by: when what differs has to be written; before, there may be more to say. None: at once.
    """

    status: TaskRunStatus
    actions: Sequence[Action] = ()
    requeue_at: datetime | None = None
    place: Place = "none"
    write_by: datetime | None = None

    def to_be_written(self, status: TaskRunStatus, now: datetime) -> bool:
        """Tell whether its status has to be written now, in place of this one."""
        return self.status != status and (self.write_by is None or self.write_by <= now)
