"""What the operator has seen of the cluster: active TaskRuns and their pods. What is finished is let go."""

from __future__ import annotations

from datetime import datetime

from polypod_operator.objects import PodObject, TaskRunObject, version
from polypod_operator.reconcile import Refusal, World

Key = tuple[str, str]
"""Namespace and name of a TaskRun."""


class Store:
    """A cache, fed by watches and by the answers to our own writes."""

    def __init__(self) -> None:
        self._runs: dict[Key, TaskRunObject] = {}
        self._key_of: dict[str, Key] = {}
        self._pods: dict[str, dict[str, PodObject]] = {}
        self._absent: dict[str, set[str]] = {}
        self._refused: dict[str, dict[str, Refusal]] = {}
        self._warnings: dict[str, str] = {}
        self._looked: dict[str, datetime] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def task_runs(self) -> list[Key]:
        return list(self._runs)

    def run(self, key: Key) -> TaskRunObject | None:
        return self._runs.get(key)

    def put_run(self, run: TaskRunObject) -> None:
        """Take over a TaskRun, unless a newer one is here already."""
        old = self._runs.get(run.key)
        if old is not None and old.uid != run.uid:
            self.forget(run.key)
        elif old is not None and version(old.resource_version) > version(run.resource_version):
            return
        self._runs[run.key] = run
        self._key_of[run.uid] = run.key

    def forget(self, key: Key) -> None:
        """Let a TaskRun go, and all that was known of its pods."""
        run = self._runs.pop(key, None)
        if run is None:
            return
        self._key_of.pop(run.uid, None)
        for pod in self._pods.pop(run.uid, {}).values():
            self._warnings.pop(pod.uid, None)
            self._looked.pop(pod.uid, None)
        self._absent.pop(run.uid, None)
        self._refused.pop(run.uid, None)

    def put_pod(self, pod: PodObject) -> Key | None:
        """Take over a pod; return the key of its TaskRun, if that is here."""
        key = self._key_of.get(pod.owner)
        over = pod.gone or pod.phase in ("Succeeded", "Failed")
        if key is None and over:
            # of a TaskRun that has finished; should it still be on its way to us, the pod is asked for again
            pods = self._pods.get(pod.owner, {})
            pods.pop(pod.name, None)
            if not pods:
                self._pods.pop(pod.owner, None)
            return None
        old = self._pods.get(pod.owner, {}).get(pod.name)
        if old is not None and old.uid == pod.uid and (old.version > pod.version or (old.gone and not pod.gone)):
            # a list that was read before the watch told us more
            return key
        self._pods.setdefault(pod.owner, {})[pod.name] = pod
        self._absent.get(pod.owner, set()).discard(pod.name)
        self._refused.get(pod.owner, {}).pop(pod.name, None)
        return key

    def pods(self) -> list[PodObject]:
        return [pod for pods in self._pods.values() for pod in pods.values()]

    def put_absent(self, run: TaskRunObject, name: str) -> None:
        """Note that the API server has no pod of that name."""
        self._absent.setdefault(run.uid, set()).add(name)

    def put_refusal(self, run: TaskRunObject, name: str, refusal: Refusal) -> None:
        self._refused.setdefault(run.uid, {})[name] = refusal

    def put_look(self, uid: str, when: datetime, warning: str) -> None:
        """Note that a pod's Events were looked at, and the last warning among them."""
        self._looked[uid] = when
        self._warnings[uid] = warning

    def world(self, run: TaskRunObject) -> World:
        """Return what there is around a TaskRun."""
        pods = self._pods.get(run.uid, {})
        uids = [pod.uid for pod in pods.values()]
        return World(
            pods=pods,
            absent=frozenset(self._absent.get(run.uid, ())),
            refused=self._refused.get(run.uid, {}),
            warnings={uid: self._warnings[uid] for uid in uids if uid in self._warnings},
            looked={uid: self._looked[uid] for uid in uids if uid in self._looked},
        )
