"""What the operator asks: how tasks have ended whose TaskRuns were deleted. Not part of Airflow's API."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from polypod_core import pod_tokens
from pydantic import BaseModel, Field
from sqlalchemy import select

from polypod_execution_api import forgetting
from polypod_execution_api.access import Db, bearer, fail
from polypod_execution_api.cluster import ClusterAccess, ClusterUnavailable, NotATask
from polypod_execution_api.exact import ExactRoute
from polypod_execution_api.models import TaskInstance

router = APIRouter(prefix="/operator", tags=["Operator"], route_class=ExactRoute)
ENDED = ("success", "skipped", "removed", "failed", "upstream_failed")
"""The states that tasks end in; of a mapped task the last of them decides what becomes of those that wait for it."""


def require_operator(request: Request) -> None:
    """Let only the operator's own pods in: they are known by their service account."""
    cluster: ClusterAccess | None = request.app.state.cluster
    account: str = request.app.state.operator_account
    token = bearer(request)
    if cluster is None or not account:
        fail(403, "access_denied", "no operator is known here: see --operator-account")
    try:
        claims = cluster.check(token)
    except pod_tokens.InvalidToken as error:
        fail(403, "invalid_token", f"the token is not valid: {error}")
    except ClusterUnavailable as error:
        fail(503, "cluster_unavailable", str(error))
    if f"{claims.namespace}/{claims.service_account}" != account:
        fail(403, "access_denied", "only the operator may ask this")


class EndedQuery(BaseModel):
    """Tasks of one run."""

    namespace: str
    dag_id: str
    run_id: str
    task_ids: list[str] = Field(max_length=512)


class EndedTasks(BaseModel):
    """Task → the state that it has ended in."""

    states: dict[str, str]


@router.post("/ended-tasks", dependencies=[Depends(require_operator)])
def ended_tasks(query: EndedQuery, request: Request, db: Db) -> EndedTasks:
    """Return how tasks have ended; one that is not known, or has not ended, is left out.

    What another namespace of the same name has left is not known any more.

    Of a mapped task the worst of its instances' states is returned, and only if all have ended.
    """
    cluster: ClusterAccess = request.app.state.cluster
    try:
        forgetting.enter_namespace(db, query.namespace, cluster.namespace_uid(query.namespace))
    except NotATask:
        return EndedTasks(states={})
    except ClusterUnavailable as error:
        fail(503, "cluster_unavailable", str(error))
    statement = select(TaskInstance.task_id, TaskInstance.state).where(
        TaskInstance.namespace == query.namespace,
        TaskInstance.dag_id == query.dag_id,
        TaskInstance.run_id == query.run_id,
        TaskInstance.task_id.in_(query.task_ids),
        TaskInstance.archived.is_(False),
    )
    found: dict[str, set[str | None]] = {}
    for task_id, state in db.execute(statement):
        found.setdefault(task_id, set()).add(state)
    worst_first = ENDED[::-1]
    states = {
        task_id: next(state for state in worst_first if state in seen)
        for task_id, seen in found.items()
        if all(state in ENDED for state in seen)
    }
    return EndedTasks(states=states)
