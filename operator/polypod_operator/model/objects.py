"""Kubernetes objects as the operator needs them, parsed once at the edge. What is not needed is not kept."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import msgspec
from polypod_core.identity import pod_name
from polypod_core.kinds import (
    COORDINATOR_ANNOTATION,
    LOG_ANNOTATION,
    QUEUE_ANNOTATION,
    is_task_run,
    task_run_path,
)
from polypod_core.states import FINISHED_PHASES
from polypod_crds.dependencies import Node, upstreams
from polypod_crds.taskrun import StoredLog, TaskRunSpec, TaskRunStatus
from pydantic import ValidationError

from polypod_operator.kube.raw import Raw, version
from polypod_operator.model import recorded

LARGEST_SPEC = 1_000_000
"""Bytes of a TaskRun's spec, as JSON: etcd takes 1.5 MiB, and the status needs room."""
KEPT = 16 << 10
"""Bytes of a spec up to which all of it is kept in memory."""
TASK, BRIDGE, COPY = "task", "bridge", "copy-artifacts"
"""The names of the containers that are ours."""


@dataclass(frozen=True, slots=True)
class TaskRunObject:
    """A TaskRun.

    Attributes:
        problems: what is wrong with its spec, which then is None.
        size: of its spec, in bytes of JSON.
        whole: False if what takes room in its spec was left out: it is read again when it is looked at.
        finalizers: what keeps it although it was deleted.
        digest: of its status as the API server has it.
        altered: that status is not `status`, which the operator goes by: it is to be written again.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: datetime
    deleting: bool
    spec: TaskRunSpec | None
    status: TaskRunStatus
    problems: str = ""
    size: int = 0
    whole: bool = True
    finalizers: Sequence[str] = ()
    digest: int = 0
    altered: bool = False

    @property
    def path(self) -> str:
        """Its path on the API server."""
        return task_run_path(self.namespace, self.name)

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Container:
    """One container's status.

    Attributes:
        waiting: why it waits, as the kubelet's word, and `message` in its sentence.
        started: when it started, also if it has ended.
        exit_code: set once it has ended, with `reason` and `message` (the termination message).
        last_message: the termination message of the start before this one, and `last_reason` its reason.
        init: True for an init container, native sidecars included.
        sidecar: True for a native sidecar; the next container starts once it has `passed` its startup probe.
    """

    name: str
    waiting: str = ""
    message: str = ""
    started: datetime | None = None
    exit_code: int | None = None
    reason: str = ""
    finished: datetime | None = None
    restarts: int = 0
    last_message: str = ""
    last_reason: str = ""
    init: bool = False
    sidecar: bool = False
    passed: bool = False

    @property
    def ended(self) -> bool:
        return self.exit_code is not None


@dataclass(frozen=True, slots=True)
class PodObject:
    """A pod of one attempt.

    Attributes:
        owner: the uid of the TaskRun that controls it by an owner reference; empty if none does.
        phase: the pod's phase, as the kubelet says it.
        reason: of the pod as a whole, such as Evicted.
        scheduler: which scheduler is to find a node for it.
        unscheduled: what is said of why it has none: by a scheduler, or by the API server of a gate.
        unschedulable: the same, if no node takes the pod.
        gates: what holds it back from the scheduler.
        disruption: why the cluster ended it (condition DisruptionTarget), if it did.
        deletion_time: when it is to be gone, its grace period included.
        gone: the object was deleted; the rest is what was seen last.
    """

    namespace: str
    name: str
    uid: str
    owner: str
    attempt: int
    created: datetime
    version: int = 0
    deleting: bool = False
    deletion_time: datetime | None = None
    gone: bool = False
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    node: str | None = None
    scheduler: str = ""
    unscheduled: str = ""
    unschedulable: str = ""
    gates: Sequence[str] = ()
    disruption: str = ""
    image: str | None = None
    coordinator: str | None = None
    queue: str = ""
    log: StoredLog | None = None
    containers: Mapping[str, Container] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """True if none of its containers runs any more, or will."""
        return self.gone or self.phase in FINISHED_PHASES

    @property
    def task(self) -> Container:
        return self.containers.get(TASK, _ABSENT_TASK)

    @property
    def held_by(self) -> str:
        """The name of a container that is not ours and keeps the pod from ending, empty if there is none."""
        others = (item for item in self.containers.values() if item.name not in (TASK, BRIDGE, COPY))
        return next((item.name for item in others if not item.init and not item.ended), "")

    @property
    def bridge(self) -> Container:
        return self.containers.get(BRIDGE, _ABSENT_BRIDGE)


_ABSENT_TASK, _ABSENT_BRIDGE = Container(TASK), Container(BRIDGE)


def task_run(raw: Raw, known: TaskRunObject | None = None) -> TaskRunObject:
    """Parse a TaskRun.

    Args:
        known: the same as it was known so far: its spec need not be parsed again unless it has changed.
    """
    metadata = raw["metadata"]
    spec: TaskRunSpec | None = None
    shown = recorded.digest(raw)
    if known is not None and (known.uid, known.digest) == (metadata["uid"], shown):
        status, altered = known.status, known.altered
    else:
        status, altered = recorded.read(raw)
    if known is not None and (known.uid, known.generation) == (metadata["uid"], metadata.get("generation")):
        spec, problems, size, whole = known.spec, known.problems, known.size, known.whole
    else:
        given = raw.get("spec") or {}
        size, whole = len(msgspec.json.encode(given)), True
        spec, problems = _spec(given, size)
    return TaskRunObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata["resourceVersion"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        spec=spec,
        status=status,
        problems=problems,
        size=size,
        whole=whole,
        finalizers=metadata.get("finalizers") or (),
        digest=shown,
        altered=altered,
    )


def slim(run: TaskRunObject) -> TaskRunObject:
    """Return a TaskRun as it is kept: a large spec without what only its pod needs, as somebody may make very many."""
    if not run.whole or run.size <= KEPT or run.spec is None:
        return run
    arguments = [
        argument if argument.from_x_com is not None else argument.model_copy(update={"value": None})
        for argument in run.spec.arguments
    ]
    left_out = {"params": {}, "pod_template": {}, "arguments": arguments}
    return replace(run, spec=run.spec.model_copy(update=left_out), whole=False)


def _spec(given: Mapping[str, Any], size: int) -> tuple[TaskRunSpec | None, str]:
    """Return what a spec was parsed to, or what is wrong with it."""
    if size > LARGEST_SPEC:
        hint = "put large values into an XCom, a variable or an object store"
        return None, f"spec is {size} bytes, more than {LARGEST_SPEC}, which leaves no room for the status; {hint}"
    try:
        return TaskRunSpec.model_validate(given), ""
    except ValidationError as error:
        return None, "; ".join(_problem(item) for item in error.errors())


def written(run: TaskRunObject, status: TaskRunStatus, answer: Raw) -> TaskRunObject:
    """Return a TaskRun after we have written its status; the API server has made sure that the rest is as it was."""
    metadata = answer["metadata"]
    return replace(
        run,
        status=status,
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        finalizers=metadata.get("finalizers") or (),
        digest=recorded.digest(answer),
        altered=False,
    )


def node(raw: Raw, spec: TaskRunSpec | None, end: str | None) -> Node:
    """Return a TaskRun's place in the order of its run's tasks.

    Args:
        spec: what it was parsed to; None if it is not valid, or if it has ended and is not parsed.
        end: the state that it has ended in, None if it has not.
    """
    metadata, given = raw["metadata"], raw.get("spec") or {}
    # what very many have in common is kept once
    namespace, dag_id = sys.intern(metadata["namespace"]), sys.intern(given.get("dagId", ""))
    return Node(
        key=(namespace, metadata["name"]),
        uid=metadata["uid"],
        run=(namespace, dag_id, given.get("runId", "")),
        task_id=sys.intern(given.get("taskId", "")),
        map_index=given.get("mapIndex", -1),
        created=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
        upstream=upstreams(spec) if spec is not None else (),
        ended=end,
    )


def _problem(item: Any) -> str:
    path = ".".join(str(part) for part in ("spec", *item["loc"]))
    return f"{path}: {item['msg'].removeprefix('Value error, ')}"


def pod(raw: Raw, *, gone: bool = False) -> PodObject:
    """Parse a pod that may be ours."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    owner, annotations = _owner(metadata), metadata.get("annotations") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    disrupted = conditions.get("DisruptionTarget", {})
    task: Raw = next((item for item in spec.get("containers", ()) if item["name"] == TASK), {})
    return PodObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        owner=str(owner.get("uid", "")),
        attempt=_attempt(metadata["name"], owner),
        version=version(metadata.get("resourceVersion", "")),
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        deletion_time=_time(metadata.get("deletionTimestamp")),
        gone=gone,
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        node=spec.get("nodeName"),
        scheduler=spec.get("schedulerName", ""),
        unscheduled=f"{scheduled.get('reason')}: {scheduled.get('message', '')}"
        if scheduled.get("status") == "False"
        else "",
        unschedulable=scheduled.get("message", "")
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        else "",
        gates=[item["name"] for item in spec.get("schedulingGates") or ()],
        disruption=f"{disrupted.get('reason')}: {disrupted.get('message', '')}"
        if disrupted.get("status") == "True"
        else "",
        image=task.get("image"),
        coordinator=annotations.get(COORDINATOR_ANNOTATION),
        queue=annotations.get(QUEUE_ANNOTATION, ""),
        log=_stored_log(annotations.get(LOG_ANNOTATION)),
        containers={item.name: item for item in _containers(status, _sidecars(spec))},
    )


