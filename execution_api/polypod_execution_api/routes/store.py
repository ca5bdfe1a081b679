"""The task state store: what a task remembers from one try to the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fastapi import APIRouter
from sqlalchemy import delete

from polypod_execution_api.access import KEEPS, Db, OwnTi, fail
from polypod_execution_api.exact import ExactRoute, dumps
from polypod_execution_api.models import TaskInstance, TaskState
from polypod_execution_api.schemas import StoreBody, StoreOut

router = APIRouter(prefix="/store/ti/{task_instance_id}", tags=["Task State Store"], route_class=ExactRoute)


def _key(ti: TaskInstance, key: str) -> tuple[str, str, str, str, int, str]:
    return (ti.namespace, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, key)


@router.get("/{key:path}")
def get(ti: OwnTi, key: str, db: Db) -> StoreOut:
    found = db.get(TaskState, _key(ti, key))
    if found is None or (found.expires_at is not None and found.expires_at <= datetime.now(UTC)):
        fail(404, "not_found", f"nothing is stored under {key!r}")
    return StoreOut(value=json.loads(found.value))


@router.put("/{key:path}", status_code=204, dependencies=KEEPS)
def put(ti: OwnTi, key: str, body: StoreBody, db: Db) -> None:
    value = dumps(body.value)
    db.merge(
        TaskState(
            namespace=ti.namespace,
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
            key=key,
            value=value,
            expires_at=body.expires_at,
        )
    )


@router.delete("/{key:path}", status_code=204)
def remove(ti: OwnTi, key: str, db: Db) -> None:
    found = db.get(TaskState, _key(ti, key))
    if found is not None:
        db.delete(found)


@router.delete("", status_code=204)
def clear(ti: OwnTi, db: Db) -> None:
    db.execute(
        delete(TaskState).where(
            TaskState.namespace == ti.namespace,
            TaskState.dag_id == ti.dag_id,
            TaskState.run_id == ti.run_id,
            TaskState.task_id == ti.task_id,
            TaskState.map_index == ti.map_index,
        )
    )
