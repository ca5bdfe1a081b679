"""What to do for one TaskRun: the whole of the operator's judgement. Pure: state and a clock reading in, decision out.

Level-triggered: the same state leads to the same decision, whatever event led here. An attempt is one pod, whose name
is fixed, so that it is not created twice; it is written down when there is something to say (docs/decisions/0011). The
next one starts only when the last is known to have ended, so that there are never two at once. A final phase never
changes.

The rules: `lifecycle` (the end, rest, old pods), `attempt` (one that is under way), `retry` (what follows its end),
`admission` (whether the next may start) and `creation` (its pod) change one `Draft`.
"""

from __future__ import annotations

from datetime import datetime

from polypod_core.reasons import Reason
from polypod_core.routing import Routing

from polypod_operator.decide.admission import start
from polypod_operator.decide.attempt import adopt, attend
from polypod_operator.decide.decision import Decision, Observed
from polypod_operator.decide.draft import Draft, held_by
from polypod_operator.decide.lifecycle import after_the_end, finish, tidy
from polypod_operator.decide.policy import POLICY, Policy
from polypod_operator.model.objects import TaskRunObject
from polypod_operator.pods.pod import PodMaker


def reconcile(
    run: TaskRunObject,
    observed: Observed,
    routing: Routing | None,
    pods: PodMaker,
    now: datetime,
    policy: Policy = POLICY,
    rejected: str = "",
) -> Decision:
    """Decide what to do for a TaskRun.

    Args:
        routing: the last valid one, None before there was any.
        pods: makes the manifest of an attempt's pod.
        rejected: what is wrong with a newer routing; empty if `routing` is the newest.
    """
    if run.deleting and not held_by(run.finalizers):
        # its pods have it as their owner and go with it; until then they hold its place
        alive = any(not pod.over for pod in observed.pods.values())
        return Decision(run.status, place="holds" if alive else "none")
    draft = Draft(run, observed, routing, pods, now, policy, rejected)
    if draft.finished:
        after_the_end(draft)
    elif run.spec is None:
        if draft.current is not None:
            draft.current.state = "failed"
        finish(draft, "Failed", "failed", Reason.INVALID_SPEC, run.problems)
    else:
        current = draft.current
        if current is None or current.pod_name not in observed.pods:
            current = adopt(draft) or current
        if current is not None:
            attend(draft, current, run.spec)
        if draft.current is None and not draft.finished:
            start(draft, run.spec)
    tidy(draft)
    return draft.decision()
