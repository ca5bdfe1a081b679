"""Putting task instances into the store: what Airflow's scheduler does, as far as a run without one needs it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from polypod_core.states import SETTLED
from sqlalchemy import select
from sqlalchemy.orm import Session

from polypod_execution_api.models import DagRun, TaskInstance, XCom


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A Dag run to be there; an existing one is left as it is. `namespace` is empty without Kubernetes."""

    dag_id: str
    run_id: str
    logical_date: datetime | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    conf: dict[str, Any] = field(default_factory=dict)
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task of a run; `arg_bindings` in the form of supervisor schema 2026-10-30."""

    task_id: str
    map_index: int = -1
    queue: str = "default"
    retries: int = 0
    arg_bindings: list[dict[str, Any]] | None = None


TO_SKIP = "polypod/to-skip"
"""The queue of a task instance that only says that the task is to be skipped; no queue has such a name."""


def add_task(session: Session, run: RunSpec, task: TaskSpec) -> TaskInstance:
    """Add the first try of a task, queued; the run is added if it is not there yet."""
    _ensure_run(session, run)
    return _add_instance(session, run, task, uuid.uuid4(), 1)


def _add_instance(session: Session, run: RunSpec, task: TaskSpec, ti_id: uuid.UUID, try_number: int) -> TaskInstance:
    instance = TaskInstance(
        id=ti_id,
        namespace=run.namespace,
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=task.task_id,
        map_index=task.map_index,
        try_number=try_number,
        max_tries=task.retries,
        state="queued",
        queue=task.queue,
        arg_bindings=task.arg_bindings,
    )
    session.add(instance)
    session.flush()
    return instance


def _ensure_run(session: Session, run: RunSpec) -> None:
    now = datetime.now(UTC)
    if session.get(DagRun, (run.namespace, run.dag_id, run.run_id)) is None:
        session.add(
            DagRun(
                namespace=run.namespace,
                dag_id=run.dag_id,
                run_id=run.run_id,
                logical_date=run.logical_date,
                data_interval_start=run.data_interval_start,
                data_interval_end=run.data_interval_end,
                run_after=run.logical_date or now,
                start_date=now,
                run_type="manual",
                state="running",
                conf=run.conf,
            )
        )
        session.flush()


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One attempt of a TaskRun.

    Attributes:
        ti_id: the id of its task instance.
        earlier: the ids of the TaskRun's earlier attempts.
        pod_uid: the pod that it is. The name of an attempt's pod is fixed, so there is one at a time.
    """

    ti_id: uuid.UUID
    try_number: int
    earlier: frozenset[uuid.UUID]
    taskrun_uid: str
    number: int
    pod_uid: str


def add_attempt(session: Session, run: RunSpec, task: TaskSpec, attempt: AttemptSpec) -> TaskInstance:
    """Add one attempt of a TaskRun as a task instance, queued, if it is not there yet.

    What was there under the same name is over: earlier attempts of the same TaskRun are archived, whatever their
    state, and what another TaskRun has left makes room. If an earlier attempt of the same try had reported that the
    task ended well, and only its pod's own word was lost, the new one is in that state, so that it cannot be started.

    If the attempt is there already with another pod, that one was removed before anybody saw what became of it: the
    new one starts from the beginning, unless the task had reported its end.

    Raises:
        StillRunning: another TaskRun runs the same task of the same run now.
        Replaced: the TaskRun has a later attempt.
    """
    ti_id, try_number, earlier = attempt.ti_id, attempt.try_number, attempt.earlier
    found = session.get(TaskInstance, ti_id)
    if found is not None:
        if found.pod_uid != attempt.pod_uid:
            found.pod_uid = attempt.pod_uid
            if found.state not in SETTLED:
                found.state, found.hostname, found.unixname, found.pid = "queued", None, None, None
            session.flush()
        return found
    _ensure_run(session, run)
    same = select(TaskInstance).where(
        TaskInstance.namespace == run.namespace,
        TaskInstance.dag_id == run.dag_id,
        TaskInstance.run_id == run.run_id,
        TaskInstance.task_id == task.task_id,
        TaskInstance.map_index == task.map_index,
    )
    ended: str | None = None
    put_off, first_start = 0, None
    others = session.scalars(same).all()
    if any(other.taskrun_uid == attempt.taskrun_uid and (other.attempt or 0) > attempt.number for other in others):
        # a pod that was cut off with its node, and comes back when it has been replaced
        raise Replaced(f"attempt {attempt.number} of task {task.task_id!r} was replaced by a later one")
    for other in others:
        if other.id in earlier and other.state in SETTLED and other.try_number == try_number:
            ended = other.state
        if other.queue == TO_SKIP and other.state == "skipped":
            ended = "skipped"
        if other.id not in earlier and not other.archived and other.state in ("queued", "running"):
            raise StillRunning(f"task {task.task_id!r} of run {run.run_id!r} runs as part of another TaskRun")
        if other.id in earlier and other.try_number == try_number:
            put_off, first_start = _put_off(other)
        if other.try_number >= try_number:
            session.delete(other)
        else:
            other.archived = True
    session.flush()
    instance = _add_instance(session, run, task, ti_id, try_number)
    instance.taskrun_uid, instance.attempt, instance.pod_uid = attempt.taskrun_uid, attempt.number, attempt.pod_uid
    instance.reschedule_count, instance.first_reschedule_start = put_off, first_start
    if ended is not None:
        instance.state = ended
    session.flush()
    return instance


