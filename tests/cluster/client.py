"""Reads and writes a cluster over one HTTP connection, as each kubectl takes a sixth of a second of a processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from cluster.control_plane import Reached

Raw = dict[str, Any]
CORE, APPS, TASKRUNS = "api/v1", "apis/apps/v1", "apis/polypod.dev/v1alpha1"
KINDS = {
    "pod": (CORE, "pods"), "event": (CORE, "events"), "secret": (CORE, "secrets"), "service": (CORE, "services"),
    "resourcequota": (CORE, "resourcequotas"), "serviceaccount": (CORE, "serviceaccounts"), "configmap": (CORE, "configmaps"), "node": (CORE, "nodes"),
    "namespace": (CORE, "namespaces"), "persistentvolume": (CORE, "persistentvolumes"), "persistentvolumeclaim": (CORE, "persistentvolumeclaims"),
    "deployment": (APPS, "deployments"), "lease": ("apis/coordination.k8s.io/v1", "leases"), "taskrun": (TASKRUNS, "taskruns"),
}  # fmt: skip
GLOBAL = frozenset({"nodes", "namespaces", "persistentvolumes"})


class Unreadable(Exception):
    """What only kubectl can read."""


class Client:
    """One of our own clusters, read as its administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        reached = Reached.by(kubeconfig)
        self._server = reached.server
        self._headers = {"authorization": f"Bearer {reached.token}"}
        # an API server that restarts is waited for, as kubectl's callers do
        retries = urllib3.Retry(6, backoff_factor=0.3, status=0, respect_retry_after_header=False)
        self._pool = urllib3.PoolManager(ca_certs=reached.authority, retries=retries, timeout=60.0)

    def get(self, *arguments: str) -> Raw:
        """Return what `kubectl get` with these arguments returns as JSON."""
        found = self._ask(_path(arguments))
        assert found.status == 200, f"get {' '.join(arguments)}: {found.status} {found.data[:500]!r}"
        raw: Raw = json.loads(found.data)
        return raw

    def columns(self, *arguments: str) -> dict[str, Any]:
        """Return what `kubectl get` prints of an object, by column; nothing else of it is read, however deep it is."""
        url = f"{self._server}/{_path(arguments)}?includeObject=None"
        headers = {**self._headers, "accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        found = self._pool.request("GET", url, headers=headers)
        assert found.status == 200, f"get {' '.join(arguments)}: {_message(found)}"
        table = json.loads(found.data)
        names = (column["name"] for column in table["columnDefinitions"])
        return dict(zip(names, table["rows"][0]["cells"], strict=True))

    def has(self, *arguments: str) -> bool:
        """Tell whether there is such an object."""
        found = self._ask(_path(arguments))
        assert found.status in (200, 404), f"get {' '.join(arguments)}: {_message(found)}"
        return found.status == 200

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """Return a container's log; empty if it has none."""
        found = self._ask(f"{CORE}/namespaces/{namespace}/pods/{pod}/log?container={container}")
        return found.data.decode("utf-8", "replace") if found.status == 200 else ""

    def text(self, path: str) -> str:
        """Return what `kubectl get --raw` returns."""
        found = self._ask(path.lstrip("/"))
        assert found.status == 200, f"{path}: {found.status} {found.data[:500]!r}"
        return found.data.decode()

    def create(self, document: Raw, namespace: str = "") -> bool:
        """Create an object, with kubectl's strictness about its fields; return False if there is one of this name.

        Raises:
            AssertionError: it was refused.
        """
        path = f"{_collection(document, namespace)}?fieldValidation=Strict"
        done = self._ask(path, "POST", document)
        assert done.status in (201, 409), f"create {document['kind']} {_name(document)}: {_message(done)}"
        return done.status == 201

    def merge(self, kind: str, namespace: str, name: str, change: Raw) -> None:
        """Change an object by a merge patch.

        Raises:
            AssertionError: it was refused.
        """
        done = self._ask(_path(("-n", namespace, kind, name)), "PATCH", change, "application/merge-patch+json")
        assert done.status == 200, f"patch {kind} {name}: {_message(done)}"

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object, and wait for nothing.

        Raises:
            AssertionError: it was refused.
        """
        done = self._ask(_path(("-n", namespace, kind, name)), "DELETE")
        assert done.status in (200, 202, 404), f"delete {kind} {name}: {_message(done)}"

    def _ask(
        self, path: str, method: str = "GET", body: Raw | None = None, content_type: str = "application/json"
    ) -> urllib3.BaseHTTPResponse:
        headers = self._headers if body is None else {**self._headers, "content-type": content_type}
        data = None if body is None else json.dumps(body).encode()
        return self._pool.request(method, f"{self._server}/{path}", headers=headers, body=data)


def _name(document: Raw) -> str:
    return str(document["metadata"].get("name"))


def _message(answer: urllib3.BaseHTTPResponse) -> str:
    try:
        return f"{answer.status} {json.loads(answer.data)['message']}"
    except (ValueError, KeyError):
        return f"{answer.status} {answer.data[:500]!r}"


def _collection(document: Raw, namespace: str) -> str:
    """Return where objects like this one are created."""
    version, kind = document["apiVersion"], document["kind"].lower()
    plural = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"
    group = f"{'apis' if '/' in version else 'api'}/{version}"
    place = document["metadata"].get("namespace", namespace)
    return f"{group}/namespaces/{place}/{plural}" if place and plural not in GLOBAL else f"{group}/{plural}"


def _path(arguments: tuple[str, ...]) -> str:
    namespace, selector, words = "default", "", []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "-n":
            namespace = rest.pop(0)
        elif word == "-l":
            selector = rest.pop(0)
        elif word == "-A":
            namespace = ""
        elif word.startswith("-l="):
            selector = word.removeprefix("-l=")
        elif word.startswith("-"):
            raise Unreadable(f"unknown option {word!r}")
        else:
            words.append(word)
    kind, *name = words
    if kind.removesuffix("s") not in KINDS:
        raise Unreadable(f"unknown kind {kind!r}")
    group, plural = KINDS[kind.removesuffix("s")]
    place = plural if plural in GLOBAL or not namespace else f"namespaces/{quote(namespace)}/{plural}"
    query = f"?{urlencode({'labelSelector': selector})}" if selector else ""
    return "/".join([group, place, *(quote(item) for item in name)]) + query
