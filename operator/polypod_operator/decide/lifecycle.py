"""The end of a TaskRun, its rest while suspended, and the pods of attempts that are over. Pure."""

from __future__ import annotations

from datetime import timedelta

from polypod_core.reasons import Reason

from polypod_operator.decide.decision import DeleteTaskRun, RecordEvent
from polypod_operator.decide.draft import Draft
from polypod_operator.model import conditions


def finish(draft: Draft, phase: str, state: str | None, reason: str, message: str) -> None:
    """Set the final phase."""
    status = draft.status
    status.phase = "Succeeded" if phase == "Succeeded" else "Failed"
    status.state = state if state is not None else status.state or "failed"
    status.reason, status.message = reason, conditions.shorten(message)
    status.finish_time, status.next_attempt_time, status.queue_place = draft.now, None, None
    draft.condition("Complete", "True", reason, message)
    draft.condition("Succeeded", "True" if phase == "Succeeded" else "False", reason, message)
    if phase != "Succeeded":
        draft.warn(reason, message or f"the task ended in state {status.state}")
    if draft.run.spec is not None and draft.run.spec.ttl_seconds_after_finished is not None:
        draft.requeue(draft.now + timedelta(seconds=draft.run.spec.ttl_seconds_after_finished))


def after_the_end(draft: Draft) -> None:
    """Acknowledge an edit, which changes nothing any more, and delete the TaskRun when its time is up."""
    run, status = draft.run, draft.status
    # tools wait for observedGeneration (kstatus)
    edited = run.status.observed_generation not in (None, run.generation)
    if edited and run.spec is not None and run.spec.cancel:
        draft.act(RecordEvent(False, Reason.CANCELLED, "the TaskRun had already finished; cancel has no effect"))
    ttl = run.spec.ttl_seconds_after_finished if run.spec is not None else None
    if ttl is not None and not run.deleting and status.finish_time is not None:
        due = status.finish_time + timedelta(seconds=ttl)
        if due <= draft.now:
            draft.act(DeleteTaskRun())
        else:
            draft.requeue(due)


def rest(draft: Draft) -> None:
    """Start nothing while spec.suspend is true."""
    status = draft.status
    if status.reason != Reason.SUSPENDED:
        draft.act(RecordEvent(False, Reason.SUSPENDED, "spec.suspend is true: no attempt is started"))
    status.next_attempt_time = None
    state = status.attempts[-1].state if status.attempts else None
    draft.phase("Pending", state, Reason.SUSPENDED, "spec.suspend is true")
    draft.condition("Started", "False", Reason.SUSPENDED, "spec.suspend is true")


def tidy(draft: Draft) -> None:
    """See to pods whose attempt is over: they end by themselves, unless somebody keeps them from it."""
    current = draft.current
    ended = {attempt.pod_name for attempt in draft.status.attempts if attempt is not current}
    for pod in draft.observed.pods.values():
        if pod.over or pod.deleting or (current is not None and pod.name == current.pod_name):
            continue
        if pod.name not in ended and not draft.finished:
            # just created, and not taken over yet
            continue
        # when its task ended is known by the node's clock only
        seen = draft.observed.closed_since.get(pod.uid, draft.now)
        held = pod.held_by and pod.task.ended
        patience = draft.policy.foreign_container_grace if held else draft.policy.teardown
        due = seen + patience if pod.name in ended else draft.now
        if due <= draft.now:
            draft.delete(pod)
        else:
            draft.requeue(due)
