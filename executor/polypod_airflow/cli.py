"""What `airflow polypod check` and `airflow polypod cleanup` do."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime

from airflow.configuration import conf

from polypod_airflow.checks import Check, checks
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.leftovers import delete_leftovers
from polypod_airflow.policy import executor_name, mapped_queues
from polypod_airflow.probe import probe
from polypod_airflow.routing import DEFAULT, RoutingProblem
from polypod_airflow.settings import settings


def check(options: Namespace) -> None:
    """Print each check; exit with 1 if one failed."""
    failed = False
    for found in _all_checks(options.queue):
        failed |= bool(found.problem)
        print(f"{'FAIL' if found.problem else 'ok  '} {found.name}{': ' + found.problem if found.problem else ''}")
    if failed:
        sys.exit(1)


def _all_checks(queue: str | None) -> Iterator[Check]:
    configured = conf.get("core", "executor", fallback="")
    name = executor_name(configured)
    wanted = "add polypod:polypod_airflow.executor.PolypodExecutor to [core] executor, after your own"
    yield Check(f"[core] executor {configured}", "" if name else wanted)
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")))
    except ConnectionProblem as error:
        yield Check("Kubernetes API", str(error))
        return
    given, failed = settings(cluster.namespace), False
    try:
        for found in checks(cluster, given, conf.get("polypod", "routing", fallback=DEFAULT)):
            yield found
            failed |= bool(found.problem)
        queue = queue or min(mapped_queues(), default="")
        if queue and not failed:
            yield probe(cluster, given, queue)
    except RoutingProblem:
        # one of the checks has said so
        return
    finally:
        cluster.close()


def cleanup(options: Namespace) -> None:
    """Delete the Secrets of this Airflow that are an hour old and owned by no TaskRun."""
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")))
        found = delete_leftovers(cluster, settings(cluster.namespace), datetime.now(UTC))
    except (ClusterError, ConnectionProblem) as error:
        print(f"airflow polypod cleanup: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{found} Secrets deleted")
