"""The attempt that is under way, by what is seen of its pod. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from polypod_core.durations import seconds
from polypod_core.identity import pod_name
from polypod_core.reasons import Reason
from polypod_crds.taskrun import Attempt, TaskRunSpec

from polypod_operator.decide.creation import without_pod
from polypod_operator.decide.decision import DeletePod, LookAtEvents
from polypod_operator.decide.draft import Draft
from polypod_operator.decide.retry import DELETED_BY_US, close
from polypod_operator.decide.status import Ended, Started, Waiting, lost, observe
from polypod_operator.model import conditions
from polypod_operator.model.objects import PodObject
from polypod_operator.model.recorded import UNDER_WAY


def adopt(draft: Draft) -> Attempt | None:
    """Take over a pod that the status does not name: we have just created it, or were killed when we had.

    Or somebody has edited the status: then a pod that runs says more of which attempt is the last.
    """
    run, status = draft.run, draft.status
    last = status.attempts[-1].number if status.attempts else 0
    named = {attempt.pod_name for attempt in status.attempts}
    running = {pod.name for pod in draft.running()}
    # its name is fixed: another of our TaskRun's is somebody's imitation
    found = [
        pod
        for pod in draft.observed.pods.values()
        if (pod.attempt > last or (pod.name in running and pod.name not in named))
        and pod.name == pod_name(run.name, run.uid, pod.attempt)
    ]
    if not found:
        return None
    newest = max(found, key=lambda pod: pod.attempt)
    status.attempts = [item for item in status.attempts if item.number < newest.attempt]
    for item in status.attempts:
        item.state = "failed" if item.state in UNDER_WAY else item.state
    attempt = Attempt(number=newest.attempt, state="queued", reason=Reason.POD_STARTING, pod_name=newest.name)
    status.attempts.append(attempt)
    status.next_attempt_time = None
    _note_pod(draft, attempt, newest)
    return attempt


def attend(draft: Draft, attempt: Attempt, spec: TaskRunSpec) -> None:
    """Bring an attempt up to date with its pod."""
    observed = draft.observed
    pod = observed.pods.get(attempt.pod_name or "")
    if pod is None:
        without_pod(draft, attempt, spec)
        return
    if attempt.pod_uid not in (None, pod.uid):
        close(draft, attempt, lost("the pod was deleted; another pod now has its name"), spec)
        return
    observation = observe(pod, observed.events.get(pod.uid), observed.reported.get(pod.uid))
    _note_pod(draft, attempt, pod)
    match observation:
        case Ended():
            close(draft, attempt, observation, spec)
            return
        case Started(when):
            _runs(draft, attempt, when)
        case Waiting():
            _starts(draft, attempt, pod, observation, spec)
    _stop_if_asked(draft, attempt, pod, spec)
    _end_by_force(draft, attempt, pod)


def _note_pod(draft: Draft, attempt: Attempt, pod: PodObject) -> None:
    attempt.pod_uid, attempt.create_time = pod.uid, pod.created
    attempt.node_name, attempt.image, attempt.coordinator = pod.node, pod.image, pod.coordinator
    attempt.log = pod.log
    draft.status.start_time = draft.status.start_time or pod.created
    if pod.coordinator is not None:
        draft.routed(pod.coordinator)


def _runs(draft: Draft, attempt: Attempt, when: datetime | None) -> None:
    attempt.state, attempt.start_time = "running", attempt.start_time or when or draft.now
    if attempt.reason not in (Reason.CANCELLED, Reason.SUSPENDED):
        attempt.reason, attempt.message = Reason.RUNNING, ""
    draft.phase("Running", "running", attempt.reason, attempt.message)
    draft.condition("Started", "True", Reason.RUNNING, "")


def _starts(draft: Draft, attempt: Attempt, pod: PodObject, waiting: Waiting, spec: TaskRunSpec) -> None:
    """Say what a pod waits for; delete it if it has waited for too long, and read its Events now and then."""
    same_reason = attempt.reason == waiting.reason
    if attempt.reason not in (*DELETED_BY_US, Reason.NODE_LOST) or not pod.deleting:
        if waiting.problem and not same_reason:
            draft.warn(waiting.reason, waiting.message)
        attempt.reason, attempt.message = waiting.reason, conditions.shorten(waiting.message)
    draft.phase("Pending", "queued", attempt.reason, attempt.message)
    draft.condition("Started", "False", attempt.reason, attempt.message)
    _put_off_write(draft, pod, waiting, same_reason)
    due = pod.created + timedelta(seconds=seconds(spec.timeouts.pending))
    draft.requeue(due)
    if due <= draft.now and not pod.deleting:
        if waiting.reason not in DELETED_BY_US:
            # no word of any container: the node was given the pod, and its kubelet never answered
            silent = pod.node is not None and not pod.containers
            attempt.reason = Reason.NODE_LOST if silent else Reason.PENDING_TIMEOUT
        said = f"; {waiting.message}" if waiting.message else ""
        attempt.message = conditions.shorten(f"the pod did not start within {spec.timeouts.pending}{said}")
        draft.write_now()
        draft.delete(pod)
    elif pod.containers and (not waiting.problem or waiting.reason is Reason.MOUNT_FAILED):
        _read_events(draft, pod)


def _put_off_write(draft: Draft, pod: PodObject, waiting: Waiting, same_reason: bool) -> None:
    """Most pods start in a moment, and each step of one that does not would be a write."""
    if waiting.problem:
        return
    policy = draft.policy
    told = any(known.pod_name == pod.name for known in draft.run.status.attempts)
    if not told and draft.now < pod.created + policy.look_after:
        draft.write_by(pod.created + policy.look_after)
        draft.requeue(pod.created + policy.look_after)
    elif told and same_reason and not _news_is_due(draft, pod):
        draft.write_by(max(pod.created + policy.slow, draft.now + policy.look_after))


def _news_is_due(draft: Draft, pod: PodObject) -> bool:
    """Tell whether the next thing that a starting pod waits for is worth a write."""
    looked = _looked(draft, pod)
    just_looked = looked is not None and draft.now - looked < timedelta(seconds=1)
    edited = draft.run.status.observed_generation != draft.run.generation
    return (just_looked and draft.now >= pod.created + draft.policy.slow) or edited


def _read_events(draft: Draft, pod: PodObject) -> None:
    """Read the pod's Events; back off: less often the longer it is pending."""
    after = draft.policy.look_after
    looked = _looked(draft, pod)
    pause = after if looked is None else max(after, (looked - pod.created) / 2)
    due = (looked or pod.created) + pause
    if due <= draft.now:
        draft.act(LookAtEvents(pod.namespace, pod.name, pod.uid))
    draft.requeue(max(due, draft.now + after))


