"""How an attempt ended, and what follows: the end, another try, a replacement, or rest. Pure."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import msgspec
from polypod_core.durations import seconds
from polypod_core.reasons import Reason
from polypod_core.states import REMOVED
from polypod_crds.retries import retry_delay
from polypod_crds.taskrun import Attempt, TaskRunSpec

from polypod_operator.decide.draft import Draft
from polypod_operator.decide.lifecycle import finish, rest
from polypod_operator.decide.status import NOT_STARTED, Ended, put_outcome

DELETED_BY_US = frozenset({Reason.CANCELLED, Reason.SUSPENDED, Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED,
                     Reason.CONTAINER_CONFIG, Reason.MOUNT_FAILED, Reason.PENDING_TIMEOUT})  # fmt: skip
"""Why we delete a pod; written into the attempt first, so that it is known when the pod has ended."""


def close(draft: Draft, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> None:
    """Write down how an attempt ended, and go on."""
    end = _as_we_know_it(draft, attempt, end, spec)
    outcome = end.outcome
    put_outcome(attempt, outcome, draft.now)
    if end.passed and outcome.reschedule_time is not None and not spec.started_by_airflow and not draft.cancelled:
        _reschedule(draft, attempt, outcome.reschedule_time)
    elif outcome.state == REMOVED and not spec.started_by_airflow:
        # no other try would find the task
        finish(draft, "Failed", outcome.state, outcome.reason, outcome.message)
    elif end.passed:
        finish(draft, "Succeeded", outcome.state, outcome.reason, outcome.message)
    elif outcome.reason == Reason.CANCELLED or draft.cancelled:
        finish(draft, "Failed", "failed", Reason.CANCELLED, outcome.message)
    elif outcome.reason == Reason.SUSPENDED:
        attempt.state = "up_for_retry"
        rest(draft)
    elif end.infrastructure and _may_replace(draft, attempt, end, spec):
        _replace(draft, attempt, end)
    else:
        _retry_or_fail(draft, attempt, end, spec)


def _as_we_know_it(draft: Draft, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> Ended:
    """Return an end with our reason in place of the pod's, if it was we who deleted the pod."""
    if end.passed:
        return end
    if _was_stopped(draft, attempt, spec):
        told = end.outcome
        stopped = msgspec.structs.replace(
            told, state="failed", reason=attempt.reason, message=attempt.message, reported=False,
            retry_delay_seconds=None, reschedule_time=None,
        )  # fmt: skip
        return Ended(stopped, lost=True)
    if attempt.reason == Reason.NODE_LOST:
        lost = msgspec.structs.replace(end.outcome, state="failed", reason=Reason.NODE_LOST, message=attempt.message)
        return Ended(lost, lost=True, infrastructure=True)
    return end


def _was_stopped(draft: Draft, attempt: Attempt, spec: TaskRunSpec) -> bool:
    """Tell whether it was we who deleted the pod: because we were asked to, or as it did not start in time."""
    if attempt.reason in (Reason.CANCELLED, Reason.SUSPENDED):
        return True
    pending = timedelta(seconds=seconds(spec.timeouts.pending))
    return attempt.reason in DELETED_BY_US and (attempt.create_time or draft.now) + pending <= draft.now


def _may_replace(draft: Draft, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> bool:
    """Tell whether an infrastructure loss is replaced regardless of the retry limit."""
    not_started = attempt.start_time is None or (end.outcome.reason in NOT_STARTED and not end.outcome.reported)
    if spec.workload_secret_ref is not None and not not_started:
        # Airflow starts a task instance once; the next try is the scheduler's
        return False
    return draft.status.infrastructure_failures < draft.policy.infrastructure_limit


def _replace(draft: Draft, attempt: Attempt, end: Ended) -> None:
    """Have the same try run again in another pod."""
    status, policy = draft.status, draft.policy
    status.infrastructure_failures += 1
    lost = status.infrastructure_failures
    wait = min(policy.infrastructure_delay * 2.0 ** (lost - 1), policy.infrastructure_delay_max)
    message = (
        f"attempt {attempt.number} was lost to infrastructure (replacement {lost} of {policy.infrastructure_limit}): "
        f"{end.why}; the next one starts in {wait.total_seconds():.0f} s and does not count as a retry"
    )
    _try_again(draft, attempt, wait, Reason.REPLACING, message)


def _retry_or_fail(draft: Draft, attempt: Attempt, end: Ended, spec: TaskRunSpec) -> None:
    draft.status.failed_tries += 1
    failed = draft.status.failed_tries
    outcome = end.outcome
    may_retry = (outcome.state == "up_for_retry" or end.lost) and failed <= spec.retries.limit
    if not may_retry:
        # with Airflow behind it, the next try is the scheduler's and comes as a TaskRun of its own
        state = outcome.state if spec.workload_secret_ref is not None else "failed"
        attempt.state = state
        finish(draft, "Failed", state, outcome.reason, outcome.message)
        return
    asked = outcome.retry_delay_seconds
    wait = timedelta(seconds=retry_delay(spec.retries, failed))
    if asked is not None and math.isfinite(asked):
        wait = timedelta(seconds=min(max(asked, 0.0), draft.policy.longest_delay.total_seconds()))
    message = (
        f"try {failed} of {spec.retries.limit + 1} failed: {end.why}; "
        f"the next one starts in {wait.total_seconds():.0f} s"
    )
    _try_again(draft, attempt, wait, Reason.RETRYING, message)


def _try_again(draft: Draft, attempt: Attempt, wait: timedelta, reason: Reason, message: str) -> None:
    attempt.state = "up_for_retry"
    # its finish time is by the node's clock
    draft.status.next_attempt_time = draft.now + wait
    draft.warn(reason, message)
    draft.phase("Pending", "up_for_retry", reason, message)
    draft.condition("Started", "False", reason, message)


def _reschedule(draft: Draft, attempt: Attempt, asked: datetime) -> None:
    """Have the same try run again at the time that the task has asked for."""
    when = max(min(asked, draft.now + draft.policy.longest_delay), draft.now + draft.policy.reschedule_min)
    draft.status.next_attempt_time = when
    message = f"attempt {attempt.number} asked to run again at {when.isoformat(timespec='seconds')}"
    draft.phase("Pending", "up_for_reschedule", Reason.RESCHEDULED, message)
    draft.condition("Started", "False", Reason.RESCHEDULED, message)
