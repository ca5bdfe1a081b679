"""From a pod to what its attempt has come to. One pure function; the bridge's word first, then the kubelet's.

The attempt is over when the language container has ended and the bridge has told its outcome, or when the pod has
ended as a whole or is gone. Containers that are not ours (a mesh's, for one) have no say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

import msgspec
from polypod_core.outcome import Outcome, decode
from polypod_core.reasons import Reason
from polypod_core.states import NOT_FAILED
from polypod_crds.taskrun import Attempt

from polypod_operator.model.conditions import shorten
from polypod_operator.model.objects import BRIDGE, COPY, UNAUTHENTICATED_PULL, Container, PodEvent, PodObject


@dataclass(frozen=True, slots=True)
class Waiting:
    """The language container has not started.

    Attributes:
        reason: why, as far as it can be told.
        problem: True if it will not start unless something is changed.
    """

    reason: Reason
    message: str = ""
    problem: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The language container runs, or has ended and the bridge has not told its outcome yet."""

    when: datetime | None


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over.

    Attributes:
        outcome: how, in the bridge's words, or in ours if it left none or was itself in doubt.
        lost: True if nobody reported this end, so that another try makes sense whatever the state.
        infrastructure: True if it was not the task that failed but what it ran on: none of the user's tries.
    """

    outcome: Outcome
    lost: bool = False
    infrastructure: bool = False

    @property
    def passed(self) -> bool:
        return self.outcome.state in NOT_FAILED

    @property
    def why(self) -> str:
        """Reason and message, for a sentence."""
        outcome = self.outcome
        return f"{outcome.reason}: {outcome.message}" if outcome.message else outcome.reason


Observation = Waiting | Started | Ended

_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable",
                   "ImageInspectError", "SignatureValidationFailed"})  # fmt: skip
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError",
                     "PostStartHookError", "CrashLoopBackOff"})  # fmt: skip


_MOUNT = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume", "VolumeResizeFailed"})


def observe(pod: PodObject, event: PodEvent | None = None, told: Outcome | None = None) -> Observation:
    """Return what the pod's attempt has come to.

    Args:
        event: what says most among the pod's Events, if they were looked at: only there the kubelet says that a volume
            cannot be mounted.
        told: the outcome that the bridge has sent us, ahead of the kubelet. The same is in the termination message.
    """
    outcome = told or _outcome(pod)
    if told is not None and not _in_doubt(told):
        return _as_told(told, pod)
    ended = pod.task.ended and (pod.bridge.ended or outcome is not None)
    if ended or pod.over:
        return _ended(pod, outcome)
    if pod.task.started is not None:
        return Started(pod.task.started)
    return _waiting(pod, event)


def _outcome(pod: PodObject) -> Outcome | None:
    """Return what the bridge wrote: its last word, be it of this start of its container or of the one before."""
    for text in (pod.bridge.message, pod.bridge.last_message):
        if text.startswith("{"):
            try:
                return decode(text.encode())
            except msgspec.MsgspecError:
                continue
    return None


def _waiting(pod: PodObject, event: PodEvent | None) -> Waiting:
    if pod.unschedulable:
        return Waiting(Reason.UNSCHEDULABLE, pod.unschedulable, problem=True)
    if pod.gates and pod.node is None:
        names = ", ".join(pod.gates)
        message = f"scheduling gates hold the pod: {names}; their owner has to remove them"
        return Waiting(Reason.SCHEDULING_GATED, message, problem=True)
    for container in pod.containers.values():
        if container.waiting in _PULL:
            # without it, the registry's answer is that the image does not exist or needs authorization
            secret = f"; {event.message}" if event is not None and event.reason == UNAUTHENTICATED_PULL else ""
            return Waiting(Reason.IMAGE_PULL_FAILED, _said(container) + secret, problem=True)
        if container.waiting in _CONFIG:
            return Waiting(Reason.CONTAINER_CONFIG, _said(container), problem=True)
    if event is not None and event.warning:
        said = f"{event.reason}: {event.message}"
        if event.reason in _MOUNT:
            return Waiting(Reason.MOUNT_FAILED, said, problem=True)
        return Waiting(Reason.POD_STARTING, "; ".join(filter(None, (_under_way(pod, None), said))), problem=True)
    return Waiting(Reason.POD_STARTING, _under_way(pod, event))


def _under_way(pod: PodObject, event: PodEvent | None) -> str:
    """Return what a pod is waiting for that may be well."""
    if pod.node is None:
        unheard = f"scheduler {pod.scheduler!r} has not processed the pod yet; check that it is running"
        return pod.unscheduled or unheard
    if not pod.containers:
        return f"the kubelet of node {pod.node!r} has not started the pod yet"
    for container in pod.containers.values():
        if container.sidecar and container.started is not None and not container.passed:
            return f"sidecar {container.name!r} is running but has not passed its startup probe yet"
        if container.init and not container.sidecar and container.started is not None and not container.ended:
            return f"init container {container.name!r} is running; the task starts when it completes"
        if container.init and container.exit_code:
            return f"init container {container.name!r} exited with code {container.exit_code}: {_last_line(container)}"
    if event is not None:
        return event.message
    waiting = next((item for item in pod.containers.values() if item.waiting == "ContainerCreating"), None)
    waiting = waiting or next((item for item in pod.containers.values() if item.waiting), None)
    return f"container {waiting.name!r}: {waiting.waiting}" if waiting is not None else ""


def _last_line(container: Container) -> str:
    """Return the last line of what a container has left: of one that failed, the end of its log."""
    lines = container.message.strip().splitlines()
    return lines[-1] if lines else container.reason


def _said(container: Container) -> str:
    return f"container {container.name!r}: {container.waiting}: {container.message or container.last_message}"


def _ended(pod: PodObject, outcome: Outcome | None) -> Ended:
    if outcome is not None and not _in_doubt(outcome):
        return _as_told(outcome, pod)
    reason, message = _why(pod, outcome)
    if outcome is not None and reason == outcome.reason and reason not in _INTERRUPTED:
        return Ended(_completed(outcome, pod))
    state = "up_for_retry" if outcome is not None and outcome.state == "up_for_retry" else "failed"
    told = outcome if outcome is not None else Outcome(state=state, reason=reason)
    found = _completed(msgspec.structs.replace(told, state=state, reason=reason, message=message), pod)
    if found.exit_code is None and found.signal is None and pod.task.ended:
        found.exit_code = pod.task.exit_code
    return Ended(found, lost=True, infrastructure=reason in INFRASTRUCTURE)


def _as_told(outcome: Outcome, pod: PodObject) -> Ended:
    """Return an end in the bridge's words."""
    not_started = outcome.state not in NOT_FAILED and outcome.reason in NOT_STARTED
    return Ended(_completed(outcome, pod), lost=not_started, infrastructure=not_started)


