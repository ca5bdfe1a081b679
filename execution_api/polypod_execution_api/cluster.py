"""Pods as callers: a projected service account token says which pod it is, and the pod which TaskRun it is for.

No Secret is minted. The token (audience `polypod`) is checked against the cluster's own keys; the pod's name and uid
in it lead to the pod, that to its TaskRun, and that to the one task instance that the pod may act as.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from polypod_core.identity import pod_name, task_instance_id
from polypod_core.kinds import ATTEMPT_LABEL, TRY_LABEL, is_task_run, task_run_path
from polypod_core.pod_tokens import DISCOVERY, KEYS, KeyCache, PodClaims
from polypod_crds.taskrun import TaskRunSpec
from pydantic import ValidationError
from sqlalchemy.orm import Session

from polypod_execution_api import forgetting, registry
from polypod_execution_api.models import TaskInstance

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REMEMBERED = 10_000


class ClusterUnavailable(Exception):
    """The cluster's API server does not answer."""


class NotATask(Exception):
    """The caller is a pod, but not the pod of a TaskRun's attempt."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What a pod is for: remembered, as none of it changes in the pod's life."""

    run: registry.RunSpec
    task: registry.TaskSpec
    spec: registry.AttemptSpec
    namespace_uid: str


class ClusterAccess:
    """Knows pods by their tokens. May be used from several threads."""

    def __init__(self, server: str = "https://kubernetes.default.svc", account: Path = ACCOUNT) -> None:
        """Prepare; connects at the first call.

        Args:
            server: the API server.
            account: the folder with our own service account's token and the cluster's authority.
        """
        self._server = server
        self._account = account
        self._pool = urllib3.PoolManager(ca_certs=str(account / "ca.crt"), retries=urllib3.Retry(3, backoff_factor=0.2))
        self._lock = threading.Lock()
        self._keys = KeyCache()
        self._attempts: OrderedDict[str, _Attempt] = OrderedDict()

    def task_instance(self, token: str, db: Session) -> TaskInstance:
        """Return the task instance that the token's pod may act as; it is added if it is not there yet.

        Raises:
            InvalidToken: not a token of this cluster, not for us, or over.
            NotATask: the pod is not one of a TaskRun.
            StillRunning: the same task runs as part of another TaskRun.
            Replaced: the TaskRun has a later attempt.
            ClusterUnavailable: the API server does not answer.
        """
        claims = self.check(token)
        with self._lock:
            attempt = self._attempts.get(claims.uid)
        if attempt is not None:
            known = db.get(TaskInstance, attempt.spec.ti_id)
            if known is None or known.pod_uid != claims.uid:
                # replaced by a later attempt, or by another pod of this one: is it still what it was?
                attempt = None
        if attempt is None:
            attempt = self._look_up(claims)
            forgetting.enter_namespace(db, claims.namespace, attempt.namespace_uid)
            with self._lock:
                self._attempts[claims.uid] = attempt
                if len(self._attempts) > _REMEMBERED:
                    self._attempts.popitem(last=False)
        return registry.add_attempt(db, attempt.run, attempt.task, attempt.spec)

    def check(self, token: str) -> PodClaims:
        """Check a token against the cluster's keys.

        Raises:
            InvalidToken: the message says why.
            ClusterUnavailable: the keys cannot be read.
        """
        with self._lock:
            if self._keys.renew():
                # running tasks must not end because the cluster's API server restarts
                with contextlib.suppress(ClusterUnavailable):
                    self._read_keys()
            claims = self._keys.claims(token)
            if claims is None:
                self._read_keys()
                claims = self._keys.claims(token)
            assert claims is not None
            return claims

    def _read_keys(self) -> None:
        self._keys.put(self._get(DISCOVERY), self._get(KEYS))

    def _look_up(self, claims: PodClaims) -> _Attempt:
        pod = self._get(f"/api/v1/namespaces/{claims.namespace}/pods/{claims.name}")
        metadata = pod["metadata"]
        if metadata["uid"] != claims.uid:
            raise NotATask(f"pod {claims.name!r} is another one by now")
        owner: dict[str, Any] = next(
            (item for item in metadata.get("ownerReferences") or () if item.get("controller")), {}
        )
        labels = metadata.get("labels") or {}
        if not is_task_run(str(owner.get("apiVersion")), str(owner.get("kind"))):
            raise NotATask(f"pod {claims.name!r} is not one of a TaskRun")
        raw = self._get(task_run_path(claims.namespace, owner["name"]))
        if raw["metadata"]["uid"] != owner["uid"]:
            raise NotATask(f"TaskRun {owner['name']!r} is another one by now")
        try:
            spec = TaskRunSpec.model_validate(raw["spec"])
            number, try_number = int(labels[ATTEMPT_LABEL]), int(labels[TRY_LABEL])
        except (ValidationError, KeyError, ValueError) as error:
            raise NotATask(f"pod {claims.name!r} is not one that the operator has made: {error}") from None
        if claims.name != pod_name(owner["name"], owner["uid"], number):
            # somebody of the same namespace has given a pod of theirs the TaskRun as its owner
            raise NotATask(f"pod {claims.name!r} is not that of attempt {number} of TaskRun {owner['name']!r}")
        return _Attempt(
            namespace_uid=self.namespace_uid(claims.namespace),
            run=run_of(spec, claims.namespace),
            task=task_of(spec),
            spec=registry.AttemptSpec(
                ti_id=task_instance_id(owner["uid"], number),
                try_number=try_number,
                earlier=frozenset(task_instance_id(owner["uid"], other) for other in range(1, number)),
                taskrun_uid=owner["uid"],
                number=number,
                pod_uid=claims.uid,
            ),
        )

    def namespace_uid(self, name: str) -> str:
        """Return which namespace of that name there is.

        Raises:
            NotATask: there is none.
            ClusterUnavailable: the API server does not answer.
        """
        return str(self._get(f"/api/v1/namespaces/{name}")["metadata"]["uid"])

    def has_namespace(self, name: str) -> bool:
        """Tell whether there is a namespace of that name.

        Raises:
            ClusterUnavailable: the API server does not answer.
        """
        try:
            self.namespace_uid(name)
        except NotATask:
            return False
        return True

    def _get(self, path: str) -> Any:
        try:
            token = (self._account / "token").read_text("ascii").strip()
            headers = {"authorization": f"Bearer {token}", "accept": "application/json, application/jwk-set+json"}
            answer = self._pool.request("GET", self._server + path, headers=headers, timeout=10.0)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise ClusterUnavailable(f"the cluster's API server cannot be asked: {error}") from None
        if answer.status == 404:
            raise NotATask(f"{path} does not exist")
        if answer.status != 200:
            raise ClusterUnavailable(f"the cluster's API server answers {answer.status} to GET {path}")
        return answer.json()


def run_of(spec: TaskRunSpec, namespace: str = "") -> registry.RunSpec:
    """Return the run that a TaskRun of a namespace belongs to."""
    interval = spec.data_interval
    return registry.RunSpec(
        dag_id=spec.dag_id,
        run_id=spec.run_id,
        logical_date=spec.logical_date,
        data_interval_start=interval.start if interval else None,
        data_interval_end=interval.end if interval else None,
        conf=spec.params,
        namespace=namespace,
    )


def task_of(spec: TaskRunSpec) -> registry.TaskSpec:
    """Return the task that a TaskRun runs."""
    return registry.TaskSpec(
        task_id=spec.task_id,
        map_index=spec.map_index,
        queue=spec.queue,
        retries=spec.retries.limit,
        arg_bindings=bindings(spec),
    )


def bindings(spec: TaskRunSpec) -> list[dict[str, Any]] | None:
    """Return a TaskRun's arguments in the form of supervisor schema 2026-10-30."""
    if not spec.arguments:
        return None
    return [
        {"kind": "xcom", "name": argument.name, "task_id": argument.from_x_com.task_id}
        if argument.from_x_com is not None
        else {"kind": "literal", "name": argument.name, "value": argument.value, "from_default": False}
        for argument in spec.arguments
    ]
