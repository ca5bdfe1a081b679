"""XComs: a task reads those of its own run and writes its own. Keys may hold slashes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import BaseModel
from sqlalchemy import Select, and_, delete, func, select
from sqlalchemy.orm import Session

from polypod_execution_api.access import KEEPS, Caller, Db, Who, fail
from polypod_execution_api.exact import ExactRoute, dumps
from polypod_execution_api.models import DagRun, XCom

router = APIRouter(prefix="/xcoms/{dag_id}/{run_id}/{task_id}", tags=["XComs"], route_class=ExactRoute)


def no_previous_iteration(previous_iteration: bool = False) -> None:
    """Refuse what only makes sense within a loop, as Airflow does outside of one."""
    if previous_iteration:
        fail(400, "invalid_request", "the task instance is not in a loop; there is no previous iteration")


IN_NO_LOOP = [Depends(no_previous_iteration)]


class SliceQuery(BaseModel):
    start: int | None = None
    stop: int | None = None
    step: int | None = None
    include_prior_dates: bool = False


class GetQuery(BaseModel):
    map_index: int = -1
    include_prior_dates: bool = False
    offset: int | None = None


def _select(
    db: Session, who: Caller, dag_id: str, run_id: str, task_id: str, key: str, include_prior_dates: bool = False
) -> Select[XCom]:
    statement = select(XCom).where(
        XCom.namespace == who.ti.namespace, XCom.dag_id == dag_id, XCom.task_id == task_id, XCom.key == key
    )
    run = db.get(DagRun, (who.ti.namespace, dag_id, run_id))
    if include_prior_dates and run is not None and run.logical_date is not None:
        earlier = statement.join(
            DagRun, and_(DagRun.namespace == XCom.namespace, DagRun.dag_id == XCom.dag_id, DagRun.run_id == XCom.run_id)
        ).where(DagRun.logical_date <= run.logical_date)
        return earlier.order_by(DagRun.logical_date.desc(), XCom.map_index)
    return statement.where(XCom.run_id == run_id).order_by(XCom.map_index)


def _json(raw: str) -> Response:
    return Response(raw, media_type="application/json")


@router.get("/{key:path}/item/{offset}", dependencies=IN_NO_LOOP)
def get_item(dag_id: str, run_id: str, task_id: str, key: str, offset: int, db: Db, who: Who) -> Response:
    """Return the value at a place among a mapped task's XComs; a negative place counts from the end."""
    who.require_own_run(dag_id, run_id)
    found = db.scalars(_select(db, who, dag_id, run_id, task_id, key)).all()
    try:
        return _json(found[offset].value)
    except IndexError:
        fail(404, "not_found", f"XCom {key!r} of task {task_id!r} has no item {offset}; it has {len(found)}")


@router.get("/{key:path}/slice", dependencies=IN_NO_LOOP)
def get_slice(
    dag_id: str, run_id: str, task_id: str, key: str, query: Annotated[SliceQuery, Query()], db: Db, who: Who
) -> Response:
    """Return a slice of a mapped task's XComs, by Python's rules."""
    who.require_own_run(dag_id, run_id)
    if query.step == 0:
        fail(400, "invalid_request", "step must not be 0")
    found = db.scalars(_select(db, who, dag_id, run_id, task_id, key, query.include_prior_dates)).all()
    values = [item.value for item in found][query.start : query.stop : query.step]
    return _json("[" + ",".join(values) + "]")


@router.head("/{key:path}", dependencies=IN_NO_LOOP)
def head(
    dag_id: str, run_id: str, task_id: str, key: str, response: Response, db: Db, who: Who, map_index: int | None = None
) -> None:
    """Count a mapped task's XComs, in the header Content-Range."""
    who.require_own_run(dag_id, run_id)
    if map_index is not None:
        fail(400, "invalid_request", "map_index cannot be given in a HEAD request")
    statement = _select(db, who, dag_id, run_id, task_id, key).order_by(None)
    number = db.scalar(select(func.count()).select_from(statement.subquery()))
    response.headers["Content-Range"] = f"map_indexes {number}"


@router.get("/{key:path}", dependencies=IN_NO_LOOP)
def get(
    dag_id: str, run_id: str, task_id: str, key: str, query: Annotated[GetQuery, Query()], db: Db, who: Who
) -> Response:
    """Return one XCom."""
    who.require_own_run(dag_id, run_id)
    statement = _select(db, who, dag_id, run_id, task_id, key, query.include_prior_dates)
    if query.offset is None:
        found = db.scalars(statement.where(XCom.map_index == query.map_index).limit(1)).first()
    else:
        every = db.scalars(statement).all()
        found = every[query.offset] if -len(every) <= query.offset < len(every) else None
    if found is None:
        fail(404, "not_found", f"XCom {key!r} of task {task_id!r} in run {run_id!r} (map_index {query.map_index})")
    return _json('{"key":' + json.dumps(key) + ',"value":' + found.value + "}")


@router.post("/{key:path}", status_code=201, dependencies=KEEPS)
def post(
    dag_id: str,
    run_id: str,
    task_id: str,
    key: str,
    value: Annotated[Any, Body()],
    db: Db,
    who: Who,
    map_index: int = -1,
    mapped_length: int | None = None,
    dag_result: bool = False,
) -> dict[str, str]:
    """Leave a value; one that is there already is replaced."""
    who.require_own_task(dag_id, run_id, task_id)
    values = {
        "namespace": who.ti.namespace,
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "map_index": map_index,
        "key": key,
        "value": dumps(value),
        "timestamp": datetime.now(UTC),
    }
    db.merge(XCom(**values))
    return {"message": "XCom successfully set"}


@router.delete("/{key:path}")
def remove(dag_id: str, run_id: str, task_id: str, key: str, db: Db, who: Who, map_index: int = -1) -> dict[str, str]:
    """Remove a value; one that is not there is no error."""
    who.require_own_task(dag_id, run_id, task_id)
    db.execute(
        delete(XCom).where(
            XCom.namespace == who.ti.namespace,
            XCom.dag_id == dag_id,
            XCom.run_id == run_id,
            XCom.task_id == task_id,
            XCom.key == key,
            XCom.map_index == map_index,
        )
    )
    return {"message": "XCom successfully deleted"}
