"""Task instances: start, heartbeat, end, and questions about others of the same Dag."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response
from polypod_core.states import ENDED
from pydantic import BaseModel
from sqlalchemy import Select, and_, func, or_, select, update

from polypod_execution_api import registry
from polypod_execution_api.access import KEEPS, Caller, Db, LockedTi, OwnTi, Who, fail
from polypod_execution_api.exact import ExactRoute
from polypod_execution_api.models import DagRun, TaskInstance
from polypod_execution_api.schemas import (
    Breadcrumbs,
    DagRunOut,
    Heartbeat,
    InactiveAssets,
    NeedsScheduler,
    PreviousSuccess,
    PreviousTi,
    Rescheduled,
    Retry,
    RunContext,
    Running,
    SkipDownstream,
    StateUpdate,
    Stopped,
    TaskStates,
)

router = APIRouter(prefix="/task-instances", tags=["Task Instances"], route_class=ExactRoute)


@router.patch("/{task_instance_id}/run", response_model_exclude_none=False)
def run(ti: LockedTi, payload: Running, db: Db) -> RunContext:
    """Start a task instance that is queued; the same request again, from the same process, gets the same answer."""
    same = (ti.hostname, ti.unixname, ti.pid) == (payload.hostname, payload.unixname, payload.pid)
    if ti.state != "queued" and not (ti.state == "running" and same):
        message = "the task instance is not in a state in which it can be started"
        fail(409, "invalid_state", message, previous_state=ti.state)
    ti.state = "running"
    ti.hostname, ti.unixname, ti.pid = payload.hostname, payload.unixname, payload.pid
    ti.start_date = payload.start_date
    ti.end_date = None
    ti.last_heartbeat_at = datetime.now(UTC)
    return RunContext(
        dag_run=DagRunOut.model_validate(db.get_one(DagRun, (ti.namespace, ti.dag_id, ti.run_id))),
        max_tries=ti.max_tries,
        xcom_keys_to_clear=registry.xcom_keys(db, ti),
        should_retry=ti.try_number <= ti.max_tries,
        arg_bindings=ti.arg_bindings,
        task_reschedule_count=ti.reschedule_count,
        first_task_reschedule_start_date=ti.first_reschedule_start,
    )


@router.patch("/{task_instance_id}/state", status_code=204)
def update_state(ti: LockedTi, payload: Annotated[StateUpdate, Body()], response: Response) -> None:
    """Write down how the task ended; the same state again is no error."""
    if isinstance(payload, NeedsScheduler):
        fail(
            400,
            "needs_airflow",
            f"state {payload.state!r} needs Airflow's scheduler and triggerer; this is Polypod's own Execution API. "
            "Without Airflow, a task can ask to be started again at a time (up_for_reschedule)",
        )
    if isinstance(payload, Stopped):
        # whoever made us refuse the task has written down its state
        return
    if ti.state == payload.state:
        response.status_code = 200
        return
    if ti.state != "running" and not _is_forgotten(ti):
        message = "the task instance is not running, so its state cannot be changed"
        fail(409, "invalid_state", message, previous_state=ti.state)
    ti.state = payload.state
    ti.end_date = payload.end_date
    if isinstance(payload, Rescheduled):
        return
    if payload.rendered_map_index is not None:
        ti.rendered_map_index = payload.rendered_map_index
    if isinstance(payload, Retry):
        ti.retry_delay_seconds = payload.retry_delay_seconds
        ti.retry_reason = payload.retry_reason[:500] if payload.retry_reason else None


def _is_forgotten(ti: TaskInstance) -> bool:
    """Tell whether the store was lost while a task ran: its own token brought it back, but it never started here.

    Only what runs sends heartbeats and an end; so it goes on as if the store had kept it. What did start here and is
    queued again waits for another process, and the one before must not go on.
    """
    return ti.state == "queued" and ti.start_date is None


@router.put("/{task_instance_id}/heartbeat", status_code=204)
def heartbeat(ti: OwnTi, payload: Heartbeat) -> None:
    """Say that the task still runs; 409 if it should not, or runs elsewhere."""
    if _is_forgotten(ti):
        ti.state, ti.hostname, ti.pid = "running", payload.hostname, payload.pid
        ti.start_date = datetime.now(UTC)
    if (ti.hostname, ti.pid) != (payload.hostname, payload.pid):
        fail(409, "not_running", "the task instance runs on another host or as another process",
             current_hostname=ti.hostname, current_pid=ti.pid)  # fmt: skip
    if ti.state != "running":
        message = "the task instance is no longer in the running state; its task should end"
        fail(409, "not_running", message, current_state=ti.state)
    ti.last_heartbeat_at = datetime.now(UTC)


@router.put("/{task_instance_id}/rtif", status_code=201, dependencies=KEEPS)
def put_rendered_fields(ti: OwnTi, payload: dict[str, Any]) -> dict[str, str]:
    """Keep the task's rendered fields."""
    ti.rendered_fields = payload
    return {"message": "Rendered task instance fields successfully set"}


