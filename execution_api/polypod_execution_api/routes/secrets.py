"""Connections and variables."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select

from polypod_execution_api.access import KEEPS, Db, Who, fail
from polypod_execution_api.exact import ExactRoute
from polypod_execution_api.models import Connection, Variable
from polypod_execution_api.schemas import ConnectionOut, VariableBody, VariableKeysOut, VariableOut

connections = APIRouter(prefix="/connections", tags=["Connections"], route_class=ExactRoute)
variables = APIRouter(prefix="/variables", tags=["Variables"], route_class=ExactRoute)


@connections.get("/{conn_id:path}")
def get_connection(conn_id: str, db: Db, who: Who) -> ConnectionOut:
    found = db.get(Connection, (who.ti.namespace, conn_id))
    if found is None:
        fail(404, "not_found", f"Connection {conn_id!r} not found")
    return ConnectionOut.model_validate(found)


@variables.get("/keys")
def get_variable_keys(
    db: Db,
    who: Who,
    prefix: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> VariableKeysOut:
    """Return the keys of variables, sorted; a page of them, and how many there are."""
    statement = select(Variable.key).where(Variable.namespace == who.ti.namespace)
    if prefix is not None:
        statement = statement.where(Variable.key.startswith(prefix, autoescape=True))
    total = db.scalar(select(func.count()).select_from(statement.subquery())) or 0
    keys = db.scalars(statement.order_by(Variable.key).offset(offset).limit(limit)).all()
    return VariableKeysOut(keys=list(keys), total_entries=total)


@variables.get("/{key:path}")
def get_variable(key: str, db: Db, who: Who) -> VariableOut:
    found = db.get(Variable, (who.ti.namespace, key))
    if found is None:
        fail(404, "not_found", f"Variable {key!r} not found")
    return VariableOut(key=key, value=found.value)


@variables.put("/{key:path}", status_code=201, dependencies=KEEPS)
def put_variable(key: str, body: VariableBody, db: Db, who: Who) -> dict[str, str]:
    db.merge(Variable(namespace=who.ti.namespace, key=key, value=body.val, description=body.description))
    return {"message": "Variable successfully set"}


@variables.delete("/{key:path}", status_code=204)
def delete_variable(key: str, db: Db, who: Who) -> None:
    """Remove a variable; one that is not there is no error."""
    found = db.get(Variable, (who.ti.namespace, key))
    if found is not None:
        db.delete(found)
