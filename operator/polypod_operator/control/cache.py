"""What is seen of TaskRuns and pods goes into the store, the queues and the work queue. No call to the API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from polypod_core.kinds import Key
from polypod_core.outcome import Outcome
from polypod_core.pod_tokens import PodClaims
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import Node, ended
from polypod_crds.taskrun import TaskRunStatus

from polypod_operator.control.recorder import Recorder
from polypod_operator.decide.queues import Queues, rank
from polypod_operator.decide.store import Store
from polypod_operator.kube.api import MANAGER
from polypod_operator.kube.raw import Meta, Raw, version
from polypod_operator.kube.workqueue import WorkQueue
from polypod_operator.model import events, objects, recorded
from polypod_operator.model.objects import PodObject, TaskRunObject
from polypod_operator.model.packed import unpack_status
from polypod_operator.model.recorded import UNDER_WAY
from polypod_operator.serve.metrics import Metrics

log = logging.getLogger("polypod.operator")


class Cache:
    """What is known, and who is to be looked at because of it.

    Attributes:
        unread: TaskRuns of which only the metadata was shown, as they are large.
        let_go: called with the key of a TaskRun that is not kept any more.
    """

    def __init__(self, queue: WorkQueue[Key], recorder: Recorder, metrics: Metrics) -> None:
        self.store, self.queue, self.places = Store(), queue, Queues()
        self.unread: set[Key] = set()
        self.let_go: Callable[[Key], None] = lambda key: None
        self._recorder, self._metrics = recorder, metrics
        self._telling: set[asyncio.Future[None]] = set()
        metrics.depths = self.places.depths
        queue.urgent, queue.age = self._is_urgent, self._created

    def _created(self, key: Key) -> float:
        """Return when a TaskRun was created: no priority, as one tenant's must not put another's off."""
        run = self.store.run(key)
        return run.created.timestamp() if run is not None else 0.0

    def _is_urgent(self, key: Key) -> bool:
        """Tell whether a TaskRun lacks nothing but its pod, or is to end because somebody has asked for it."""
        run = self.store.run(key)
        if run is None or run.status.phase in FINISHED_PHASES:
            return False
        if run.spec is None or run.deleting or run.spec.cancel or run.spec.suspend:
            return True
        last = run.status.attempts[-1] if run.status.attempts else None
        ended = last is not None and last.state not in ("queued", "running")
        if self.store.has_live_pods(run.namespace, run.uid) or (
            self.store.has_pods(run.namespace, run.uid) and not ended
        ):
            # its pod is there, or has ended, which is to be written down
            return False
        mine = rank(run.spec.priority, run.created, run.key)
        return self.places.turn(key, run.spec.queue, mine) is None

    # TaskRuns.

    def saw_run(self, raw: Raw, deleted: bool) -> None:
        """Take a TaskRun over as the watch shows it; one that cannot be read harms no other."""
        try:
            self._take_run(raw, deleted)
        except Exception as error:
            self.unreadable(raw, f"TaskRun cannot be parsed: {type(error).__name__}: {error}")

    def saw_large_run(self, raw: Raw) -> None:
        """Take note of a TaskRun of which only the metadata is shown, as it is large; it is read in its turn."""
        key: Key = (raw["metadata"]["namespace"], raw["metadata"]["name"])
        self.unread.add(key)
        self.queue.add(key)

    def _take_run(self, raw: Raw, deleted: bool) -> None:
        metadata = raw["metadata"]
        key: Key = (metadata["namespace"], metadata["name"])
        known = self.store.run(key)
        if deleted:
            if known is not None and known.uid == metadata["uid"]:
                self.lost(known)
            else:
                self.leave_graph(key, metadata["uid"])
            return
        if self.store.knows_run(Meta(*key[::-1], metadata["uid"], metadata["resourceVersion"])):
            # it was news when the watch read it, but a write of ours has overtaken it since
            return
        run = self.read(raw)
        if run is not None:
            self.queue.add(key)
            if not self._is_urgent(key):
                self.store.pack(key)

    def read(self, raw: Raw, *, reparse: bool = False) -> TaskRunObject | None:
        """Take over a TaskRun that is there; return it, None if nothing is left to do for it.

        Args:
            reparse: parse all of its spec, also if that has not changed.
        """
        known = self.store.run((raw["metadata"]["namespace"], raw["metadata"]["name"]))
        final = self._final(raw) if known is None else None
        if known is None and final is None and self._is_finished(raw):
            status = raw.get("status") or {}
            self.put_node(objects.node(raw, None, ended(status["phase"], status.get("state"))))
            return None
        run = objects.task_run(raw, None if reparse else known)
        if final is not None:
            # nobody makes what has ended run once more
            run = replace(run, status=final, altered=True)
        if known is None and run.altered:
            self._report_edit(raw)
        self.put_run(run, raw)
        if known is None or known.uid != run.uid:
            self._seat(run)
        return run

    def _is_finished(self, raw: Raw) -> bool:
        """Tell whether nothing is left to do for a TaskRun, without reading all of it: there may be very many."""
        return (
            (raw.get("status") or {}).get("phase") in FINISHED_PHASES
            and not any(item.get("state") in UNDER_WAY for item in raw["status"].get("attempts") or ())
            # an edit after the end is looked at once more, so that it shows as seen
            and raw["status"].get("observedGeneration") == raw["metadata"].get("generation", 1)
            and "ttlSecondsAfterFinished" not in raw["spec"]
            and not self.store.has_pods(raw["metadata"]["namespace"], raw["metadata"]["uid"])
        )

    def _seat(self, run: TaskRunObject) -> None:
        """Put a TaskRun that is new to us into its queue, so that it is served in its turn and not as it was read."""
        if self.places.where(run.key) != "none" or run.spec is None or self.store.graph.judge(run.key) is not None:
            return
        attempts = run.status.attempts
        active = bool(attempts) and attempts[-1].state in ("queued", "running") and attempts[-1].pod_uid is not None
        holds = active or self.store.has_live_pods(run.namespace, run.uid)
        if holds or not (run.spec.cancel or run.spec.suspend):
            mine = rank(run.spec.priority, run.created, run.key)
            self.wake(self.places.put(run.key, run.spec.queue, mine, "holds" if holds else "waits"))

    def put_run(self, run: TaskRunObject, raw: Raw) -> None:
        """Take a TaskRun over; one of its name that was there before is lost."""
        known = self.store.run(run.key)
        if known is not None and known.uid != run.uid:
            self.lost(known)
        elif known is not None:
            run = self._as_we_know_it(run, known, raw)
        self.store.put_run(run)
        self.put_node(objects.node(raw, run.spec, ended(run.status.phase, run.status.state)))

    def _as_we_know_it(self, run: TaskRunObject, known: TaskRunObject, raw: Raw) -> TaskRunObject:
        """Return a TaskRun that is read again with the status that we have written, if somebody has changed that."""
        if run.digest == known.digest:
            return replace(run, status=known.status, altered=known.altered)
        if version(run.resource_version) <= version(known.resource_version) or self.store.was_sent(run):
            return run
        if run.status.phase in FINISHED_PHASES and not run.altered and recorded.managers(raw) == {MANAGER}:
            # the last word of an operator that led before us, which was under way when we read everything
            return run
        self._report_edit(raw)
        return replace(run, status=known.status, altered=True)

    def _final(self, raw: Raw) -> TaskRunStatus | None:
        """Return the final status of a TaskRun that had finished, if what it shows now is another one."""
        metadata = raw["metadata"]
        last = self.store.let_go(metadata["uid"])
        if last is not None and last.status:
            changed = recorded.digest(raw) != last.digest and version(metadata["resourceVersion"]) > last.version
            return unpack_status(last.status) if changed else None
        node = self.store.graph.node((metadata["namespace"], metadata["name"]))
        if node is None or node.uid != metadata["uid"] or node.ended is None:
            return None
        shown = raw.get("status") or {}
        phase, state = shown.get("phase", ""), shown.get("state")
        if ended(phase, state) == node.ended and recorded.agree(phase, state):
            return None
        return recorded.as_ended(recorded.read(raw)[0], node.ended, datetime.fromtimestamp(node.created, UTC))

    def _report_edit(self, raw: Raw) -> None:
        """Say that somebody else has written to a status."""
        who = ", ".join(sorted(recorded.managers(raw) - {MANAGER}))
        message = f"the status was changed{f' by {who}' if who else ''}; only the operator writes it, and restores it"
        about = events.about_object(raw)
        log.warning("TaskRun %s/%s: %s", about["namespace"], about["name"], message)
        self._tell(about, Reason.STATUS_EDITED, message)

    def lost(self, run: TaskRunObject) -> None:
        """Let a TaskRun go that was deleted; a pod of it that still runs holds its place until it has ended."""
        self.leave_graph(run.key, run.uid)
        alive = [pod for pod in self.store.observed(run).pods.values() if not pod.over]
        self.forget(run.key)
        for pod in alive:
            # known still, so that its end is noticed
            self.store.put_pod(pod)
            self._keep_place(pod)

    def forget(self, key: Key) -> None:
        """Let a TaskRun go for which nothing is left to do."""
        self.store.forget(key)
        self.queue.forget(key)
        self.wake(self.places.forget(key))
        self.let_go(key)

    # The order of a run's tasks.

    def put_node(self, node: Node) -> None:
        """Take a TaskRun over into the order of its run, and look at those that wait for it if that is news."""
        self._wake_by_age(self.store.graph.put(node))

    def leave_graph(self, key: Key, uid: str) -> None:
        """Have those that wait for a TaskRun that was deleted learn how it had ended."""
        node = self.store.graph.node(key)
        if node is not None and node.uid == uid:
            self._wake_by_age(self.store.leave_graph(key))

    def _wake_by_age(self, keys: set[Key]) -> None:
        if keys:
            nodes = (self.store.graph.node(key) for key in keys)
            self.wake([node.key for node in sorted(filter(None, nodes), key=lambda node: (node.created, node.key))])

    def wake(self, keys: Iterable[Key]) -> None:
        """Look at TaskRuns for which something has changed."""
        for key in keys:
            self.queue.add(key, priority=True)

    # Pods.

    def saw_pod(self, raw: Raw, deleted: bool) -> None:
        """Take a pod over as the watch shows it; one that cannot be read harms no other."""
        try:
            self.take_pod(objects.pod(raw, gone=deleted))
        except Exception as error:
            self.unreadable(raw, f"pod cannot be parsed: {type(error).__name__}: {error}")

    def take_pod(self, pod: PodObject) -> None:
        """Take a pod over."""
        key = self.store.put_pod(pod)
        if key is not None:
            self.queue.add(key)
        if pod.over:
            # also of one whose TaskRun is here again for a moment, by news that is older than its deletion
            self.wake(self.places.forget(_orphan(pod)))

    def _keep_place(self, pod: PodObject) -> None:
        """Have a pod whose TaskRun is no more hold a place of its own."""
        key = _orphan(pod)
        self.places.put(key, pod.queue, rank(0, pod.created, key), "holds")

    def seat_orphans(self) -> None:
        """Have pods hold their places whose TaskRuns were deleted while nobody looked.

        At the start only: later a TaskRun is known before its pod is, and what somebody has made up takes no place.
        """
        for pod in self.store.orphans():
            self._keep_place(pod)

    def saw_outcome(self, claims: PodClaims, outcome: Outcome) -> bool:
        """Take over the outcome that a pod's bridge has sent; return False if we do not know the pod."""
        key = self.store.put_reported(claims, outcome)
        self._metrics.outcomes.labels("taken" if key is not None else "unknown").inc()
        if key is not None:
            self.queue.add(key, priority=True)
        return key is not None

    def unreadable(self, raw: Raw, problem: str) -> None:
        """Say of an object that it cannot be read: in the log, in an Event on it, and in a metric."""
        self._metrics.unreadable.inc()
        about = events.about_object(raw)
        log.error("%s/%s: %s", about["namespace"], about["name"], problem)
        self._tell(about, Reason.UNREADABLE, problem)

    def _tell(self, about: dict[str, str], reason: Reason, message: str) -> None:
        telling = asyncio.ensure_future(self._recorder.record(about, True, reason, message))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)


def _orphan(pod: PodObject) -> Key:
    """Return the key in its queue of a pod whose TaskRun is no more; no TaskRun has such a name."""
    return pod.namespace, f"pod/{pod.uid}"
