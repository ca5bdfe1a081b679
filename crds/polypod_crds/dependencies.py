"""The order of the tasks of a run: which waits for which, and what follows when one has ended. Pure.

The rule is Airflow's trigger rule `all_success`: one that has failed upstream makes a task `upstream_failed`, one that
was skipped makes it `skipped`, both at once. A dependency with `when: finished` is met by any end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from polypod_core.kinds import Key
from polypod_core.states import ENDED, ENDED_WELL, FINISHED_PHASES

from polypod_crds.taskrun import TaskRunSpec

Run = tuple[str, str, str]
"""Namespace, dagId and runId: tasks depend on tasks of their own run only."""
SHOWN = 3
"""How many tasks a message names."""
CYCLE_STEPS = 20_000
"""How many dependencies are followed in search of a cycle, at most: whoever makes more than that only harms himself."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A task that another one waits for; `any_end`: whether it matters how it has ended."""

    task_id: str
    any_end: bool = False


def upstreams(spec: TaskRunSpec) -> tuple[Upstream, ...]:
    """Return the tasks that a TaskRun waits for, each once, in the order in which its spec names them.

    A value that is taken from a task needs that task's success, whatever `dependsOn` says of it. Where Airflow itself
    decides when the task is started, it knows the order and hands out the arguments: there only `dependsOn` counts.
    """
    found = {item.task_id: item.when == "finished" for item in spec.depends_on}
    if not spec.started_by_airflow:
        for argument in spec.arguments:
            if argument.from_x_com is not None:
                found[argument.from_x_com.task_id] = False
    return tuple(Upstream(task_id, any_end) for task_id, any_end in found.items())


def ended(phase: str, state: str | None) -> str | None:
    """Return the state that a task has ended in, None if it has not."""
    return state if phase in FINISHED_PHASES and state in ENDED else None


@dataclass(frozen=True, slots=True)
class Node:
    """A TaskRun in the graph.

    Attributes:
        created: seconds; of several TaskRuns of the same task and mapIndex the newest counts.
        ended: Airflow's state that it ended in, None as long as it has not.
    """

    key: Key
    uid: str
    run: Run
    task_id: str
    map_index: int
    created: float
    upstream: tuple[Upstream, ...] = ()
    ended: str | None = None


def node_of(key: Key, uid: str, spec: TaskRunSpec, created: float, state: str | None = None) -> Node:
    """Return a TaskRun's place in the graph; `state`: the one that it has ended in, None if it has not."""
    run = (key[0], spec.dag_id, spec.run_id)
    return Node(key, uid, run, spec.task_id, spec.map_index, created, upstreams(spec), state)


@dataclass(frozen=True, slots=True)
class Waits:
    """It waits for tasks that have not ended.

    Attributes:
        unfinished: those that have a TaskRun.
        missing: those that have none; asked for elsewhere, or still to be applied.
    """

    unfinished: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def message(self) -> str:
        parts = []
        if self.unfinished:
            parts.append(f"waits for {_tasks(self.unfinished)} to end")
        if self.missing:
            parts.append(f"waits for {_tasks(self.missing)} of this run, for which there is no TaskRun yet")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Stops:
    """It never starts: what became of a task upstream decides its own end."""

    state: Literal["upstream_failed", "skipped"]
    message: str


@dataclass(frozen=True, slots=True)
class Cycle:
    """It waits for itself; the path begins and ends with its own task."""

    path: tuple[str, ...]

    @property
    def message(self) -> str:
        return f"the tasks depend on each other in a cycle: {' → '.join(self.path)}"


Verdict = Waits | Stops | Cycle


@dataclass(slots=True)
class _RunNodes:
    tasks: dict[str, dict[Key, Node]] = field(default_factory=dict)
    waiting: dict[str, set[Key]] = field(default_factory=dict)