def _completed(outcome: Outcome, pod: PodObject) -> Outcome:
    """Return an outcome with the times that the kubelet knows better, or alone."""
    return msgspec.structs.replace(
        outcome,
        start_time=pod.task.started or outcome.start_time,
        finish_time=outcome.finish_time or pod.task.finished or pod.bridge.finished,
    )


def put_outcome(attempt: Attempt, outcome: Outcome, now: datetime) -> None:
    """Write an outcome into its attempt: the fields that both have, by their names."""
    for name in _SHARED:
        value = getattr(outcome, name)
        # what is not known must not hide what was seen before
        if value is not None:
            setattr(attempt, name, value)
    attempt.message = shorten(outcome.message)
    attempt.finish_time = outcome.finish_time or now
    attempt.reported = outcome.reported or None
    if outcome.log_url and attempt.log is not None:
        attempt.log = attempt.log.model_copy(update={"url": outcome.log_url})


_SHARED = tuple(item.name for item in msgspec.structs.fields(Outcome) if item.name in Attempt.model_fields)


_INTERRUPTED = frozenset({Reason.TERMINATED, Reason.BRIDGE_LOST, Reason.LAUNCHER_LOST, Reason.EXIT_STATUS_LOST})
"""The task was ended from outside."""

NOT_STARTED: frozenset[str] = frozenset({Reason.API_UNAVAILABLE, Reason.BRIDGE_UNREACHABLE, Reason.LAUNCHER_LOST})
"""The task had not started, through no fault of its own: another pod can run it, whoever started it."""

INFRASTRUCTURE: frozenset[str] = (
    _INTERRUPTED | NOT_STARTED | {Reason.EVICTED, Reason.POD_DELETED, Reason.POD_LOST, Reason.NO_OUTCOME}
)
"""Losses of what the task ran on."""

_LAUNCHERS = {125: Reason.BRIDGE_UNREACHABLE, 126: Reason.LAUNCHER_FAILED}
"""Exit codes of the launcher itself, if it has left a message that begins with its name (`launcher/README.md`)."""
_LAUNCHERS_NAME = "polypod-launcher: "


