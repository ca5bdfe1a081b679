"""From a key to the API: gather, reconcile, apply. The only place where decisions become calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from polypod_core.errors import UserError
from polypod_core.kinds import API_VERSION, PLURAL, UID_LABEL, Key, task_run_path
from polypod_core.outcome import Outcome
from polypod_core.pod_tokens import PodClaims
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import Node
from polypod_crds.taskrun import TaskRunStatus

from polypod_operator.control.history import History, HistoryUnavailable, NoHistory
from polypod_operator.decide.creations import FEW, LATE, Creations
from polypod_operator.decide.decision import (
    Action,
    AskForEnded,
    CreatePod,
    Decision,
    DeletePod,
    DeleteTaskRun,
    Earlier,
    LookAtEvents,
    RecordEvent,
    Refusal,
    VerifyPod,
)
from polypod_operator.decide.large import LARGE, LargeTurns
from polypod_operator.decide.logged import about
from polypod_operator.decide.policy import POLICY
from polypod_operator.decide.queues import Queues, rank
from polypod_operator.decide.reconcile import reconcile
from polypod_operator.decide.routing import RoutingState, parse
from polypod_operator.decide.store import Store
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.kube.watch import Sink, Watch
from polypod_operator.kube.workqueue import WorkQueue
from polypod_operator.model import conditions, events, objects
from polypod_operator.model.objects import PodObject, TaskRunObject
from polypod_operator.pods.pod import Settings
from polypod_operator.pods.trial import INVALID, trials
from polypod_operator.serve.metrics import Metrics

log = logging.getLogger("polypod.operator")
WORKERS = 32
_ROUNDS = 5
_BACKOFF_MAX = 300.0
LATE_MESSAGE = (
    f"the API server did not create the pod within {LATE:.0f} s; an admission webhook for pods may be hanging "
    "(kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations)"
)
_TELL_AFTER = 3
"""Failures in a row, after which a TaskRun's owner is told."""


