"""The Dag of the conformance programs: stub tasks, as a user of Airflow writes them."""

import datetime
import os
from pathlib import Path

from airflow import __version__
from airflow.sdk import Asset, dag, task

TASKS = (
    "success", "fail", "fail_for_good", "retry_after", "skip", "panic", "crash", "exit_zero", "segfault", "connection",
    "missing_connection", "variables", "xcom", "concurrent", "wait", "ignore_signals", "run_context", "spam",
    "big_xcom", "not_in_the_bundle", "slow", "bench_start", "bench_round_trips", "long_line", "leave_child",
    "task_state", "reschedule", "wait_for_run", "ask", "note", "settings",
)  # fmt: skip


def alert(kind):
    """Return a callback that leaves a line in a file."""

    def called(context):
        ti = context["ti"]
        with Path(os.environ["AIRFLOW_HOME"], "alerts").open("a") as file:
            file.write(f"{kind} {ti.run_id} {ti.task_id} {ti.map_index} {ti.try_number}\n")

    return called


ALERTS = {
    "on_failure_callback": alert("failure"), "on_retry_callback": alert("retry"), "email": "ops@example.com",
    "email_on_retry": False,
}  # fmt: skip


@dag(dag_id="conformance", schedule=None, start_date=datetime.datetime(2026, 1, 1))
def conformance():
    for name in TASKS:

        @task.stub(task_id=name, queue="golang", **(ALERTS if name in ("fail", "crash") else {}))
        def stub(): ...

        stub()

    asset = Asset("conformance_asset", uri="file:///conformance")

    @task.stub(queue="golang", outlets=[asset])
    def asset_emit(): ...

    @task.stub(queue="golang", inlets=[asset])
    def asset_read(): ...

    @task.stub(queue="golang", inlets=[asset], outlets=[asset])
    def asset_state(): ...

    asset_emit()
    asset_read()
    asset_state()

    if __version__.startswith("3.3."):
        return

    # arguments came with Airflow 3.4
    @task.stub(queue="golang")
    def bind_by_position(a: str, b: int, c: list, d: dict): ...

    @task.stub(queue="golang")
    def bind_by_name(region_code: str, upstream: str, row_limit: int = 3): ...

    @task.stub(queue="golang")
    def bind_leniently(region_code: str, upstream: str, unknown: str = "x", row_limit: int = 3): ...

    @task.stub(queue="golang")
    def bind_with_default(a: str, b: int = 7): ...

    @task.stub(queue="golang")
    def produce() -> dict: ...

    value = produce()
    bind_by_position("t", 2**53, ["x"], value)
    bind_by_name("uk", value)
    bind_leniently("uk", value, "x")
    bind_with_default("t")


conformance()
