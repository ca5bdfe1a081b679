"""A Dag for the executor: Python tasks beside stubs of three languages; none of them names an executor."""

import datetime

from airflow.sdk import dag, task


@dag(dag_id="conformance", schedule=None, start_date=datetime.datetime(2026, 1, 1))
def conformance():
    @task
    def before() -> str:
        return "from Python"

    @task.stub(queue="jvm")
    def success(): ...

    @task.stub(queue="golang")
    def produce(): ...

    @task.stub(queue="golang", retries=1, retry_delay=datetime.timedelta(seconds=1))
    def fail(): ...

    @task.stub(queue="typescript")
    def xcom(): ...

    @task.stub(queue="golang")
    def slow(): ...

    @task(trigger_rule="all_done")
    def after(**context) -> dict:
        return {"produced": context["ti"].xcom_pull(task_ids="produce")}

    first, last, written, read = before(), after(), success(), xcom()
    first >> [written, produce(), fail(), slow()] >> last
    written >> read >> last


conformance()
