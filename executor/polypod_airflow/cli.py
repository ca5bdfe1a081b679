"""What `airflow polypod check` and `airflow polypod cleanup` do."""

from __future__ import annotations

import sys
import uuid
from argparse import Namespace
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from airflow.configuration import conf

from polypod_airflow.checks import Check, checks
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.leftovers import delete_leftovers
from polypod_airflow.policy import CLASS, executor_name, mapped_queues
from polypod_airflow.probe import probe, seconds
from polypod_airflow.routing import DEFAULT, RoutingProblem
from polypod_airflow.settings import settings
from polypod_airflow.taskruns import Settings


def check(options: Namespace) -> None:
    """Print each check; exit with 1 if one failed."""
    failed = False
    for found in _all_checks(options.queue):
        failed |= bool(found.problem)
        print(f"{'FAIL' if found.problem else 'ok  '} {found.name}{': ' + found.problem if found.problem else ''}")
    if failed:
        sys.exit(1)


def _all_checks(queue: str | None) -> Iterator[Check]:
    yield from _configuration()
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")))
    except ConnectionProblem as error:
        yield Check("Kubernetes API", str(error))
        return
    given, failed = settings(cluster), False
    try:
        for found in checks(cluster, given, conf.get("polypod", "routing", fallback=DEFAULT)):
            yield found
            failed |= bool(found.problem)
        queue = queue or min(mapped_queues(), default="")
        if queue and not failed:
            yield from _probe(cluster, given, queue)
    except RoutingProblem:
        # one of the checks has said so
        return
    finally:
        cluster.close()


def _configuration() -> Iterator[Check]:
    """Check what Airflow's own configuration has."""
    configured = conf.get("core", "executor", fallback="")
    name = executor_name(configured)
    problem = "" if name else "add polypod:polypod_airflow.executor.PolypodExecutor to [core] executor, after your own"
    if name and configured.partition(";")[0].partition(",")[0].endswith(CLASS):
        problem = "it is the first, which runs Python tasks and callbacks: name another one before it"
    yield Check(f"[core] executor {configured}", problem)
    found = {point.name for point in entry_points(group="airflow.policy")}
    wanted = "install the package with pip: its task policy gives stubs their executor"
    yield Check("the task policy is installed", "" if "polypod" in found else wanted)
    queued = conf.getfloat("scheduler", "task_queued_timeout", fallback=600.0)
    pending = conf.get("polypod", "pending_timeout", fallback="")
    late = f"it must be less than [scheduler] task_queued_timeout ({queued:g} s), which queues the task again"
    if pending:
        yield Check(f"[polypod] pending_timeout {pending}", late if seconds(pending) >= queued else "")


def _probe(cluster: Cluster, given: Settings, queue: str) -> Iterator[Check]:
    from airflow.executors.workloads import ExecuteTask

    from polypod_airflow.executor import PolypodExecutor

    ti_id = str(uuid.uuid4())
    try:
        # as the scheduler puts it into a workload
        token = str(ExecuteTask.generate_token(ti_id, PolypodExecutor().jwt_generator))
    except Exception as error:
        # whatever Airflow raises without a key
        yield Check("[api_auth] jwt_secret", f"no token can be signed: {type(error).__name__}: {error}")
        return
    yield from probe(cluster, given, queue, ti_id, token, Path(conf.get("logging", "base_log_folder")))


def cleanup(options: Namespace) -> None:
    """Delete the Secrets of this Airflow that are an hour old and owned by no TaskRun."""
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")))
        found = delete_leftovers(cluster, settings(cluster))
    except (ClusterError, ConnectionProblem) as error:
        print(f"airflow polypod cleanup: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{found} Secrets deleted")
