"""TaskRuns on a cluster, by the official client: it knows every way that a kubeconfig lets people log in."""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import msgspec
from kubernetes import client, config
from polypod_core.errors import UserError, nearest
from polypod_core.files import check_file
from polypod_core.kinds import API_VERSION, PLURAL
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES
from polypod_crds.nesting import depth
from polypod_operator.kube.reading import decode
from yaml import YAMLError

from polypod_cli.server_clock import ServerClock

Raw = dict[str, Any]
_GROUP, _VERSION = API_VERSION.split("/")
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_MANAGER = "polypod"
_CONNECT, _SILENCE = 10.0, 60.0
"""Seconds for a connection, and for an answer: a large list takes a while."""
_READABLE = 200
"""Levels of an object; one that has more was cut by the decoder, at 256 of a whole answer."""
_config: Any = config
"""The module, whose functions have no types."""


class Cluster:
    """A namespace of a cluster, or all of them."""

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        """Connect.

        Args:
            context: of the kubeconfig; by default its current one.
            namespace: by default the context's.

        Raises:
            UserError: there is no cluster to be found.
        """
        where = _config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
        for path in where.split(os.pathsep):
            check_file(os.path.expanduser(path))
        try:
            _config.load_kube_config(context=context)
            active = next(
                item
                for item in _config.list_kube_config_contexts()[0]
                if item["name"] == (context or _config.list_kube_config_contexts()[1]["name"])
            )
            own = active["context"].get("namespace")
        except config.ConfigException as error:
            try:
                _config.load_incluster_config()
                own = None
            except config.ConfigException:
                raise UserError(Reason.INVALID_CONFIG, f"no cluster: {error}; set KUBECONFIG") from None
        except (YAMLError, AttributeError, KeyError, StopIteration, TypeError, ValueError):
            # the client checks little; what stands in the file may be a secret and is not shown
            raise UserError(Reason.INVALID_CONFIG, f"{where} is not a kubeconfig") from None
        self.namespace = namespace or own or "default"
        # typed as what they answer, which the client cannot know
        configuration: Any = client.Configuration.get_default_copy()
        # whoever calls knows how long it is worth waiting; urllib3 would also print each try
        configuration.retries = False
        if not all(text.isascii() and text.isprintable() for text in configuration.api_key.values()):
            problem = "the user's token has a character that no HTTP header holds, such as a line break at its end"
            raise UserError(Reason.INVALID_CONFIG, f"{where}: {problem}")
        api: Any = client.ApiClient(configuration)
        self._custom: Any = client.CustomObjectsApi(api)
        self._core: Any = client.CoreV1Api(api)
        self.clock = ServerClock()
        self._deadline: float | None = None
        self._said: set[tuple[str, str]] = set()

    def of(self, namespace: str) -> Cluster:
        """Return another namespace of the same cluster."""
        other = copy.copy(self)
        other.namespace = namespace
        return other

    def by(self, deadline: float | None) -> Cluster:
        """Return the same cluster, whose answers are waited for until a time on the monotonic clock at most."""
        other = copy.copy(self)
        other._deadline = deadline
        return other

    def apply(self, document: Mapping[str, Any], *, dry_run: bool = False) -> Raw:
        """Apply a TaskRun, ConfigMap or Secret, as `kubectl apply --server-side` does; return what is there then.

        Raises:
            UserError: the API server refuses it.
        """
        name = document["metadata"]["name"]
        namespace = document["metadata"].get("namespace") or self.namespace
        options: dict[str, Any] = {"field_manager": _MANAGER, "force": True, "_content_type": _APPLY}
        if dry_run:
            options["dry_run"] = "All"
        with self._errors(f"{document['kind']} {namespace}/{name}"):
            if document["kind"] == "TaskRun":
                # read by ourselves: the client knows only one of the two answers that there are
                answer = self._custom.patch_namespaced_custom_object(
                    _GROUP, _VERSION, namespace, PLURAL, name, dict(document), _preload_content=False, **options
                )
                return self._decoded(answer.data)
            write = {
                "ConfigMap": self._core.patch_namespaced_config_map,
                "Secret": self._core.patch_namespaced_secret,
            }[document["kind"]]
            write(name, namespace, dict(document), **options)
            return dict(document)

    def get(self, name: str, namespace: str = "") -> Raw:
        """Return a TaskRun, of this namespace unless another one is given.

        Raises:
            UserError: there is none of that name; similar ones are named.
        """
        namespace = namespace or self.namespace
        if not name:
            raise UserError(Reason.INVALID_CONFIG, "the name of a TaskRun is empty")
        try:
            return self._read(f"TaskRun {namespace}/{name}", f"{self.of(namespace)._path(False)}/{quote(name, '')}")
        except NotFound as error:
            names = [item["metadata"]["name"] for item in self.list(namespace)]
            raise UserError(Reason.INVALID_CONFIG, f"{error.message}{nearest(name, names)}") from None

    def list(self, namespace: str = "", *, everywhere: bool = False) -> Sequence[Raw]:
        """Return the TaskRuns of this namespace, of another one or of all."""
        items: Sequence[Raw] = self._read("TaskRuns", self.of(namespace or self.namespace)._path(everywhere))["items"]
        return items

    def cancel(self, name: str) -> Raw | None:
        """Ask for the end of a TaskRun; return it, unchanged, if it has ended already.

        Raises:
            UserError: there is none of that name, or it cannot be changed.
        """
        run = self.get(name)
        if (run.get("status") or {}).get("phase") in FINISHED_PHASES:
            return run
        with self._errors(f"TaskRun {self.namespace}/{name}"):
            self._custom.patch_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, PLURAL, name, {"spec": {"cancel": True}}, _content_type=_MERGE,
                _preload_content=False,
            )  # fmt: skip
        return None

    def pod(self, name: str) -> Raw | None:
        """Return a pod, None if it is gone."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{quote(name, '')}"
        try:
            return self._read(f"pod {self.namespace}/{name}", path)
        except NotFound:
            return None

    def events(self, uid: str) -> Sequence[Raw]:
        """Return the Events of an object; none, if we may not see them."""
        selector = [("fieldSelector", f"involvedObject.uid={uid}")]
        try:
            found: Sequence[Raw] = self._read("Events", f"/api/v1/namespaces/{self.namespace}/events", selector)[
                "items"
            ]
        except UserError:
            return []
        return found

    def create_pod(self, manifest: Raw) -> Raw:
        """Make a pod; return what is there then.

        Raises:
            UserError: the API server refuses it.
        """
        with self._errors(f"a pod in namespace {self.namespace}"):
            answer = self._core.create_namespaced_pod(self.namespace, manifest, _preload_content=False)
            found: Raw = json.loads(answer.data)
            return found

    def delete_pod(self, name: str) -> None:
        """Delete a pod, if it is there."""
        try:
            with self._errors(f"pod {self.namespace}/{name}"):
                self._core.delete_namespaced_pod(name, self.namespace, _preload_content=False)
        except NotFound:
            pass

    def log(self, pod: str, container: str, *, follow: bool, since: str | None = None) -> Iterator[bytes]:
        """Yield the lines of a container's log, without their ends.

        Args:
            since: have the time before each line, and leave out what is older than this (RFC 3339); empty: nothing.

        Raises:
            Unreachable: the connection broke; a line of which only a part has come is not yielded.
            UserError: it cannot be read.
        """
        query = [("container", container), ("follow", str(follow).lower())]
        query += [("timestamps", "true")] if since is not None else []
        query += [("sinceTime", since)] if since else []
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        yield from self._lines(path, query, None, f"the log of pod {self.namespace}/{pod}")

    def watch(self, version: str, seconds: float, *, everywhere: bool = False, name: str = "") -> Iterator[Raw]:
        """Yield the changes of TaskRuns after a version of their list, as the API server's watch has them.

        Args:
            seconds: after which it ends; the API server may end it earlier.
            name: of the only one that is wanted.

        Raises:
            Unreachable: the connection broke.
            UserError: it is refused.
        """
        query = [("watch", "true"), ("resourceVersion", version), ("timeoutSeconds", str(max(1, math.ceil(seconds))))]
        query += _selected(name)
        for line in self._lines(self._path(everywhere), query, seconds + _SILENCE, "TaskRuns"):
            try:
                yield self._decoded(line)
            except msgspec.DecodeError:
                raise Unreachable(Reason.INVALID_CONFIG, "TaskRuns: the watch ended within an event") from None

    def snapshot(self, *, everywhere: bool = False, name: str = "") -> tuple[Sequence[Raw], str]:
        """Return the TaskRuns, or the only one that is wanted, and the version from which they can be watched.

        Raises:
            Unreachable: there is no answer.
            UserError: it is refused.
        """
        found = self._read("TaskRuns", self._path(everywhere), _selected(name))
        return found["items"], found["metadata"]["resourceVersion"]

    def _read(self, what: str, path: str, query: Sequence[tuple[str, str]] = ()) -> Raw:
        """Return what a GET answers.

        Raises:
            NotFound: it is not there.
            Unreachable: there is no answer, or not a whole one.
            UserError: it is refused.
        """
        with self._errors(what):
            answer = self._open(path, query, _SILENCE)
            try:
                return self._decoded(answer.read())
            except msgspec.DecodeError:
                raise Unreachable(Reason.INVALID_CONFIG, f"{what}: the answer is not JSON") from None
            finally:
                answer.close()

    def _decoded(self, raw: bytes) -> Raw:
        """Return an object, a list or an event; what is nested too deep in it for any program is null, and said once.

        Raises:
            msgspec.DecodeError: it is no JSON.
        """
        found: Raw = decode(raw)
        for item in found.get("items") or [found.get("object") or found]:
            metadata = item.get("metadata") or {}
            name = (metadata.get("namespace", ""), metadata.get("name", ""))
            if name not in self._said and depth(item, _READABLE) > _READABLE:
                self._said.add(name)
                print(f"polypod: {'/'.join(name)} is nested too deep to be shown whole", file=sys.stderr)
        return found

    def _path(self, everywhere: bool) -> str:
        where = "" if everywhere else f"/namespaces/{self.namespace}"
        return f"/apis/{API_VERSION}{where}/{PLURAL}"

    def _lines(self, path: str, query: Sequence[tuple[str, str]], silence: float | None, what: str) -> Iterator[bytes]:
        with self._errors(what):
            answer = self._open(path, query, silence)
            rest = b""
            try:
                for chunk in answer.stream(65536):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from lines
            finally:
                answer.close()
        if rest:
            yield rest

    def _open(self, path: str, query: Sequence[tuple[str, str]], silence: float | None) -> Any:
        """Send a GET that the client's own functions cannot: they know no sinceTime, and read answers as a whole.

        Args:
            silence: the seconds without a byte after which the connection counts as broken.
        """
        left = math.inf if self._deadline is None else max(0.1, self._deadline - time.monotonic())
        timeout = (min(_CONNECT, left), None if silence is None else min(silence, left))
        api = self._core.api_client
        accept = {"Accept": "application/json, */*"}
        request = api.param_serialize(
            "GET", path, query_params=query, header_params=accept, auth_settings=["BearerToken"]
        )
        answer = api.call_api(*request, _request_timeout=timeout).response
        if answer.status >= 400:
            raise client.ApiException(
                status=answer.status, reason=answer.reason, body=answer.read().decode("utf-8", "replace")
            )
        self.clock.saw(answer.headers)
        return answer

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from urllib3.exceptions import HTTPError

        try:
            yield
        except client.ApiException as error:
            try:
                message = json.loads(error.body or "")["message"]
            except (TypeError, ValueError, KeyError, RecursionError):
                message = f"{error.status} {error.reason}"
            kinds = {404: NotFound, 429: Unreachable}
            kind = kinds.get(error.status, Unreachable if error.status >= 500 else UserError)
            raise kind(Reason.INVALID_CONFIG, f"{what}: {message}") from None
        except (HTTPError, OSError) as error:
            raise Unreachable(Reason.INVALID_CONFIG, f"{what}: the cluster does not answer: {error}") from None


def _selected(name: str) -> list[tuple[str, str]]:
    return [("fieldSelector", f"metadata.name={name}")] if name else []


class NotFound(UserError):
    """There is no such object."""


class Unreachable(UserError):
    """No answer was had, or only part of one, or the server is busy; the same may work in a moment."""
