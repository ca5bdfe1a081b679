"""serve/metrics.py: bounded series, all of them documented."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from polypod_crds.taskrun import TaskRunStatus
from polypod_execution_api.metrics import Metrics as ApiMetrics
from polypod_execution_api.sizes import Sizes
from polypod_operator.control.telemetry import Telemetry
from polypod_operator.decide.store import Store
from polypod_operator.serve.metrics import Metrics
from prometheus_client import generate_latest
from sqlalchemy import create_engine
from support.objects import NOW, task_run
from support.paths import ROOT


def test_invented_names_make_no_series() -> None:
    metrics = Metrics()
    metrics.queues = lambda: {"q"}
    metrics.depths = lambda: {f"invented-{number}": (1, 0) for number in range(50)}
    metrics.active = lambda: [("Pending", f"invented-{number}", "c") for number in range(50)] + [("Running", "q", "c")]
    for number in range(50):
        metrics.queue_wait.labels(metrics.queue(f"invented-{number}")).observe(1)
        metrics.ended(f"state-{number}", f"Reason{number}", "c")
    metrics.ended("success", "TaskSucceeded", "c")
    text = generate_latest(metrics.registry).decode()
    assert "invented" not in text
    assert "Reason4" not in text
    assert 'polypod_queue_running{queue="other"} 50.0' in text
    assert 'polypod_taskruns_active{coordinator="c",phase="Pending",queue="other"} 50.0' in text
    assert 'reason="TaskSucceeded",state="success"' in text


def test_every_metric_of_the_docs_exists_and_the_other_way_round() -> None:
    registries = Metrics().registry, ApiMetrics(Sizes(create_engine("sqlite://"))).registry
    counted = (metric.name for registry in registries for metric in registry.collect())
    found = {name for name in counted if name.startswith("polypod_")}
    page = (ROOT / "docs/cluster.md").read_text()
    told = {name.removesuffix("_total") for name in re.findall(r"`(polypod_[a-z_]+)`", page)}
    assert told == found


@pytest.mark.parametrize("nodes", [timedelta(), timedelta(hours=-11), timedelta(hours=11)])
def test_the_time_of_a_taskrun_is_by_the_clock_that_has_dated_its_creation(nodes: timedelta) -> None:
    metrics, store = Metrics(), Store()
    ended = NOW + timedelta(seconds=90)
    status = TaskRunStatus(phase="Succeeded", finish_time=ended + nodes)
    Telemetry(metrics, store).status_written(task_run(), status, ended)
    text = generate_latest(metrics.registry).decode()
    assert re.search(r"^polypod_taskrun_seconds_sum{.*} 90.0$", text, re.MULTILINE), text
