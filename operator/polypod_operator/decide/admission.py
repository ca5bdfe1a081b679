"""Whether the next attempt may start: cancel, suspend, retry delay, upstream tasks, the queue's limit. Pure."""

from __future__ import annotations

from datetime import timedelta

from polypod_core.reasons import Reason
from polypod_crds.dependencies import Cycle, Stops, Verdict, Waits
from polypod_crds.taskrun import TaskRunSpec

from polypod_operator.decide.creation import create
from polypod_operator.decide.decision import AskForEnded, QueuePosition
from polypod_operator.decide.draft import Draft
from polypod_operator.decide.lifecycle import finish, rest


def start(draft: Draft, spec: TaskRunSpec) -> None:
    """Start the next attempt, or say what it waits for."""
    status, observed = draft.status, draft.observed
    if draft.cancelled:
        finish(draft, "Failed", "failed", Reason.CANCELLED, draft.cancelled)
    elif spec.suspend:
        rest(draft)
    elif status.next_attempt_time is not None and status.next_attempt_time > draft.now:
        draft.requeue(status.next_attempt_time)
    elif observed.upstream is not None and not status.attempts:
        _wait_for_upstream(draft, observed.upstream)
    elif observed.queue_position is not None:
        _wait_in_line(draft, observed.queue_position, spec)
    else:
        number = status.attempts[-1].number + 1 if status.attempts else 1
        create(draft, number, None, spec)


def _wait_for_upstream(draft: Draft, verdict: Verdict) -> None:
    """Wait for the tasks that this one depends on, or end without an attempt if they have decided that already."""
    match verdict:
        case Cycle():
            finish(draft, "Failed", "failed", Reason.DEPENDENCY_CYCLE, verdict.message)
        case Stops("skipped", message):
            finish(draft, "Succeeded", "skipped", Reason.UPSTREAM_SKIPPED, message)
        case Stops(state, message):
            finish(draft, "Failed", state, Reason.UPSTREAM_FAILED, message)
        case Waits(_, missing):
            message = verdict.message + _ask_for_ended(draft, missing)
            draft.phase("Pending", None, Reason.WAITING_FOR_UPSTREAM, message)
            draft.condition("Started", "False", Reason.WAITING_FOR_UPSTREAM, message)


def _ask_for_ended(draft: Draft, missing: tuple[str, ...]) -> str:
    """Ask once how tasks without a TaskRun have ended; return what is to be said if that cannot be asked now."""
    earlier = draft.observed.earlier
    if earlier.problem and earlier.when is not None:
        again = earlier.when + draft.policy.ask_again
        if earlier.when <= draft.now < again:
            draft.requeue(again)
            return f"; whether it finished earlier is unknown, as the Execution API did not answer: {earlier.problem}"
    unknown = tuple(task_id for task_id in missing if task_id not in earlier.ended)
    if unknown:
        draft.act(AskForEnded(unknown))
    return ""


def _wait_in_line(draft: Draft, queue: QueuePosition, spec: TaskRunSpec) -> None:
    """Wait for a place. The position is written down now and then: each end moves all of them."""
    status, policy = draft.status, draft.policy
    draft.waits = True
    told = status.queue_place
    near = told is not None and queue.position > 10 and told / 2 < queue.position <= told * 2
    position = told if told is not None and near else queue.position
    status.queue_place, status.next_attempt_time = position, None
    message = f"queue {spec.queue!r} is at its limit of {queue.limit}; position {position} in line"
    draft.phase("Pending", status.state, Reason.QUEUE_LIMIT, message)
    draft.condition("Started", "False", Reason.QUEUE_LIMIT, "")
    pause = timedelta(seconds=queue.position / 2)
    draft.requeue(draft.now + min(policy.position_max, max(policy.position_min, pause)))
