"""The pod of an attempt that is to be created, was refused, or is not there. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from polypod_core.durations import seconds
from polypod_core.errors import UserError
from polypod_core.outcome import Outcome
from polypod_core.reasons import Reason
from polypod_crds.taskrun import Attempt, TaskRunSpec

from polypod_operator.decide.decision import CreatePod, Refusal, VerifyPod
from polypod_operator.decide.draft import Draft
from polypod_operator.decide.lifecycle import finish
from polypod_operator.decide.retry import close
from polypod_operator.decide.status import Ended, lost
from polypod_operator.model import conditions

NEVER_MADE = frozenset({Reason.POD_REFUSED, Reason.POD_CHANGED, Reason.POD_NAME_TAKEN, Reason.CREATING_POD})
"""Why an attempt that is written down has no pod: it is tried again."""


def create(draft: Draft, number: int, attempt: Attempt | None, spec: TaskRunSpec) -> None:
    """Create the pod of an attempt; `attempt` is given if it is written down already, as the pod was refused."""
    try:
        route = draft.route(spec)
        if route is None:
            _wait(draft, draft.rejected or "no routing ConfigMap exists yet")
            return
        manifest = draft.pods.build(draft.run, number, draft.status.failed_tries + 1, route)
    except UserError as error:
        if error.reason is Reason.INVALID_ROUTING and draft.rejected:
            # the edit that was rejected may map just this queue
            _wait(
                draft, f"{error.message}; this routing is the last valid one, the newest is not used: {draft.rejected}"
            )
            return
        _fail(draft, number, attempt, spec, error)
        return
    name = manifest["metadata"]["name"]
    others = ", ".join(pod.name for pod in draft.running() if pod.name != name)
    if others:
        # of an attempt that the status says is over: there are never two at once
        message = f"the next attempt starts when pod {others} has ended"
        draft.phase("Pending", draft.status.state, Reason.RETRYING, message)
        return
    if attempt is not None:
        attempt.pod_name = name
    if attempt is None and name in draft.observed.refused:
        attempt = Attempt(number=number, state="queued", pod_name=name, create_time=draft.now, coordinator=route.name)
        draft.status.attempts.append(attempt)
        draft.status.start_time, draft.status.next_attempt_time = draft.status.start_time or draft.now, None
        draft.routed(route.name)
        without_pod(draft, attempt, spec)
        return
    draft.act(CreatePod(manifest, tuple(route.spec.allow)))
    unseen = draft.run.status.model_copy(update={"observed_generation": draft.run.generation})
    if draft.status == unseen:
        # what there is to say is said when the pod is there
        draft.write_by(draft.now + draft.policy.look_after)


def _wait(draft: Draft, message: str) -> None:
    """Wait for a routing."""
    draft.waits = True
    message = conditions.shorten(message)
    draft.phase("Pending", draft.status.state, Reason.WAITING_FOR_ROUTING, message)
    draft.condition("Routed", "Unknown", Reason.WAITING_FOR_ROUTING, message)


def _fail(draft: Draft, number: int, attempt: Attempt | None, spec: TaskRunSpec, error: UserError) -> None:
    """End a TaskRun for which there can be no pod."""
    draft.condition("Routed", "False", error.reason, error.message)
    if spec.started_by_airflow and attempt is None:
        # Airflow, too, is to know; after that the attempt ends with this very reason
        tries = draft.status.failed_tries + 1
        pod = draft.pods.refuse(draft.run, number, tries, error.reason, error.message)
        if pod["metadata"]["name"] not in draft.observed.refused:
            draft.act(CreatePod(pod))
            return
    if attempt is not None:
        attempt.state, attempt.finish_time = "failed", draft.now
    finish(draft, "Failed", "failed", error.reason, error.message)


def without_pod(draft: Draft, attempt: Attempt, spec: TaskRunSpec) -> None:
    """See to an attempt that is in the status and has no pod that we know of."""
    name = attempt.pod_name or ""
    if name not in draft.observed.refused and attempt.reason not in NEVER_MADE:
        if name not in draft.observed.absent:
            draft.act(VerifyPod(draft.run.namespace, name))
        else:
            close(draft, attempt, lost("the pod was deleted before its final status was observed"), spec)
        return
    # never created: the API server refused it
    due = (attempt.create_time or draft.now) + timedelta(seconds=seconds(spec.timeouts.pending))
    asked = Reason.CANCELLED if draft.cancelled else Reason.SUSPENDED if spec.suspend else None
    refusal = draft.observed.refused.get(name)
    if asked is not None or due <= draft.now:
        _give_up(draft, attempt, refusal, asked, spec)
        return
    if refusal is not None and not _may_try_again(draft, attempt, refusal, due, spec):
        return
    if draft.observed.queue_position is not None:
        draft.requeue(min(due, draft.now + draft.policy.retry_refused))
        return
    create(draft, attempt.number, attempt, spec)


def _give_up(draft: Draft, attempt: Attempt, refusal: Refusal | None, asked: Reason | None, spec: TaskRunSpec) -> None:
    """End an attempt whose pod was refused: we were asked to, or it was refused for too long."""
    name = attempt.pod_name or ""
    taken = (refusal.reason if refusal is not None else attempt.reason) == Reason.POD_NAME_TAKEN
    if not taken and name not in draft.observed.absent:
        # the last request may have been carried out although nobody answered: then the pod must end first
        draft.act(VerifyPod(draft.run.namespace, name))
        return
    message = attempt.message if asked is None else draft.cancelled or "spec.suspend is true"
    end = Outcome(state="failed", reason=asked or attempt.reason, message=message)
    close(draft, attempt, Ended(end, lost=True), spec)


def _may_try_again(draft: Draft, attempt: Attempt, refusal: Refusal, due: datetime, spec: TaskRunSpec) -> bool:
    """Say why the pod was refused; return whether it may be created again now."""
    if attempt.message != conditions.shorten(refusal.message):
        draft.warn(refusal.reason, refusal.message)
    attempt.reason, attempt.message = refusal.reason, conditions.shorten(refusal.message)
    draft.phase("Pending", "queued", attempt.reason, attempt.message)
    draft.condition("Started", "False", attempt.reason, attempt.message)
    if refusal.for_good:
        reason = Reason.INVALID_POD_TEMPLATE if draft.has_template(spec) else Reason.INVALID_POD
        close(draft, attempt, Ended(Outcome(state="failed", reason=reason, message=refusal.message)), spec)
        return False
    policy = draft.policy
    again = refusal.when + min(policy.retry_refused * 2.0 ** min(refusal.times - 1, 10), policy.retry_refused_max)
    # a time that is ahead of us was taken before the clock was set back
    if refusal.when <= draft.now < again:
        draft.requeue(min(due, again))
        return False
    return True
