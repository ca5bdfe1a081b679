"""Running TaskRuns on this machine: the operator's own decisions, with a bridge as a child process for each pod.

`polypod_operator.decide.reconcile` decides, retries and writes the status, as on a cluster. The attempts use an
Execution API on SQLite.
"""

from __future__ import annotations

import os
import queue
import signal
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import msgspec
from polypod_core.errors import UserError
from polypod_core.identity import pod_name
from polypod_core.kinds import ATTEMPT_LABEL, TRY_LABEL, Key
from polypod_core.reasons import Reason
from polypod_core.routing import Routing
from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import Graph, Node, ended, node_of
from polypod_crds.taskrun import TaskRun, TaskRunStatus
from polypod_operator.decide.decision import Action, CreatePod, Decision, DeletePod, Observed, VerifyPod
from polypod_operator.decide.queues import Queues, rank
from polypod_operator.decide.reconcile import reconcile
from polypod_operator.model.objects import TaskRunObject
from polypod_operator.pods.pod import Route
from sqlalchemy.exc import DBAPIError

from polypod_cli.local_attempt import LocalAttempt
from polypod_cli.local_backend import Backend, backend_in
from polypod_cli.log_lines import LogLines
from polypod_cli.manifests import Manifests
from polypod_cli.plan import Planned
from polypod_cli.report import shown_names
from polypod_cli.run_folder import run_folder

INTERRUPTED = "polypod run was interrupted"
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How the tasks' logs are shown on standard error."""

    format: str = "console"
    colors: bool = False


@dataclass(slots=True)
class _Run:
    """One TaskRun on its way."""

    planned: Planned
    object: TaskRunObject
    shown_name: str
    lines: LogLines | None
    index: int
    attempts: dict[str, LocalAttempt] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    look_again: datetime | None = None

    @property
    def final(self) -> bool:
        return self.object.status.phase in FINISHED_PHASES


class _Pods:
    """Makes what stands for a pod's manifest: the numbers of its attempt, and the coordinator."""

    def build(self, run: TaskRunObject, number: int, try_number: int, route: Route) -> dict[str, Any]:
        labels = {ATTEMPT_LABEL: str(number), TRY_LABEL: str(try_number)}
        return {"metadata": {"name": pod_name(run.name, run.uid, number), "labels": labels}, "coordinator": route.name}

    def refuse(self, run: TaskRunObject, number: int, try_number: int, reason: str, message: str) -> dict[str, Any]:
        raise AssertionError("what Airflow starts is not planned here")