class Controller:
    """Workers that keep every TaskRun on its way."""

    def __init__(
        self,
        api: KubernetesApi,
        settings: Settings,
        namespaces: list[str],
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        history: History | None = None,
    ) -> None:
        """Take over; `namespaces` is what is served, nothing for all."""
        self.api = api
        self.history = history or NoHistory()
        self.metrics = metrics
        self.clock = clock
        self.settings = settings
        self.namespaces = namespaces
        self.routing = RoutingState()
        self.store = Store()
        self.queue: WorkQueue[Key] = WorkQueue(WORKERS, monotonic)
        self.places = Queues()
        metrics.depths = self.places.depths
        self.pods, self.runs = self._make_watches()
        self._failures: dict[Key, int] = {}
        self._telling: set[asyncio.Future[None]] = set()
        self._closing = False
        self._creations = Creations()
        self._late: dict[Key, asyncio.Future[bool]] = {}
        self._large = LargeTurns()
        self._unread: set[Key] = set()
        metrics.work_depth.set_function(lambda: len(self.queue))
        metrics.active = self._active
        metrics.queues = lambda: self.routing.current.queue_to_coordinator if self.routing.current is not None else ()

    def _active(self) -> Iterator[tuple[str, str, str]]:
        for run in self.store.runs():
            last = run.status.attempts[-1] if run.status.attempts else None
            queue = run.spec.queue if run.spec is not None else ""
            yield run.status.phase or "Pending", queue, (last.coordinator if last is not None else None) or ""

    # What is seen.

    def saw_run(self, raw: Raw, deleted: bool) -> None:
        """Take a TaskRun over as the watch shows it; one that cannot be read harms no other."""
        try:
            self._take_run(raw, deleted)
        except Exception as error:
            self._unreadable(raw, f"TaskRun cannot be parsed: {type(error).__name__}: {error}")

    def saw_large_run(self, raw: Raw) -> None:
        """Take note of a TaskRun of which only the metadata is shown, as it is large; it is read in its turn."""
        key: Key = (raw["metadata"]["namespace"], raw["metadata"]["name"])
        self._unread.add(key)
        self.queue.add(key)

    def _take_run(self, raw: Raw, deleted: bool) -> None:
        metadata = raw["metadata"]
        key: Key = (metadata["namespace"], metadata["name"])
        known = self.store.run(key)
        if deleted:
            if known is not None and known.uid == metadata["uid"]:
                self._lost(known)
            else:
                self._leave_graph(key, metadata["uid"])
        elif known is None and self._is_finished(raw):
            self._put_node(objects.node(raw, None))
        else:
            run = objects.task_run(raw, known)
            self._put_run(run, raw)
            if known is None or known.uid != run.uid:
                self._seat(run)
            self.queue.add(key, priority=not run.status.attempts and not self.store.has_pods(run.namespace, run.uid))

    def _seat(self, run: TaskRunObject) -> None:
        """Put a TaskRun that is new to us into its queue, so that it is served in its turn and not as it was read."""
        if self.places.where(run.key) != "none" or run.spec is None or self.store.graph.judge(run.key) is not None:
            return
        attempts = run.status.attempts
        active = bool(attempts) and attempts[-1].state in ("queued", "running") and attempts[-1].pod_uid is not None
        holds = active or self.store.has_live_pods(run.namespace, run.uid)
        if holds or not (run.spec.cancel or run.spec.suspend):
            mine = rank(run.spec.priority, run.created, run.key)
            self._wake(self.places.put(run.key, run.spec.queue, mine, "holds" if holds else "waits"))

    def _is_finished(self, raw: Raw) -> bool:
        """Tell whether nothing is left to do for a TaskRun, without reading all of it: there may be very many."""
        return (
            (raw.get("status") or {}).get("phase") in FINISHED_PHASES
            # an edit after the end is looked at once more, so that it shows as seen
            and raw["status"].get("observedGeneration") == raw["metadata"].get("generation", 1)
            and "ttlSecondsAfterFinished" not in raw["spec"]
            and not self.store.has_pods(raw["metadata"]["namespace"], raw["metadata"]["uid"])
        )

    def saw_pod(self, raw: Raw, deleted: bool) -> None:
        """Take a pod over as the watch shows it; one that cannot be read harms no other."""
        try:
            self._take_pod(objects.pod(raw, gone=deleted))
        except Exception as error:
            self._unreadable(raw, f"pod cannot be parsed: {type(error).__name__}: {error}")

    def _unreadable(self, raw: Raw, problem: str) -> None:
        """Say of an object that it cannot be read: in the log, in an Event on it, and in a metric."""
        self.metrics.unreadable.inc()
        about = events.about_object(raw)
        log.error("%s/%s: %s", about["namespace"], about["name"], problem)
        telling = asyncio.ensure_future(self._tell_about(about, True, Reason.UNREADABLE, problem))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    def _take_pod(self, pod: PodObject) -> None:
        key = self.store.put_pod(pod)
        if key is not None:
            self.queue.add(key)
        if pod.over:
            # also of one whose TaskRun is here again for a moment, by news that is older than its deletion
            self._wake(self.places.forget(_orphan(pod)))

    def _put_run(self, run: TaskRunObject, raw: Raw) -> None:
        """Take a TaskRun over; one of its name that was there before is lost."""
        known = self.store.run(run.key)
        if known is not None and known.uid != run.uid:
            self._lost(known)
        self.store.put_run(run)
        self._put_node(objects.node(raw, run.spec))

    def _put_node(self, node: Node) -> None:
        """Take a TaskRun over into the order of its run, and look at those that wait for it if that is news."""
        self._wake_by_age(self.store.graph.put(node))

    def _leave_graph(self, key: Key, uid: str) -> None:
        """Have those that wait for a TaskRun that was deleted learn how it had ended."""
        node = self.store.graph.node(key)
        if node is None or node.uid != uid:
            return
        self._wake_by_age(self.store.leave_graph(key))

    def _wake_by_age(self, keys: set[Key]) -> None:
        if keys:
            nodes = (self.store.graph.node(key) for key in keys)
            self._wake([node.key for node in sorted(filter(None, nodes), key=lambda node: (node.created, node.key))])

    def _lost(self, run: TaskRunObject) -> None:
        """Let a TaskRun go that was deleted; a pod of it that still runs holds its place until it has ended."""
        self._leave_graph(run.key, run.uid)
        alive = [pod for pod in self.store.observed(run).pods.values() if not pod.over]
        self._forget(run.key)
        for pod in alive:
            # known still, so that its end is noticed
            self.store.put_pod(pod)
            self._keep_place(pod)

    def _keep_place(self, pod: PodObject) -> None:
        """Have a pod whose TaskRun is no more hold a place of its own."""
        key = _orphan(pod)
        self.places.put(key, pod.queue, rank(0, pod.created, key), "holds")

    def told(self, claims: PodClaims, outcome: Outcome) -> bool:
        """Take over the outcome that a pod's bridge has sent; return False if we do not know the pod."""
        key = self.store.put_told(claims, outcome)
        self.metrics.outcomes.labels("taken" if key is not None else "unknown").inc()
        if key is not None:
            self.queue.add(key, priority=True)
        return key is not None

    async def saw_routing(self, raw: Raw | None, where: str) -> None:
        """Take the routing ConfigMap over, and look at every TaskRun that may have waited for it."""
        good_before = self.routing.problem == ""
        if not self.routing.load(raw, where, await self._try_routing(raw, where)):
            return
        self.metrics.routing_reloads.labels("invalid" if self.routing.problem else "loaded").inc()
        self.metrics.routing_valid.set(not self.routing.problem)
        if self.routing.problem:
            use = "the last valid one stays in use" if self.routing.current is not None else "no TaskRun can start"
            log.error("the routing is invalid; %s: %s", use, self.routing.problem)
            if raw is not None:
                await self._tell_about(events.about_routing(raw), True, Reason.ROUTING_INVALID, self.routing.problem)
            return
        log.info("routing loaded", extra={"config_map": where})
        if self.routing.flaw:
            message = f"in use, except for coordinators that no queue maps to: {self.routing.flaw}"
            log.warning("%s", message)
            if raw is not None:
                await self._tell_about(events.about_routing(raw), True, Reason.ROUTING_INVALID, message)
        elif raw is not None and not good_before:
            await self._tell_about(
                events.about_routing(raw), False, Reason.ROUTING_LOADED, "the routing is valid and in use"
            )
        current = self.routing.current
        self._wake(self.places.set_limits(current.queue_limits if current is not None else {}))
        for key in self.store.without_attempt():
            if self.places.where(key) != "waits":
                self.queue.add(key)

    async def _try_routing(self, raw: Raw | None, where: str) -> str:
        """Return what the API server says of the pods that a routing makes, empty if it takes them, or cannot say."""
        if raw is None:
            return ""
        try:
            candidate, _ = parse(raw, where)
        except UserError:
            return ""
        if candidate == self.routing.current:
            return ""
        namespace = self.namespaces[0] if self.namespaces else where.partition("/")[0]
        problems = []
        for name, tried in trials(candidate, namespace, self.settings):
            problem = tried if isinstance(tried, str) else await self._refused(tried)
            if problem:
                problems.append(f"{name}: {problem}")
        return "; ".join(problems)

    async def _refused(self, manifest: dict[str, Any]) -> str:
        try:
            await self.api.create_pod(manifest, dry_run=True)
        except ApiError as error:
            if error.status in INVALID:
                return error.message
            # of this namespace, or of this moment: it says nothing of the template
            log.debug("a pod of the routing could not be tried: %s", error)
        return ""

    def _wake(self, keys: list[Key]) -> None:
        for key in keys:
            self.queue.add(key, priority=True)

    def trust(self, authority: str) -> None:
        """Have the pods that are made from now on trust these certificates, PEM."""
        self.settings = replace(self.settings, authority=authority)

    async def start(self, routing: tuple[str, str]) -> None:
        """Read the routing and everything else before the first decision.

        Raises:
            ApiError: something cannot be read; 404 if the CRD is not there.
        """
        namespace, name = routing
        raw: Raw | None = None
        try:
            raw = await self.api.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        await self.saw_routing(raw, f"{namespace}/{name}")
        # pods first: so it is known of a finished TaskRun whether it has left any
        for watch in self.watches:
            await watch.list()
        self.seat_orphans()

    @property
    def watches(self) -> list[Watch]:
        return [*self.pods, *self.runs]

    def seat_orphans(self) -> None:
        """Have pods hold their places whose TaskRuns were deleted while nobody looked.

        At the start only: later a TaskRun is known before its pod is, and what somebody has made up takes no place.
        """
        for pod in self.store.orphans():
            self._keep_place(pod)

    def _make_watches(self) -> tuple[list[Watch], list[Watch]]:
        """Return what is watched, by namespace: pods, and TaskRuns, whose news kopf brings."""
        pods = Sink(self.store.knows_pod, self.saw_pod, self._listed_pods)
        runs = Sink(self.store.knows_run, self.saw_run, self._listed_runs)
        namespaces, told = self.namespaces or [""], self.metrics.watch_restarted
        labelled = {"labelSelector": UID_LABEL}
        return (
            [Watch(self.api, "/api/v1", "pods", pods, name, labelled, told) for name in namespaces],
            [Watch(self.api, f"/apis/{API_VERSION}", PLURAL, runs, name, None, told) for name in namespaces],
        )

    async def _listed_pods(self, uids: set[str], namespace: str) -> None:
        """Look for the pods that were not in a list: it may be older than what we know."""
        for pod in self.store.pods():
            if pod.uid not in uids and not pod.gone and namespace in ("", pod.namespace):
                await self._missed(pod)

    async def _listed_runs(self, uids: set[str], namespace: str) -> None:
        """Look for the TaskRuns that were not in a list."""
        for key in self.store.task_runs():
            run = self.store.run(key)
            if run is None or run.uid in uids or namespace not in ("", run.namespace):
                continue
            try:
                raw = await self.api.call("GET", task_run_path(*key))
                self._put_run(objects.task_run(raw), raw)
                self.queue.add(key)
            except ApiError as error:
                if error.status != 404:
                    raise
                self._lost(run)
        for node in list(self.store.graph.nodes()):
            if node.uid not in uids and namespace in ("", node.key[0]) and self.store.run(node.key) is None:
                self._leave_graph(node.key, node.uid)

    async def _missed(self, pod: PodObject) -> None:
        """Take over that a pod is gone or has a successor of its name, if that is so."""
        try:
            found = objects.pod(await self.api.get_pod(pod.namespace, pod.name))
        except ApiError as error:
            if error.status != 404:
                raise
            found = objects.replace_gone(pod)
        self._take_pod(found)

    def _forget(self, key: Key) -> None:
        self.store.forget(key)
        self.queue.forget(key)
        self._wake(self.places.forget(key))
        self._failures.pop(key, None)
        self._leave_large(key)

    # What is done.

    async def work(self) -> None:
        """Work until we are told to rest: one of several workers."""
        while not self._closing:
            key = await self.queue.get()
            if self._closing:
                self.queue.done(key)
                return
            # a thousand keys with nothing to do must not keep the watches waiting
            await asyncio.sleep(0)
            await self.turn(key)

    async def rest(self, limit: float) -> None:
        """Begin nothing new, and wait for what is under way: it should not meet what another operator does next.

        Args:
            limit: seconds to wait, at most.
        """
        self._closing = True
        give_up = asyncio.get_running_loop().time() + limit
        while (self.queue.busy or self._late) and asyncio.get_running_loop().time() < give_up:
            await asyncio.sleep(0.02)

    async def turn(self, key: Key) -> None:
        """Look at one TaskRun; should that fail, it is looked at again later."""
        if key in self._late:
            # whether its pod is there decides about everything else
            self.queue.done(key)
            return
        if self._is_large(key) and not self._large.enter(key):
            self.queue.done(key)
            return
        try:
            with self.metrics.reconcile.time():
                await self._look_at(key)
            self._failures.pop(key, None)
        except Exception as error:
            self.metrics.reconcile_errors.inc()
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wait = min(_BACKOFF_MAX, 0.5 * 2.0 ** min(failures, 10))
            level = logging.WARNING if isinstance(error, ApiError) else logging.ERROR
            run = self.store.run(key)
            fields = about(run) if run is not None else {}
            log.log(level, "TaskRun %s/%s: %s; retrying in %.0f s", *key, error, wait,
                    exc_info=not isinstance(error, ApiError), extra=fields)  # fmt: skip
            self.queue.add_after(key, wait)
            if run is not None and failures == _TELL_AFTER:
                await self._tell_failure(run, error)
        finally:
            self._leave_large(key)
            self.queue.done(key)

    def _is_large(self, key: Key) -> bool:
        run = self.store.run(key)
        return key in self._unread or (run is not None and run.size > LARGE)

    def _leave_large(self, key: Key) -> None:
        following = self._large.leave(key)
        if following is not None:
            self.queue.add(following)

    async def _tell_failure(self, run: TaskRunObject, error: Exception) -> None:
        """Say that the operator cannot go on with a TaskRun: in an Event and, if it can be written, the status."""
        message = f"the operator failed and retries: {type(error).__name__}: {error}"
        if isinstance(error, ApiError) and error.status in (0, 429, 500, 502, 503, 504):
            # the API server's trouble, and no TaskRun's
            return
        await self._tell_about(events.about_run(run), True, Reason.OPERATOR_FAILED, message)
        if run.status.phase in FINISHED_PHASES:
            # a final status says how the task ended, and stays
            return
        status = run.status.model_copy(deep=True)
        status.reason, status.message = Reason.OPERATOR_FAILED, conditions.shorten(message)
        try:
            raw = await self.api.patch_status(run.path, run.resource_version, _dump(status))
            self.store.put_run(objects.written(run, status, raw))
        except Exception as unwritten:
            # whatever it is, the worker goes on with other TaskRuns
            log.warning("TaskRun %s/%s: its status cannot be written: %s", run.namespace, run.name, unwritten)

    async def _look_at(self, key: Key) -> None:
        for _ in range(_ROUNDS):
            run = self.store.run(key)
            if key in self._unread or (run is not None and not run.whole):
                run = await self._whole(key)
            if run is None:
                return
            now = self.clock()
            decision = self._decide(run, now)
            # first what tells us more; then the status; then what the status has announced
            if not await self._find_out(run, decision, now):
                await self._carry_out(run, decision, now)
                return
        self.queue.add(key)

    async def _whole(self, key: Key) -> TaskRunObject | None:
        """Return a TaskRun with all of its spec, as it is now; None if there is nothing to do for it."""
        known, unread = self.store.run(key), key in self._unread
        # news that come while it is read have it read once more
        self._unread.discard(key)
        try:
            raw = await self.api.call("GET", task_run_path(*key))
        except ApiError as error:
            if error.status != 404:
                if unread:
                    self._unread.add(key)
                raise
            if known is not None:
                self._lost(known)
            return None
        try:
            if known is None and self._is_finished(raw):
                self._put_node(objects.node(raw, None))
                return None
            found = objects.task_run(raw)
        except Exception as error:
            self._unreadable(raw, f"TaskRun cannot be parsed: {type(error).__name__}: {error}")
            return None
        self._put_run(found, raw)
        if known is None or known.uid != found.uid:
            self._seat(found)
        return found

    def _decide(self, run: TaskRunObject, now: datetime) -> Decision:
        """Decide, and take a place in the queue in the same breath: nobody else can take it meanwhile."""
        if run.spec is None:
            return reconcile(run, self.store.observed(run), self.routing.current, self.settings, now)
        mine = rank(run.spec.priority, run.created, run.key)
        turn = self.places.turn(run.key, run.spec.queue, mine)
        waited = self.places.where(run.key) == "waits"
        decision = reconcile(run, self.store.observed(run, turn), self.routing.current, self.settings, now)
        self._wake(self.places.put(run.key, run.spec.queue, mine, decision.place))
        if waited and decision.place == "holds":
            ended = run.status.attempts[-1].finish_time if run.status.attempts else None
            waited_s = (now - (ended or run.created)).total_seconds()
            self.metrics.queue_wait.labels(self.metrics.queue(run.spec.queue)).observe(max(0.0, waited_s))
        return decision

    async def _find_out(self, run: TaskRunObject, decision: Decision, now: datetime) -> bool:
        """Carry out what changes what we know; return whether there was anything like that."""
        found = False
        for action in decision.actions:
            match action:
                case VerifyPod(namespace, name):
                    await self._verify(run, namespace, name)
                case LookAtEvents(namespace, _, uid):
                    self.store.put_look(uid, now, objects.telling(await self.api.events(namespace, uid)))
                case AskForEnded(task_ids):
                    await self._ask_for_ended(run, task_ids, now)
                case _:
                    continue
            found = True
        return found

    async def _create(self, run: TaskRunObject, manifest: dict[str, Any], now: datetime) -> bool:
        """Make a pod; return False if it was there already, was refused, or is late."""
        if not self._creations.may_begin(run.namespace):
            message = f"at most {FEW} pods are created at once in namespace {run.namespace!r}: {LATE_MESSAGE}"
            refusal = Refusal(message, False, now, Reason.CREATING_POD)
            self.store.put_refusal(run, manifest["metadata"]["name"], refusal)
            return False
        posting = asyncio.ensure_future(self._post(run, manifest, now))
        await asyncio.wait({posting}, timeout=LATE)
        if posting.done():
            return posting.result()
        self._creations.late(run.namespace)
        self._late[run.key] = posting
        posting.add_done_callback(partial(self._is_no_longer_late, run.key))
        await self._tell_late(run)
        return False

    def _is_no_longer_late(self, key: Key, posting: asyncio.Future[bool]) -> None:
        del self._late[key]
        error = None if posting.cancelled() else posting.exception()
        if error is not None:
            log.warning("TaskRun %s/%s: its pod could not be created: %s", *key, error)
        self.queue.add_after(key, LATE if error is not None else 0.0)

    async def _tell_late(self, run: TaskRunObject) -> None:
        """Say what a TaskRun waits for while its pod is late; no attempt is written down before it is known."""
        if run.status.reason in (Reason.CREATING_POD, Reason.POD_REFUSED):
            # it was tried before, and says why that failed
            return
        status = run.status.model_copy(deep=True)
        status.phase, status.observed_generation = "Pending", run.generation
        status.reason, status.message = Reason.CREATING_POD, LATE_MESSAGE
        try:
            raw = await self.api.patch_status(run.path, run.resource_version, _dump(status))
        except ApiError as error:
            await self._not_written(run, error)
            return
        self.store.put_run(objects.written(run, status, raw))
        await self._tell_about(events.about_run(run), True, Reason.CREATING_POD, LATE_MESSAGE)

    async def _post(self, run: TaskRunObject, manifest: dict[str, Any], now: datetime) -> bool:
        """Have the API server make a pod; return False if it was there already, or was refused."""
        name = manifest["metadata"]["name"]
        clock = asyncio.get_running_loop().time
        began = clock()
        self._creations.begin(run.namespace)
        self.store.put_asked(run, name)
        try:
            self.store.put_pod(objects.pod(await self.api.create_pod(manifest)))
            log.info("pod created", extra=about(run, pod=name))
            if not run.status.attempts and run.spec is not None:
                self.metrics.pod_wait.labels(self.metrics.queue(run.spec.queue)).observe(
                    _seconds(run.created, self.clock())
                )
            return True
        except ApiError as error:
            if error.reason == "AlreadyExists":
                # ours, and its answer was lost
                await self._verify(run, run.namespace, name)
            elif error.by_webhook or error.status in (400, 403, 404, 413, 422):
                for_good = error.status in INVALID
                self.store.put_refusal(run, name, Refusal(error.message, for_good, self.clock()))
            else:
                raise
            return False
        finally:
            self._creations.end(run.namespace, clock() - began)

    async def _verify(self, run: TaskRunObject, namespace: str, name: str) -> None:
        try:
            pod = objects.pod(await self.api.get_pod(namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise
            self.store.put_absent(run, name)
            return
        if pod.owner == run.uid:
            self.store.put_pod(pod)
        else:
            message = f"a pod {name!r} exists and is not controlled by this TaskRun; delete it"
            self.store.put_refusal(run, name, Refusal(message, False, self.clock(), Reason.POD_NAME_TAKEN))

    async def _ask_for_ended(self, run: TaskRunObject, task_ids: tuple[str, ...], now: datetime) -> None:
        assert run.spec is not None
        try:
            found = await self.history.ended(
                run.namespace, run.spec.dag_id, run.spec.run_id, task_ids, self.settings.authority
            )
            earlier = Earlier({task_id: found.get(task_id, "") for task_id in task_ids})
        except HistoryUnavailable as error:
            log.warning("the Execution API cannot be asked how tasks have ended: %s", error, extra=about(run))
            earlier = Earlier(problem=str(error), when=now)
        self.store.put_earlier((run.namespace, run.spec.dag_id, run.spec.run_id), earlier)

    async def _carry_out(self, run: TaskRunObject, decision: Decision, now: datetime) -> None:
        changed = decision.to_be_written(run.status, now)
        if changed:
            try:
                raw = await self.api.patch_status(run.path, run.resource_version, _dump(decision.status))
            except ApiError as error:
                await self._not_written(run, error)
                return
            self._count(run, decision)
            run = objects.written(run, decision.status, raw)
            self.store.put_run(run)
            if run.status.phase in FINISHED_PHASES:
                self._put_node(objects.node(raw, run.spec))
        for action in decision.actions:
            await self._do(run, action, changed, now)
        if decision.requeue_at is not None:
            self.queue.add_after(run.key, (decision.requeue_at - now).total_seconds())
        elif run.status.phase in FINISHED_PHASES:
            # nothing is left to do for it; should it change, the watch brings it again
            self._forget(run.key)
        if changed and run.status.phase in FINISHED_PHASES:
            ended = {"state": run.status.state, "reason": run.status.reason}
            log.info("TaskRun finished", extra={**about(run), **ended})

    def _count(self, run: TaskRunObject, decision: Decision) -> None:
        """Count the attempts that a status write has closed, and the TaskRun if it has finished."""
        open_before = {item.number for item in run.status.attempts if item.state in ("queued", "running")}
        known = {item.number for item in run.status.attempts} - open_before
        for attempt in decision.status.attempts:
            if attempt.number not in known and attempt.state not in ("queued", "running"):
                log.info("attempt ended", extra=about(run, attempt))
                coordinator = attempt.coordinator or ""
                self.metrics.ended(attempt.state, attempt.reason, coordinator)
                begun, started, ended = attempt.create_time, attempt.start_time, attempt.finish_time
                if begun is not None and started is not None:
                    self.metrics.start_wait.labels(coordinator).observe(_seconds(begun, started))
                if begun is not None and attempt.connect_time is not None:
                    self.metrics.connect_wait.labels(coordinator).observe(_seconds(begun, attempt.connect_time))
                if started is not None and ended is not None:
                    self.metrics.task_time.labels(coordinator).observe(_seconds(started, ended))
                if attempt.cpu_seconds is not None:
                    self.metrics.cpu.labels(coordinator).observe(attempt.cpu_seconds)
                if attempt.peak_memory_bytes is not None:
                    self.metrics.memory.labels(coordinator).observe(attempt.peak_memory_bytes)
        status, queue = decision.status, run.spec.queue if run.spec is not None else ""
        if status.phase != run.status.phase and status.phase in FINISHED_PHASES:
            ended = status.finish_time or self.clock()
            self.metrics.whole_time.labels(self.metrics.queue(queue), status.phase).observe(
                _seconds(run.created, ended)
            )

    async def _not_written(self, run: TaskRunObject, error: ApiError) -> None:
        if error.status == 404:
            self._lost(run)
        elif error.status == 409:
            # somebody was faster: look at what is there now
            try:
                found = await self.api.call("GET", run.path)
                self._put_run(objects.task_run(found), found)
            except ApiError as gone:
                if gone.status != 404:
                    raise
                self._lost(run)
            else:
                self.queue.add(run.key)
        else:
            raise error

    async def _do(self, run: TaskRunObject, action: Action, changed: bool, now: datetime) -> None:
        match action:
            case CreatePod(manifest):
                if await self._create(run, manifest, now):
                    # the watch tells the rest; should it have nothing to tell, we do
                    self.queue.add_after(run.key, POLICY.look_after.total_seconds())
                else:
                    self.queue.add(run.key)
            case DeletePod(namespace, name, uid, force):
                await self.api.delete_pod(namespace, name, uid, force)
                log.info("pod deleted", extra=about(run, pod=name))
            case DeleteTaskRun():
                await self.api.delete(run.path, run.uid)
            case RecordEvent(warning, reason, message) if changed:
                await self._tell_about(events.about_run(run), warning, reason, message)

    async def _tell_about(self, about: dict[str, str], warning: bool, reason: str, message: str) -> None:
        """Post an Event; one that cannot be posted is no reason to stop."""
        try:
            await self.api.post_event(events.event(about, warning, reason, message, self.clock()))
        except ApiError as error:
            log.warning("an Event could not be posted: %s", error)


def _orphan(pod: PodObject) -> Key:
    """Return the key in its queue of a pod whose TaskRun is no more; no TaskRun has such a name."""
    return pod.namespace, f"pod/{pod.uid}"


def _seconds(begin: datetime, end: datetime) -> float:
    # clocks of different machines need not agree
    return max(0.0, (end - begin).total_seconds())


def _dump(status: TaskRunStatus) -> dict[str, Any]:
    """Return a status as a merge patch: what is not set is null, which takes it away."""
    dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {field.alias or name: dumped.get(field.alias or name) for name, field in TaskRunStatus.model_fields.items()}