_OWN_LIMIT = re.compile(r"\bexceed(s|ed)\b")
"""In the kubelet's message of an eviction: the pod was over a limit of its own (a container's or the pod's
ephemeral-storage, an emptyDir's sizeLimit). Of a node that is short of something it says that the node was low."""


def _in_doubt(outcome: Outcome) -> bool:
    """Tell whether the bridge itself does not know why the task ended, so that the kubelet is to be asked."""
    return outcome.state not in NOT_FAILED and outcome.reason in _INTERRUPTED | {
        Reason.LIKELY_OUT_OF_MEMORY,
        Reason.STARTUP_FAILED,
    }


def _why(pod: PodObject, outcome: Outcome | None) -> tuple[str, str]:
    """Return why an attempt ended of which the bridge told nothing, or nothing sure."""
    bridge_killed = pod.bridge.reason == "OOMKilled" and not pod.task.ended
    if outcome is not None and outcome.reason == Reason.BRIDGE_LOST:
        bridge_killed = pod.bridge.last_reason == "OOMKilled"
    if pod.task.reason == "OOMKilled" or bridge_killed:
        which = "language container" if pod.task.reason == "OOMKilled" else "bridge"
        return Reason.OOM_KILLED, (
            f"the {which} reached its memory limit and was killed; raise resources.limits.memory, or lower what the "
            "task uses"
        )
    if pod.reason == "Evicted" and _OWN_LIMIT.search(pod.message):
        return Reason.STORAGE_LIMIT, pod.message
    if pod.reason == "Evicted" or pod.disruption:
        return Reason.EVICTED, pod.message or pod.disruption
    if pod.reason == "DeadlineExceeded":
        return Reason.DEADLINE_EXCEEDED, pod.message or "the pod exceeded all timeouts of its task"
    copy = pod.containers.get(COPY)
    if copy is not None and copy.exit_code:
        return Reason.ARTIFACT_COPY_FAILED, copy.message.strip() or f"the copy exited with code {copy.exit_code}"
    broken = next((item for item in pod.containers.values() if item.init and item.exit_code), None)
    if broken is not None and pod.task.started is None and broken.name != BRIDGE:
        text = f"init container {broken.name!r} exited with code {broken.exit_code}: {_last_line(broken)}"
        return Reason.INIT_FAILED, text
    if pod.reason:
        return Reason.POD_LOST, f"{pod.reason}: {pod.message}"
    if pod.deleting or (pod.gone and pod.phase in ("Pending", "Running")):
        return Reason.POD_DELETED, "the pod was deleted while its task was running"
    if pod.task.exit_code in _LAUNCHERS and pod.task.message.startswith(_LAUNCHERS_NAME):
        return _LAUNCHERS[pod.task.exit_code], pod.task.message.removeprefix(_LAUNCHERS_NAME).strip()
    if outcome is not None:
        return outcome.reason, outcome.message
    if pod.gone:
        return Reason.POD_LOST, "the pod was deleted before its final status was observed"
    return _who_ended_first(pod)


def _who_ended_first(pod: PodObject) -> tuple[str, str]:
    """Return why an attempt ended whose containers have ended by themselves and left no outcome."""
    task, bridge = pod.task, pod.bridge
    bridge_failed = bool(bridge.exit_code or bridge.restarts)
    # a kubelet ends the bridge when the language container has ended: then its exit code says nothing
    task_was_first = task.finished is not None and bridge.finished is not None and task.finished < bridge.finished
    if bridge_failed and (bridge.restarts or not task_was_first):
        when = "while the task was running" if task.started or task.ended else "before the task had started"
        how = f"the bridge container terminated {when} (exit code {bridge.exit_code})"
        return Reason.BRIDGE_LOST, f"{how}; the outcome is unknown"
    if task.ended:
        text = task.message.strip() or task.reason
        after = f", which was terminated after it (exit code {bridge.exit_code})," if bridge_failed else ""
        return Reason.NO_OUTCOME, (
            f"the language container exited with code {task.exit_code} ({text}) and the bridge{after} left no outcome"
        )
    return Reason.NO_OUTCOME, "the pod ended and the bridge left no outcome"


def lost(message: str) -> Ended:
    """Return the end of an attempt whose pod is not there and was not seen to end."""
    outcome = Outcome(state="failed", reason=Reason.POD_LOST, message=message)
    return Ended(outcome, lost=True, infrastructure=True)
