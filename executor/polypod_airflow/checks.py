"""What must be so for the executor to work, each checked against the API server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.reading import decode
from polypod_airflow.routing import RoutingProblem, queues_of
from polypod_airflow.taskruns import LABEL, PLURAL, Settings, collection, secrets

_GROUP = "polypod.dev"
RIGHTS = (
    *((_GROUP, PLURAL, verb) for verb in ("create", "get", "list", "watch", "delete")),
    *(("", "secrets", verb) for verb in ("create", "patch", "list", "delete")),
    ("", "pods/log", "get"),
)
"""What the scheduler's and the api-server's service account must be allowed in the namespace of the TaskRuns."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check and its result. `problem` is empty if it passed, and says what would be right if it did not."""

    name: str
    problem: str = ""


class _Allowed(msgspec.Struct):
    allowed: bool = False


class _Review(msgspec.Struct):
    status: _Allowed = msgspec.field(default_factory=_Allowed)


def checks(cluster: Cluster, settings: Settings, routing: str) -> Iterator[Check]:
    """Run the checks one after the other; after the first two, each says something of its own.

    Args:
        routing: the routing ConfigMap, NAMESPACE/NAME.
    """
    try:
        cluster.call("GET", "/version", attempts=1)
    except ClusterError as error:
        yield Check("Kubernetes API", f"{error}")
        return
    yield Check("Kubernetes API")
    yield _namespace(cluster, settings)
    yield _crd(cluster, settings)
    for group, resource, verb in RIGHTS:
        yield _right(cluster, settings.namespace, group, resource, verb)
    yield _routing(cluster, routing)


def _namespace(cluster: Cluster, settings: Settings) -> Check:
    """Try to create something there: a namespace itself can be read with rights of the cluster only."""
    name = f"namespace {settings.namespace}"
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "polypod-check-"}}
    try:
        cluster.call("POST", secrets(settings.namespace), body, params={"dryRun": "All"}, attempts=1)
    except ClusterError as error:
        if error.status == 404:
            return Check(name, f"it does not exist: kubectl create namespace {settings.namespace}")
        # of rights, another check says more
        return Check(name, "" if error.status == 403 else str(error))
    return Check(name)


def _crd(cluster: Cluster, settings: Settings) -> Check:
    name = f"TaskRuns in namespace {settings.namespace}"
    try:
        params = {"labelSelector": f"{LABEL}={settings.airflow}", "limit": "1"}
        cluster.call("GET", collection(settings.namespace), params=params, attempts=1)
    except ClusterError as error:
        return Check(name, "the CRD is not installed; install Polypod's chart" if error.status == 404 else str(error))
    return Check(name)


def _right(cluster: Cluster, namespace: str, group: str, resource: str, verb: str) -> Check:
    plural, _, sub = resource.partition("/")
    attributes: dict[str, Any] = {"namespace": namespace, "verb": verb, "group": group, "resource": plural}
    if sub:
        attributes["subresource"] = sub
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    name = f"may {verb} {resource}"
    try:
        raw = cluster.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body, attempts=1)
    except ClusterError as error:
        return Check(name, str(error))
    if decode(raw, _Review).status.allowed:
        return Check(name)
    return Check(
        name,
        f"this ServiceAccount may not {verb} {resource} in namespace {namespace}; name it in the chart's "
        f"airflow.serviceAccounts, and have airflow.namespace and [polypod] namespace be the same",
    )


def _routing(cluster: Cluster, where: str) -> Check:
    namespace, _, name = where.partition("/")
    try:
        found = queues_of(cluster.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}", attempts=1), where)
    except RoutingProblem as error:
        return Check(f"routing {where}", f"{error}")
    except ClusterError as error:
        advice = {
            403: "name this ServiceAccount in the chart's airflow.serviceAccounts",
            404: "set [polypod] routing to the ConfigMap that Polypod's chart has created",
        }.get(error.status)
        return Check(f"routing {where}", f"{error}; {advice}" if advice else f"{error}")
    if not found:
        return Check(f"routing {where}", "it maps no queue; add queue_to_coordinator")
    return Check(f"routing {where} maps {', '.join(sorted(found))}")