@router.patch("/{task_instance_id}/rendered-map-index", status_code=204)
def set_rendered_map_index(ti: OwnTi, payload: Annotated[str, Body()]) -> None:
    ti.rendered_map_index = payload


@router.patch("/{task_instance_id}/skip-downstream", status_code=204)
def skip_downstream(ti: OwnTi, payload: SkipDownstream, db: Db) -> None:
    """Mark the named tasks of the same run as skipped, as far as they have not started."""
    for item in payload.tasks:
        task_id, map_index = (item, -1) if isinstance(item, str) else item
        registry.skip_when_it_comes(db, ti, task_id, map_index)
        queued = update(TaskInstance).where(
            TaskInstance.namespace == ti.namespace,
            TaskInstance.dag_id == ti.dag_id,
            TaskInstance.run_id == ti.run_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == map_index,
            TaskInstance.state == "queued",
        )
        db.execute(queued.values(state="skipped", end_date=datetime.now(UTC)))


@router.get("/{task_instance_id}/previous-successful-dagrun")
def previous_successful_dagrun(ti: OwnTi, db: Db) -> PreviousSuccess:
    """Return the times of the Dag's last successful run before this one, nothing but nulls if there is none."""
    current = db.get_one(DagRun, (ti.namespace, ti.dag_id, ti.run_id))
    statement = select(DagRun).where(
        DagRun.namespace == ti.namespace, DagRun.dag_id == ti.dag_id, DagRun.state == "success"
    )
    if current.logical_date is not None:
        statement = statement.where(DagRun.logical_date < current.logical_date)
    found = db.scalars(statement.order_by(DagRun.logical_date.desc()).limit(1)).first()
    if found is None:
        return PreviousSuccess()
    return PreviousSuccess(
        data_interval_start=found.data_interval_start,
        data_interval_end=found.data_interval_end,
        start_date=found.start_date,
        end_date=found.end_date,
    )


@router.get("/{task_instance_id}/validate-inlets-and-outlets")
def validate_inlets_and_outlets(ti: OwnTi) -> InactiveAssets:
    """There are no assets here, so none is inactive."""
    return InactiveAssets()


SAME_RUN = and_(
    DagRun.namespace == TaskInstance.namespace,
    DagRun.dag_id == TaskInstance.dag_id,
    DagRun.run_id == TaskInstance.run_id,
)


class Filter(BaseModel):
    """The query of `count` and `states`."""

    dag_id: str
    map_index: int | None = None
    task_ids: list[str] | None = None
    task_group_id: str | None = None
    logical_dates: list[datetime] | None = None
    run_ids: list[str] | None = None

    def statement(self, who: Caller) -> Select[TaskInstance]:
        """Return the query; refuses a task group, which only a Dag's own definition knows."""
        if self.task_group_id is not None:
            fail(404, "not_found", f"task group {self.task_group_id!r} is not known: only Airflow knows a Dag's groups")
        statement = select(TaskInstance).where(
            TaskInstance.namespace == who.ti.namespace,
            TaskInstance.dag_id == self.dag_id,
            TaskInstance.archived.is_(False),
        )
        if self.map_index is not None:
            statement = statement.where(TaskInstance.map_index == self.map_index)
        if self.task_ids:
            statement = statement.where(TaskInstance.task_id.in_(self.task_ids))
        if self.run_ids:
            statement = statement.where(TaskInstance.run_id.in_(self.run_ids))
        if self.logical_dates:
            statement = statement.join(DagRun, SAME_RUN).where(DagRun.logical_date.in_(self.logical_dates))
        return statement


