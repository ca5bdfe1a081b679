"""What to do for one TaskRun: the whole of the operator's judgement. Pure: state and a clock reading in, decision out.

Level-triggered: the same state leads to the same decision, whatever event led here. An attempt is one pod. It is
written into the status before its pod is made, so that no attempt is made twice; the next one begins only when the last
is known to have ended, so that there are never two at once. A final phase never changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from polypod_coordinators.config import Routing
from polypod_coordinators.errors import UserError
from polypod_crds.durations import seconds
from polypod_crds.retries import retry_delay
from polypod_crds.taskrun import Attempt, TaskRunSpec, TaskRunStatus

from polypod_operator import conditions
from polypod_operator.errors import PodError
from polypod_operator.objects import PodObject, TaskRunObject
from polypod_operator.pod import Route, Settings, build, pod_name
from polypod_operator.reasons import Reason
from polypod_operator.status import Ended, Started, Waiting, lost, observe

KEPT_ATTEMPTS = 20
INFRASTRUCTURE_LIMIT = 5
"""How many losses of what a task ran on are made good: pods evicted or deleted, nodes gone, sidecars killed."""
INFRASTRUCTURE_DELAY, INFRASTRUCTURE_DELAY_MAX = 1.0, 60.0
"""Seconds before the next attempt, doubled each time up to the second."""
LOOK_AFTER = timedelta(seconds=2)
"""How long a pod may be starting before its Events are looked at for the cause."""
RETRY_REFUSED = timedelta(seconds=5)
STOPPED = frozenset({Reason.CANCELLED, Reason.SUSPENDED, Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED,
                     Reason.CONTAINER_CONFIG, Reason.MOUNT_FAILED, Reason.PENDING_TIMEOUT})  # fmt: skip
"""Why we delete a pod; written into the attempt first, so that it is known when the pod has ended."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeletePod:
    namespace: str
    name: str
    uid: str


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
class DeleteTaskRun:
    pass


@dataclass(frozen=True, slots=True)
class Tell:
    """Post an Event on the TaskRun, for people."""

    warning: bool
    reason: str
    message: str


Action = CreatePod | DeletePod | VerifyPod | LookAtEvents | DeleteTaskRun | Tell


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server's answer to a pod that it did not make; for good, if the pod itself is not valid."""

    message: str
    for_good: bool
    when: datetime


