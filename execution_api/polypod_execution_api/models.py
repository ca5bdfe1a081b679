"""The tables. JSON is kept as text, exactly as the task sent it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, ForeignKeyConstraint, Index, String, Text, TypeDecorator, UniqueConstraint, Uuid
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, always aware and in UTC; SQLite keeps no zone by itself."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(),
        list[Any]: JSON(),
    }


class Namespaced:
    """What belongs to one Kubernetes namespace, and is seen from no other. Empty: a run without Kubernetes."""

    namespace: Mapped[str] = mapped_column(String(63), primary_key=True, default="", sort_order=-1)


class KnownNamespace(Base):
    """A Kubernetes namespace whose rows are here, and which of that name it is: one that is made again is another."""

    __tablename__ = "namespace"

    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    uid: Mapped[str] = mapped_column(String(64))


class DagRun(Namespaced, Base):
    """One run of a Dag."""

    __tablename__ = "dag_run"

    dag_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    logical_date: Mapped[datetime | None] = mapped_column(index=True)
    data_interval_start: Mapped[datetime | None]
    data_interval_end: Mapped[datetime | None]
    run_after: Mapped[datetime]
    start_date: Mapped[datetime | None]
    end_date: Mapped[datetime | None]
    run_type: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(50))
    conf: Mapped[dict[str, Any]]


def _of_run() -> ForeignKeyConstraint:
    target = ["dag_run.namespace", "dag_run.dag_id", "dag_run.run_id"]
    return ForeignKeyConstraint(["namespace", "dag_id", "run_id"], target, ondelete="CASCADE")


class TaskInstance(Base):
    """One try of a task. A later try is a row of its own; the earlier one is archived."""

    __tablename__ = "task_instance"

    id: Mapped[uuid.UUID] = mapped_column(Uuid(), primary_key=True)
    namespace: Mapped[str] = mapped_column(String(63), default="")
    dag_id: Mapped[str] = mapped_column(String(250))
    run_id: Mapped[str] = mapped_column(String(250))
    task_id: Mapped[str] = mapped_column(String(250))
    map_index: Mapped[int]
    try_number: Mapped[int]
    max_tries: Mapped[int]
    state: Mapped[str | None] = mapped_column(String(20))
    archived: Mapped[bool] = mapped_column(default=False)
    queue: Mapped[str] = mapped_column(String(256))
    hostname: Mapped[str | None] = mapped_column(String(1000))
    unixname: Mapped[str | None] = mapped_column(String(1000))
    pid: Mapped[int | None]
    start_date: Mapped[datetime | None]
    end_date: Mapped[datetime | None]
    last_heartbeat_at: Mapped[datetime | None]
    retry_delay_seconds: Mapped[float | None]
    retry_reason: Mapped[str | None] = mapped_column(String(500))
    # how often this try was put off so far, and when it was started first
    reschedule_count: Mapped[int] = mapped_column(default=0, server_default="0")
    first_reschedule_start: Mapped[datetime | None]
    rendered_map_index: Mapped[str | None] = mapped_column(String(250))
    rendered_fields: Mapped[dict[str, Any] | None]
    arg_bindings: Mapped[list[Any] | None]
    # of an attempt of a TaskRun: its uid, the attempt's number, and the uid of the pod that is it now
    taskrun_uid: Mapped[str | None] = mapped_column(String(64))
    attempt: Mapped[int | None]
    pod_uid: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (
        _of_run(),
        UniqueConstraint(
            "namespace", "dag_id", "run_id", "task_id", "map_index", "try_number", name="uq_task_instance_try"
        ),
        Index("ix_task_instance_state", "namespace", "dag_id", "state"),
    )


class XCom(Namespaced, Base):
    """A value that one task left for others."""

    __tablename__ = "xcom"

    dag_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    task_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    map_index: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(512), primary_key=True)
    value: Mapped[str] = mapped_column(Text())
    timestamp: Mapped[datetime]

    __table_args__ = (_of_run(),)


class Variable(Namespaced, Base):
    __tablename__ = "variable"

    key: Mapped[str] = mapped_column(String(250), primary_key=True)
    value: Mapped[str | None] = mapped_column(Text())
    description: Mapped[str | None] = mapped_column(Text())


class Connection(Namespaced, Base):
    __tablename__ = "connection"

    conn_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    conn_type: Mapped[str] = mapped_column(String(500))
    host: Mapped[str | None] = mapped_column(String(500))
    schema: Mapped[str | None] = mapped_column(String(500))
    login: Mapped[str | None] = mapped_column(Text())
    password: Mapped[str | None] = mapped_column(Text())
    port: Mapped[int | None]
    extra: Mapped[str | None] = mapped_column(Text())


class TaskState(Namespaced, Base):
    """What a task remembers from one try to the next (the task state store)."""

    __tablename__ = "task_state"

    dag_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    task_id: Mapped[str] = mapped_column(String(250), primary_key=True)
    map_index: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(512), primary_key=True)
    value: Mapped[str] = mapped_column(Text())
    expires_at: Mapped[datetime | None]

    __table_args__ = (_of_run(),)
