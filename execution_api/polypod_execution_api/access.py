"""Who may do what: a token is for one task instance, and for that one's own run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from fastapi import Depends, HTTPException, Request, Response
from polypod_core import pod_tokens
from sqlalchemy import update
from sqlalchemy.orm import Session

from polypod_execution_api import registry
from polypod_execution_api.cluster import ClusterAccess, ClusterUnavailable, NotATask
from polypod_execution_api.models import TaskInstance
from polypod_execution_api.sizes import NamespaceFull, Sizes
from polypod_execution_api.tokens import InvalidToken, TokenSigner, is_own


def fail(status: int, reason: str, message: str, **more: Any) -> NoReturn:
    """Answer with an error in Airflow's form."""
    raise HTTPException(status, detail={"reason": reason, "message": message, **more})


def session(request: Request) -> Iterator[Session]:
    """Give a request its database session; commit if it succeeds."""
    with Session(request.app.state.engine) as opened, opened.begin():
        yield opened


# scope "function": committed before the answer goes out, so that what a caller was told it wrote can be read at once
Db = Annotated[Session, Depends(session, scope="function")]


@dataclass(frozen=True, slots=True)
class Caller:
    """The task instance that a request comes from."""

    ti: TaskInstance

    def require_own_run(self, dag_id: str, run_id: str) -> None:
        """Refuse what belongs to another run."""
        if (dag_id, run_id) != (self.ti.dag_id, self.ti.run_id):
            fail(403, "access_denied", f"this token is for run {self.ti.run_id!r} of Dag {self.ti.dag_id!r} only")

    def require_own_dag(self, dag_id: str) -> None:
        """Refuse what belongs to another Dag."""
        if dag_id != self.ti.dag_id:
            fail(403, "access_denied", f"this token is for Dag {self.ti.dag_id!r} only")

    def require_own_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Refuse to change what belongs to another task."""
        self.require_own_run(dag_id, run_id)
        if task_id != self.ti.task_id:
            fail(403, "access_denied", f"this token may change what belongs to task {self.ti.task_id!r} only")


def bearer(request: Request) -> str:
    """Return the request's token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        fail(401, "unauthorized", "send the token as 'Authorization: Bearer …'")
    return token


def caller(request: Request, response: Response, db: Db) -> Caller:
    """Check the request's token; renew it in the answer if it is about to end."""
    token = bearer(request)
    cluster: ClusterAccess | None = request.app.state.cluster
    if cluster is not None and not is_own(token):
        return Caller(_of_pod(cluster, token, db))
    signer: TokenSigner = request.app.state.signer
    try:
        claims = signer.check(token)
    except InvalidToken as error:
        fail(403, "invalid_token", f"the token is not valid: {error}")
    ti = db.get(TaskInstance, claims.ti_id)
    if ti is None:
        fail(404, "not_found", "the token's task instance is unknown")
    if claims.is_old(time.time()):
        response.headers["Refreshed-API-Token"] = signer.issue(claims.ti_id)
    return Caller(ti)


def _of_pod(cluster: ClusterAccess, token: str, db: Session) -> TaskInstance:
    try:
        return cluster.task_instance(token, db)
    except pod_tokens.InvalidToken as error:
        fail(403, "invalid_token", f"the token is not valid: {error}")
    except NotATask as error:
        fail(403, "access_denied", str(error))
    except registry.StillRunning as error:
        fail(409, "invalid_state", str(error), previous_state="running")
    except registry.Replaced as error:
        fail(410, "gone", str(error))
    except ClusterUnavailable as error:
        fail(503, "cluster_unavailable", str(error))


Who = Annotated[Caller, Depends(caller)]


def room(request: Request, who: Who) -> None:
    """Refuse a value if its namespace has reached its storage limit."""
    sizes: Sizes | None = request.app.state.sizes
    if sizes is None:
        return
    # a body that came in chunks has no length of its own; `Admission` has counted it
    size = getattr(request.state, "size", None) or int(request.headers.get("content-length", 0))
    try:
        sizes.add(who.ti.namespace, size)
    except NamespaceFull as error:
        fail(413, "namespace_full", str(error))


KEEPS = [Depends(room)]
"""For operations that store a value."""


def own_task_instance(task_instance_id: uuid.UUID, who: Who) -> TaskInstance:
    """Return the task instance of the path; only its own token reaches it.

    An archived one answers 410: a later try has taken its place.
    """
    if task_instance_id != who.ti.id:
        fail(403, "access_denied", "this token is for another task instance")
    _require_current(who.ti)
    return who.ti


OwnTi = Annotated[TaskInstance, Depends(own_task_instance)]


def locked_task_instance(ti: OwnTi, db: Db) -> TaskInstance:
    """Return the same, locked until the request is over: of several that would change its state, each sees the last.

    An update that changes nothing locks on SQLite too, which knows no SELECT … FOR UPDATE.
    """
    lock = update(TaskInstance).where(TaskInstance.id == ti.id).values(state=TaskInstance.state)
    db.execute(lock.execution_options(synchronize_session=False))
    db.refresh(ti)
    _require_current(ti)
    return ti


LockedTi = Annotated[TaskInstance, Depends(locked_task_instance)]


def _require_current(ti: TaskInstance) -> None:
    if ti.archived:
        fail(410, "gone", "a later try has taken the place of this task instance")
