"""TaskRuns, pods and a routing for the operator's pure functions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from polypod_core.routing import Routing, parse_routing
from polypod_crds.taskrun import TaskRunSpec, TaskRunStatus
from polypod_operator.model.objects import BRIDGE, TASK, Container, PodObject, TaskRunObject
from polypod_operator.pods.pod import Settings

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = Settings(bridge_image="bridge:1", execution_api="http://api/execution/")
EXECUTABLE = "airflow.sdk.coordinators.executable.ExecutableCoordinator"


def routing(**entry: Any) -> Routing:
    """Return a routing of one coordinator, `native`, for the queue `q`."""
    base = {"classpath": EXECUTABLE, "kwargs": {"executables_root": ["/opt"]}, "image": "lang:1"}
    return parse_routing(
        {"coordinators": {"native": {**base, **entry}}, "queue_to_coordinator": {"q": "native"}}, "test"
    )


ROUTING = routing()


def task_run(
    spec: TaskRunSpec | None = None,
    status: TaskRunStatus | None = None,
    problems: str = "",
    deleting: bool = False,
    uid: str = "uid-1",
    name: str = "run",
    **changes: Any,
) -> TaskRunObject:
    """Return a TaskRun; `changes` are fields of its spec."""
    base = {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}
    if spec is None:
        spec = TaskRunSpec.model_validate({**base, **changes})
    elif changes:
        spec = spec.model_copy(update=changes)
    return TaskRunObject(
        namespace="ns",
        name=name,
        uid=uid,
        generation=1,
        resource_version="1",
        created=NOW,
        deleting=deleting,
        spec=None if problems else spec,
        status=status if status is not None else TaskRunStatus(),
        problems=problems,
    )


def outcome_of(state: str, reason: str, **fields: Any) -> str:
    """Return what the bridge leaves as its termination message."""
    names = {"exit_code": "exitCode", "retry_delay_seconds": "retryDelaySeconds"}
    return json.dumps({"state": state, "reason": reason, **{names.get(k, k): v for k, v in fields.items()}})


def pod(
    name: str = "run-1",
    attempt: int = 1,
    *,
    created: datetime = NOW,
    phase: str = "Pending",
    task_started: datetime | None = None,
    task_exit: int | None = None,
    task_reason: str = "",
    bridge_message: str = "",
    bridge_exit: int | None = None,
    bridge_reason: str = "",
    bridge_last: str = "",
    unstarted: bool = False,
    waiting: tuple[str, str, str] | None = None,
    others: tuple[Container, ...] = (),
    node: str | None = "node-1",
    **fields: Any,
) -> PodObject:
    """Return a pod of an attempt as the kubelet might show it."""
    over = phase in ("Succeeded", "Failed")
    if task_exit is None and over and not unstarted:
        task_exit = 0 if phase == "Succeeded" else 1
    if bridge_exit is None and (over or bridge_message):
        bridge_exit = 0
    task = Container(TASK, started=task_started, exit_code=task_exit, reason=task_reason)
    bridge = Container(BRIDGE, exit_code=bridge_exit, message=bridge_message, reason=bridge_reason,
                       last_message=bridge_last, init=True)  # fmt: skip
    containers = {TASK: task, BRIDGE: bridge, **{item.name: item for item in others}}
    if waiting is not None:
        which, reason, message = waiting
        containers[which] = Container(which, waiting=reason, message=message)
    return PodObject(
        namespace="ns", name=name, uid=f"uid-of-{name}", owner="uid-1", attempt=attempt, created=created, phase=phase,
        node=node, image="lang:1", coordinator="native", containers=containers, **fields,
    )  # fmt: skip
