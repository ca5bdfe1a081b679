"""A decision in the making: what is known, and the status, actions and times that rules put into it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from polypod_core.errors import UserError
from polypod_core.reasons import Reason
from polypod_core.routing import Routing
from polypod_core.states import FINISHED_PHASES
from polypod_crds.taskrun import Attempt, TaskRunSpec, TaskRunStatus

from polypod_operator.decide.decision import (
    Action,
    CreatePod,
    Decision,
    DeletePod,
    Observed,
    Place,
    RecordEvent,
)
from polypod_operator.decide.policy import Policy
from polypod_operator.decide.status import Ended, observe
from polypod_operator.model import conditions
from polypod_operator.model.objects import PodObject, TaskRunObject
from polypod_operator.pods.pod import PodMaker, Route


def copied(status: TaskRunStatus) -> TaskRunStatus:
    """Return a status whose fields, attempts and lists may be changed without changing the original.

    A deep copy would cost a tenth of the operator's CPU in a burst; conditions are replaced and never changed.
    """
    attempts, kept = [attempt.model_copy() for attempt in status.attempts], list(status.conditions)
    return status.model_copy(update={"attempts": attempts, "conditions": kept, "x_coms": list(status.x_coms)})


_OF_THE_COLLECTOR = frozenset({"orphan", "foregroundDeletion"})
"""Finalizers of Kubernetes' garbage collector, which ends the pods, or is asked to leave them."""


def held_by(finalizers: Sequence[str]) -> str:
    """Return which finalizers keep a TaskRun that was deleted, so that its pods do not go with it; empty if none do."""
    return "" if "orphan" in finalizers else ", ".join(sorted(set(finalizers) - _OF_THE_COLLECTOR))


class Draft:
    """One decision in the making.

    Attributes:
        status: a copy of the TaskRun's, to be changed.
        waits: it would start an attempt, and waits for a place in its queue or for a routing.
        rejected: what is wrong with the newest routing, so that it is not the one in use; empty if it is.
        cancelled: why it is to end for good; empty if it is not.
    """

    def __init__(
        self,
        run: TaskRunObject,
        observed: Observed,
        routing: Routing | None,
        pods: PodMaker,
        now: datetime,
        policy: Policy,
        rejected: str,
    ) -> None:
        self.run, self.observed, self.routing, self.pods = run, observed, routing, pods
        self.rejected = rejected
        self.now, self.policy = now, policy
        self.status = copied(run.status)
        self.status.observed_generation = run.generation
        self.actions: list[Action] = []
        self.waits = False
        self.cancelled = self._why_cancelled()
        self._requeue_at: datetime | None = None
        self._write_by = now

    def _why_cancelled(self) -> str:
        if self.run.deleting:
            held = held_by(self.run.finalizers)
            return conditions.shorten(f"the TaskRun was deleted; it stays until its finalizers are removed: {held}")
        spec = self.run.spec
        return "spec.cancel is true" if spec is not None and spec.cancel else self.observed.interrupted

    @property
    def finished(self) -> bool:
        return self.status.phase in FINISHED_PHASES

    @property
    def current(self) -> Attempt | None:
        """The attempt that is under way."""
        last = self.status.attempts[-1] if self.status.attempts else None
        return last if last is not None and last.state in ("queued", "running") else None

    def running(self) -> list[PodObject]:
        """Return the pods whose task runs or may start, whatever the status says of their attempts."""
        reported = self.observed.reported
        # a pod of another name has no attempt: somebody imitates ours
        alive = (pod for pod in self.observed.pods.values() if pod.attempt and not pod.over)
        return [pod for pod in alive if not isinstance(observe(pod, None, reported.get(pod.uid)), Ended)]

    def decision(self) -> Decision:
        """Return what has been decided."""
        self.status.tries = self.status.attempts[-1].number if self.status.attempts else 0
        del self.status.attempts[: -self.policy.kept_attempts]
        return Decision(self.status, self.actions, self._requeue_at, self._place(), self._write_by)

    def _place(self) -> Place:
        """Return where it stands in its queue: a pod holds a place, one that is refused or to come waits for one."""
        if any(isinstance(action, CreatePod) for action in self.actions):
            return "holds"
        current = self.current
        if current is None:
            return "waits" if self.waits else "none"
        return "waits" if current.pod_uid is None and current.pod_name not in self.observed.pods else "holds"

    # What rules put into it.

    def phase(self, phase: str, state: str | None, reason: str, message: str) -> None:
        """Set a phase that is not final."""
        self.status.phase = "Running" if phase == "Running" else "Pending"
        if reason != Reason.QUEUE_LIMIT:
            self.status.queue_place = None
        self.status.state, self.status.reason, self.status.message = state, reason, conditions.shorten(message)
        self.condition("Complete", "False", reason, "")
        self.condition("Succeeded", "Unknown", reason, "")

    def condition(self, kind: str, answer: conditions.Answer, reason: str, message: str) -> None:
        conditions.put(self.status, kind, answer, reason, message, self.now, self.run.generation)

    def routed(self, coordinator: str) -> None:
        """Say which coordinator the queue maps to."""
        self.status.coordinator = coordinator
        queue = self.run.spec.queue if self.run.spec is not None else ""
        self.condition("Routed", "True", Reason.ROUTED, f"queue {queue!r} maps to coordinator {coordinator!r}")

    def act(self, action: Action) -> None:
        self.actions.append(action)

    def warn(self, reason: str, message: str) -> None:
        """Record a warning Event."""
        self.act(RecordEvent(True, reason, message))

    def delete(self, pod: PodObject) -> None:
        """Delete a pod, once."""
        action = DeletePod(pod.namespace, pod.name, pod.uid)
        if action not in self.actions:
            self.act(action)

    def requeue(self, when: datetime) -> None:
        """Reconcile again at a time, or earlier if that is wanted already."""
        if when <= self.now:
            # what was due has been done; what comes of it the watch tells
            return
        self._requeue_at = when if self._requeue_at is None else min(self._requeue_at, when)

    def write_by(self, when: datetime) -> None:
        """Put off the write of what has changed: until then there may be more to say."""
        self._write_by = when

    def write_now(self) -> None:
        self._write_by = self.now

    # What the routing says.

    def route(self, spec: TaskRunSpec) -> Route | None:
        """Return where the queue leads; None if there is no routing yet.

        Raises:
            UserError: the routing does not map the queue, or not to a coordinator of it.
        """
        if self.routing is None:
            return None
        who = f"Dag {spec.dag_id!r}, task {spec.task_id!r}, run {spec.run_id!r}"
        name, entry = self.routing.for_queue(spec.queue, who, spec.coordinator)
        templates = self.routing.pod_templates(entry, spec.queue)
        return Route(name, entry, templates, self.routing.bundle_folders(entry))

    def has_template(self, spec: TaskRunSpec) -> bool:
        """Tell whether a pod template, of the TaskRun or of the routing, changes the pod."""
        try:
            route = self.route(spec)
        except UserError:
            route = None
        return bool(spec.pod_template or (route is not None and route.templates))
