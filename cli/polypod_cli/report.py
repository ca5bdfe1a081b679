"""What `polypod run` says at its end: a table for people, or a Kubernetes List for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from polypod_crds.taskrun import ObjectMeta, TaskRun

COLUMNS = ("TASKRUN", "TASK", "STATE", "TRIES", "DURATION", "EXIT", "MEMORY", "XCOMS", "REASON")


def as_list(task_runs: Sequence[TaskRun]) -> str:
    """Return the TaskRuns with their status, as a Kubernetes List in JSON."""
    items = [_as_object(task_run) for task_run in task_runs]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2, ensure_ascii=False)


def _as_object(task_run: TaskRun) -> dict[str, Any]:
    made = task_run.model_dump(mode="json", by_alias=True, exclude_none=True)
    for argument, shown in zip(task_run.spec.arguments, made["spec"]["arguments"], strict=True):
        # null is a value
        if "value" in argument.model_fields_set:
            shown["value"] = argument.value
    return made


def shown_names(metadata: Sequence[ObjectMeta]) -> list[str]:
    """Return what TaskRuns are called: their name, with the namespace if they are of several."""
    several = len({item.namespace for item in metadata}) > 1
    return [f"{item.namespace or '-'}/{item.name}" if several else item.name for item in metadata]


def as_table(task_runs: Sequence[TaskRun]) -> str:
    """Return the TaskRuns as a table."""
    names = shown_names([task_run.metadata for task_run in task_runs])
    rows = [COLUMNS, *(_row(name, task_run) for name, task_run in zip(names, task_runs, strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def xcoms(left: Mapping[str, Mapping[str, str]]) -> str:
    """Return XComs, a line each, long values cut.

    Args:
        left: by the shown name of a TaskRun and by key.
    """
    width = 140
    lines = []
    for name, values in left.items():
        for key, value in values.items():
            shown = json.dumps(json.loads(value), ensure_ascii=False)
            lines.append(f"{name} {key}: {shown if len(shown) <= width else shown[:width] + '…'}")
    return "\n".join(lines)


def _row(name: str, task_run: TaskRun) -> tuple[str, ...]:
    status = task_run.status
    task = f"{task_run.spec.dag_id}.{task_run.spec.task_id}"
    if status is None or not status.attempts:
        state = (status.state if status is not None else None) or "not run"
        return (name, task, state, "0", "-", "-", "-", "-", "-")
    last = status.attempts[-1]
    duration = "-"
    if last.start_time is not None and last.finish_time is not None:
        first = status.attempts[0].start_time or last.start_time
        duration = f"{(last.finish_time - first).total_seconds():.1f}s"
    exit_code = "-" if last.exit_code is None else str(last.exit_code)
    if last.signal is not None:
        exit_code = f"signal {last.signal}"
    memory = f"{last.peak_memory_bytes / (1 << 20):.0f} MiB" if last.peak_memory_bytes else "-"
    xcoms = ", ".join(status.x_coms) or "-"
    return (name, task, status.state or "-", str(len(status.attempts)), duration, exit_code, memory, xcoms, last.reason)
