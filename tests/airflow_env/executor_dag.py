"""A Dag for the executor: Python tasks beside stubs of three languages; none of them names an executor.

Which tasks a run has, its conf says: `follow`.
"""

import datetime
import os
from pathlib import Path

from airflow.sdk import dag, task

NOWHERE = {"pod_template": {"spec": {"nodeSelector": {"polypod.test/nowhere": "true"}}}}


def alert(kind):
    """Return a callback that leaves a line in a file."""

    def called(context):
        ti = context["ti"]
        with Path(os.environ["AIRFLOW_HOME"], "alerts").open("a") as file:
            file.write(f"{kind} {ti.run_id} {ti.task_id} {ti.try_number}\n")

    return called


@dag(dag_id="conformance", schedule=None, start_date=datetime.datetime(2026, 1, 1))
def conformance():
    @task.branch
    def choose(**context) -> list:
        return context["dag_run"].conf["follow"]

    @task
    def numbers(**context) -> list:
        return list(range(context["dag_run"].conf["count"]))

    @task.stub(queue="jvm")
    def success(): ...

    @task.stub(queue="golang")
    def produce(): ...

    @task.stub(queue="golang")
    def connection(): ...

    @task.stub(queue="golang")
    def variables(): ...

    @task.stub(
        queue="golang",
        retries=1,
        retry_delay=datetime.timedelta(seconds=1),
        on_retry_callback=alert("retry"),
        on_failure_callback=[alert("failure")],
        on_success_callback=alert("success"),
    )
    def fail(): ...

    @task.stub(queue="golang")
    def reschedule(): ...

    @task.stub(queue="golang")
    def run_context(number): ...

    @task.stub(queue="typescript")
    def xcom(): ...

    @task.stub(queue="golang")
    def slow(number): ...

    # its pod has no node to run on
    @task.stub(queue="golang", executor_config=NOWHERE)
    def wait(): ...

    # this queue is not mapped, so the task is sent by its executor's name
    @task.stub(queue="unmapped", executor="polypod")
    def skip(): ...

    @task(trigger_rule="all_done")
    def after(**context) -> dict:
        return {"produced": context["ti"].xcom_pull(task_ids="produce")}

    first, last, written, read = choose(), after(), success(), xcom()
    mapped, counted = run_context.expand(number=[1, 2, 3]), numbers()
    slow.expand(number=counted)
    main = [written, produce(), connection(), variables(), fail(), reschedule(), mapped]
    first >> main
    main >> last
    written >> read >> last
    first >> [counted, wait(), skip()]


conformance()
