"""What is forgotten: a namespace that is no more, and runs whose time is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, func, or_, select, text, tuple_, update
from sqlalchemy.orm import Session

from polypod_execution_api.models import Connection, DagRun, KnownNamespace, TaskInstance, TaskState, Variable, XCom

log = logging.getLogger("polypod.execution_api")
_OF_A_RUN = (XCom, TaskState, TaskInstance, DagRun)
_OF_A_NAMESPACE = (*_OF_A_RUN, Variable, Connection)
_BATCH = 200
_PAUSE = 3600.0
_VACUUM_FROM = 0.25
"""Share of empty pages from which an SQLite file is vacuumed."""


def enter_namespace(session: Session, name: str, uid: str) -> None:
    """Note which namespace of that name is served; what another one of the same name has left is deleted.

    A namespace that is not noted yet keeps its rows: they are of a version that did not note it.
    """
    known = session.get(KnownNamespace, name)
    if known is None:
        session.add(KnownNamespace(name=name, uid=uid))
        session.flush()
        return
    # of several that see the new namespace at once, one deletes
    renewed = update(KnownNamespace).where(KnownNamespace.name == name, KnownNamespace.uid != uid).values(uid=uid)
    if session.execute(renewed.execution_options(synchronize_session=False)).rowcount:  # type: ignore[attr-defined]
        forget_namespace(session, name)
        log.info("namespace %s was made again; what its predecessor had left is deleted", name)


def forget_namespace(session: Session, name: str) -> None:
    """Delete everything that belongs to a namespace."""
    for table in _OF_A_NAMESPACE:
        session.execute(delete(table).where(table.namespace == name).execution_options(synchronize_session=False))
    session.expire_all()


def forget_runs(engine: Engine, before: datetime) -> int:
    """Delete the runs in which nothing has happened since `before`, and nothing runs; return how many there were."""
    forgotten = 0
    while keys := _old_runs(engine, before):
        with Session(engine) as session, session.begin():
            for table in _OF_A_RUN:
                mine = tuple_(table.namespace, table.dag_id, table.run_id).in_(keys)
                session.execute(delete(table).where(mine).execution_options(synchronize_session=False))
        forgotten += len(keys)
    if forgotten:
        log.info("%d runs without news since %s were deleted", forgotten, before.isoformat(timespec="seconds"))
        _make_smaller(engine)
    return forgotten


def _old_runs(engine: Engine, before: datetime) -> list[tuple[str, str, str]]:
    news = (TaskInstance.start_date, TaskInstance.end_date, TaskInstance.last_heartbeat_at)
    fresh = select(TaskInstance.id).where(
        TaskInstance.namespace == DagRun.namespace,
        TaskInstance.dag_id == DagRun.dag_id,
        TaskInstance.run_id == DagRun.run_id,
        or_(TaskInstance.state == "running", *(column >= before for column in news)),
    )
    written = select(XCom.key).where(
        XCom.namespace == DagRun.namespace,
        XCom.dag_id == DagRun.dag_id,
        XCom.run_id == DagRun.run_id,
        XCom.timestamp >= before,
    )
    old = (
        select(DagRun.namespace, DagRun.dag_id, DagRun.run_id)
        .where(func.coalesce(DagRun.start_date, DagRun.run_after) < before, ~fresh.exists(), ~written.exists())
        .limit(_BATCH)
    )
    with Session(engine) as session:
        return [(row[0], row[1], row[2]) for row in session.execute(old)]


def keep_forgetting(engine: Engine, retention: timedelta | None, exists: Callable[[str], bool]) -> None:
    """Forget for ever, in a thread of its own: now and every hour.

    Args:
        retention: how long a run is kept without news; None for ever.
        exists: tells whether there is a namespace of that name; raises if that cannot be asked.
    """
    while True:
        try:
            for name in namespaces(engine):
                if not exists(name):
                    with Session(engine) as session, session.begin():
                        forget_namespace(session, name)
                        session.execute(delete(KnownNamespace).where(KnownNamespace.name == name))
                    log.info("namespace %s is no more; what it had left is deleted", name)
            if retention is not None:
                forget_runs(engine, datetime.now(UTC) - retention)
        except Exception:
            # the database or the cluster is away: what is late now is done in an hour
            log.exception("what is to be forgotten could not be deleted")
        time.sleep(_PAUSE)


def namespaces(engine: Engine) -> list[str]:
    """Return the namespaces that have rows."""
    with Session(engine) as session:
        return list(session.scalars(select(KnownNamespace.name)))


def _make_smaller(engine: Engine) -> None:
    """Give the space back that an SQLite file has no use for; PostgreSQL does so by itself."""
    if engine.dialect.name != "sqlite":
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        free, pages = (connection.scalar(text(f"PRAGMA {name}")) or 0 for name in ("freelist_count", "page_count"))
        if pages and free / pages >= _VACUUM_FROM:
            connection.execute(text("VACUUM"))
