"""Dags and their runs, as far as the caller's own Dag goes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import ColumnElement, and_, func, select

from polypod_execution_api.access import Caller, Db, Who, fail
from polypod_execution_api.exact import ExactRoute
from polypod_execution_api.models import DagRun
from polypod_execution_api.schemas import DagOut, DagRunOut, RunState

dag_runs = APIRouter(prefix="/dag-runs", tags=["Dag Runs"], route_class=ExactRoute)
dags = APIRouter(prefix="/dags", tags=["Dags"], route_class=ExactRoute)


@dag_runs.get("/count")
def count(
    dag_id: str,
    db: Db,
    who: Who,
    logical_dates: Annotated[list[datetime] | None, Query()] = None,
    run_ids: Annotated[list[str] | None, Query()] = None,
    states: Annotated[list[str] | None, Query()] = None,
) -> int:
    who.require_own_dag(dag_id)
    statement = select(func.count()).select_from(DagRun).where(_mine(dag_id, who))
    if logical_dates:
        statement = statement.where(DagRun.logical_date.in_(logical_dates))
    if run_ids:
        statement = statement.where(DagRun.run_id.in_(run_ids))
    if states:
        statement = statement.where(DagRun.state.in_(states))
    return db.scalar(statement) or 0


@dag_runs.get("/previous")
def previous(dag_id: str, logical_date: datetime, db: Db, who: Who, state: str | None = None) -> DagRunOut | None:
    """Return the Dag's last run before `logical_date`."""
    who.require_own_dag(dag_id)
    statement = select(DagRun).where(_mine(dag_id, who), DagRun.logical_date < logical_date)
    if state is not None:
        statement = statement.where(DagRun.state == state)
    found = db.scalars(statement.order_by(DagRun.logical_date.desc()).limit(1)).first()
    return DagRunOut.model_validate(found) if found is not None else None


@dag_runs.get("/{dag_id}/{run_id}")
def get(dag_id: str, run_id: str, db: Db, who: Who) -> DagRunOut:
    return DagRunOut.model_validate(_run(dag_id, run_id, db, who))


@dag_runs.get("/{dag_id}/{run_id}/state")
def get_state(dag_id: str, run_id: str, db: Db, who: Who) -> RunState:
    return RunState(state=_run(dag_id, run_id, db, who).state)


def _mine(dag_id: str, who: Caller) -> ColumnElement[bool]:
    return and_(DagRun.namespace == who.ti.namespace, DagRun.dag_id == dag_id)


def _run(dag_id: str, run_id: str, db: Db, who: Who) -> DagRun:
    who.require_own_dag(dag_id)
    found = db.get(DagRun, (who.ti.namespace, dag_id, run_id))
    if found is None:
        fail(404, "not_found", f"run {run_id!r} of Dag {dag_id!r} not found")
    return found


@dags.get("/{dag_id}")
def get_dag(dag_id: str, who: Who) -> DagOut:
    """Only that the caller's own Dag exists is known here."""
    who.require_own_dag(dag_id)
    return DagOut(dag_id=dag_id)
