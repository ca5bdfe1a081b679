"""What to do for one TaskRun: the whole of the operator's judgement. Pure: state and a clock reading in, decision out.

Level-triggered: the same state leads to the same decision, whatever event led here. An attempt is one pod, whose name
is fixed, so that it is not made twice; it is written down when there is something to say (docs/decisions/0011). The
next one begins only when the last is known to have ended, so that there are never two at once. A final phase never
changes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from polypod_core.durations import seconds
from polypod_core.errors import UserError
from polypod_core.identity import pod_name
from polypod_core.reasons import Reason
from polypod_core.routing import Routing
from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import Cycle, Stops, Verdict, Waits
from polypod_crds.retries import retry_delay
from polypod_crds.taskrun import Attempt, TaskRunSpec

from polypod_operator.decide.decision import (
    Action,
    AskForEnded,
    CreatePod,
    Decision,
    DeletePod,
    DeleteTaskRun,
    LookAtEvents,
    Observed,
    Place,
    QueuePosition,
    RecordEvent,
    VerifyPod,
)
from polypod_operator.decide.status import Ended, Started, Waiting, lost, observe
from polypod_operator.model import conditions
from polypod_operator.model.objects import PodObject, TaskRunObject
from polypod_operator.pods.pod import PodMaker, Route

KEPT_ATTEMPTS = 20
INFRASTRUCTURE_LIMIT = 5
"""How many infrastructure losses are replaced: pods evicted or deleted, nodes gone, sidecars killed."""
INFRASTRUCTURE_DELAY, INFRASTRUCTURE_DELAY_MAX = 1.0, 60.0
"""Seconds before the next attempt, doubled each time up to the second."""
LOOK_AFTER = timedelta(seconds=3)
"""How long a pod may be starting before that is written down, and its Events are looked at for the cause."""
SLOW = timedelta(seconds=15)
"""How long it may be starting before what it waits for next is written down as well."""
TEARDOWN = timedelta(seconds=90)
"""How long a pod may take to end after its attempt: more than its grace period."""
FOREIGN_CONTAINER_GRACE = timedelta(seconds=5)
"""How long containers that are not ours may go on after the task: a mesh's would keep the pod for ever."""
KUBELET_SILENCE = timedelta(seconds=180)
"""How long a kubelet may leave a pod that should be gone, its grace period included, before we take it for silent: more
than a bridge lets its task run on without an answered heartbeat (`Timeouts.heartbeat_limit`) and to end it."""
PLACE_MIN, PLACE_MAX = timedelta(seconds=5), timedelta(seconds=300)
"""How often the place of one that waits for its turn is looked at."""
ASK_AGAIN = timedelta(seconds=15)
"""The pause after the Execution API could not be asked."""
RETRY_REFUSED = timedelta(seconds=5)
LONGEST_DELAY = 10 * 365 * 86400.0
"""Seconds that a task may have its next try wait."""
RESCHEDULE_MIN = timedelta(seconds=1)
"""The least time before a task that asks to be started again is."""
NEVER_MADE = frozenset({Reason.POD_REFUSED, Reason.POD_NAME_TAKEN, Reason.CREATING_POD})
"""Why an attempt that is written down has no pod: it is tried again."""
DELETED_BY_US = frozenset({Reason.CANCELLED, Reason.SUSPENDED, Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED,
                     Reason.CONTAINER_CONFIG, Reason.MOUNT_FAILED, Reason.PENDING_TIMEOUT})  # fmt: skip
"""Why we delete a pod; written into the attempt first, so that it is known when the pod has ended."""


def reconcile(
    run: TaskRunObject, observed: Observed, routing: Routing | None, pods: PodMaker, now: datetime
) -> Decision:
    """Decide what to do for a TaskRun; `pods` makes the manifest of an attempt's pod."""
    if run.deleting:
        # its pods have it as their owner and go with it; until then they hold its place
        alive = any(not pod.over for pod in observed.pods.values())
        return Decision(run.status, place="holds" if alive else "none")
    return _Step(run, observed, routing, pods, now).decide()


