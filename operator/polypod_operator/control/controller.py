"""Workers that keep every TaskRun on its way: a key from the work queue, a decision, and its calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from polypod_core.kinds import Key
from polypod_core.reasons import Reason
from polypod_core.states import FINISHED_PHASES

from polypod_operator.control.apply import Apply
from polypod_operator.control.cache import Cache
from polypod_operator.control.corrections import Corrections
from polypod_operator.control.creation import PodCreation
from polypod_operator.control.history import History, NoHistory
from polypod_operator.control.large import LARGE, LargeTurns
from polypod_operator.control.log_fields import about
from polypod_operator.control.recorder import Recorder
from polypod_operator.control.refresh import Refresh
from polypod_operator.control.routing_reload import RoutingReload
from polypod_operator.control.statuses import Statuses
from polypod_operator.control.telemetry import Telemetry
from polypod_operator.decide.decision import Decision
from polypod_operator.decide.draft import copied
from polypod_operator.decide.policy import BUSY, POLICY
from polypod_operator.decide.queues import rank
from polypod_operator.decide.reconcile import reconcile
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.kube.watch import Watch
from polypod_operator.kube.workqueue import WorkQueue
from polypod_operator.model import conditions
from polypod_operator.model.objects import TaskRunObject
from polypod_operator.pods.pod import Settings
from polypod_operator.serve.metrics import Metrics

log = logging.getLogger("polypod.operator")
_ROUNDS = 5
_BACKOFF_MAX = 300.0
_REPORT_AFTER = 3
"""Consecutive failures after which an Event on the TaskRun reports them."""


class Controller:
    """The loop, and the parts that it is made of.

    Attributes:
        pods: the watches of pods, by namespace.
        runs: those of TaskRuns, whose news kopf brings.
    """

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
        self.api, self.metrics, self._clock = api, metrics, clock
        self._settings = settings
        self.queue: WorkQueue[Key] = WorkQueue(api.pace, monotonic)
        recorder = Recorder(api, clock)
        self.cache = cache = Cache(self.queue, recorder, metrics)
        cache.let_go = self._let_go
        self._refresh = Refresh(api, cache)
        self._refresh.watch(namespaces, metrics)
        self.pods, self.runs = self._refresh.pods, self._refresh.runs
        self._statuses = Statuses(api, cache, self._refresh, recorder)
        self._telemetry = Telemetry(metrics, cache.store)
        self._creation = PodCreation(api, cache, self._refresh, self._statuses, self._telemetry, clock,
                                     lambda: self.routing.state.untried)  # fmt: skip
        self._apply = Apply(api, cache, self._creation, self._statuses, history or NoHistory(), self._telemetry,
                            lambda: self._settings.authority, Corrections(monotonic))  # fmt: skip
        self.routing = RoutingReload(api, cache, recorder, metrics, lambda: self._settings, namespaces)
        self._failures: dict[Key, int] = {}
        self._large = LargeTurns()
        self._closing = False
        metrics.work_depth.set_function(lambda: len(self.queue))
        metrics.work_limit.set_function(lambda: api.pace.limit)

    @property
    def watches(self) -> list[Watch]:
        return [*self.pods, *self.runs]

    def trust(self, authority: str) -> None:
        """Have the pods that are made from now on trust these certificates, PEM."""
        self._settings = replace(self._settings, authority=authority)

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
        await self.routing.saw(raw, f"{namespace}/{name}")
        # pods first: so it is known of a finished TaskRun whether it has left any
        for watch in self.watches:
            await watch.list()
        self.cache.seat_orphans()

    async def work(self) -> None:
        """Work until `rest` is called; one of several workers."""
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
        while (self.queue.busy or self._creation.late) and asyncio.get_running_loop().time() < give_up:
            await asyncio.sleep(0.02)

    async def turn(self, key: Key) -> None:
        """Look at one TaskRun; should that fail, it is looked at again later."""
        if key in self._creation.late:
            # whether its pod is there decides about everything else
            self.queue.done(key)
            return
        if self._is_large(key) and not self._large.enter(key):
            self.queue.done(key)
            return
        try:
            with self.metrics.reconcile.time():
                settled = await self._look_at(key)
            if settled:
                self._failures.pop(key, None)
            else:
                self.queue.add_after(key, self._pause(key))
        except Exception as error:
            await self._failed(key, error)
        finally:
            self._leave_large(key)
            self.queue.done(key)
            self.cache.store.pack(key)

    async def _failed(self, key: Key, error: Exception) -> None:
        """Look at a TaskRun again later, and tell its owner if that goes on."""
        self.metrics.reconcile_errors.inc()
        wait = self._pause(key)
        failures = self._failures[key]
        level = logging.WARNING if isinstance(error, ApiError) else logging.ERROR
        run = self.cache.store.run(key)
        fields = about(run) if run is not None else {}
        log.log(level, "TaskRun %s/%s: %s; retrying in %.0f s", *key, error, wait,
                exc_info=not isinstance(error, ApiError), extra=fields)  # fmt: skip
        self.queue.add_after(key, wait)
        if run is not None and failures == _REPORT_AFTER:
            await self._report_to_owner(run, error)

    def _pause(self, key: Key) -> float:
        """Return how long to wait before the next look at a TaskRun; longer, the more in a row came to nothing."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(_BACKOFF_MAX, 0.5 * 2.0 ** min(failures, 10))

    async def _report_to_owner(self, run: TaskRunObject, error: Exception) -> None:
        """Say that the operator cannot go on with a TaskRun: in an Event and, if it can be written, the status."""
        message = f"the operator failed and retries: {type(error).__name__}: {error}"
        if isinstance(error, ApiError) and error.status in (0, 429, 500, 502, 503, 504):
            # the API server's trouble, and no TaskRun's
            return
        await self._statuses.warn(run, Reason.OPERATOR_FAILED, message)
        if run.status.phase in FINISHED_PHASES:
            # a final status says how the task ended, and stays
            return
        status = copied(run.status)
        status.reason, status.message = Reason.OPERATOR_FAILED, conditions.shorten(message)
        try:
            await self._statuses.write(run, status)
        except Exception as unwritten:
            # whatever it is, the worker goes on with other TaskRuns
            log.warning("TaskRun %s/%s: its status cannot be written: %s", run.namespace, run.name, unwritten)

    def _is_large(self, key: Key) -> bool:
        run = self.cache.store.run(key)
        return key in self.cache.unread or (run is not None and run.size > LARGE)

    def _leave_large(self, key: Key) -> None:
        following = self._large.leave(key)
        if following is not None:
            self.queue.add(following)

    def _let_go(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._leave_large(key)

    async def _look_at(self, key: Key) -> bool:
        """Decide and carry it out; return False if there is always something more to find out."""
        for _ in range(_ROUNDS):
            run = self.cache.store.run(key)
            if key in self.cache.unread or (run is not None and not run.whole):
                run = await self._refresh.whole(key)
            if run is None:
                return True
            now = self._clock()
            decision = self._decide(run, now)
            # first what tells us more; then the status; then what the status has announced
            if not await self._apply.find_out(run, decision, now):
                await self._apply.carry_out(run, decision, now)
                return True
        return False

    def _decide(self, run: TaskRunObject, now: datetime) -> Decision:
        """Decide, and take a place in the queue with no await between: nobody else can take it meanwhile."""
        store, places, state = self.cache.store, self.cache.places, self.routing.state
        routing, rejected = state.current, state.problem
        busy = self._creation.in_burst or len(self.queue) > self.api.pace.limit
        policy = BUSY if busy else POLICY
        store.note_closed(run, now)
        if run.spec is None:
            return reconcile(run, store.observed(run), routing, self._settings, now, policy, rejected)
        mine = rank(run.spec.priority, run.created, run.key)
        position = places.turn(run.key, run.spec.queue, mine)
        before = places.where(run.key)
        decision = reconcile(run, store.observed(run, position), routing, self._settings, now, policy, rejected)
        self.cache.wake(places.put(run.key, run.spec.queue, mine, decision.place))
        self._telemetry.left_the_line(run, before, decision.place, now)
        return decision
