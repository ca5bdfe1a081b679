"""Arguments of a real Dag of Airflow 3.4 reach the tasks, through our bridge as through upstream's supervisor."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from support.airflow import Airflow
from support.bridge import Bridge, workload_config
from test_swap_matrix import task_lines

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

_runs = itertools.count()

ARGUMENTS: dict[str, Any] = {
    "bind_by_position": {"text": "t", "number": 2**53, "list": ["x"], "upstream": "grüße ✓"},
    "bind_by_name": {"region": "uk", "limit": 3, "upstream": "grüße ✓"},
    "bind_leniently": {"region": "uk", "limit": 3, "upstream": "grüße ✓"},
    "bind_with_default": "t",
}


@pytest.mark.parametrize("language", ["golang", "jvm"])
def test_arguments_arrive_as_under_upstreams_supervisor(airflow_34: Airflow, tmp_path: Path, language: str) -> None:
    runs = {side: f"{side}-{language}-{next(_runs)}" for side in ("theirs", "ours")}
    for side, run_id in runs.items():
        [first] = airflow_34.queue(run_id, "produce", queue=language).values()
        assert Bridge(tmp_path, workload_config(first, airflow_34.url)).run().outcome["state"] == "success"
        workloads = airflow_34.queue(run_id, *ARGUMENTS, queue=language)
        for task, expected in ARGUMENTS.items():
            if side == "theirs":
                airflow_34.run_upstream(workloads[task])
                log = airflow_34.log_of(workloads[task])
            else:
                config = workload_config(workloads[task], airflow_34.url)
                log = Bridge(tmp_path, config, log_name=f"{task}.log").run().log
            seen = airflow_34.state(run_id, task)
            assert (seen["state"], seen["xcoms"]) == ("success", {"return_value": expected}), log[-5:]
            warned = [record["argument"] for record in log if "takes no argument of this name" in record["event"]]
            assert warned == (["unknown"] if task == "bind_leniently" else [])
            assert not task_lines([record for record in log if record["logger"] != "task"])


def test_an_artifact_of_the_older_schema_is_told_what_it_does_not_get(airflow_34: Airflow, tmp_path: Path) -> None:
    from support.paths import EXECUTABLE_CLASSPATH, GO_ROOT_33

    [workload] = airflow_34.queue(f"older-{next(_runs)}", "bind_by_position", queue="golang").values()
    config = workload_config(workload, airflow_34.url)
    config["coordinator"] = {"classpath": EXECUTABLE_CLASSPATH, "kwargs": {"executables_root": [str(GO_ROOT_33)]}}
    result = Bridge(tmp_path, config).run()
    assert result.outcome["state"] == "failed"
    assert "the artifact's schema version has no arguments; they are not sent" in result.events()
    assert any("2026-06-16, which has no arguments" in str(record) for record in result.log)