@dataclass(frozen=True, slots=True)
class World:
    """What there is around a TaskRun.

    Attributes:
        pods: its pods, by name; one that was deleted stays until its attempt is closed.
        absent: names of pods that the API server said are not there.
        refused: name of a pod → why the API server refused to make it.
        warnings: uid of a pod → the last warning among its Events.
        looked: uid of a pod → when its Events were looked at last.
    """

    pods: Mapping[str, PodObject] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    looked: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: the status to write, actions in order, and when to look again without being asked."""

    status: TaskRunStatus
    actions: Sequence[Action] = ()
    again: datetime | None = None


def reconcile(run: TaskRunObject, world: World, routing: Routing | None, settings: Settings, now: datetime) -> Decision:
    """Decide what to do for a TaskRun."""
    if run.deleting:
        # its pods have it as their owner and go with it
        return Decision(run.status)
    return _Step(run, world, routing, settings, now).decide()


class _Step:
    """One decision in the making."""

    def __init__(
        self, run: TaskRunObject, world: World, routing: Routing | None, settings: Settings, now: datetime
    ) -> None:
        self.run, self.world, self.routing, self.settings, self.now = run, world, routing, settings, now
        self.status = run.status.model_copy(deep=True)
        self.status.observed_generation = run.generation
        self.actions: list[Action] = []
        self.again: datetime | None = None

    def decide(self) -> Decision:
        if self.status.phase in ("Succeeded", "Failed"):
            self._after_the_end()
        elif self.run.spec is None:
            self._finish("Failed", None, Reason.INVALID_SPEC, self.run.problems)
        else:
            current = self._current() or self._adopt()
            if current is not None:
                self._attend(current, self.run.spec)
            if self._current() is None and self.status.phase not in ("Succeeded", "Failed"):
                self._start(self.run.spec)
        self.status.tries = self.status.attempts[-1].number if self.status.attempts else 0
        del self.status.attempts[:-KEPT_ATTEMPTS]
        return Decision(self.status, self.actions, self.again)

    # The end.

    def _after_the_end(self) -> None:
        # what is kept of a finished TaskRun was seen before; only the clock matters now
        self.status.observed_generation = self.run.status.observed_generation
        for pod in self.world.pods.values():
            if not (pod.gone or pod.deleting or pod.phase in ("Succeeded", "Failed")):
                self.actions.append(DeletePod(pod.namespace, pod.name, pod.uid))
        ttl = self.run.spec.ttl_seconds_after_finished if self.run.spec is not None else None
        if ttl is not None and self.status.finish_time is not None:
            due = self.status.finish_time + timedelta(seconds=ttl)
            if due <= self.now:
                self.actions.append(DeleteTaskRun())
            else:
                self._look_again(due)

    def _finish(self, phase: str, state: str | None, reason: str, message: str) -> None:
        status = self.status
        status.phase = "Succeeded" if phase == "Succeeded" else "Failed"
        status.state = state if state is not None else status.state or "failed"
        status.reason, status.message = reason, conditions.shorten(message)
        status.finish_time, status.next_attempt_time = self.now, None
        self._condition("Complete", "True", reason, message)
        self._condition("Succeeded", "True" if phase == "Succeeded" else "False", reason, message)
        if phase != "Succeeded":
            self.actions.append(Tell(True, reason, message or f"the task ended in state {status.state}"))
        if self.run.spec is not None and self.run.spec.ttl_seconds_after_finished is not None:
            self._look_again(self.now + timedelta(seconds=self.run.spec.ttl_seconds_after_finished))

    # The attempt that is under way.

    def _adopt(self) -> Attempt | None:
        """Take over a pod that the status does not name: somebody has undone our last write."""
        last = self.status.attempts[-1].number if self.status.attempts else 0
        found = [pod for pod in self.world.pods.values() if pod.attempt > last]
        if not found:
            return None
        newest = max(found, key=lambda pod: pod.attempt)
        self.status.attempts.append(Attempt(number=newest.attempt, state="queued", pod_name=newest.name))
        return self.status.attempts[-1]

    def _current(self) -> Attempt | None:
        if not self.status.attempts or self.status.attempts[-1].state not in ("queued", "running"):
            return None
        return self.status.attempts[-1]

    def _attend(self, attempt: Attempt, spec: TaskRunSpec) -> None:
        pod = self.world.pods.get(attempt.pod_name or "")
        if pod is None:
            self._without_pod(attempt, spec)
            return
        observation = observe(pod, self.world.warnings.get(pod.uid, ""))
        if not isinstance(observation, Waiting) or observation.problem:
            # who is just starting is not worth a write: it will be known in a moment
            self._note_pod(attempt, pod)
        match observation:
            case Ended():
                if pod.held_by and not (pod.gone or pod.deleting):
                    # a container that is not ours would keep the pod for ever
                    self._delete(pod)
                self._close(attempt, observation, spec)
                return
            case Started(when):
                attempt.state, attempt.start_time = "running", when or attempt.start_time or self.now
                if attempt.reason not in (Reason.CANCELLED, Reason.SUSPENDED):
                    attempt.reason, attempt.message = Reason.RUNNING, ""
                self._phase("Running", "running", attempt.reason, attempt.message)
                self._condition("Started", "True", Reason.RUNNING, "")
            case Waiting():
                self._wait(attempt, pod, observation, spec)
        self._stop_if_asked(attempt, pod, spec)

    def _note_pod(self, attempt: Attempt, pod: PodObject) -> None:
        attempt.pod_uid, attempt.create_time = pod.uid, pod.created
        attempt.node_name, attempt.image, attempt.coordinator = pod.node, pod.image, pod.coordinator
        self.status.start_time = self.status.start_time or pod.created
        if pod.coordinator is not None:
            self._routed(pod.coordinator)

    def _routed(self, coordinator: str) -> None:
        self.status.coordinator = coordinator
        queue = self.run.spec.queue if self.run.spec is not None else ""
        self._condition("Routed", "True", Reason.ROUTED, f"queue {queue!r} leads to coordinator {coordinator!r}")

    def _wait(self, attempt: Attempt, pod: PodObject, waiting: Waiting, spec: TaskRunSpec) -> None:
        if attempt.reason not in STOPPED or not pod.deleting:
            if waiting.problem and attempt.reason != waiting.reason:
                self.actions.append(Tell(True, waiting.reason, waiting.message))
            attempt.reason, attempt.message = waiting.reason, conditions.shorten(waiting.message)
        self._phase("Pending", "queued", attempt.reason, attempt.message)
        self._condition("Started", "False", attempt.reason, attempt.message)
        due = pod.created + timedelta(seconds=seconds(spec.timeouts.pending))
        self._look_again(due)
        if due <= self.now and not pod.deleting:
            if waiting.reason not in STOPPED:
                attempt.reason = Reason.PENDING_TIMEOUT
            said = f"; {waiting.message}" if waiting.message else ""
            attempt.message = conditions.shorten(f"the pod did not start within {spec.timeouts.pending}{said}")
            self._delete(pod)
        elif not waiting.problem or waiting.reason is Reason.MOUNT_FAILED:
            looked = self.world.looked.get(pod.uid)
            # ever more seldom: who waits long can wait a little longer for the reason
            pause = LOOK_AFTER if looked is None else max(LOOK_AFTER, (looked - pod.created) / 2)
            look = (looked or pod.created) + pause
            if look <= self.now:
                self.actions.append(LookAtEvents(pod.namespace, pod.name, pod.uid))
            self._look_again(max(look, self.now + LOOK_AFTER))

    def _stop_if_asked(self, attempt: Attempt, pod: PodObject, spec: TaskRunSpec) -> None:
        if spec.cancel:
            attempt.reason, attempt.message = Reason.CANCELLED, "spec.cancel is true"
        elif spec.suspend:
            attempt.reason, attempt.message = Reason.SUSPENDED, "spec.suspend is true"
        else:
            return
        self.status.reason, self.status.message = attempt.reason, attempt.message
        if not pod.deleting:
            self._delete(pod)

    def _delete(self, pod: PodObject) -> None:
        if not any(isinstance(action, DeletePod) for action in self.actions):
            self.actions.append(DeletePod(pod.namespace, pod.name, pod.uid))

    def _without_pod(self, attempt: Attempt, spec: TaskRunSpec) -> None:
        """The attempt is in the status, and there is no pod of it that we know of."""
        name = attempt.pod_name or ""
        refused = name in self.world.refused or attempt.reason == Reason.POD_REFUSED
        if not refused:
            if name not in self.world.absent:
                self.actions.append(VerifyPod(self.run.namespace, name))
            elif attempt.pod_uid is not None:
                self._close(attempt, lost("the pod is gone, and how it ended was not seen"), spec)
            else:
                message = "the operator was restarted while the pod was made, and the pod is not there"
                self._close(attempt, Ended("failed", Reason.POD_NOT_SEEN, message, lost=True), spec)
            return
        # never made: the API server refused it
        due = (attempt.create_time or self.now) + timedelta(seconds=seconds(spec.timeouts.pending))
        asked = Reason.CANCELLED if spec.cancel else Reason.SUSPENDED if spec.suspend else None
        if asked is not None or due <= self.now:
            message = attempt.message if asked is None else f"spec.{'cancel' if spec.cancel else 'suspend'} is true"
            self._close(attempt, Ended("failed", asked or Reason.POD_REFUSED, message, lost=True), spec)
            return
        refusal = self.world.refused.get(name)
        if refusal is not None:
            if attempt.message != conditions.shorten(refusal.message):
                self.actions.append(Tell(True, Reason.POD_REFUSED, refusal.message))
            attempt.reason, attempt.message = Reason.POD_REFUSED, conditions.shorten(refusal.message)
            self._phase("Pending", "queued", attempt.reason, attempt.message)
            self._condition("Started", "False", attempt.reason, attempt.message)
            if refusal.for_good:
                self._close(attempt, Ended("failed", Reason.INVALID_POD_TEMPLATE, refusal.message), spec)
                return
            again = refusal.when + RETRY_REFUSED
            if self.now < again:
                self._look_again(min(due, again))
                return
        self._create(attempt.number, attempt, spec)

    def _close(self, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> None:
        """Write down how an attempt ended, and go on: the end, another try, or rest."""
        stopped = attempt.reason if attempt.reason in STOPPED and not end.passed else None
        if stopped is not None:
            end = Ended("failed", stopped, attempt.message, end.exit_code, end.signal, end.start_time, end.finish_time,
                        end.peak_memory_bytes, end.cpu_seconds, lost=True)  # fmt: skip
        attempt.state, attempt.reason, attempt.message = end.state, end.reason, conditions.shorten(end.message)
        attempt.exit_code, attempt.signal = end.exit_code, end.signal
        attempt.start_time = end.start_time or attempt.start_time
        attempt.finish_time = end.finish_time or self.now
        attempt.peak_memory_bytes, attempt.cpu_seconds = end.peak_memory_bytes, end.cpu_seconds
        if end.passed:
            self._finish("Succeeded", end.state, end.reason, end.message)
        elif end.reason == Reason.CANCELLED or spec.cancel:
            self._finish("Failed", "failed", Reason.CANCELLED, end.message)
        elif end.reason == Reason.SUSPENDED:
            attempt.state = "up_for_retry"
            self._rest()
        elif end.reason == Reason.POD_NOT_SEEN:
            # not the user's, and nothing to wait for: the next attempt is made at once
            attempt.state = "up_for_retry"
        elif end.infrastructure and self._may_replace(attempt, spec):
            self._replace(attempt, end)
        else:
            self._retry_or_fail(attempt, end, spec)

    def _may_replace(self, attempt: Attempt, spec: TaskRunSpec) -> bool:
        """Tell whether a loss of infrastructure is made good without asking the user's limit."""
        if spec.workload_secret_ref is not None and attempt.start_time is not None:
            # Airflow starts a task instance once; the next try is the scheduler's
            return False
        return self.status.infrastructure_failures < INFRASTRUCTURE_LIMIT

    def _replace(self, attempt: Attempt, end: Ended) -> None:
        """Have the same try run again in another pod."""
        self.status.infrastructure_failures += 1
        lost = self.status.infrastructure_failures
        wait = min(INFRASTRUCTURE_DELAY * 2.0 ** (lost - 1), INFRASTRUCTURE_DELAY_MAX)
        attempt.state = "up_for_retry"
        self.status.next_attempt_time = (attempt.finish_time or self.now) + timedelta(seconds=wait)
        why = f"{end.reason}: {end.message}" if end.message else end.reason
        message = (
            f"attempt {attempt.number} was lost ({lost} of {INFRASTRUCTURE_LIMIT} that are made good): {why}; the next "
            f"starts in {wait:.0f} s and is the same try"
        )
        self.actions.append(Tell(True, Reason.REPLACING, message))
        self._phase("Pending", "up_for_retry", Reason.REPLACING, message)
        self._condition("Started", "False", Reason.REPLACING, message)

    def _retry_or_fail(self, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> None:
        self.status.failed_tries += 1
        failed = self.status.failed_tries
        may_retry = (end.state == "up_for_retry" or end.lost) and failed <= spec.retries.limit
        if not may_retry:
            # with Airflow behind it, the next try is the scheduler's and comes as a TaskRun of its own
            state = end.state if spec.workload_secret_ref is not None else "failed"
            attempt.state = state
            self._finish("Failed", state, end.reason, end.message)
            return
        attempt.state = "up_for_retry"
        asked = end.retry_delay_seconds
        wait = asked if asked is not None else retry_delay(spec.retries, failed)
        self.status.next_attempt_time = (attempt.finish_time or self.now) + timedelta(seconds=wait)
        why = f"{end.reason}: {end.message}" if end.message else end.reason
        message = f"try {failed} of {spec.retries.limit + 1} failed: {why}; the next starts in {wait:.0f} s"
        self.actions.append(Tell(True, Reason.RETRYING, message))
        self._phase("Pending", "up_for_retry", Reason.RETRYING, message)
        self._condition("Started", "False", Reason.RETRYING, message)

    # The next attempt.

    def _start(self, spec: TaskRunSpec) -> None:
        if spec.cancel:
            self._finish("Failed", "failed", Reason.CANCELLED, "spec.cancel is true")
        elif spec.suspend:
            self._rest()
        elif self.status.next_attempt_time is not None and self.status.next_attempt_time > self.now:
            self._look_again(self.status.next_attempt_time)
        else:
            self.status.next_attempt_time = None
            number = self.status.attempts[-1].number + 1 if self.status.attempts else 1
            self._create(number, None, spec)

    def _rest(self) -> None:
        if self.status.reason != Reason.SUSPENDED:
            self.actions.append(Tell(False, Reason.SUSPENDED, "spec.suspend is true: nothing is started"))
        self.status.next_attempt_time = None
        state = self.status.attempts[-1].state if self.status.attempts else None
        self._phase("Pending", state, Reason.SUSPENDED, "spec.suspend is true")
        self._condition("Started", "False", Reason.SUSPENDED, "spec.suspend is true")

    def _create(self, number: int, attempt: Attempt | None, spec: TaskRunSpec) -> None:
        """Make the pod of an attempt, which is written down first; `attempt` is given if it is written down already."""
        try:
            route = self._route(spec)
            if route is None:
                message = "there is no valid routing ConfigMap yet"
                self._phase("Pending", self.status.state, Reason.WAITING_FOR_ROUTING, message)
                self._condition("Routed", "Unknown", Reason.WAITING_FOR_ROUTING, message)
                return
            manifest = build(self.run, number, self.status.failed_tries + 1, route, self.settings)
        except (PodError, UserError) as error:
            if attempt is not None:
                attempt.state, attempt.finish_time = "failed", self.now
            self._condition("Routed", "False", error.reason, error.message)
            self._finish("Failed", "failed", error.reason, error.message)
            return
        if attempt is None:
            name = pod_name(self.run.name, self.run.uid, number)
            attempt = Attempt(number=number, state="queued", reason=Reason.POD_STARTING, pod_name=name)
            attempt.create_time, attempt.coordinator = self.now, route.name
            self.status.attempts.append(attempt)
            self.status.start_time = self.status.start_time or self.now
            self._routed(route.name)
            self._phase("Pending", "queued", Reason.POD_STARTING, "")
            self._condition("Started", "False", Reason.POD_STARTING, "")
        self.actions.append(CreatePod(manifest))

    def _route(self, spec: TaskRunSpec) -> Route | None:
        if self.routing is None:
            return None
        who = f"Dag {spec.dag_id!r}, task {spec.task_id!r}, run {spec.run_id!r}"
        name, entry = self.routing.for_queue(spec.queue, who, spec.coordinator)
        return Route(name, entry, self.routing.pod_templates(entry, spec.queue))

    # Small things.

    def _phase(self, phase: str, state: str | None, reason: str, message: str) -> None:
        self.status.phase = "Running" if phase == "Running" else "Pending"
        self.status.state, self.status.reason, self.status.message = state, reason, conditions.shorten(message)
        self._condition("Complete", "False", reason, "")
        self._condition("Succeeded", "Unknown", reason, "")

    def _condition(self, kind: str, answer: conditions.Answer, reason: str, message: str) -> None:
        conditions.put(self.status, kind, answer, reason, message, self.now, self.run.generation)

    def _look_again(self, when: datetime) -> None:
        self.again = when if self.again is None else min(self.again, when)