def _sidecars(spec: Mapping[str, Any]) -> set[str]:
    return {item["name"] for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"}


@dataclass(frozen=True, slots=True)
class PodEvent:
    """An Event about a pod."""

    reason: str
    message: str
    warning: bool = True


UNAUTHENTICATED_PULL = "FailedToRetrieveImagePullSecret"
"""The reason of the kubelet's Event about a Secret of `imagePullSecrets` that is not there; the image may be public."""
_OF_PULLS = frozenset({"Failed", "BackOff"})


def telling(items: Iterable[Raw]) -> PodEvent | None:
    """Return of a pod's Events the one that says most of why it does not start: the last warning, or what is pulled.

    Of a pull that fails, that is the missing Secret, if there is one.
    """
    in_time = sorted(items, key=lambda item: item.get("lastTimestamp") or item.get("eventTime") or "")
    found = [PodEvent(item.get("reason") or "", item.get("message") or "", item.get("type") == "Warning")
             for item in in_time]  # fmt: skip
    for event in reversed(found):
        if event.warning:
            secret = next((item for item in found if item.reason == UNAUTHENTICATED_PULL), None)
            return secret if secret is not None and event.reason in _OF_PULLS else event
    return found[-1] if found and found[-1].reason == "Pulling" else None


def _owner(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the reference to the TaskRun that controls an object, empty if none does."""
    for item in metadata.get("ownerReferences") or ():
        if item.get("controller") and is_task_run(item.get("apiVersion", ""), item.get("kind", "")):
            found: Mapping[str, Any] = item
            return found
    return {}


def _attempt(name: str, owner: Mapping[str, Any]) -> int:
    """Return which attempt of its owner a pod is, by its name, which is fixed; 0 if it is none.

    Labels say nothing: anybody can copy them, and an admission policy can take them away.
    """
    number = _number(name.rpartition("-")[2])
    return number if number and name == pod_name(owner.get("name", ""), owner.get("uid", ""), number) else 0


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


def _stored_log(text: str | None) -> StoredLog | None:
    try:
        return StoredLog.model_validate_json(text) if text else None
    except ValidationError:
        # somebody has changed it: a log that is not found must not hold up a task
        return None


def replace_gone(pod_seen: PodObject) -> PodObject:
    """Return a pod that is known to be no more."""
    return replace(pod_seen, gone=True)


def _containers(status: Raw, sidecars: set[str]) -> Iterator[Container]:
    inits, others = status.get("initContainerStatuses") or (), status.get("containerStatuses") or ()
    for item, init in (*((item, True) for item in inits), *((item, False) for item in others)):
        state = item.get("state") or {}
        waiting, running, ended = state.get("waiting"), state.get("running"), state.get("terminated")
        last = (item.get("lastState") or {}).get("terminated") or {}
        common = {
            "restarts": item.get("restartCount", 0),
            "last_message": last.get("message", ""),
            "last_reason": last.get("reason", ""),
            "init": init,
            "sidecar": init and item["name"] in sidecars,
            "passed": bool(item.get("started")),
        }
        if ended is not None:
            yield Container(
                item["name"],
                started=_time(ended.get("startedAt")),
                exit_code=ended.get("exitCode", 0),
                reason=ended.get("reason", ""),
                message=ended.get("message", ""),
                finished=_time(ended.get("finishedAt")),
                **common,
            )
        elif running is not None:
            yield Container(item["name"], started=_time(running.get("startedAt")), **common)
        elif waiting is not None:
            yield Container(
                item["name"], waiting=waiting.get("reason", ""), message=waiting.get("message", ""), **common
            )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