class Graph:
    """The TaskRuns of all runs, ended ones included, by what they wait for."""

    def __init__(self) -> None:
        self._nodes: dict[Key, Node] = {}
        self._runs: dict[Run, _RunNodes] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, key: Key) -> Node | None:
        return self._nodes.get(key)

    def holds(self, run: Run) -> bool:
        """Tell whether there are TaskRuns of a run."""
        return run in self._runs

    def nodes(self) -> Iterator[Node]:
        yield from self._nodes.values()

    def put(self, node: Node) -> set[Key]:
        """Take a TaskRun over; return those that wait for its task, if that is news to them."""
        old = self._nodes.get(node.key)
        if old == node:
            return set()
        if old is not None:
            self._remove(old)
        self._nodes[node.key] = node
        run = self._runs.setdefault(node.run, _RunNodes())
        run.tasks.setdefault(node.task_id, {})[node.key] = node
        if node.ended is None:
            for upstream in node.upstream:
                run.waiting.setdefault(upstream.task_id, set()).add(node.key)
        news = set(run.waiting.get(node.task_id, ()))
        if old is not None and (old.run, old.task_id) != (node.run, node.task_id):
            news |= self._waiting_for(old)
        return news

    def forget(self, key: Key) -> set[Key]:
        """Let a TaskRun go that was deleted; return those that wait for its task."""
        old = self._nodes.pop(key, None)
        if old is None:
            return set()
        self._remove(old)
        return self._waiting_for(old)

    def _waiting_for(self, node: Node) -> set[Key]:
        run = self._runs.get(node.run)
        return set(run.waiting.get(node.task_id, ())) if run is not None else set()

    def _remove(self, node: Node) -> None:
        run = self._runs[node.run]
        _discard(run.tasks, node.task_id, node.key)
        for upstream in node.upstream:
            _discard(run.waiting, upstream.task_id, node.key)
        if not run.tasks and not run.waiting:
            del self._runs[node.run]

    def judge(self, key: Key, before: Mapping[str, str] | None = None) -> Verdict | None:
        """Return what keeps a TaskRun from starting, None if nothing does.

        Args:
            before: task → the state that a TaskRun of it, which is no more, has ended in; empty if none has.
        """
        node = self._nodes.get(key)
        if node is None or not node.upstream:
            return None
        unfinished, missing, skipped = [], [], ""
        for upstream in node.upstream:
            current = self._current(node.run, upstream.task_id)
            states = [other.ended for other in current]
            if not current:
                earlier = (before or {}).get(upstream.task_id)
                if not earlier or (earlier not in ENDED_WELL and not upstream.any_end):
                    missing.append(upstream.task_id)
                    continue
                states = [earlier]
            failed = [other for other in current if other.ended is not None and other.ended not in ENDED_WELL]
            if failed and not upstream.any_end:
                # always the same one, in whatever order they came
                bad = min(failed, key=lambda other: (other.map_index, other.key))
                said = f"task {upstream.task_id!r} (TaskRun {bad.key[1]!r}) ended in state {bad.ended}"
                return Stops("upstream_failed", said)
            if None in states:
                unfinished.append(upstream.task_id)
            elif "skipped" in states and not upstream.any_end:
                skipped = skipped or f"task {upstream.task_id!r} was skipped"
        if skipped:
            return Stops("skipped", skipped)
        if not unfinished and not missing:
            return None
        return self._cycle(node) or Waits(tuple(unfinished), tuple(missing))

    def _current(self, run: Run, task_id: str) -> list[Node]:
        """Return the TaskRuns of a task: one for each mapIndex, the newest."""
        newest: dict[int, Node] = {}
        nodes = self._runs.get(run)
        for node in nodes.tasks.get(task_id, {}).values() if nodes is not None else ():
            other = newest.get(node.map_index)
            if other is None or (other.created, other.key) < (node.created, node.key):
                newest[node.map_index] = node
        return list(newest.values())

    def _cycle(self, node: Node) -> Cycle | None:
        """Return the way from a task back to itself; there is none once it has ended, or if nobody waits for it."""
        if node.ended is not None or not self._waiting_for(node):
            return None
        came_from: dict[str, str] = {}
        ahead, steps = [node.task_id], 0
        while ahead:
            task_id = ahead.pop()
            for other in self._current(node.run, task_id):
                for upstream in other.upstream if other.ended is None else ():
                    steps += 1
                    if steps > CYCLE_STEPS:
                        return None
                    if upstream.task_id == node.task_id:
                        return Cycle(_path(came_from, task_id, node.task_id))
                    if upstream.task_id not in came_from:
                        came_from[upstream.task_id] = task_id
                        ahead.append(upstream.task_id)
        return None


def _path(came_from: Mapping[str, str], last: str, start: str) -> tuple[str, ...]:
    path = [start]
    while last != start:
        path.append(last)
        last = came_from[last]
    path.append(start)
    return tuple(reversed(path))


def _discard(sets: dict[str, dict[Key, Node]] | dict[str, set[Key]], name: str, key: Key) -> None:
    found = sets.get(name)
    if found is None:
        return
    if isinstance(found, set):
        found.discard(key)
    else:
        found.pop(key, None)
    if not found:
        del sets[name]


def _tasks(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    if len(names) > SHOWN:
        return f"tasks {shown} and others"
    return f"task{'s' if len(names) > 1 else ''} {shown}"
