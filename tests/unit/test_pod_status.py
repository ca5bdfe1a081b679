"""status.py: the outcome of an attempt from the bridge's word and the kubelet's, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from polypod_operator.decide.status import Ended, Started, Waiting, observe
from polypod_operator.model.objects import UNAUTHENTICATED_PULL, Container, PodEvent, telling
from polypod_operator.model.objects import pod as parse
from support.objects import NOW, outcome_of, pod

LOST = outcome_of("failed", "BridgeLost")
TOLD = outcome_of("up_for_retry", "Terminated")
OOM = outcome_of("failed", "LikelyOutOfMemory", signal=9)
STARTUP = outcome_of("failed", "StartupFailed", exit_code=9)
SUCCESS = outcome_of("success", "TaskSucceeded", exit_code=0)
MESH = Container("mesh", started=NOW)


def after(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


def ended_after(task: int, bridge: int, *, code: int = 1, message: str = "", **fields: Any) -> tuple[Container, ...]:
    """Return both containers as they end on their own, after so many seconds; the kubelet has killed the bridge."""
    return (
        Container("task", started=NOW, exit_code=code, message=message, finished=after(task)),
        Container("bridge", exit_code=137, finished=after(bridge), init=True, sidecar=True, **fields),
    )


NO_ANSWER = "polypod-launcher: the bridge did not answer within 600s; the task did not start\n"
CASES: list[tuple[str, dict[str, Any], str, str, bool]] = [
    # what is seen → state, reason, whether it was lost and not failed
    ("success", {"phase": "Succeeded", "bridge_message": SUCCESS}, "success", "TaskSucceeded", False),
    ("success, pod deleted since", {"gone": True, "bridge_message": SUCCESS}, "success", "TaskSucceeded", False),
    ("success, sidecar killed at shutdown", {"phase": "Failed", "bridge_message": SUCCESS, "bridge_exit": 137},
     "success", "TaskSucceeded", False),
    ("success, another container runs on", {"task_exit": 0, "bridge_message": SUCCESS, "others": (MESH,)},
     "success", "TaskSucceeded", False),
    ("another container failed", {"phase": "Failed", "bridge_message": SUCCESS,
                                  "others": (Container("mesh", exit_code=1),)}, "success", "TaskSucceeded", False),
    ("failed", {"phase": "Failed", "bridge_message": outcome_of("failed", "TaskFailed")}, "failed", "TaskFailed", False),
    ("retry", {"phase": "Failed", "bridge_message": outcome_of("up_for_retry", "RuntimeExited")},
     "up_for_retry", "RuntimeExited", False),
    ("out of memory", {"phase": "Failed", "bridge_message": OOM, "task_reason": "OOMKilled"},
     "failed", "OOMKilled", True),
    ("SIGKILL by somebody else", {"phase": "Failed", "bridge_message": OOM}, "failed", "LikelyOutOfMemory", False),
    ("launcher killed by the kernel", {"phase": "Failed", "task_reason": "OOMKilled",
                                       "bridge_message": outcome_of("failed", "ExitStatusLost")},
     "failed", "OOMKilled", True),
    ("launcher killed", {"phase": "Failed", "bridge_message": outcome_of("failed", "ExitStatusLost")},
     "failed", "ExitStatusLost", True),
    ("startup failed", {"phase": "Failed", "bridge_message": STARTUP}, "failed", "StartupFailed", False),
    ("startup failed for want of memory", {"phase": "Failed", "bridge_message": STARTUP, "task_reason": "OOMKilled"},
     "failed", "OOMKilled", True),
    ("evicted", {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "failed", "Evicted", True),
    ("evicted, as its node was low", {"phase": "Failed", "reason": "Evicted", "message":
        "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 900Mi."},
     "failed", "Evicted", True),
    ("over its volume's limit", {"phase": "Failed", "reason": "Evicted", "message":
        'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". '}, "failed", "StorageLimitExceeded", True),
    ("over its container's limit", {"phase": "Failed", "reason": "Evicted", "message":
        'Container task exceeded its local ephemeral storage limit "1Gi". '}, "failed", "StorageLimitExceeded", True),
    ("over the pod's limit", {"phase": "Failed", "reason": "Evicted", "message":
        "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "},
     "failed", "StorageLimitExceeded", True),
    ("preempted", {"phase": "Failed", "disruption": "PreemptionByScheduler: x", "bridge_message": TOLD},
     "up_for_retry", "Evicted", True),
    ("deleted by hand", {"phase": "Running", "deleting": True, "gone": True, "bridge_message": TOLD},
     "up_for_retry", "PodDeleted", True),
    ("gone silently", {"phase": "Running", "gone": True}, "failed", "PodDeleted", True),
    ("never started, gone", {"gone": True}, "failed", "PodDeleted", True),
    ("deadline", {"phase": "Failed", "reason": "DeadlineExceeded"}, "failed", "DeadlineExceeded", True),
    ("node lost", {"phase": "Failed", "reason": "NodeLost"}, "failed", "PodLost", True),
    ("bridge lost", {"phase": "Failed", "bridge_message": LOST}, "failed", "BridgeLost", True),
    ("bridge killed", {"phase": "Failed", "bridge_exit": 137}, "failed", "BridgeLost", True),
    ("bridge out of memory", {"gone": True, "bridge_exit": 137, "bridge_reason": "OOMKilled"},
     "failed", "OOMKilled", True),
    ("no outcome", {"phase": "Failed"}, "failed", "NoOutcome", True),
    ("garbage for an outcome", {"phase": "Failed", "bridge_message": "{not json"}, "failed", "NoOutcome", True),
    ("told by a bridge that a mesh has kept", {"phase": "Running", "task_exit": 0, "others": (MESH,), "bridge_last": SUCCESS},
     "success", "TaskSucceeded", False),
    ("an init container failed", {"phase": "Failed", "task_exit": None, "unstarted": True, "bridge_message": TOLD,
                                  "others": (Container("init", exit_code=3, message="no network", init=True),)},
     "up_for_retry", "InitContainerFailed", True),
    ("the Execution API was away", {"phase": "Failed", "bridge_message": outcome_of("failed", "ExecutionApiUnavailable")},
     "failed", "ExecutionApiUnavailable", True),
    ("the bridge came too late", {"phase": "Failed", "others": ended_after(60, 100, code=125, message=NO_ANSWER)},
     "failed", "BridgeUnreachable", True),
    ("the bridge came too late, and told it", {"phase": "Failed", "others": (
        ended_after(60, 100, code=125, message=NO_ANSWER)[0],
        Container("bridge", exit_code=0, message=TOLD, finished=after(61), init=True))},
     "up_for_retry", "BridgeUnreachable", True),
    ("the launcher failed", {"phase": "Failed", "others":
        ended_after(1, 40, code=126, message="polypod-launcher: user 7 cannot connect")},
     "failed", "LauncherFailed", True),
    ("a task that exits as a launcher does", {"phase": "Failed", "others": ended_after(60, 100, code=125)},
     "failed", "NoOutcome", True),
    ("the task ended first", {"phase": "Failed", "others": ended_after(10, 50)}, "failed", "NoOutcome", True),
    ("the bridge ended first", {"phase": "Failed", "others": ended_after(50, 10)}, "failed", "BridgeLost", True),
    ("both in one second", {"phase": "Failed", "others": ended_after(10, 10)}, "failed", "BridgeLost", True),
    ("an earlier bridge ended first", {"phase": "Failed", "others": ended_after(10, 50, restarts=1)},
     "failed", "BridgeLost", True),
    ("copy failed", {"phase": "Failed", "others": (Container("copy-artifacts", exit_code=1, message="no /jars"),)},
     "failed", "ArtifactCopyFailed", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "state", "reason", "lost"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_table(seen: dict[str, Any], state: str, reason: str, lost: bool) -> None:
    found = observe(pod(**seen))
    assert isinstance(found, Ended)
    assert (found.outcome.state, found.outcome.reason, found.lost) == (state, reason, lost)
    # what is lost with what it ran on is none of the user's failures
    users = ("OOMKilled", "StorageLimitExceeded", "DeadlineExceeded", "ArtifactCopyFailed", "InitContainerFailed",
             "LauncherFailed")  # fmt: skip
    assert found.infrastructure == (lost and reason not in users)


def test_whoever_ended_first_is_named() -> None:
    def said(**seen: Any) -> str:
        found = observe(pod(phase="Failed", **seen))
        assert isinstance(found, Ended)
        return found.outcome.message

    assert said(others=ended_after(60, 100, code=125, message=NO_ANSWER)) == (
        "the bridge did not answer within 600s; the task did not start"
    )
    assert "exited with code 1" in said(others=ended_after(10, 50))
    assert "was terminated after it (exit code 137)" in said(others=ended_after(10, 50))
    assert "terminated while the task was running" in said(others=ended_after(50, 10))
    assert "terminated before the task had started" in said(unstarted=True, bridge_exit=1)


WAITING: list[tuple[str, dict[str, Any], str, bool]] = [
    ("new", {}, "PodStarting", False),
    ("unschedulable", {"unschedulable": "0/1 nodes"}, "Unschedulable", True),
    ("gated", {"node": None, "gates": ["a.dev/x", "b.dev/y"]}, "SchedulingGated", True),
    ("pull", {"waiting": ("task", "ImagePullBackOff", "x")}, "ImagePullFailed", True),
    ("pull of the bridge", {"waiting": ("bridge", "ErrImagePull", "x")}, "ImagePullFailed", True),
    ("config", {"waiting": ("task", "CreateContainerConfigError", "x")}, "ContainerConfigError", True),
    ("creating", {"waiting": ("task", "PodInitializing", "")}, "PodStarting", False),
]


@pytest.mark.parametrize(("seen", "reason", "problem"), [case[1:] for case in WAITING], ids=[c[0] for c in WAITING])
def test_what_keeps_it_from_starting(seen: dict[str, Any], reason: str, problem: bool) -> None:
    found = observe(pod(**seen))
    assert isinstance(found, Waiting)
    assert (found.reason, found.problem) == (reason, problem)


def test_a_mount_is_told_by_the_events_alone() -> None:
    found = observe(pod(), PodEvent("FailedMount", 'MountVolume.SetUp failed for volume "x": secret "x" not found'))
    assert isinstance(found, Waiting)
    assert (found.reason, found.problem) == ("MountFailed", True)


RUNS: dict[str, Any] = {"started": NOW, "init": True}
UNDER_WAY: list[tuple[dict[str, Any], PodEvent | None, str]] = [
    ({"node": None, "scheduler": "mine"}, None, "scheduler 'mine' has not processed the pod yet; check that it is running"),
    ({"node": None, "scheduler": "mine", "unscheduled": "SchedulerError: x"}, None, "SchedulerError: x"),
    ({"others": (Container("init", **RUNS),)}, None, "init container 'init' is running; the task starts when it completes"),
    ({"others": (Container("mesh", sidecar=True, **RUNS),)}, None, "'mesh' is running but has not passed its startup probe"),
    ({"others": (Container("mesh", sidecar=True, passed=True, **RUNS), Container("init", **RUNS))}, None, "'init' is running"),
    ({"others": (Container("init", exit_code=3, message="a\nno network\n", init=True),)}, None,
     "init container 'init' exited with code 3: no network"),
    ({}, PodEvent("Pulling", "Pulling image x", False), "Pulling image x"),
    ({"waiting": ("task", "ContainerCreating", "")}, None, "container 'task': ContainerCreating"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "event", "said"), UNDER_WAY, ids=[case[2] for case in UNDER_WAY])
def test_a_pod_that_has_no_problem_says_what_it_waits_for(
    seen: dict[str, Any], event: PodEvent | None, said: str
) -> None:
    found = observe(pod(**seen), event)
    assert isinstance(found, Waiting)
    assert (found.reason, found.problem) == ("PodStarting", False)
    assert said in found.message


def test_a_pull_that_fails_names_the_secret_that_is_missing() -> None:
    event = PodEvent(UNAUTHENTICATED_PULL, "Unable to retrieve some image pull secrets (nowhere)")
    found = observe(pod(waiting=("task", "ErrImagePull", "401 Unauthorized")), event)
    assert isinstance(found, Waiting)
    assert found.reason == "ImagePullFailed"
    assert found.message == f"container 'task': ErrImagePull: 401 Unauthorized; {event.message}"


def test_a_warning_is_told_beside_what_it_is_about() -> None:
    found = observe(pod(others=(Container("mesh", sidecar=True, **RUNS),)), PodEvent("Unhealthy", "probe failed"))
    assert isinstance(found, Waiting)
    assert (
        found.message == "sidecar 'mesh' is running but has not passed its startup probe yet; Unhealthy: probe failed"
    )
    assert found.problem


def test_a_node_that_has_not_answered_is_named() -> None:
    found = observe(replace(pod(), containers={}))
    assert isinstance(found, Waiting)
    assert found.message == "the kubelet of node 'node-1' has not started the pod yet"


def test_of_a_pods_events_the_last_warning_tells_most_and_else_what_is_pulled() -> None:
    def event(reason: str, when: int, kind: str = "Normal") -> dict[str, Any]:
        return {"reason": reason, "message": reason, "type": kind, "lastTimestamp": f"2026-11-21T12:00:{when:02}Z"}

    mount, pulling, pulled = event("FailedMount", 3, "Warning"), event("Pulling", 5), event("Pulled", 6)
    assert telling([]) is None
    assert telling([pulling, mount]) == PodEvent("FailedMount", "FailedMount")
    assert telling([pulling, event("Scheduled", 1)]) == PodEvent("Pulling", "Pulling", False)
    assert telling([pulling, pulled]) is None
    missing, failed = event(UNAUTHENTICATED_PULL, 5, "Warning"), event("Failed", 6, "Warning")
    assert telling([pulling, missing, failed]) == PodEvent(UNAUTHENTICATED_PULL, UNAUTHENTICATED_PULL)
    assert telling([missing, event("FailedMount", 7, "Warning")]) == PodEvent("FailedMount", "FailedMount")


def test_a_task_that_has_ended_waits_for_the_bridges_word() -> None:
    assert isinstance(observe(pod(phase="Running", task_started=NOW, task_exit=0)), Started)


def test_what_was_written_by_a_bridge_before_its_restart_counts() -> None:
    status = {
        "phase": "Failed",
        "initContainerStatuses": [
            {
                "name": "bridge",
                "restartCount": 1,
                "state": {"terminated": {"exitCode": 0, "message": ""}},
                "lastState": {"terminated": {"exitCode": 137, "message": SUCCESS}},
            }
        ],
    }
    metadata = {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-11-21T12:00:00Z"}
    found = observe(parse({"metadata": metadata, "spec": {"containers": []}, "status": status}))
    assert isinstance(found, Ended)
    assert found.outcome.state == "success"


def test_what_a_pod_did_to_itself_is_no_loss_of_infrastructure() -> None:
    said = 'Usage of EmptyDir volume "tmp" exceeds the limit "1Mi". '
    own = observe(pod(phase="Failed", reason="Evicted", message=said))
    node = observe(pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert isinstance(own, Ended)
    assert isinstance(node, Ended)
    assert (own.infrastructure, node.infrastructure) == (False, True)


@pytest.mark.parametrize(
    "message", ['{"state":' + "[" * 2000, '{"x":' + "[" * 1500 + "]" * 1500 + ',"state":"success"}', "{", "{}"]
)
def test_a_terminal_message_that_cannot_be_read_is_no_outcome(message: str) -> None:
    found = observe(pod(phase="Failed", task_exit=1, bridge_message=message))
    assert isinstance(found, Ended)
    assert found.outcome.reason == "NoOutcome"
