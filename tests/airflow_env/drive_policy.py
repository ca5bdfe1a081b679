"""Applies the task policy to tasks as a Dag processor does, in a real Airflow's environment; answers with JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.sdk import DAG, task
from polypod_airflow.policy import task_policy


def stub(**options: Any) -> Any:
    @task.stub(**options)
    def handled(): ...

    return handled


def mapped(**options: Any) -> Any:
    @task.stub(**options)
    def handled(number): ...

    return handled


def python(**options: Any) -> Any:
    @task(**options)
    def handled(): ...

    return handled


class Told(logging.Handler):
    """Keeps what the policy writes into the log of the Dag file."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main() -> None:
    answers = []
    told = Told()
    logging.getLogger("polypod_airflow.policy").addHandler(told)
    with DAG("dag", schedule=None):
        for number, (kind, options) in enumerate(json.loads(sys.argv[1])):
            made = {"stub": stub, "mapped": mapped, "python": python}[kind](task_id=f"t{number}", **options)
            made = made.expand(number=[1, 2]) if kind == "mapped" else made()
            operator, began = made.operator, time.monotonic()
            try:
                task_policy(operator)
                answer = {"executor": operator.executor}
            except AirflowClusterPolicyViolation as error:
                answer = {"refused": str(error)}
            answers.append({**answer, "took": time.monotonic() - began, "told": told.lines.copy()})
            told.lines.clear()
    print(f"\n{json.dumps(answers)}")


main()
