"""What the operator has seen of the cluster: active TaskRuns and their pods. What is finished is let go."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from polypod_core.kinds import Key
from polypod_core.outcome import Outcome
from polypod_core.pod_tokens import PodClaims
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import Graph, Run
from polypod_crds.taskrun import TaskRunStatus

from polypod_operator.decide.decision import Earlier, Observed, QueuePosition, Refusal
from polypod_operator.kube.raw import Meta, version
from polypod_operator.model.objects import PodEvent, PodObject, TaskRunObject, slim
from polypod_operator.model.packed import Packed, coordinator_of, pack, pack_status, queue_of, unpack

Owner = tuple[str, str]
"""The namespace and uid of a TaskRun: a pod of another namespace is none of its, whatever its owner reference says."""
_LET_GO = 10_000
"""Of how many finished TaskRuns the last version is remembered: the watch still shows our last write to them."""
_UNANSWERED = 8
"""How many statuses of a TaskRun are remembered that were sent and had no answer."""


class LetGo(NamedTuple):
    """What is remembered of a TaskRun that is not kept any more.

    Attributes:
        status: its final status, packed; empty if it had none.
    """

    version: int
    digest: int
    status: bytes


class Store:
    """A cache, fed by watches and by the answers to our own writes."""

    def __init__(self) -> None:
        self._runs: dict[Key, TaskRunObject | Packed] = {}
        self._key_of: dict[str, Key] = {}
        self._pods: dict[Owner, dict[str, PodObject]] = {}
        self._absent: dict[str, set[str]] = {}
        self._refused: dict[str, dict[str, Refusal]] = {}
        self._rejected: dict[str, dict[str, str]] = {}
        self._events: dict[str, PodEvent | None] = {}
        self._looked: dict[str, datetime] = {}
        self._told: dict[str, Outcome] = {}
        self._closed: dict[str, datetime] = {}
        self._owner_of: dict[str, Owner] = {}
        self._let_go: OrderedDict[str, LetGo] = OrderedDict()
        self._sent: dict[str, deque[TaskRunStatus]] = {}
        self._earlier: dict[Run, Earlier] = {}
        self.graph = Graph()
        """Of all TaskRuns, those that have ended included."""

    def __len__(self) -> int:
        return len(self._runs)

    def task_runs(self) -> list[Key]:
        return list(self._runs)

    def uids(self) -> list[tuple[Key, str]]:
        """Return the keys and uids of all TaskRuns."""
        return [(key, run.uid) for key, run in self._runs.items()]

    def active(self) -> Iterator[tuple[str, str, str]]:
        """Yield of each TaskRun its phase, its queue and the coordinator of its last attempt."""
        for run in list(self._runs.values()):
            if isinstance(run, Packed):
                yield run.phase, run.queue, run.coordinator
            else:
                yield run.status.phase, queue_of(run), coordinator_of(run)

    def without_attempt(self) -> list[Key]:
        """Return the TaskRuns that have no pod, so that a new routing may matter to them."""
        return [key for key, run in self._runs.items() if (key[0], run.uid) not in self._pods]

    def run(self, key: Key) -> TaskRunObject | None:
        found = self._runs.get(key)
        if isinstance(found, Packed):
            found = self._runs[key] = unpack(key, found)
        return found

    def pack(self, key: Key) -> None:
        """Keep a TaskRun in little room until it is asked for; one that has pods is asked for soon."""
        run = self._runs.get(key)
        if isinstance(run, TaskRunObject) and not self.has_pods(run.namespace, run.uid):
            self._runs[key] = pack(run) or run

    def put_run(self, run: TaskRunObject) -> None:
        """Take over a TaskRun, unless a newer one is here already."""
        old = self._runs.get(run.key)
        if old is not None and old.uid != run.uid:
            self.forget(run.key)
        elif old is not None and version(old.resource_version) > version(run.resource_version):
            return
        # the same objects everywhere: there may be very many
        key = self._key_of.setdefault(run.uid, run.key)
        self._runs[key] = slim(run)

    def forget(self, key: Key) -> None:
        """Let a TaskRun go, and all that was known of its pods."""
        run = self._runs.pop(key, None)
        if run is None:
            return
        self._key_of.pop(run.uid, None)
        final = isinstance(run, TaskRunObject) and run.status.phase in FINISHED_PHASES
        last = (run.digest, pack_status(run.status)) if isinstance(run, TaskRunObject) and final else (0, b"")
        self._let_go[run.uid] = LetGo(version(run.resource_version), *last)
        self._sent.pop(run.uid, None)
        if len(self._let_go) > _LET_GO:
            self._let_go.popitem(last=False)
        for pod in self._pods.pop((key[0], run.uid), {}).values():
            self._events.pop(pod.uid, None)
            self._looked.pop(pod.uid, None)
            self._told.pop(pod.uid, None)
            self._closed.pop(pod.uid, None)
            self._owner_of.pop(pod.uid, None)
        self._absent.pop(run.uid, None)
        self._refused.pop(run.uid, None)
        self._rejected.pop(run.uid, None)

    def put_pod(self, pod: PodObject) -> Key | None:
        """Take over a pod; return the key of its TaskRun, if that is here. One that no TaskRun controls is left out."""
        if not pod.owner:
            return None
        owner = (pod.namespace, pod.owner)
        key = self._owner_key(owner)
        if pod.uid in self._rejected.get(pod.owner, ()):
            # that it is gone at last is news
            return key if pod.gone else None
        if key is None and pod.over:
            # of a TaskRun that has finished; should it still be on its way to us, the pod is asked for again
            pods = self._pods.get(owner, {})
            pods.pop(pod.name, None)
            self._owner_of.pop(pod.uid, None)
            if not pods:
                self._pods.pop(owner, None)
            return None
        old = self._pods.get(owner, {}).get(pod.name)
        if old is not None and old.uid == pod.uid and (old.version > pod.version or (old.gone and not pod.gone)):
            # a list that was read before the watch told us more
            return key
        self._pods.setdefault(owner, {})[pod.name] = pod
        self._owner_of[pod.uid] = owner
        self._absent.get(pod.owner, set()).discard(pod.name)
        self._refused.get(pod.owner, {}).pop(pod.name, None)
        return key

    def _owner_key(self, owner: Owner) -> Key | None:
        namespace, uid = owner
        key = self._key_of.get(uid)
        return key if key is not None and key[0] == namespace else None

    def knows_pod(self, meta: Meta) -> bool:
        """Tell whether a pod, as a watch shows it, has not changed: most often it is our own write."""
        owner = self._owner_of.get(meta.uid)
        pod = self._pods.get(owner, {}).get(meta.name) if owner is not None else None
        return pod is not None and pod.uid == meta.uid and pod.version >= version(meta.resource_version)

    def knows_run(self, meta: Meta) -> bool:
        """Likewise, for a TaskRun."""
        run = self._runs.get((meta.namespace, meta.name))
        if run is not None and run.uid == meta.uid:
            return version(run.resource_version) >= version(meta.resource_version)
        last = self._let_go.get(meta.uid)
        return last is not None and last.version >= version(meta.resource_version)

    def let_go(self, uid: str) -> LetGo | None:
        """Return what is remembered of a TaskRun that is not kept any more."""
        return self._let_go.get(uid)

    def put_sent(self, run: TaskRunObject, status: TaskRunStatus | None) -> None:
        """Note a status that is sent to the API server; None: it has answered, so that we know what is there."""
        if status is None:
            self._sent.pop(run.uid, None)
        else:
            # several may be without an answer, and any of them be the one that is there
            self._sent.setdefault(run.uid, deque(maxlen=_UNANSWERED)).append(status)

    def was_sent(self, run: TaskRunObject) -> bool:
        """Tell whether the status of a TaskRun, as it is shown, is one that we have sent and had no answer for."""
        return run.status in self._sent.get(run.uid, ())

    def has_pods(self, namespace: str, uid: str) -> bool:
        return (namespace, uid) in self._pods

    def has_live_pods(self, namespace: str, uid: str) -> bool:
        return any(not pod.over for pod in self._pods.get((namespace, uid), {}).values())

    def pods(self) -> list[PodObject]:
        return [pod for pods in self._pods.values() for pod in pods.values()]

    def orphans(self) -> list[PodObject]:
        """Return the pods that may still run and whose TaskRun is not here."""
        return [
            pod for owner, pods in self._pods.items() if self._owner_key(owner) is None
            for pod in pods.values() if not pod.over
        ]  # fmt: skip

    def put_absent(self, run: TaskRunObject, name: str) -> None:
        """Note that the API server has no pod of that name."""
        self._absent.setdefault(run.uid, set()).add(name)

    def put_asked(self, run: TaskRunObject, name: str) -> None:
        """Note that the API server is asked to create a pod: whether it is there is not known any more."""
        self._absent.get(run.uid, set()).discard(name)

    def put_refusal(self, run: TaskRunObject, name: str, refusal: Refusal) -> None:
        refused = self._refused.setdefault(run.uid, {})
        before = refused.get(name)
        # that we have not even asked makes no pause longer
        more = 0 if refusal.reason is Reason.CREATING_POD else 1
        refused[name] = replace(refusal, times=before.times + more) if before is not None else refusal

    def put_rejected(self, run: TaskRunObject, uid: str, why: str) -> None:
        """Note that a pod is not what was asked for: it is deleted, and is no attempt's."""
        self._rejected.setdefault(run.uid, {})[uid] = why
        pods = self._pods.get((run.namespace, run.uid), {})
        for name in [name for name, pod in pods.items() if pod.uid == uid]:
            # the watch was faster than the answer
            del pods[name], self._owner_of[uid]
        if not pods:
            self._pods.pop((run.namespace, run.uid), None)

    def rejected(self, run: TaskRunObject, uid: str) -> str:
        """Return why a pod was rejected; empty if it was not."""
        return self._rejected.get(run.uid, {}).get(uid, "")

    def put_earlier(self, run: Run, earlier: Earlier) -> None:
        """Note what the Execution API has said of tasks without a TaskRun, beside what it has said before."""
        known = self._earlier.get(run, Earlier())
        self._earlier[run] = replace(earlier, ended={**known.ended, **earlier.ended})

    def leave_graph(self, key: Key) -> set[Key]:
        """Take a TaskRun that was deleted out of the order of its run; return those that wait for its task.

        The Execution API is asked again how it has ended.
        """
        node = self.graph.node(key)
        waiting = self.graph.forget(key)
        known = self._earlier.pop(node.run, None) if node is not None else None
        if node is not None and known is not None and self.graph.holds(node.run):
            ended = {name: state for name, state in known.ended.items() if name != node.task_id}
            self._earlier[node.run] = replace(known, ended=ended)
        return waiting

    def put_look(self, uid: str, when: datetime, event: PodEvent | None) -> None:
        """Note that a pod's Events were looked at, and the one among them that says most."""
        self._looked[uid] = when
        self._events[uid] = event

    def put_reported(self, claims: PodClaims, outcome: Outcome) -> Key | None:
        """Note the outcome that a pod's bridge has sent; return the key of its TaskRun, None if that is not here."""
        owner = self._owner_of.get(claims.uid)
        key = self._owner_key(owner) if owner is not None else None
        if key is not None:
            # the first word counts, as with the termination message
            self._told.setdefault(claims.uid, outcome)
        return key

    def note_closed(self, run: TaskRunObject, now: datetime) -> None:
        """Note since when attempts in the status are seen to be closed, for as long as their pods are there."""
        pods = self._pods.get((run.namespace, run.uid), {})
        for attempt in run.status.attempts if pods else ():
            pod = pods.get(attempt.pod_name or "")
            if pod is not None and attempt.state not in ("queued", "running"):
                # the clock may be set back
                self._closed[pod.uid] = min(self._closed.get(pod.uid, now), now)

    def observed(self, run: TaskRunObject, turn: QueuePosition | None = None) -> Observed:
        """Return what there is around a TaskRun."""
        pods = self._pods.get((run.namespace, run.uid), {})
        uids = [pod.uid for pod in pods.values()]
        node = self.graph.node(run.key)
        earlier = self._earlier.get(node.run, Earlier()) if node is not None else Earlier()
        return Observed(
            pods=pods,
            absent=frozenset(self._absent.get(run.uid, ())),
            refused=self._refused.get(run.uid, {}),
            events={uid: event for uid in uids if (event := self._events.get(uid)) is not None},
            events_checked_at={uid: self._looked[uid] for uid in uids if uid in self._looked},
            closed_since={uid: self._closed[uid] for uid in uids if uid in self._closed},
            reported={uid: self._told[uid] for uid in uids if uid in self._told},
            queue_position=turn,
            upstream=None if run.status.attempts or pods else self.graph.judge(run.key, earlier.ended),
            earlier=earlier,
        )