class CountFilter(Filter):
    states: list[str] | None = None


@router.get("/count")
def count(query: Annotated[CountFilter, Query()], db: Db, who: Who) -> int:
    """Count the task instances of the caller's Dag that fit; the state "null" stands for none."""
    who.require_own_dag(query.dag_id)
    statement = query.statement(who)
    if query.states:
        state = TaskInstance.state
        named = state.in_([name for name in query.states if name != "null"])
        statement = statement.where(or_(named, state.is_(None)) if "null" in query.states else named)
    return db.scalar(select(func.count()).select_from(statement.subquery())) or 0


@router.get("/states")
def states(query: Annotated[Filter, Query()], db: Db, who: Who) -> TaskStates:
    """Return run → task → state; a mapped task's name has its index appended."""
    who.require_own_dag(query.dag_id)
    by_run: dict[str, dict[str, str | None]] = {}
    for instance in db.scalars(query.statement(who)):
        mapped = f"_{instance.map_index}" if instance.map_index >= 0 else ""
        by_run.setdefault(instance.run_id, {})[instance.task_id + mapped] = instance.state
    return TaskStates(task_states=by_run)


@router.get("/breadcrumbs")
def breadcrumbs(dag_id: str, run_id: str, db: Db, who: Who) -> Breadcrumbs:
    """Return what has ended in a run so far."""
    who.require_own_dag(dag_id)
    statement = select(TaskInstance).where(
        TaskInstance.namespace == who.ti.namespace,
        TaskInstance.dag_id == dag_id,
        TaskInstance.run_id == run_id,
        TaskInstance.archived.is_(False),
        TaskInstance.state.in_(ENDED),
    )
    crumbs = [
        {
            "task_id": instance.task_id,
            "map_index": instance.map_index,
            "state": instance.state,
            "operator": None,
            "duration": _duration(instance),
        }
        for instance in db.scalars(statement.order_by(TaskInstance.task_id, TaskInstance.map_index))
    ]
    return Breadcrumbs(breadcrumbs=crumbs)


@router.get("/previous/{dag_id}/{task_id}")
def previous(
    dag_id: str,
    task_id: str,
    db: Db,
    who: Who,
    logical_date: datetime | None = None,
    map_index: int = -1,
    state: str | None = None,
) -> PreviousTi | None:
    """Return the task's last instance, before `logical_date` if that is given."""
    who.require_own_dag(dag_id)
    statement = (
        select(TaskInstance, DagRun.logical_date)
        .join(DagRun, SAME_RUN)
        .where(
            TaskInstance.namespace == who.ti.namespace,
            TaskInstance.dag_id == dag_id,
            TaskInstance.task_id == task_id,
            TaskInstance.map_index == map_index,
            TaskInstance.archived.is_(False),
        )
    )
    if logical_date is not None:
        statement = statement.where(DagRun.logical_date < logical_date)
    if state is not None:
        statement = statement.where(TaskInstance.state == state)
    row = db.execute(statement.order_by(DagRun.logical_date.desc(), DagRun.run_after.desc()).limit(1)).first()
    if row is None:
        return None
    instance, when = row
    return PreviousTi(
        task_id=instance.task_id,
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        logical_date=when,
        start_date=instance.start_date,
        end_date=instance.end_date,
        state=instance.state,
        try_number=instance.try_number,
        map_index=instance.map_index,
        duration=_duration(instance),
    )


def _duration(instance: TaskInstance) -> float | None:
    if instance.start_date is None or instance.end_date is None:
        return None
    return (instance.end_date - instance.start_date).total_seconds()


reschedules = APIRouter(prefix="/task-reschedules", tags=["Task Reschedules"], route_class=ExactRoute)


@reschedules.get("/{task_instance_id}/start_date")
def reschedule_start_date(ti: OwnTi, try_number: int = 1) -> datetime | None:
    """Return when the try was started first, if it was put off since; null else."""
    return ti.first_reschedule_start
