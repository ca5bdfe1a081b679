"""Requests Airflow's callbacks and mails for ends that a pod has reported: each exactly once.

Airflow's scheduler requests them for the ends that it finds out about by an executor's event. What a bridge reports to
the Execution API, as Airflow's own supervisor of another language does, has no such event. The Dag processor, which
runs what is requested, takes callbacks of failures and retries only.

The request and an entry in Airflow's audit log that names the TaskRun are written in one transaction, which holds the
task instance's lock. So any scheduler that sees the TaskRun may do it: one that was killed has done both or neither.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from polypod_airflow.verdicts import TaskRun, reported_failure, said, storable

if TYPE_CHECKING:
    from airflow.models.dagbag import DBDagBag
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

EVENT = "polypod callbacks"
"""Of the entry in Airflow's audit log."""
_TRIES = 60
_PAUSE = 10.0
"""Seconds before the next of these tries: the database may be away."""

_Ended = tuple[TaskRun, int]
"""A TaskRun that has ended, and the number of the try to request its callbacks."""


class Callbacks(threading.Thread):
    """Writes the requests, by database connections of its own."""

    def __init__(self) -> None:
        """Prepare; `start` begins."""
        super().__init__(name="polypod-callbacks", daemon=True)
        self._ended: SimpleQueue[_Ended | None] = SimpleQueue()
        self._seen: set[str] = set()
        self._closing = threading.Event()

    def saw(self, run: TaskRun) -> None:
        """Have the callbacks of a TaskRun requested if it has failed and its pod has reported that."""
        if run.name not in self._seen and reported_failure(run):
            self._seen.add(run.name)
            self._ended.put((run, 1))

    def gone(self, run: TaskRun) -> None:
        """Do the same for one that is deleted, and forget it."""
        self.saw(run)
        self._seen.discard(run.name)

    def listed(self, names: Collection[str]) -> None:
        """Forget those that are not there any more, as their deletion may have been missed."""
        self._seen.intersection_update(names)

    def close(self) -> None:
        """End soon; the thread is not waited for."""
        self._closing.set()
        self._ended.put(None)

    def run(self) -> None:
        """Write requests until stopped; what fails is tried again later, and holds up nothing else."""
        again: list[_Ended] = []
        due = 0.0
        while not self._closing.is_set():
            batch = self._next(max(0.0, due - time.monotonic()) if again else None)
            if again and time.monotonic() >= due:
                batch, again = [*batch, *again], []
            failed = _request_all(batch)
            if failed and not again:
                due = time.monotonic() + _PAUSE
            again += failed

    def _next(self, timeout: float | None) -> list[_Ended]:
        """Wait for ends; return all that there are."""
        found: list[_Ended | None] = []
        with suppress(Empty):
            found.append(self._ended.get(timeout=timeout))
            while True:
                found.append(self._ended.get_nowait())
        return [ended for ended in found if ended is not None]


def _request_all(batch: list[_Ended]) -> list[_Ended]:
    """Write the requests for some ends; return those to be tried again."""
    # Dags are read once for a batch, and are not kept for longer
    if not batch:
        return []
    dags, failed = _dags(), []
    for run, tries in batch:
        try:
            request(run, dags)
        except Exception as error:
            log.warning("callbacks of TaskRun %s: %s: %s", run.name, type(error).__name__, error)
            if tries < _TRIES:
                failed.append((run, tries + 1))
    return failed


def load_models() -> None:
    """Import what threads use later, in the thread that starts them.

    A thread that imports a model waits for SQLAlchemy, which may wait for that very import in another thread.
    """
    from importlib import import_module

    from sqlalchemy.orm import configure_mappers

    for name in ("dag", "dag_version", "dagbag", "dagrun", "db_callback_request", "log", "taskinstance"):
        import_module(f"airflow.models.{name}")
    import_module("airflow.callbacks.callback_requests")
    configure_mappers()


def _dags() -> DBDagBag:
    from airflow.models.dagbag import DBDagBag

    return DBDagBag()