def _looked(draft: Draft, pod: PodObject) -> datetime | None:
    """Return when the pod's Events were read last, None if they were not, or the clock was set back since."""
    looked = draft.observed.events_checked_at.get(pod.uid)
    return looked if looked is not None and looked <= draft.now else None


def _stop_if_asked(draft: Draft, attempt: Attempt, pod: PodObject, spec: TaskRunSpec) -> None:
    if draft.cancelled:
        attempt.reason, attempt.message = Reason.CANCELLED, draft.cancelled
    elif spec.suspend:
        attempt.reason, attempt.message = Reason.SUSPENDED, "spec.suspend is true"
    else:
        return
    draft.write_now()
    draft.status.reason, draft.status.message = attempt.reason, attempt.message
    if not pod.deleting:
        draft.delete(pod)


def _end_by_force(draft: Draft, attempt: Attempt, pod: PodObject) -> None:
    """Force-delete a pod whose kubelet has been silent for longer than a bridge without heartbeats lives."""
    if not pod.deleting or pod.deletion_time is None:
        return
    silence = draft.policy.kubelet_silence
    due = pod.deletion_time + silence
    if draft.now < due:
        draft.requeue(due)
        return
    if attempt.reason not in (*DELETED_BY_US, Reason.NODE_LOST):
        attempt.reason = Reason.NODE_LOST
        attempt.message = f"node {pod.node or '?'} did not terminate the pod within {silence.total_seconds():.0f} s"
    draft.write_now()
    draft.act(DeletePod(pod.namespace, pod.name, pod.uid, force=True))
    draft.requeue(draft.now + silence)
