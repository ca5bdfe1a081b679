"""Runs inside the environment of a real Airflow: puts task instances into its database and reads them back.

One JSON request a line on standard input, one JSON answer a line on standard output.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

OUT = os.fdopen(os.dup(1), "w")
# Airflow may print what it likes; the answers have a channel of their own
os.dup2(2, 1)

from airflow.executors.local_executor import LocalExecutor  # noqa: E402
from airflow.executors.workloads import ExecuteTask  # noqa: E402
from airflow.models.connection import Connection  # noqa: E402
from airflow.models.dagbag import DBDagBag  # noqa: E402
from airflow.models.dagrun import DagRun  # noqa: E402
from airflow.models.log import Log  # noqa: E402
from airflow.models.taskinstance import TaskInstance  # noqa: E402
from airflow.models.variable import Variable  # noqa: E402
from airflow.models.xcom import XComModel  # noqa: E402
from airflow.utils.log.log_reader import TaskLogReader  # noqa: E402
from airflow.utils.session import create_session  # noqa: E402
from airflow.utils.state import DagRunState, TaskInstanceState  # noqa: E402
from airflow.utils.types import DagRunTriggeredByType, DagRunType  # noqa: E402
from sqlalchemy import delete, select  # noqa: E402

executor = LocalExecutor()


def new_run(session, dag_id, run_id, conf, **state):
    """Make a manual run of a Dag."""
    dag = DBDagBag().get_latest_version_of_dag(dag_id, session=session)
    now = datetime.now(UTC)
    return dag.create_dagrun(
        run_id=run_id,
        logical_date=now,
        data_interval=(now, now),
        run_after=now,
        conf=conf,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        session=session,
        **state,
    )


def queue(dag_id, run_id, task_ids, conf, queue, retries=0):
    """Make a run, queue its tasks, and return their workloads."""
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None:
            run = new_run(session, dag_id, run_id, conf, state=DagRunState.RUNNING, start_date=datetime.now(UTC))
            session.flush()
        workloads = {}
        for ti in run.get_task_instances(session=session):
            if ti.task_id in task_ids:
                ti.state = TaskInstanceState.QUEUED
                ti.queue = queue
                ti.max_tries = retries
                ti.try_number = ti.try_number or 1
                session.flush()
                workload = ExecuteTask.make(ti, generator=executor.jwt_generator)
                workloads[ti.task_id] = json.loads(workload.model_dump_json())
        return workloads


def trigger(dag_id, run_id, conf):
    """Make a run for the scheduler to take up."""
    with create_session() as session:
        new_run(session, dag_id, run_id, conf, state=DagRunState.QUEUED)
    return {}


def tasks(dag_id, run_id):
    """Return what became of the tasks of a run."""
    with create_session() as session:
        found = session.scalars(
            select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        )
        return {
            ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": {
                "state": ti.state,
                "try_number": ti.try_number,
                "executor": ti.executor,
                "external_executor_id": ti.external_executor_id,
            }
            for ti in found
        }


def audit(dag_id, run_id):
    """Return what executors have written into the audit log about a run."""
    with create_session() as session:
        ours = Log.event.in_(("polypod", "polypod callbacks"))
        found = session.scalars(select(Log).where(Log.dag_id == dag_id, Log.run_id == run_id, ours))
        return [{"task_id": item.task_id, "event": item.event, "extra": item.extra} for item in found]


def state(dag_id, run_id, task_id):
    """Return a task instance's state and XComs."""
    with create_session() as session:
        where = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
        ti = session.scalar(select(TaskInstance).where(*where))
        rows = session.scalars(
            select(XComModel).where(
                XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.task_id == task_id
            )
        )
        xcoms = {row.key: XComModel.deserialize_value(row) for row in rows}
        return {"state": ti.state, "try_number": ti.try_number, "xcoms": xcoms}


def run(dag_id, run_id):
    """Return a run's state, conf and note."""
    with create_session() as session:
        found = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return {"state": found.state, "conf": found.conf, "note": found.note}


def respond(dag_id, run_id, task_id, chosen):
    """Answer a task that awaits a person's input, as Airflow's UI and scheduler do."""
    from airflow.models.hitl import HITLDetail

    with create_session() as session:
        where = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
        ti = session.scalar(select(TaskInstance).where(*where))
        detail = session.scalar(select(HITLDetail).where(HITLDetail.ti_id == ti.id))
        detail.chosen_options = chosen
        detail.params_input = {}
        detail.responded_at = datetime.now(UTC)
        detail.responded_by = {"id": "1", "name": "somebody"}
    return {}


def log(dag_id, run_id, task_id, attempt):
    """Return an attempt's log as Airflow's UI reads it."""
    with create_session() as session:
        where = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
        ti = session.scalar(select(TaskInstance).where(*where))
        stream, _ = TaskLogReader().read_log_chunks(ti, attempt, {})
        return [json.loads(item.model_dump_json()) for item in stream]


def set_state(dag_id, run_id, task_id, to):
    """Change a task instance's state behind its back."""
    with create_session() as session:
        where = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
        session.scalar(select(TaskInstance).where(*where)).state = to
    return {}


def secrets(connections, variables):
    """Set connections (id to URI) and variables."""
    with create_session() as session:
        for conn_id, uri in connections.items():
            session.execute(delete(Connection).where(Connection.conn_id == conn_id))
            session.add(Connection(conn_id=conn_id, uri=uri))
    for key, value in variables.items():
        Variable.set(key, value)
    return {}


def queued_as(dag_id, run_id, task_id, external_id):
    """Give a queueing its UUID, as a scheduler does."""
    with create_session() as session:
        where = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
        session.scalar(select(TaskInstance).where(*where)).external_executor_id = external_id
    return {}


def callbacks(run, times):
    """Have the executor request the callbacks of a TaskRun, several times; return what was asked for each time."""
    sys.path.append(str(Path(__file__).parents[2] / "executor"))
    import msgspec
    from polypod_airflow.callbacks import request
    from polypod_airflow.verdicts import TaskRun

    found = msgspec.json.decode(json.dumps(run), type=TaskRun)
    return [request(found, DBDagBag()) for _ in range(times)]


def take_callbacks():
    """Take what is requested from the database, as the Dag processor does."""
    from airflow.models.db_callback_request import DbCallbackRequest

    with create_session() as session:
        found = list(session.scalars(select(DbCallbackRequest)))
        taken = [json.loads(item.get_callback_request().to_json()) for item in found]
        for item in found:
            session.delete(item)
    return taken


OPERATIONS = {
    "queued_as": queued_as,
    "callbacks": callbacks,
    "take_callbacks": take_callbacks,
    "queue": queue,
    "state": state,
    "trigger": trigger,
    "tasks": tasks,
    "audit": audit,
    "set_state": set_state,
    "secrets": secrets,
    "log": log,
    "run": run,
    "respond": respond,
}

print(json.dumps({"ready": True}), file=OUT, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": OPERATIONS[request.pop("op")](**request)}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer, default=str), file=OUT, flush=True)
