"""The Dag of the conformance programs: stub tasks, as a user of Airflow writes them."""

import datetime

from airflow.sdk import dag, task

TASKS = (
    "success", "fail", "fail_for_good", "retry_after", "skip", "panic", "crash", "exit_zero", "segfault", "connection",
    "missing_connection", "variables", "xcom", "concurrent", "wait", "ignore_signals", "run_context", "spam",
    "big_xcom", "not_in_the_bundle", "slow", "bench_start", "bench_round_trips", "long_line", "leave_child",
)  # fmt: skip


@dag(dag_id="conformance", schedule=None, start_date=datetime.datetime(2026, 1, 1))
def conformance():
    for name in TASKS:

        @task.stub(task_id=name, queue="golang")
        def stub(): ...

        stub()


conformance()