@dataclass(slots=True)
class LocalRun:
    """Runs planned TaskRuns, those that do not wait for each other at the same time.

    Attributes:
        max_parallel: how many attempts there are at once, at most.
        fail_fast: start nothing more once a TaskRun has failed.
        interrupted: the number of the first signal that asked it to end; 0 if none did.
        xcoms: what each TaskRun has left: its shown name → key → JSON text.
    """

    manifests: Manifests
    routing: Routing
    log: LogOptions
    max_parallel: int
    fail_fast: bool = False
    xcoms: dict[str, dict[str, str]] = field(default_factory=dict)
    interrupted: int = 0
    _runs: dict[Key, _Run] = field(default_factory=dict)
    _graph: Graph = field(default_factory=Graph)
    _places: Queues = field(default_factory=Queues)
    _news: queue.SimpleQueue[Key | None] = field(default_factory=queue.SimpleQueue)
    _dirty: deque[Key] = field(default_factory=deque)
    _blocked: dict[Key, None] = field(default_factory=dict)
    _active: set[Key] = field(default_factory=set)
    _ended: set[Key] = field(default_factory=set)
    _failed: bool = False
    _interrupts: int = 0

    def run(self, planned: list[Planned]) -> list[TaskRun]:
        """Run them; return the TaskRuns with their status."""
        try:
            with self._signals(), run_folder() as folder, backend_in(folder) as backend:
                return self._run_all(planned, backend)
        except (OSError, DBAPIError) as error:
            why = error.strerror if isinstance(error, OSError) else error.orig
            where = f"the folder of this run, in {os.environ.get('TMPDIR', 'the folder for temporary files')},"
            way_out = "free some space there, or set TMPDIR to another folder"
            raise UserError(Reason.INVALID_CONFIG, f"{where} cannot be used: {why}; {way_out}") from None

    @contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = [signal.SIGINT, signal.SIGTERM]
        # `nohup` ignores it
        numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
        previous = {number: signal.signal(number, self._interrupt) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C ends the runtimes cleanly, the second at once."""
        self._interrupts += 1
        self.interrupted = self.interrupted or number
        self._news.put(None)

    def _run_all(self, planned: list[Planned], backend: Backend) -> list[TaskRun]:
        now = datetime.now(UTC)
        names = shown_names([item.item.task_run.metadata for item in planned])
        width = max(map(len, names))
        for index, (name, item) in enumerate(zip(names, planned, strict=True)):
            run = _task_run_object(item.item.task_run, now)
            lines = None
            if len(planned) > 1:
                lines = LogLines.of(name, index, width, as_json=self.log.format == "json", colors=self.log.colors)
            self._runs[run.key] = _Run(item, run, name, lines, index)
            self._graph.put(_node(run, index))
        self._places.set_limits(self.routing.queue_limits)
        try:
            self._work(backend)
        finally:
            for found in self._runs.values():
                for attempt in found.attempts.values():
                    attempt.join()
        return [self._result(found, backend) for found in self._runs.values()]

    def _work(self, backend: Backend) -> None:
        """Look at what has changed, until nothing runs and nothing is due."""
        self._dirty.extend(sorted(self._runs, key=self._rank))
        while True:
            while (key := self._next()) is not None:
                self._dirty.extend(self._look_at(self._runs[key], backend))
            timers = {key: found.look_again for key, found in self._runs.items() if found.look_again is not None}
            if not self._active and not timers:
                return
            wait = (min(timers.values()) - datetime.now(UTC)).total_seconds() if timers else None
            try:
                self._take(self._news.get(timeout=max(0.0, wait) if wait is not None else None))
            except queue.Empty:
                now = datetime.now(UTC)
                for key in (key for key, when in timers.items() if when <= now):
                    self._runs[key].look_again = None
                    self._dirty.append(key)

    def _rank(self, key: Key) -> tuple[int, int]:
        found = self._runs[key]
        return -found.planned.item.task_run.spec.priority, found.index

    def _next(self) -> Key | None:
        """Return a TaskRun to look at; one that would begin an attempt waits until there is a place."""
        while self._dirty:
            key = self._dirty.popleft()
            goes_on = key in self._active or key in self._ended or self.interrupted > 0
            self._ended.discard(key)
            if goes_on or self._graph.judge(key) is not None:
                return key
            if key not in self._blocked:
                self._blocked[key] = None
        if self._blocked and not (self.fail_fast and self._failed) and len(self._active) < self.max_parallel:
            key = next(iter(self._blocked))
            del self._blocked[key]
            return key
        return None

    def _take(self, key: Key | None) -> None:
        """Take news over: a bridge has ended, or somebody wants us to end."""
        if key is not None:
            found = self._runs[key]
            found.attempts[list(found.attempts)[-1]].finish()
            self._active.discard(key)
            self._ended.add(key)
            self._dirty.appendleft(key)
            return
        self._dirty.extend(self._runs)
        self._blocked.clear()
        if self._interrupts > 1:
            for found in self._runs.values():
                for attempt in found.attempts.values():
                    attempt.stop(at_once=True)

    def _look_at(self, found: _Run, backend: Backend) -> list[Key]:
        """Decide and act; return the TaskRuns that this is news to."""
        news: list[Key] = []
        for _ in range(_ROUNDS):
            if found.final:
                return news
            now = datetime.now(UTC)
            decision, woken = self._decide(found, now)
            news += woken
            if decision.to_be_written(found.object.status, now):
                found.object = replace(found.object, status=decision.status)
            found.look_again = decision.requeue_at
            done = [self._do(found, action, backend) for action in decision.actions]
            if not any(done):
                break
        if found.final:
            found.look_again = None
            self._failed = self._failed or found.object.status.phase == "Failed"
            news += sorted(self._graph.put(_node(found.object, found.index)), key=self._rank)
        return news

    def _decide(self, found: _Run, now: datetime) -> tuple[Decision, list[Key]]:
        run = found.object
        assert run.spec is not None
        mine = rank(run.spec.priority, run.created, run.key)
        observed = Observed(
            pods={name: attempt.pod for name, attempt in found.attempts.items()},
            absent=frozenset(found.absent),
            reported={attempt.pod.uid: attempt.told for attempt in found.attempts.values() if attempt.told is not None},
            queue_position=self._places.turn(run.key, run.spec.queue, mine),
            upstream=None if run.status.attempts or found.attempts else self._graph.judge(run.key),
            interrupted=INTERRUPTED if self.interrupted else "",
        )
        decision = reconcile(run, observed, self.routing, _Pods(), now)
        return decision, self._places.put(run.key, run.spec.queue, mine, decision.place)

    def _do(self, found: _Run, action: Action, backend: Backend) -> bool:
        """Carry out an action; return whether there is more to decide now."""
        match action:
            case CreatePod(manifest):
                self._start(found, manifest, backend)
            case DeletePod(_, name, _, force):
                found.attempts[name].stop(at_once=force)
                return False
            case VerifyPod(_, name):
                found.absent.add(name)
            case _:
                return False
        return True

    def _start(self, found: _Run, manifest: dict[str, Any], backend: Backend) -> None:
        run = found.object
        assert run.spec is not None
        labels, name = manifest["metadata"]["labels"], manifest["metadata"]["name"]
        number, try_number = int(labels[ATTEMPT_LABEL]), int(labels[TRY_LABEL])
        folder = backend.attempt_folder(run, number)
        attempt = LocalAttempt.make(run.uid, name, number, manifest["coordinator"], folder, found.lines)
        found.attempts[name] = attempt
        self._active.add(run.key)
        config = backend.prepare(run, found.planned, self.manifests, attempt, try_number)
        logs = {"log_format": self.log.format, "colors": self.log.colors}
        attempt.start(msgspec.structs.replace(config, **logs), lambda: self._news.put(run.key))

    def _result(self, found: _Run, backend: Backend) -> TaskRun:
        """Return a TaskRun with its status, which names no pods: there were none."""
        task_run = found.planned.item.task_run.model_copy(deep=True)
        status = found.object.status.model_copy(deep=True)
        for attempt in status.attempts:
            attempt.pod_name = attempt.pod_uid = None
        values = backend.xcoms(found.object)
        status.x_coms = list(values)
        self.xcoms[found.shown_name] = values
        task_run.status = status
        return task_run


def _task_run_object(task_run: TaskRun, now: datetime) -> TaskRunObject:
    return TaskRunObject(
        namespace=task_run.metadata.namespace or "",
        name=task_run.metadata.name,
        uid=str(uuid.uuid4()),
        generation=1,
        resource_version="",
        created=now,
        deleting=False,
        spec=task_run.spec,
        status=TaskRunStatus(),
    )


def _node(run: TaskRunObject, index: int) -> Node:
    assert run.spec is not None
    state = ended(run.status.phase, run.status.state)
    return node_of(run.key, run.uid, run.spec, float(index), state)