class _Step:
    """One decision in the making."""

    def __init__(
        self, run: TaskRunObject, observed: Observed, routing: Routing | None, pods: PodMaker, now: datetime
    ) -> None:
        self.run, self.observed, self.routing, self.pods, self.now = run, observed, routing, pods, now
        self.status = run.status.model_copy(deep=True)
        self.status.observed_generation = run.generation
        self.actions: list[Action] = []
        self.requeue_at: datetime | None = None
        self.write = True
        self.waits = False
        asked = run.spec is not None and run.spec.cancel
        self.cancelled = "spec.cancel is true" if asked else observed.interrupted
        """Why it is to end for good, empty if it is not."""

    def decide(self) -> Decision:
        if self.status.phase in FINISHED_PHASES:
            self._after_the_end()
        elif self.run.spec is None:
            self._finish("Failed", None, Reason.INVALID_SPEC, self.run.problems)
        else:
            current = self._current() or self._adopt()
            if current is not None:
                self._attend(current, self.run.spec)
            if self._current() is None and self.status.phase not in FINISHED_PHASES:
                self._start(self.run.spec)
        self._tidy()
        self.status.tries = self.status.attempts[-1].number if self.status.attempts else 0
        del self.status.attempts[:-KEPT_ATTEMPTS]
        place = self._place()
        return Decision(self.status, self.actions, self.requeue_at, place, self.write)

    def _place(self) -> Place:
        """Return where it stands in its queue: a pod holds a place, one that is refused or to come waits for one."""
        if any(isinstance(action, CreatePod) for action in self.actions):
            return "holds"
        current = self._current()
        if current is None:
            return "waits" if self.waits else "none"
        return "waits" if current.pod_uid is None and current.pod_name not in self.observed.pods else "holds"

    # The end.

    def _after_the_end(self) -> None:
        # an edit changes nothing any more, and yet it was seen: tools wait for that (kstatus)
        edited = self.run.status.observed_generation not in (None, self.run.generation)
        if edited and self.run.spec is not None and self.run.spec.cancel:
            self.actions.append(
                RecordEvent(False, Reason.CANCELLED, "the TaskRun had already finished; cancel has no effect")
            )
        ttl = self.run.spec.ttl_seconds_after_finished if self.run.spec is not None else None
        if ttl is not None and self.status.finish_time is not None:
            due = self.status.finish_time + timedelta(seconds=ttl)
            if due <= self.now:
                self.actions.append(DeleteTaskRun())
            else:
                self._look_again(due)

    def _tidy(self) -> None:
        """See to pods whose attempt is over: they end by themselves, unless somebody keeps them from it."""
        current = self._current()
        ended = {attempt.pod_name: attempt for attempt in self.status.attempts if attempt is not current}
        for pod in self.observed.pods.values():
            if pod.over or pod.deleting or (current is not None and pod.name == current.pod_name):
                continue
            if pod.name not in ended and self.status.phase not in FINISHED_PHASES:
                # just made, and not taken over yet
                continue
            attempt = ended.get(pod.name)
            end = attempt.finish_time if attempt is not None else None
            patience = FOREIGN_CONTAINER_GRACE if pod.held_by and pod.task.ended else TEARDOWN
            due = end + patience if end is not None else self.now
            if due <= self.now:
                self._delete(pod)
            else:
                self._look_again(due)

    def _finish(self, phase: str, state: str | None, reason: str, message: str) -> None:
        status = self.status
        status.phase = "Succeeded" if phase == "Succeeded" else "Failed"
        status.state = state if state is not None else status.state or "failed"
        status.reason, status.message = reason, conditions.shorten(message)
        status.finish_time, status.next_attempt_time, status.queue_place = self.now, None, None
        self._condition("Complete", "True", reason, message)
        self._condition("Succeeded", "True" if phase == "Succeeded" else "False", reason, message)
        if phase != "Succeeded":
            self.actions.append(RecordEvent(True, reason, message or f"the task ended in state {status.state}"))
        if self.run.spec is not None and self.run.spec.ttl_seconds_after_finished is not None:
            self._look_again(self.now + timedelta(seconds=self.run.spec.ttl_seconds_after_finished))

    # The attempt that is under way.

    def _adopt(self) -> Attempt | None:
        """Take over a pod that the status does not name: we have just made it, or were killed when we had."""
        last = self.status.attempts[-1].number if self.status.attempts else 0
        # its name is fixed: another of our TaskRun's is somebody's imitation
        found = [
            pod
            for pod in self.observed.pods.values()
            if pod.attempt > last and pod.name == pod_name(self.run.name, self.run.uid, pod.attempt)
        ]
        if not found:
            return None
        newest = max(found, key=lambda pod: pod.attempt)
        attempt = Attempt(number=newest.attempt, state="queued", reason=Reason.POD_STARTING, pod_name=newest.name)
        self.status.attempts.append(attempt)
        self.status.next_attempt_time = None
        self._note_pod(attempt, newest)
        return attempt

    def _current(self) -> Attempt | None:
        if not self.status.attempts or self.status.attempts[-1].state not in ("queued", "running"):
            return None
        return self.status.attempts[-1]

    def _attend(self, attempt: Attempt, spec: TaskRunSpec) -> None:
        pod = self.observed.pods.get(attempt.pod_name or "")
        if pod is None:
            self._without_pod(attempt, spec)
            return
        if attempt.pod_uid not in (None, pod.uid):
            self._close(attempt, lost("the pod was deleted; another pod now has its name"), spec)
            return
        observation = observe(pod, self.observed.events.get(pod.uid), self.observed.reported.get(pod.uid))
        self._note_pod(attempt, pod)
        match observation:
            case Ended():
                self._close(attempt, observation, spec)
                return
            case Started(when):
                attempt.state, attempt.start_time = "running", attempt.start_time or when or self.now
                if attempt.reason not in (Reason.CANCELLED, Reason.SUSPENDED):
                    attempt.reason, attempt.message = Reason.RUNNING, ""
                self._phase("Running", "running", attempt.reason, attempt.message)
                self._condition("Started", "True", Reason.RUNNING, "")
            case Waiting():
                self._wait(attempt, pod, observation, spec)
        self._stop_if_asked(attempt, pod, spec)
        self._end_by_force(attempt, pod)

    def _note_pod(self, attempt: Attempt, pod: PodObject) -> None:
        attempt.pod_uid, attempt.create_time = pod.uid, pod.created
        attempt.node_name, attempt.image, attempt.coordinator = pod.node, pod.image, pod.coordinator
        attempt.log = pod.log
        self.status.start_time = self.status.start_time or pod.created
        if pod.coordinator is not None:
            self._routed(pod.coordinator)

    def _routed(self, coordinator: str) -> None:
        self.status.coordinator = coordinator
        queue = self.run.spec.queue if self.run.spec is not None else ""
        self._condition("Routed", "True", Reason.ROUTED, f"queue {queue!r} maps to coordinator {coordinator!r}")

    def _wait(self, attempt: Attempt, pod: PodObject, waiting: Waiting, spec: TaskRunSpec) -> None:
        same_reason = attempt.reason == waiting.reason
        if attempt.reason not in (*DELETED_BY_US, Reason.NODE_LOST) or not pod.deleting:
            if waiting.problem and attempt.reason != waiting.reason:
                self.actions.append(RecordEvent(True, waiting.reason, waiting.message))
            attempt.reason, attempt.message = waiting.reason, conditions.shorten(waiting.message)
        self._phase("Pending", "queued", attempt.reason, attempt.message)
        self._condition("Started", "False", attempt.reason, attempt.message)
        told = any(known.pod_name == pod.name for known in self.run.status.attempts)
        if not told and not waiting.problem and self.now < pod.created + LOOK_AFTER:
            # most pods start in a moment, and then this is not worth a write
            self.write = False
            self._look_again(pod.created + LOOK_AFTER)
        elif told and same_reason and not waiting.problem and not self._news_is_due(pod):
            self.write = False
        due = pod.created + timedelta(seconds=seconds(spec.timeouts.pending))
        self._look_again(due)
        if due <= self.now and not pod.deleting:
            if waiting.reason not in DELETED_BY_US:
                # no word of any container: the node was given the pod, and its kubelet never answered
                silent = pod.node is not None and not pod.containers
                attempt.reason = Reason.NODE_LOST if silent else Reason.PENDING_TIMEOUT
            said = f"; {waiting.message}" if waiting.message else ""
            attempt.message = conditions.shorten(f"the pod did not start within {spec.timeouts.pending}{said}")
            self.write = True
            self._delete(pod)
        elif pod.containers and (not waiting.problem or waiting.reason is Reason.MOUNT_FAILED):
            looked = self._looked(pod)
            # back off: poll Events less often the longer the pod is pending
            pause = LOOK_AFTER if looked is None else max(LOOK_AFTER, (looked - pod.created) / 2)
            look = (looked or pod.created) + pause
            if look <= self.now:
                self.actions.append(LookAtEvents(pod.namespace, pod.name, pod.uid))
            self._look_again(max(look, self.now + LOOK_AFTER))

    def _looked(self, pod: PodObject) -> datetime | None:
        """Return when the pod's Events were read last, None if they were not, or the clock was set back since."""
        looked = self.observed.events_checked_at.get(pod.uid)
        return looked if looked is not None and looked <= self.now else None

    def _news_is_due(self, pod: PodObject) -> bool:
        """Tell whether the next thing that a starting pod waits for is worth a write: each step would be one."""
        looked = self._looked(pod)
        just_looked = looked is not None and self.now - looked < timedelta(seconds=1)
        return (
            just_looked and self.now >= pod.created + SLOW
        ) or self.run.status.observed_generation != self.run.generation

    def _stop_if_asked(self, attempt: Attempt, pod: PodObject, spec: TaskRunSpec) -> None:
        if self.cancelled:
            attempt.reason, attempt.message = Reason.CANCELLED, self.cancelled
        elif spec.suspend:
            attempt.reason, attempt.message = Reason.SUSPENDED, "spec.suspend is true"
        else:
            return
        self.write = True
        self.status.reason, self.status.message = attempt.reason, attempt.message
        if not pod.deleting:
            self._delete(pod)

    def _end_by_force(self, attempt: Attempt, pod: PodObject) -> None:
        """Do without the kubelet's word when it has been silent for longer than a bridge without heartbeats lives."""
        if not pod.deleting or pod.deletion_time is None:
            return
        due = pod.deletion_time + KUBELET_SILENCE
        if self.now < due:
            self._look_again(due)
            return
        if attempt.reason not in (*DELETED_BY_US, Reason.NODE_LOST):
            attempt.reason = Reason.NODE_LOST
            attempt.message = (
                f"node {pod.node or '?'} did not terminate the pod within {KUBELET_SILENCE.total_seconds():.0f} s"
            )
        self.write = True
        self.actions.append(DeletePod(pod.namespace, pod.name, pod.uid, force=True))
        self._look_again(self.now + KUBELET_SILENCE)

    def _delete(self, pod: PodObject) -> None:
        action = DeletePod(pod.namespace, pod.name, pod.uid)
        if action not in self.actions:
            self.actions.append(action)

    def _without_pod(self, attempt: Attempt, spec: TaskRunSpec) -> None:
        """The attempt is in the status, and there is no pod of it that we know of."""
        name = attempt.pod_name or ""
        refused = name in self.observed.refused or attempt.reason in NEVER_MADE
        if not refused:
            if name not in self.observed.absent:
                self.actions.append(VerifyPod(self.run.namespace, name))
            else:
                self._close(attempt, lost("the pod was deleted before its final status was observed"), spec)
            return
        # never made: the API server refused it
        due = (attempt.create_time or self.now) + timedelta(seconds=seconds(spec.timeouts.pending))
        asked = Reason.CANCELLED if self.cancelled else Reason.SUSPENDED if spec.suspend else None
        if asked is not None or due <= self.now:
            refusal = self.observed.refused.get(name)
            taken = (refusal.reason if refusal is not None else attempt.reason) == Reason.POD_NAME_TAKEN
            if not taken and name not in self.observed.absent:
                # the last request may have been carried out although nobody answered: then the pod must end first
                self.actions.append(VerifyPod(self.run.namespace, name))
                return
            message = attempt.message if asked is None else self.cancelled or "spec.suspend is true"
            self._close(attempt, Ended("failed", asked or attempt.reason, message, lost=True), spec)
            return
        refusal = self.observed.refused.get(name)
        if refusal is not None:
            if attempt.message != conditions.shorten(refusal.message):
                self.actions.append(RecordEvent(True, refusal.reason, refusal.message))
            attempt.reason, attempt.message = refusal.reason, conditions.shorten(refusal.message)
            self._phase("Pending", "queued", attempt.reason, attempt.message)
            self._condition("Started", "False", attempt.reason, attempt.message)
            if refusal.for_good:
                given = bool(spec.pod_template or self._templates(spec))
                reason = Reason.INVALID_POD_TEMPLATE if given else Reason.INVALID_POD
                self._close(attempt, Ended("failed", reason, refusal.message), spec)
                return
            again = refusal.when + RETRY_REFUSED
            # a time that is ahead of us was taken before the clock was set back
            if refusal.when <= self.now < again:
                self._look_again(min(due, again))
                return
        if self.observed.queue_position is not None:
            self._look_again(min(due, self.now + RETRY_REFUSED))
            return
        self._create(attempt.number, attempt, spec)

    def _close(self, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> None:
        """Write down how an attempt ended, and go on: the end, another try, or rest."""
        if end.log_url and attempt.log is not None:
            attempt.log = attempt.log.model_copy(update={"url": end.log_url})
        attempt.connect_time = end.connect_time
        stopped = attempt.reason if self._was_stopped(attempt, spec) and not end.passed else None
        if stopped is not None:
            end = Ended("failed", stopped, attempt.message, end.exit_code, end.signal, end.start_time, end.finish_time,
                        end.peak_memory_bytes, end.cpu_seconds, lost=True)  # fmt: skip
        elif attempt.reason == Reason.NODE_LOST and not end.passed:
            end = replace(end, state="failed", reason=Reason.NODE_LOST, message=attempt.message, lost=True,
                          infrastructure=True)  # fmt: skip
        attempt.state, attempt.reason, attempt.message = end.state, end.reason, conditions.shorten(end.message)
        attempt.exit_code, attempt.signal = end.exit_code, end.signal
        attempt.start_time = end.start_time or attempt.start_time
        attempt.finish_time = end.finish_time or self.now
        attempt.reported = end.reported or None
        attempt.peak_memory_bytes, attempt.cpu_seconds = end.peak_memory_bytes, end.cpu_seconds
        if end.passed and end.reschedule_time is not None and not spec.started_by_airflow and not self.cancelled:
            self._reschedule(attempt, end.reschedule_time)
        elif end.passed:
            self._finish("Succeeded", end.state, end.reason, end.message)
        elif end.reason == Reason.CANCELLED or self.cancelled:
            self._finish("Failed", "failed", Reason.CANCELLED, end.message)
        elif end.reason == Reason.SUSPENDED:
            attempt.state = "up_for_retry"
            self._rest()
        elif end.infrastructure and self._may_replace(attempt, spec):
            self._replace(attempt, end)
        else:
            self._retry_or_fail(attempt, end, spec)

    def _was_stopped(self, attempt: Attempt, spec: TaskRunSpec) -> bool:
        """Tell whether it was we who deleted the pod: because we were asked to, or as it did not start in time."""
        if attempt.reason in (Reason.CANCELLED, Reason.SUSPENDED):
            return True
        pending = timedelta(seconds=seconds(spec.timeouts.pending))
        return attempt.reason in DELETED_BY_US and (attempt.create_time or self.now) + pending <= self.now

    def _may_replace(self, attempt: Attempt, spec: TaskRunSpec) -> bool:
        """Tell whether an infrastructure loss is replaced regardless of the retry limit."""
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
            f"attempt {attempt.number} was lost to infrastructure (replacement {lost} of {INFRASTRUCTURE_LIMIT}): "
            f"{why}; the next one starts in {wait:.0f} s and does not count as a retry"
        )
        self.actions.append(RecordEvent(True, Reason.REPLACING, message))
        self._phase("Pending", "up_for_retry", Reason.REPLACING, message)
        self._condition("Started", "False", Reason.REPLACING, message)

    def _reschedule(self, attempt: Attempt, asked: datetime) -> None:
        """Have the same try run again at the time that the task has asked for."""
        when = max(asked, (attempt.finish_time or self.now) + RESCHEDULE_MIN)
        self.status.next_attempt_time = when
        message = f"attempt {attempt.number} asked to run again at {when.isoformat(timespec='seconds')}"
        self._phase("Pending", "up_for_reschedule", Reason.RESCHEDULED, message)
        self._condition("Started", "False", Reason.RESCHEDULED, message)

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
        wait = retry_delay(spec.retries, failed)
        if asked is not None and math.isfinite(asked):
            wait = min(max(asked, 0.0), LONGEST_DELAY)
        self.status.next_attempt_time = (attempt.finish_time or self.now) + timedelta(seconds=wait)
        why = f"{end.reason}: {end.message}" if end.message else end.reason
        message = f"try {failed} of {spec.retries.limit + 1} failed: {why}; the next one starts in {wait:.0f} s"
        self.actions.append(RecordEvent(True, Reason.RETRYING, message))
        self._phase("Pending", "up_for_retry", Reason.RETRYING, message)
        self._condition("Started", "False", Reason.RETRYING, message)

    # The next attempt.

    def _start(self, spec: TaskRunSpec) -> None:
        if self.cancelled:
            self._finish("Failed", "failed", Reason.CANCELLED, self.cancelled)
        elif spec.suspend:
            self._rest()
        elif self.status.next_attempt_time is not None and self.status.next_attempt_time > self.now:
            self._look_again(self.status.next_attempt_time)
        elif self.observed.upstream is not None and not self.status.attempts:
            self._wait_for_upstream(self.observed.upstream, spec)
        elif self.observed.queue_position is not None:
            self._queue_up(self.observed.queue_position, spec)
        else:
            number = self.status.attempts[-1].number + 1 if self.status.attempts else 1
            self._create(number, None, spec)

    def _wait_for_upstream(self, verdict: Verdict, spec: TaskRunSpec) -> None:
        """Wait for the tasks that this one depends on, or end without an attempt if they have decided that already."""
        match verdict:
            case Cycle():
                self._finish("Failed", "failed", Reason.DEPENDENCY_CYCLE, verdict.message)
            case Stops("skipped", message):
                self._finish("Succeeded", "skipped", Reason.UPSTREAM_SKIPPED, message)
            case Stops(state, message):
                self._finish("Failed", state, Reason.UPSTREAM_FAILED, message)
            case Waits(_, missing):
                message = verdict.message + self._ask_for_ended(missing)
                self._phase("Pending", None, Reason.WAITING_FOR_UPSTREAM, message)
                self._condition("Started", "False", Reason.WAITING_FOR_UPSTREAM, message)

    def _ask_for_ended(self, missing: tuple[str, ...]) -> str:
        """Ask once how tasks without a TaskRun have ended; return what is to be said if that cannot be asked now."""
        earlier = self.observed.earlier
        if earlier.problem and earlier.when is not None:
            again = earlier.when + ASK_AGAIN
            if earlier.when <= self.now < again:
                self._look_again(again)
                return (
                    f"; whether it finished earlier is unknown, as the Execution API did not answer: {earlier.problem}"
                )
        unknown = tuple(task_id for task_id in missing if task_id not in earlier.ended)
        if unknown:
            self.actions.append(AskForEnded(unknown))
        return ""

    def _queue_up(self, turn: QueuePosition, spec: TaskRunSpec) -> None:
        """Wait for a turn. The place is written down now and then: each end moves all of them."""
        self.waits = True
        told = self.status.queue_place
        near = told is not None and turn.position > 10 and told / 2 < turn.position <= told * 2
        place = told if told is not None and near else turn.position
        self.status.queue_place, self.status.next_attempt_time = place, None
        message = f"queue {spec.queue!r} is at its limit of {turn.limit}; position {place} in line"
        self._phase("Pending", self.status.state, Reason.QUEUE_LIMIT, message)
        self._condition("Started", "False", Reason.QUEUE_LIMIT, "")
        self._look_again(self.now + min(PLACE_MAX, max(PLACE_MIN, timedelta(seconds=turn.position / 2))))

    def _rest(self) -> None:
        if self.status.reason != Reason.SUSPENDED:
            self.actions.append(RecordEvent(False, Reason.SUSPENDED, "spec.suspend is true: no attempt is started"))
        self.status.next_attempt_time = None
        state = self.status.attempts[-1].state if self.status.attempts else None
        self._phase("Pending", state, Reason.SUSPENDED, "spec.suspend is true")
        self._condition("Started", "False", Reason.SUSPENDED, "spec.suspend is true")

    def _create(self, number: int, attempt: Attempt | None, spec: TaskRunSpec) -> None:
        """Make the pod of an attempt; `attempt` is given if it is written down already, as the pod was refused."""
        try:
            route = self._route(spec)
            if route is None:
                self.waits = True
                message = "no valid routing ConfigMap exists yet"
                self._phase("Pending", self.status.state, Reason.WAITING_FOR_ROUTING, message)
                self._condition("Routed", "Unknown", Reason.WAITING_FOR_ROUTING, message)
                return
            manifest = self.pods.build(self.run, number, self.status.failed_tries + 1, route)
        except UserError as error:
            if spec.started_by_airflow and attempt is None:
                # Airflow, too, is to know; after that the attempt ends with this very reason
                tries = self.status.failed_tries + 1
                pod = self.pods.refuse(self.run, number, tries, error.reason, error.message)
                if pod["metadata"]["name"] not in self.observed.refused:
                    self._condition("Routed", "False", error.reason, error.message)
                    self.actions.append(CreatePod(pod))
                    return
            if attempt is not None:
                attempt.state, attempt.finish_time = "failed", self.now
            self._condition("Routed", "False", error.reason, error.message)
            self._finish("Failed", "failed", error.reason, error.message)
            return
        name = manifest["metadata"]["name"]
        if attempt is None and name in self.observed.refused:
            attempt = Attempt(
                number=number, state="queued", pod_name=name, create_time=self.now, coordinator=route.name
            )
            self.status.attempts.append(attempt)
            self.status.start_time, self.status.next_attempt_time = self.status.start_time or self.now, None
            self._routed(route.name)
            self._without_pod(attempt, spec)
            return
        self.actions.append(CreatePod(manifest))
        unseen = self.run.status.model_copy(update={"observed_generation": self.run.generation})
        # what there is to say is said when the pod is there
        self.write = self.write and self.status != unseen

    def _templates(self, spec: TaskRunSpec) -> list[dict[str, Any]]:
        """Return the routing's pod templates for this TaskRun; none if its queue is not in the routing any more."""
        try:
            route = self._route(spec)
        except UserError:
            return []
        return route.templates if route is not None else []

    def _route(self, spec: TaskRunSpec) -> Route | None:
        if self.routing is None:
            return None
        who = f"Dag {spec.dag_id!r}, task {spec.task_id!r}, run {spec.run_id!r}"
        name, entry = self.routing.for_queue(spec.queue, who, spec.coordinator)
        templates = self.routing.pod_templates(entry, spec.queue)
        return Route(name, entry, templates, self.routing.bundle_folders(entry))

    # Small things.

    def _phase(self, phase: str, state: str | None, reason: str, message: str) -> None:
        self.status.phase = "Running" if phase == "Running" else "Pending"
        if reason != Reason.QUEUE_LIMIT:
            self.status.queue_place = None
        self.status.state, self.status.reason, self.status.message = state, reason, conditions.shorten(message)
        self._condition("Complete", "False", reason, "")
        self._condition("Succeeded", "Unknown", reason, "")

    def _condition(self, kind: str, answer: conditions.Answer, reason: str, message: str) -> None:
        conditions.put(self.status, kind, answer, reason, message, self.now, self.run.generation)

    def _look_again(self, when: datetime) -> None:
        if when <= self.now:
            # what was due has been done; what comes of it the watch tells
            return
        self.requeue_at = when if self.requeue_at is None else min(self.requeue_at, when)
