"""forgetting.py: a namespace that was made again starts empty; runs without news go, and what runs stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from polypod_execution_api import forgetting, models, registry
from polypod_execution_api.database import connect, migrate
from polypod_execution_api.registry import RunSpec, TaskSpec
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

NOW = datetime.now(UTC)
TABLES = (models.DagRun, models.TaskInstance, models.XCom, models.TaskState, models.Variable, models.Connection)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = connect(f"sqlite:///{tmp_path}/a.db")
    migrate(made)
    yield made
    made.dispose()


def fill(engine: Engine, namespace: str, run_id: str = "r", *, state: str = "success", age: int = 0) -> None:
    """Put a run with a row of every kind into a namespace; `age`: days since its last news."""
    when = NOW - timedelta(days=age)
    with Session(engine) as session, session.begin():
        ti = registry.add_task(session, RunSpec("d", run_id, namespace=namespace), TaskSpec("t"))
        ti.state, ti.start_date, ti.end_date = state, when, when if state != "running" else None
        run = session.get_one(models.DagRun, (namespace, "d", run_id))
        run.start_date = when
        common = {"namespace": namespace, "dag_id": "d", "run_id": run_id, "task_id": "t", "map_index": -1}
        session.add(models.XCom(**common, key="k", value="1", timestamp=when))
        session.add(models.TaskState(**common, key="k", value="1", expires_at=None))
        session.merge(models.Variable(namespace=namespace, key="k", value="1", description=None))
        session.merge(models.Connection(namespace=namespace, conn_id="c", conn_type="http"))


def counts(engine: Engine, namespace: str) -> list[int]:
    with Session(engine) as session:
        return [
            session.scalar(select(func.count()).select_from(table).where(table.namespace == namespace)) or 0
            for table in TABLES
        ]


def enter(engine: Engine, name: str, uid: str) -> None:
    with Session(engine) as session, session.begin():
        forgetting.enter_namespace(session, name, uid)


def test_a_namespace_that_is_made_again_starts_empty_and_no_other_changes(engine: Engine) -> None:
    for name in ("a", "b"):
        enter(engine, name, f"uid-of-{name}")
        fill(engine, name)
    enter(engine, "a", "uid-of-a")
    assert counts(engine, "a") == [1] * len(TABLES), "it is the same one"
    enter(engine, "a", "another-uid")
    assert counts(engine, "a") == [0] * len(TABLES)
    assert counts(engine, "b") == [1] * len(TABLES)
    fill(engine, "a")
    enter(engine, "a", "another-uid")
    assert counts(engine, "a") == [1] * len(TABLES)


def test_rows_of_a_version_that_noted_no_namespace_are_kept(engine: Engine) -> None:
    fill(engine, "a")
    enter(engine, "a", "uid")
    assert counts(engine, "a") == [1] * len(TABLES)


def test_runs_without_news_are_forgotten_and_what_runs_is_not(engine: Engine) -> None:
    fill(engine, "a", "old", age=40)
    fill(engine, "a", "new", age=1)
    fill(engine, "a", "runs", state="running", age=400)
    for number in range(450):
        with Session(engine) as session, session.begin():
            registry.add_task(session, RunSpec("d", f"many-{number}", namespace="b"), TaskSpec("t"))
            session.get_one(models.DagRun, ("b", "d", f"many-{number}")).start_date = NOW - timedelta(days=31)
    assert forgetting.forget_runs(engine, NOW - timedelta(days=30)) == 451
    with Session(engine) as session:
        assert sorted(session.scalars(select(models.DagRun.run_id))) == ["new", "runs"]
        assert sorted(session.scalars(select(models.XCom.run_id))) == ["new", "runs"]
    assert forgetting.forget_runs(engine, NOW - timedelta(days=30)) == 0


def test_an_xcom_or_a_heartbeat_is_news(engine: Engine) -> None:
    fill(engine, "a", "spoken", age=40)
    fill(engine, "a", "alive", age=40)
    with Session(engine) as session, session.begin():
        xcom = session.scalars(select(models.XCom).where(models.XCom.run_id == "spoken")).one()
        xcom.timestamp = NOW
        ti = session.scalars(select(models.TaskInstance).where(models.TaskInstance.run_id == "alive")).one()
        ti.last_heartbeat_at = NOW
    assert forgetting.forget_runs(engine, NOW - timedelta(days=30)) == 0


def test_an_sqlite_file_that_is_mostly_empty_is_made_smaller(engine: Engine, tmp_path: Path) -> None:
    fill(engine, "a", "old", age=40)
    with Session(engine) as session, session.begin():
        session.scalars(select(models.XCom)).one().value = "x" * (8 << 20)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (tmp_path / "a.db").stat().st_size
    forgetting.forget_runs(engine, NOW - timedelta(days=30))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "a.db").stat().st_size < before / 10
