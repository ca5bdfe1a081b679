"""What `airflow polypod check` and `airflow polypod cleanup` do."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from airflow.configuration import conf

from polypod_airflow.checks import Check, checks
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import ConnectionProblem, connection
from polypod_airflow.policy import executor_name, mapped_queues
from polypod_airflow.probe import probe
from polypod_airflow.routing import DEFAULT, RoutingProblem
from polypod_airflow.settings import settings
from polypod_airflow.taskruns import LABEL, Settings, secrets

_UNOWNED_FOR = timedelta(hours=1)
"""The age from which a Secret without an owner is left over: its scheduler ended before its TaskRuns were made."""


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


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    creation_timestamp: datetime
    owner_references: list[Any] = []


class _Secret(msgspec.Struct):
    metadata: _Meta


class _Secrets(msgspec.Struct):
    items: list[_Secret] = []


def cleanup(options: Namespace) -> None:
    """Delete the Secrets of this Airflow that are an hour old and owned by no TaskRun."""
    try:
        cluster = Cluster(connection(conf.get("polypod", "kubeconfig", fallback="")))
        found = unowned(cluster, settings(cluster.namespace), datetime.now(UTC))
    except (ClusterError, ConnectionProblem) as error:
        print(f"airflow polypod cleanup: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"{found} Secrets deleted")


def unowned(cluster: Cluster, given: Settings, now: datetime) -> int:
    """Delete what no TaskRun owns; return how many there were."""
    raw = cluster.call("GET", secrets(given.namespace), params={"labelSelector": f"{LABEL}={given.airflow}"})
    found = [
        item.metadata.name
        for item in msgspec.json.decode(raw, type=_Secrets).items
        if not item.metadata.owner_references and now - item.metadata.creation_timestamp > _UNOWNED_FOR
    ]
    for name in found:
        cluster.call("DELETE", secrets(given.namespace, name))
    return len(found)