def request(run: TaskRun, dags: DBDagBag) -> list[str]:
    """Write the requests for the end of a TaskRun, unless that was done before; return the names of what was requested.

    Raises:
        Exception: whatever the database has against it; then nothing was written.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.db_callback_request import DbCallbackRequest
    from airflow.models.log import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    spec = run.spec
    of_run = DagRun.dag_id == spec.dag_id, DagRun.run_id == spec.run_id
    with create_session(scoped=False) as session:
        dag_run = session.scalar(select(DagRun).where(*of_run))
        dag = dags.get_dag_for_run(dag_run, session) if dag_run is not None else None
        wanted = _wanted(dag.get_task(spec.task_id), run) if dag is not None and dag.has_task(spec.task_id) else []
        attempt = _locked_attempt(session, run) if wanted else None
        if attempt is None:
            return []
        of_task = Log.dag_id == spec.dag_id, Log.task_id == spec.task_id, Log.run_id == spec.run_id
        written = session.scalars(select(Log.extra).where(*of_task, Log.event == EVENT))
        if any(extra.startswith(run.name) for extra in written):
            return []
        for callback in _requests(session, run, dag_run, attempt, wanted):
            session.add(DbCallbackRequest(callback=callback, priority_weight=1))
        session.add(Log(EVENT, attempt, extra=f"{run.name}: requested {', '.join(wanted)}"))
    return wanted


def _wanted(task: Any, run: TaskRun) -> list[str]:
    """Return what a task has for such an end."""
    kind = "retry" if _will_retry(run) else "failure"
    wanted = [f"on_{kind}_callback"] if getattr(task, f"has_on_{kind}_callback") else []
    if task.email and getattr(task, f"email_on_{kind}"):
        wanted.append(f"email_on_{kind}")
    return wanted


def _will_retry(run: TaskRun) -> bool:
    return run.status.state == "up_for_retry"


def _locked_attempt(session: Session, run: TaskRun) -> Any:
    """Lock the task instance; return the row of the attempt that was this TaskRun, None if there is none any more."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.sqlalchemy import with_row_locks
    from sqlalchemy import select

    try:
        from airflow.models.taskinstancehistory import TaskInstanceHistory
    except ImportError:
        # Airflow 3.4: each attempt is a row of its own, which keeps its id
        of_id = TaskInstance.external_executor_id == run.external_id
        query = select(TaskInstance).where(*_of(TaskInstance, run), of_id)
        query = query.execution_options(include_all_attempts=True)
        return session.scalar(with_row_locks(query, session=session, of=TaskInstance))
    query = select(TaskInstance).where(*_of(TaskInstance, run), TaskInstance.map_index == run.spec.map_index)
    live = session.scalar(with_row_locks(query, session=session, of=TaskInstance))
    if live is None:
        return None
    # the live row has another id once a retry is due; until it is queued, it still has the old external id
    of_index = TaskInstanceHistory.map_index == run.spec.map_index
    of_id = TaskInstanceHistory.external_executor_id == run.external_id
    old = session.scalar(select(TaskInstanceHistory).where(*_of(TaskInstanceHistory, run), of_index, of_id))
    return old or (live if live.external_executor_id == run.external_id else None)


def _of(model: Any, run: TaskRun) -> tuple[Any, ...]:
    spec = run.spec
    return model.dag_id == spec.dag_id, model.task_id == spec.task_id, model.run_id == spec.run_id


def _requests(session: Session, run: TaskRun, dag_run: Any, attempt: Any, wanted: list[str]) -> list[Any]:
    """Return the requests as Airflow's scheduler makes them."""
    from airflow.api_fastapi.execution_api.datamodels import taskinstance as models
    from airflow.callbacks.callback_requests import EmailRequest, TaskCallbackRequest
    from airflow.models import dag_version as versions
    from airflow.models.dag import DagModel
    from airflow.utils.state import TaskInstanceState as State

    dag_model: Any = session.get(DagModel, run.spec.dag_id)
    version: Any = session.get(versions.DagVersion, attempt.dag_version_id) if attempt.dag_version_id else None
    pinned = dag_run.bundle_version is not None
    context = models.TIRunContext(
        dag_run=models.DagRun.model_validate(dag_run, from_attributes=True),
        max_tries=attempt.max_tries, variables=[], connections=[], xcom_keys_to_clear=[],
    )  # fmt: skip
    common = {
        "filepath": (dag_model.relative_fileloc if dag_model is not None else None) or "",
        "bundle_name": version.bundle_name if version is not None else dag_model.bundle_name,
        # a run that is not pinned has its callbacks run against the newest code, as its tasks are
        "bundle_version": version.bundle_version if version is not None and pinned else dag_run.bundle_version,
        "msg": storable(said(run.status)),
        "ti": _identity(models, attempt, run),
        "context_from_server": context,
    }
    if "version_data" in TaskCallbackRequest.model_fields:
        common["version_data"] = versions._resolve_version_data(version, dag_run.bundle_version)
    found: list[Any] = []
    for name in wanted:
        if name.startswith("email"):
            found.append(EmailRequest(**common, email_type="retry" if _will_retry(run) else "failure"))
        else:
            kind = State.UP_FOR_RETRY if _will_retry(run) else State.FAILED
            found.append(TaskCallbackRequest(**common, task_callback_type=kind))
    return found


def _identity(models: Any, attempt: Any, run: TaskRun) -> Any:
    if hasattr(models, "task_instance_to_runtime"):
        return models.task_instance_to_runtime(attempt, model=models.TaskInstance, map_index=run.spec.map_index)
    return models.TaskInstance.model_validate(attempt, from_attributes=True)
