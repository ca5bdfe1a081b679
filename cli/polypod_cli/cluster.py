"""TaskRuns on a cluster, by the official client: it knows every way that a kubeconfig lets people log in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config
from polypod_core.errors import UserError, nearest
from polypod_core.kinds import API_VERSION, PLURAL
from polypod_core.reasons import Reason

Raw = dict[str, Any]
_GROUP, _VERSION = API_VERSION.split("/")
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_MANAGER = "polypod"
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
        self.namespace = namespace or own or "default"
        # typed as what they answer, which the client cannot know
        self._custom: Any = client.CustomObjectsApi()
        self._core: Any = client.CoreV1Api()

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
                found: Raw = json.loads(answer.data)
                return found
            write = {
                "ConfigMap": self._core.patch_namespaced_config_map,
                "Secret": self._core.patch_namespaced_secret,
            }[document["kind"]]
            write(name, namespace, dict(document), **options)
            return dict(document)

    def get(self, name: str) -> Raw:
        """Return a TaskRun.

        Raises:
            UserError: there is none of that name; similar ones are named.
        """
        try:
            with self._errors(f"TaskRun {self.namespace}/{name}"):
                found: Raw = self._custom.get_namespaced_custom_object(_GROUP, _VERSION, self.namespace, PLURAL, name)
                return found
        except _NotFound as error:
            names = [item["metadata"]["name"] for item in self.list()]
            raise UserError(Reason.INVALID_CONFIG, f"{error.message}{nearest(name, names)}") from None

    def list(self, *, everywhere: bool = False) -> list[Raw]:
        """Return the TaskRuns, of the namespace or of all."""
        with self._errors("TaskRuns"):
            if everywhere:
                found = self._custom.list_cluster_custom_object(_GROUP, _VERSION, PLURAL)
            else:
                found = self._custom.list_namespaced_custom_object(_GROUP, _VERSION, self.namespace, PLURAL)
        items: list[Raw] = found["items"]
        return items

    def cancel(self, name: str) -> None:
        """Ask for the end of a TaskRun.

        Raises:
            UserError: there is none of that name, or it cannot be changed.
        """
        self.get(name)
        with self._errors(f"TaskRun {self.namespace}/{name}"):
            self._custom.patch_namespaced_custom_object(
                _GROUP, _VERSION, self.namespace, PLURAL, name, {"spec": {"cancel": True}}, _content_type=_MERGE
            )

    def pod(self, name: str) -> Raw | None:
        """Return a pod, None if it is gone."""
        try:
            with self._errors(f"pod {self.namespace}/{name}"):
                answer = self._core.read_namespaced_pod(name, self.namespace)
                serializer: Any = client.ApiClient()
                found: Raw = serializer.sanitize_for_serialization(answer)
                return found
        except _NotFound:
            return None

    def events(self, uid: str) -> Sequence[Raw]:
        """Return the Events of an object; none, if we may not see them."""
        try:
            with self._errors("Events"):
                answer = self._core.list_namespaced_event(
                    self.namespace, field_selector=f"involvedObject.uid={uid}", _preload_content=False
                )
                found: Sequence[Raw] = json.loads(answer.data)["items"]
                return found
        except UserError:
            return []

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
        except _NotFound:
            pass

    def log(self, pod: str, container: str, *, follow: bool) -> Iterator[bytes]:
        """Yield the lines of a container's log, without their ends.

        Raises:
            UserError: it cannot be read.
        """
        with self._errors(f"the log of pod {self.namespace}/{pod}"):
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=container, follow=follow, _preload_content=False
            )
        rest = b""
        for chunk in answer.stream(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
        if rest:
            yield rest

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from urllib3.exceptions import HTTPError

        try:
            yield
        except client.ApiException as error:
            try:
                message = json.loads(error.body or "")["message"]
            except (TypeError, ValueError, KeyError):
                message = f"{error.status} {error.reason}"
            kind = _NotFound if error.status == 404 else UserError
            raise kind(Reason.INVALID_CONFIG, f"{what}: {message}") from None
        except (HTTPError, OSError) as error:
            raise UserError(Reason.INVALID_CONFIG, f"{what}: the cluster does not answer: {error}") from None


class _NotFound(UserError):
    pass
