"""The order of the TaskRuns of some files, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polypod_core.documents import Document
from polypod_core.errors import nearest
from polypod_crds.dependencies import Cycle, Graph, Node, node_of
from polypod_crds.taskrun import TaskRun, TaskRunSpec

Found = Sequence[tuple[TaskRun, Document]]


def problems(task_runs: Found) -> Iterator[str]:
    """Yield a line for every TaskRun that is there twice, or waits for itself."""
    yield from _twice(task_runs)
    graph = Graph()
    nodes = [_node(task_run, index) for index, (task_run, _) in enumerate(task_runs)]
    for node in nodes:
        graph.put(node)
    for node, (task_run, document) in zip(nodes, task_runs, strict=True):
        verdict = graph.judge(node.key)
        if isinstance(verdict, Cycle):
            yield f"{document.where(['spec'])}: TaskRun {task_run.metadata.name!r}: {verdict.message}"


def missing(task_runs: Found) -> Iterator[str]:
    """Yield a line for every task that is waited for and is not in the files; it may be on the cluster already."""
    nodes = [_node(task_run, index) for index, (task_run, _) in enumerate(task_runs)]
    tasks = {(node.run, node.task_id) for node in nodes}
    for node, (task_run, document) in zip(nodes, task_runs, strict=True):
        for upstream in node.upstream:
            if (node.run, upstream.task_id) not in tasks:
                known = [task_id for run, task_id in tasks if run == node.run]
                where = document.where(_location(task_run.spec, upstream.task_id))
                task, run = upstream.task_id, task_run.spec.run_id
                yield (
                    f"{where}: TaskRun {task_run.metadata.name!r} waits for task {task!r} of run {run!r}, which is not "
                    f"in these files{nearest(task, known)}"
                )


def _node(task_run: TaskRun, index: int) -> Node:
    # two may have the same name, which is reported elsewhere
    key = (task_run.metadata.namespace or "", f"{index}/{task_run.metadata.name}")
    return node_of(key, "", task_run.spec, float(index))


def _location(spec: TaskRunSpec, task_id: str) -> list[int | str]:
    for index, dependency in enumerate(spec.depends_on):
        if dependency.task_id == task_id:
            return ["spec", "dependsOn", index, "taskId"]
    for index, argument in enumerate(spec.arguments):
        if argument.from_x_com is not None and argument.from_x_com.task_id == task_id:
            return ["spec", "arguments", index, "fromXCom", "taskId"]
    return ["spec"]


def _twice(task_runs: Found) -> Iterator[str]:
    names: dict[object, Document] = {}
    tasks: dict[object, Document] = {}
    for task_run, document in task_runs:
        spec, namespace = task_run.spec, task_run.metadata.namespace or ""
        name = (namespace, task_run.metadata.name)
        task = (namespace, spec.dag_id, spec.run_id, spec.task_id, spec.map_index)
        if name in names:
            where = document.where(["metadata", "name"])
            yield f"{where}: TaskRun {name[1]!r} is defined twice, first in {names[name].where()}"
        elif task in tasks:
            where = document.where(["spec", "taskId"])
            mapped = f"[{spec.map_index}]" if spec.map_index >= 0 else ""
            yield (
                f"{where}: task '{spec.task_id}{mapped}' of run {spec.run_id!r} is defined twice, first in "
                f"{tasks[task].where()}; one task of a run has one TaskRun"
            )
        names.setdefault(name, document)
        tasks.setdefault(task, document)