def skip_when_it_comes(session: Session, asking: TaskInstance, task_id: str, map_index: int) -> None:
    """Have a task of the same run skipped that is not here yet: its TaskRun may still wait for others."""
    same = select(TaskInstance.id).where(
        TaskInstance.namespace == asking.namespace,
        TaskInstance.dag_id == asking.dag_id,
        TaskInstance.run_id == asking.run_id,
        TaskInstance.task_id == task_id,
        TaskInstance.map_index == map_index,
    )
    if session.scalars(same.limit(1)).first() is None:
        run = RunSpec(asking.dag_id, asking.run_id, namespace=asking.namespace)
        _add_instance(session, run, TaskSpec(task_id, map_index, TO_SKIP), uuid.uuid4(), 1).state = "skipped"
        session.flush()


class Replaced(Exception):
    """A later attempt has taken the place of this one."""


class StillRunning(Exception):
    """The same task of the same run runs elsewhere."""


def _put_off(ti: TaskInstance) -> tuple[int, datetime | None]:
    """Return how often a try was put off, that of this attempt included, and when it was started first."""
    if ti.state != "up_for_reschedule":
        return ti.reschedule_count, ti.first_reschedule_start
    return ti.reschedule_count + 1, ti.first_reschedule_start or ti.start_date


def start_again(session: Session, ti_id: uuid.UUID) -> None:
    """Queue the same try again, which has asked for it."""
    ti = session.get_one(TaskInstance, ti_id)
    ti.reschedule_count, ti.first_reschedule_start = _put_off(ti)
    ti.state, ti.hostname, ti.unixname, ti.pid = "queued", None, None, None


def next_try(session: Session, ti_id: uuid.UUID) -> TaskInstance:
    """Archive a try and return a new one, queued, with the next number."""
    old = session.get_one(TaskInstance, ti_id)
    old.archived = True
    task = TaskSpec(old.task_id, old.map_index, old.queue, old.max_tries, old.arg_bindings)
    return _add_instance(
        session, RunSpec(old.dag_id, old.run_id, namespace=old.namespace), task, uuid.uuid4(), old.try_number + 1
    )


def xcom_values(
    session: Session, dag_id: str, run_id: str, task_id: str, map_index: int, namespace: str = ""
) -> dict[str, str]:
    """Return the XComs that a task has left, key to JSON text, sorted by key."""
    statement = select(XCom.key, XCom.value).where(
        XCom.namespace == namespace,
        XCom.dag_id == dag_id,
        XCom.run_id == run_id,
        XCom.task_id == task_id,
        XCom.map_index == map_index,
    )
    return dict(session.execute(statement.order_by(XCom.key)).all())


def xcom_keys(session: Session, ti: TaskInstance) -> list[str]:
    """Return the keys of the XComs that a task has left, sorted."""
    statement = select(XCom.key).where(
        XCom.namespace == ti.namespace,
        XCom.dag_id == ti.dag_id,
        XCom.run_id == ti.run_id,
        XCom.task_id == ti.task_id,
        XCom.map_index == ti.map_index,
    )
    return sorted(session.scalars(statement))
