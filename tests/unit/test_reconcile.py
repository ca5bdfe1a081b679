"""reconcile.py: what is done for a TaskRun, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from polypod_core.outcome import decode
from polypod_core.reasons import Reason
from polypod_core.routing import parse_routing
from polypod_crds.dependencies import Cycle, Stops, Verdict, Waits
from polypod_crds.taskrun import TaskRunStatus
from polypod_operator.decide import decision as d
from polypod_operator.decide.policy import POLICY
from polypod_operator.decide.reconcile import reconcile
from polypod_operator.model.objects import Container, PodEvent, PodObject, TaskRunObject
from support.objects import NOW, ROUTING, SETTINGS, outcome_of, pod, task_run


class World:
    """A TaskRun and its pods, with a clock; `step` decides once, as the controller does."""

    def __init__(self, **spec: Any) -> None:
        self.run: TaskRunObject = task_run(**spec)
        self.pods: dict[str, PodObject] = {}
        self.now = NOW
        self.extra: dict[str, Any] = {}
        self.closed: dict[str, datetime] = {}
        self.routing: Any = ROUTING
        self.rejected = ""

    def note_closed(self) -> None:
        for attempt in self.run.status.attempts:
            if attempt.state not in ("queued", "running") and attempt.pod_name in self.pods:
                self.closed.setdefault(self.pods[attempt.pod_name].uid, self.now)

    def decide(self) -> d.Decision:
        self.note_closed()
        world = d.Observed(pods=self.pods, closed_since=self.closed, **self.extra)
        return reconcile(self.run, world, self.routing, SETTINGS, self.now, rejected=self.rejected)

    def step(self) -> list[d.Action]:
        """Decide, take the status over, and carry out the creation of pods."""
        decision = self.decide()
        if decision.to_be_written(self.run.status, self.now):
            self.run = task_run(spec=self.run.spec, status=decision.status)
            self.note_closed()
        for action in decision.actions:
            if isinstance(action, d.CreatePod):
                name = action.manifest["metadata"]["name"]
                number = int(action.manifest["metadata"]["labels"]["polypod.dev/attempt"])
                self.pods[name] = pod(name, number, created=self.now)
        return list(decision.actions)

    @property
    def status(self) -> TaskRunStatus:
        return self.run.status

    @property
    def only(self) -> str:
        [name] = [item.name for item in self.pods.values() if not item.gone]
        return name

    def see(self, **changes: Any) -> list[d.Action]:
        name = self.only
        self.pods[name] = pod(name, self.pods[name].attempt, created=self.pods[name].created, **changes)
        return self.step()

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def started(**spec: Any) -> World:
    world = World(**spec)
    world.step()
    world.see(phase="Running", task_started=NOW)
    return world


def kinds(actions: list[d.Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def answer(world: World, kind: str) -> str:
    return next(item.status for item in world.status.conditions if item.type == kind)


def test_an_attempt_is_written_down_when_there_is_something_to_say() -> None:
    world = World()
    assert kinds(world.step()) == ["CreatePod"]
    # a pod that is just starting is not worth a write
    assert world.step() == []
    assert world.status == TaskRunStatus()
    assert world.decide().requeue_at == NOW + POLICY.look_after
    world.later(3)
    world.step()
    [attempt] = world.status.attempts
    assert (attempt.state, attempt.pod_name, world.status.phase) == ("queued", world.only, "Pending")
    assert (answer(world, "Routed"), answer(world, "Started"), answer(world, "Complete")) == ("True", "False", "False")
    before = world.status.model_copy(deep=True)
    world.later(1)
    assert kinds(world.step()) == ["LookAtEvents"]
    assert world.status == before


def test_a_quick_task_costs_two_status_writes() -> None:
    world = World()
    written = []
    for change in ({}, {}, {"phase": "Running", "task_started": NOW},
                   {"phase": "Running", "task_started": NOW, "task_exit": 0, "bridge_message": outcome_of("success", "TaskSucceeded")},
                   {"phase": "Succeeded", "bridge_message": outcome_of("success", "TaskSucceeded")}):  # fmt: skip
        before = world.status
        if change:
            world.see(**change)
        else:
            world.step()
        written.append(world.status != before)
    assert written == [False, False, True, True, False]


def test_the_same_state_leads_to_the_same_decision() -> None:
    world = started()
    assert world.decide().status == world.status
    assert world.decide().actions == []


def test_running_then_success() -> None:
    world = started()
    assert (world.status.phase, world.status.state, answer(world, "Started")) == ("Running", "running", "True")
    world.see(phase="Succeeded", bridge_message=outcome_of("success", "TaskSucceeded"))
    assert (world.status.phase, world.status.state, world.status.reason) == ("Succeeded", "success", "TaskSucceeded")
    assert (answer(world, "Complete"), answer(world, "Succeeded")) == ("True", "True")


def test_a_final_phase_never_changes() -> None:
    world = started()
    world.see(phase="Succeeded", bridge_message=outcome_of("success", "TaskSucceeded"))
    before = world.status.model_copy(deep=True)
    world.see(phase="Failed", bridge_message=outcome_of("failed", "TaskFailed"))
    assert world.status == before


def test_a_failed_try_is_tried_again_after_the_delay_and_no_sooner() -> None:
    world = started(retries={"limit": 1, "delay": "10s"})
    actions = world.see(phase="Failed", bridge_message=outcome_of("up_for_retry", "RuntimeExited", exit_code=3))
    assert kinds(actions) == ["RecordEvent"]
    assert (world.status.phase, world.status.state, world.status.reason) == ("Pending", "up_for_retry", "Retrying")
    world.later(9)
    assert world.step() == []
    world.later(2)
    assert kinds(world.step()) == ["CreatePod"]
    assert len(world.pods) == 2
    old, new = world.pods
    assert old != new
    del world.pods[old]
    world.step()
    actions = world.see(phase="Failed", bridge_message=outcome_of("up_for_retry", "RuntimeExited", exit_code=3))
    # the bridge asks for a retry that the user's limit does not give
    assert (world.status.phase, world.status.state) == ("Failed", "failed")
    assert world.status.failed_tries == 2


def test_with_airflow_behind_it_the_next_try_is_the_schedulers() -> None:
    world = started(workloadSecretRef={"name": "w", "key": "workload.json"})
    world.see(phase="Failed", bridge_message=outcome_of("up_for_retry", "RuntimeExited"))
    assert (world.status.phase, world.status.state) == ("Failed", "up_for_retry")


AIRFLOWS = [
    {"workloadSecretRef": {"name": "w", "key": "workload.json"}},
    {"executionApi": {"url": "http://airflow/", "tokenSecretRef": {"name": "t", "key": "token"}}},
]


@pytest.mark.parametrize("reported", [True, False])
@pytest.mark.parametrize("origin", [{}, *AIRFLOWS])
def test_a_task_that_its_artifact_does_not_hold_has_failed_unless_airflow_decides(
    origin: dict[str, Any], reported: bool
) -> None:
    world = started(retries={"limit": 3}, **origin)
    told = outcome_of("removed", "TaskRemoved", message="no task 't'; known: u", reported=reported)
    world.see(phase="Succeeded", bridge_message=told)
    status = world.status
    assert (status.phase, status.state, status.reason) == (
        "Succeeded" if origin else "Failed", "removed", "TaskRemoved",
    )  # fmt: skip
    assert status.message == "no task 't'; known: u"
    conditions = {item.type: item.status for item in status.conditions}
    assert conditions["Succeeded"] == ("True" if origin else "False")
    assert world.step() == []


def test_a_failure_for_good_is_not_tried_again() -> None:
    world = started(retries={"limit": 5})
    world.see(phase="Failed", bridge_message=outcome_of("failed", "TaskFailed"))
    assert (world.status.phase, world.status.reason) == ("Failed", "TaskFailed")


def test_the_tasks_own_delay_wins() -> None:
    world = started(retries={"limit": 1, "delay": "10m"})
    world.see(phase="Failed", bridge_message=outcome_of("up_for_retry", "RetryRequested", retry_delay_seconds=1.0))
    world.later(2)
    assert kinds(world.step()) == ["CreatePod"]


@pytest.mark.parametrize("phase", ["before", "pending", "running"])
def test_cancel(phase: str) -> None:
    world = World()
    if phase != "before":
        world.step()
        world.step()
    if phase == "running":
        world.see(phase="Running", task_started=NOW)
    world.run = task_run(spec=world.run.spec, status=world.status, cancel=True)
    actions = world.step()
    if phase == "before":
        assert (world.status.phase, world.status.reason) == ("Failed", "Cancelled")
        assert world.pods == {}
        return
    assert "DeletePod" in kinds(actions)
    # written down before the pod is deleted, so that it is known afterwards
    assert world.status.attempts[0].reason == Reason.CANCELLED
    assert world.status.phase != "Failed"
    assert kinds(world.see(deleting=True, phase="Running" if phase == "running" else "Pending")) == []
    world.see(gone=True)
    assert (world.status.phase, world.status.state, world.status.reason) == ("Failed", "failed", "Cancelled")


def test_a_task_that_had_succeeded_before_the_cancel_reached_it_stays_so() -> None:
    world = started()
    world.run = task_run(spec=world.run.spec, status=world.status, cancel=True)
    world.step()
    world.see(phase="Succeeded", bridge_message=outcome_of("success", "TaskSucceeded"))
    assert (world.status.phase, world.status.state) == ("Succeeded", "success")


def test_suspend_ends_what_runs_without_counting_it_and_resume_starts_anew() -> None:
    world = started()
    world.run = task_run(spec=world.run.spec, status=world.status, suspend=True)
    assert kinds(world.step()) == ["DeletePod"]
    world.see(gone=True)
    assert (world.status.phase, world.status.reason, world.status.failed_tries) == ("Pending", "Suspended", 0)
    assert world.step() == []
    world.run = task_run(spec=world.run.spec, status=world.status, suspend=False)
    assert kinds(world.step()) == ["CreatePod"]
    assert [item.attempt for item in world.pods.values() if not item.gone] == [2]


def test_the_pending_timeout_ends_with_the_real_reason() -> None:
    world = World(timeouts={"pending": "1m"})
    world.step()
    actions = world.see(waiting=("task", "ImagePullBackOff", "no such image"))
    assert kinds(actions) == ["RecordEvent"]
    assert (world.status.phase, world.status.reason) == ("Pending", "ImagePullFailed")
    assert kinds(world.see(waiting=("task", "ErrImagePull", "no such image"))) == []
    world.later(61)
    assert kinds(world.see(waiting=("task", "ErrImagePull", "no such image"))) == ["DeletePod"]
    world.see(gone=True)
    assert (world.status.phase, world.status.reason) == ("Failed", "ImagePullFailed")
    assert "did not start within 1m; " in world.status.message


@pytest.mark.parametrize("event", [None, PodEvent("Unhealthy", "of no known kind"), PodEvent("Pulling", "x", False)])
def test_a_pod_that_does_not_start_for_no_known_reason_has_reached_the_pending_timeout(event: PodEvent | None) -> None:
    world = World(timeouts={"pending": "1m"})
    world.step()
    events = {f"uid-of-{world.only}": event} if event is not None else {}
    world.extra = {"events": events, "events_checked_at": {f"uid-of-{world.only}": NOW}}
    world.later(61)
    assert "DeletePod" in kinds(world.step())
    world.see(gone=True)
    assert (world.status.phase, world.status.reason) == ("Failed", "PendingTimeout")
    assert (event.message if event is not None else "") in world.status.message


def test_what_recovers_is_forgotten() -> None:
    world = World()
    world.step()
    world.see(unschedulable="0/1 nodes are available")
    world.see(phase="Running", task_started=NOW)
    world.see(gone=True, phase="Running")
    assert world.status.attempts[0].reason == "PodDeleted"


def test_the_events_of_a_pod_that_does_not_start_are_looked_at_ever_more_seldom() -> None:
    world = World()
    world.step()
    assert kinds(world.step()) == []
    looks = []
    for _ in range(120):
        world.later(1)
        actions = world.step()
        if "LookAtEvents" in kinds(actions):
            looks.append((world.now - NOW).total_seconds())
            world.extra = {"events_checked_at": {world.pods[world.only].uid: world.now}}
    assert looks[0] == 3
    assert len(looks) < 12
    world.extra["events"] = {world.pods[world.only].uid: PodEvent("FailedMount", 'secret "x" not found')}
    world.step()
    assert world.status.reason == "MountFailed"


def test_killed_after_it_has_made_a_pod_the_same_name_is_made_again_and_found_to_be_there() -> None:
    world = World()
    [first] = world.step()
    fresh = World()
    [again] = fresh.step()
    assert isinstance(first, d.CreatePod)
    assert isinstance(again, d.CreatePod)
    assert first.manifest == again.manifest


def test_a_pod_that_the_status_does_not_name_is_taken_over() -> None:
    world = World()
    world.step()
    fresh = World()
    fresh.pods = world.pods
    assert kinds(fresh.step()) == []
    fresh.later(3)
    fresh.step()
    assert [attempt.pod_name for attempt in fresh.status.attempts] == [world.only]


def test_an_unknown_pod_is_asked_for_before_it_counts_as_lost() -> None:
    world = started()
    name = world.only
    world.pods = {}
    assert world.decide().actions == [d.VerifyPod("ns", name)]
    world.extra = {"absent": frozenset({name})}
    world.step()
    assert (world.status.phase, world.status.reason) == ("Pending", "Replacing")
    assert world.status.attempts[0].reason == "PodLost"


def test_a_loss_of_infrastructure_is_made_good_and_is_none_of_the_users_tries() -> None:
    world = started(retries={"limit": 0})
    for lost in range(1, POLICY.infrastructure_limit + 1):
        world.see(gone=True, phase="Running")
        assert (world.status.phase, world.status.state, world.status.reason) == ("Pending", "up_for_retry", "Replacing")
        assert (world.status.infrastructure_failures, world.status.failed_tries) == (lost, 0)
        assert world.status.attempts[-1].reason == "PodDeleted"
        world.later(2.0**lost + 1)
        [create] = world.step()
        assert isinstance(create, d.CreatePod)
        # the same try in another pod
        assert create.manifest["metadata"]["labels"]["polypod.dev/try"] == "1"
        world.see(phase="Running", task_started=world.now)
    world.see(gone=True, phase="Running")
    assert (world.status.phase, world.status.reason, world.status.failed_tries) == ("Failed", "PodDeleted", 1)


def test_a_task_instance_of_airflows_that_has_started_is_not_started_again() -> None:
    workload = {"name": "w", "key": "workload.json"}
    world = started(workloadSecretRef=workload)
    world.see(gone=True, phase="Running")
    assert (world.status.phase, world.status.reason) == ("Failed", "PodDeleted")
    fresh = World(workloadSecretRef=workload)
    fresh.step()
    fresh.see(gone=True)
    assert (fresh.status.phase, fresh.status.reason) == ("Pending", "Replacing")


@pytest.mark.parametrize(
    ("reason", "reported", "again"),
    [
        ("ExecutionApiUnavailable", False, True),
        ("LauncherLost", False, True),
        ("ExecutionApiUnavailable", True, False),
        ("HeartbeatFailed", False, False),
        ("ArtifactNotFound", False, False),
    ],
)
@pytest.mark.parametrize("by_airflow", [False, True])
def test_a_task_that_did_not_start_because_of_us_is_started_again(
    reason: str, reported: bool, again: bool, by_airflow: bool
) -> None:
    world = started(**({"workloadSecretRef": {"name": "w", "key": "workload.json"}} if by_airflow else {}))
    world.see(phase="Failed", bridge_message=outcome_of("failed", reason, reported=reported))
    # what Airflow knows the end of is its own; a TaskRun without Airflow is ours alone
    expected = again or (reported and not by_airflow)
    assert (world.status.reason == "Replacing") == expected
    assert world.status.failed_tries == (0 if expected else 1)
    assert world.status.attempts[0].reason == reason


def refused(message: str, for_good: bool, **spec: Any) -> World:
    world = World(**spec)
    world.step()
    [name] = world.pods
    world.pods = {}
    world.extra = {"refused": {name: d.Refusal(message, for_good, NOW)}}
    return world


def test_a_refused_pod_waits_and_is_tried_again_until_the_pending_timeout() -> None:
    world = refused("exceeded quota", False, timeouts={"pending": "1m"})
    assert kinds(world.step()) == ["RecordEvent"]
    assert (world.status.phase, world.status.reason, world.status.message) == (
        "Pending",
        "PodRefused",
        "exceeded quota",
    )
    world.later(1)
    assert world.step() == []
    world.later(5)
    assert kinds(list(world.decide().actions)) == ["CreatePod"]
    # after a restart the refusal is known from the status
    world.extra = {}
    assert kinds(list(world.decide().actions)) == ["CreatePod"]
    world.later(60)
    # the last request had perhaps no answer, and was carried out all the same
    assert kinds(world.step()) == ["VerifyPod"]
    world.extra = {"absent": frozenset({world.status.attempts[-1].pod_name})}
    world.step()
    assert (world.status.phase, world.status.reason) == ("Failed", "PodRefused")


def test_a_pod_that_is_not_valid_fails_at_once() -> None:
    world = refused("quantities must match", True, retries={"limit": 3})
    world.step()
    assert (world.status.phase, world.status.reason) == ("Failed", "InvalidPod")


def test_without_a_routing_it_waits() -> None:
    world = World()
    world.routing = None
    assert world.step() == []
    assert (world.status.phase, world.status.reason) == ("Pending", "WaitingForRouting")
    world.routing = ROUTING
    assert kinds(world.step()) == ["CreatePod"]


def test_a_pod_of_another_name_keeps_no_attempt_from_starting() -> None:
    """Anybody in the namespace can make one that has the TaskRun as its owner."""
    world = World()
    world.pods["imitation"] = pod("imitation", 0, phase="Running")
    assert "CreatePod" in kinds(world.step())


def test_while_the_newest_routing_is_not_valid_what_it_may_map_waits_and_the_rest_runs() -> None:
    rejected = "ConfigMap a/b: coordinators.x: unknown key 'imgae'"
    for world in (World(queue="nowhere"), World(coordinator="unknown")):
        world.rejected = rejected
        assert world.step() == []
        assert (world.status.phase, world.status.reason) == ("Pending", "WaitingForRouting")
        assert rejected in world.status.message
        world.rejected = ""
        world.step()
        assert (world.status.phase, world.status.reason) == ("Failed", "InvalidRouting")
    world = World()
    world.rejected = rejected
    assert kinds(world.step()) == ["CreatePod"]


def test_without_any_valid_routing_the_status_says_what_is_wrong_with_the_one_there_is() -> None:
    world = World()
    world.routing, world.rejected = None, "ConfigMap a/b: coordinators.x: unknown key 'imgae'"
    assert world.step() == []
    assert (world.status.reason, world.status.message) == ("WaitingForRouting", world.rejected)


def test_an_unmapped_queue_names_dag_task_run_and_queue() -> None:
    world = World(queue="nowhere")
    world.step()
    assert (world.status.phase, world.status.reason) == ("Failed", "InvalidRouting")
    for word in ("'d'", "'t'", "'r'", "'nowhere'"):
        assert word in world.status.message


def test_a_spec_that_is_not_valid_fails_cleanly() -> None:
    world = World()
    world.run = task_run(problems="spec.queue: Field required")
    world.step()
    assert (world.status.phase, world.status.reason) == ("Failed", "InvalidSpec")


def test_a_container_of_somebody_elses_does_not_keep_the_pod() -> None:
    mesh = Container("mesh", started=NOW)
    ended = {"phase": "Running", "task_started": NOW, "task_exit": 0}
    world = started()
    assert world.see(bridge_message=outcome_of("success", "TaskSucceeded"), others=(mesh,), **ended) == []
    assert world.status.phase == "Succeeded"
    assert world.decide().requeue_at == NOW + POLICY.foreign_container_grace
    world.later(5)
    assert kinds(world.step()) == ["DeletePod"]
    # without one the kubelet is about to end the pod, and its logs are to stay
    world = started()
    assert world.see(bridge_message=outcome_of("success", "TaskSucceeded"), **ended) == []
    world.later(60)
    assert world.step() == []
    world.later(60)
    assert kinds(world.step()) == ["DeletePod"]


def told(world: World, state: str, reason: str) -> dict[str, Any]:
    return {"reported": {f"uid-of-{world.only}": decode(outcome_of(state, reason).encode())}}


def test_what_the_bridge_tells_us_is_the_end_before_the_kubelet_says_so() -> None:
    world = started()
    world.extra = told(world, "success", "TaskSucceeded")
    assert world.step() == []
    assert (world.status.phase, world.status.reason) == ("Succeeded", "TaskSucceeded")
    # the pod ends by itself
    before = world.status
    world.see(phase="Succeeded", bridge_message=outcome_of("success", "TaskSucceeded"))
    assert (world.status, world.decide().requeue_at) == (before, None)


def test_the_next_try_need_not_wait_for_the_kubelet_either() -> None:
    world = started(retries={"limit": 1, "delay": "0s"})
    world.extra = told(world, "up_for_retry", "RuntimeExited")
    assert kinds(world.step()) == ["RecordEvent", "CreatePod"]
    assert len(world.pods) == 2


def test_of_an_end_that_the_bridge_does_not_understand_the_kubelet_is_asked() -> None:
    world = started()
    world.extra = told(world, "up_for_retry", "Terminated")
    assert world.step() == []
    assert world.status.phase == "Running"
    world.see(gone=True, phase="Running", reason="Evicted", message="disk pressure")
    assert (world.status.reason, world.status.attempts[0].reason) == ("Replacing", "Evicted")


def test_a_silent_kubelet_is_done_without_and_the_task_starts_elsewhere() -> None:
    world = started()
    due = NOW + timedelta(seconds=40)
    assert world.see(phase="Running", task_started=NOW, deleting=True, deletion_time=due) == []
    assert world.decide().requeue_at == due + POLICY.kubelet_silence
    world.now = due + POLICY.kubelet_silence
    [action] = world.step()
    assert isinstance(action, d.DeletePod)
    assert action.force
    world.see(gone=True, phase="Running", task_started=NOW, deleting=True, deletion_time=due)
    assert (world.status.phase, world.status.reason) == ("Pending", "Replacing")
    assert (world.status.attempts[0].reason, world.status.infrastructure_failures) == ("NodeLost", 1)
    assert "node node-1 did not terminate the pod" in world.status.attempts[0].message


def test_before_a_starting_pod_is_deleted_by_force_the_status_says_why() -> None:
    world = World()
    world.step()
    world.later(4)
    world.step()
    due = world.now + timedelta(seconds=30)
    world.see(deleting=True, deletion_time=due)
    world.now = due + POLICY.kubelet_silence
    assert [action.force for action in world.step() if isinstance(action, d.DeletePod)] == [True]
    assert [attempt.reason for attempt in world.status.attempts] == ["NodeLost"]


def test_a_clock_that_is_set_back_delays_nothing() -> None:
    world = World()
    world.step()
    name = world.only
    ahead = NOW + timedelta(hours=1)
    # Events that were read, and a refusal, an hour ahead of the clock
    world.extra = {"events_checked_at": {world.pods[name].uid: ahead}}
    world.later(20)
    assert "LookAtEvents" in kinds(world.step())
    world = World()
    world.step()
    name = world.only
    world.pods.clear()
    world.extra = {"refused": {name: d.Refusal("exceeded quota", False, ahead)}}
    assert "CreatePod" in kinds(world.step())
    assert world.status.reason == "PodRefused"


def test_a_problem_that_is_over_leaves_the_status_at_once() -> None:
    world = World()
    world.step()
    world.see(unschedulable="0/1 nodes are available")
    assert world.status.reason == "Unschedulable"
    world.later(1)
    world.see()
    assert world.status.reason == world.status.attempts[0].reason != "Unschedulable"
    assert "nodes are available" not in (world.status.message or "")


def test_a_pod_deleted_by_somebody_while_it_could_not_start_is_made_good() -> None:
    world = World(timeouts={"pending": "1m"})
    world.step()
    world.see(unschedulable="0/1 nodes are available")
    world.see(gone=True, unschedulable="0/1 nodes are available")
    assert (world.status.phase, world.status.reason, world.status.failed_tries) == ("Pending", "Replacing", 0)
    assert world.status.attempts[0].reason == "PodDeleted"


def test_a_kubelet_that_never_begins_a_pod_is_no_fault_of_the_users() -> None:
    world = World(timeouts={"pending": "1m"})
    world.step()
    name = world.only
    world.pods[name] = replace(world.pods[name], containers={})
    world.later(61)
    [action] = world.step()
    assert isinstance(action, d.DeletePod)
    world.pods[name] = replace(world.pods[name], gone=True)
    world.step()
    assert (world.status.phase, world.status.reason, world.status.failed_tries) == ("Pending", "Replacing", 0)
    assert world.status.attempts[0].reason == "NodeLost"
    assert "did not start within 1m" in world.status.attempts[0].message


def test_who_waits_for_a_turn_says_so_and_its_place_is_written_now_and_then_only() -> None:
    world = World()
    written = 0
    for place in range(5000, 0, -1):
        world.extra = {"queue_position": d.QueuePosition(limit=2, position=place)}
        before = world.status
        assert world.step() == []
        assert world.decide().place == "waits"
        written += world.status != before
        shown = world.status.queue_place
        assert shown is not None
        assert place <= shown <= max(place * 2, place if place <= 10 else 0)
    assert written < 25
    assert (world.status.phase, world.status.reason) == ("Pending", "QueueLimit")
    assert world.status.message == "queue 'q' is at its limit of 2; position 1 in line"
    world.extra = {}
    assert kinds(world.step()) == ["CreatePod"]
    world.see(phase="Running", task_started=NOW)
    assert (world.status.queue_place, world.decide().place) == (None, "holds")


def test_ttl() -> None:
    world = started(ttlSecondsAfterFinished=10)
    world.see(phase="Succeeded", bridge_message=outcome_of("success", "TaskSucceeded"))
    decision = world.decide()
    assert decision.requeue_at == NOW + timedelta(seconds=10)
    world.later(10)
    assert world.decide().actions == [d.DeleteTaskRun()]


def test_nothing_is_done_for_what_is_being_deleted() -> None:
    world = World()
    world.run = task_run(deleting=True)
    assert world.decide().actions == ()


@pytest.mark.parametrize("finalizers", [(), ("foregroundDeletion",), ("orphan",), ("orphan", "example.com/hold")])
def test_pods_are_left_to_the_garbage_collector_as_long_as_nobody_else_holds_the_taskrun(
    finalizers: tuple[str, ...],
) -> None:
    world = started()
    world.run = replace(world.run, deleting=True, finalizers=finalizers)
    decision = world.decide()
    assert (decision.actions, decision.status, decision.place) == ((), world.status, "holds")


@pytest.mark.parametrize("runs", [True, False])
def test_a_deleted_taskrun_that_a_finalizer_holds_says_so_and_ends(runs: bool) -> None:
    world = started() if runs else World()
    world.run = replace(world.run, deleting=True, finalizers=("foregroundDeletion", "example.com/hold", "a.io/b"))
    if runs:
        assert "DeletePod" in kinds(world.step())
        assert (world.status.phase, world.status.reason) == ("Running", "Cancelled")
        assert "removed: a.io/b, example.com/hold" in world.status.message
        # `step` makes another object of it
        world.run = replace(world.run, deleting=True, finalizers=("example.com/hold",))
        world.see(phase="Failed", task_started=NOW)
    else:
        assert kinds(world.step()) == ["RecordEvent"], "no pod is made"
    assert (world.status.phase, world.status.state, world.status.reason) == ("Failed", "failed", "Cancelled")
    assert "example.com/hold" in world.status.message
    assert answer(world, "Complete") == "True"


def test_a_task_that_ends_well_while_a_finalizer_holds_its_taskrun_has_succeeded() -> None:
    world = started(ttlSecondsAfterFinished=0)
    world.run = replace(world.run, deleting=True, finalizers=("example.com/hold",))
    world.see(phase="Succeeded", bridge_message=outcome_of("success", "TaskSucceeded"))
    assert (world.status.phase, world.status.state) == ("Succeeded", "success")
    world.run = replace(world.run, deleting=True, finalizers=("example.com/hold",))
    assert world.decide().actions == [], "it is deleted already"


def test_only_the_last_attempts_are_kept_and_the_limit_still_holds() -> None:
    world = World(retries={"limit": 30, "delay": "1s"})
    for _ in range(31):
        world.step()
        world.see(phase="Failed", bridge_message=outcome_of("up_for_retry", "RuntimeExited"))
        world.pods = {}
        world.later(2)
    assert (world.status.phase, world.status.tries, world.status.failed_tries) == ("Failed", 31, 31)
    assert len(world.status.attempts) == POLICY.kept_attempts


def test_times_in_conditions_change_with_the_status_only() -> None:
    world = started()
    since = {item.type: item.last_transition_time for item in world.status.conditions}
    world.later(5)
    world.step()
    assert {item.type: item.last_transition_time for item in world.status.conditions} == since
    assert datetime(2026, 1, 1, tzinfo=UTC) < since["Started"]


def rescheduled(at: datetime) -> dict[str, Any]:
    outcome = outcome_of("up_for_reschedule", "TaskRescheduled", rescheduleTime=at.isoformat())
    return {"phase": "Succeeded", "bridge_message": outcome}


def test_a_task_that_asks_for_it_is_started_again_as_the_same_try() -> None:
    world = started(retries={"limit": 0})
    due = NOW + timedelta(minutes=5)
    world.see(**rescheduled(due))
    status = world.status
    assert (status.phase, status.state, status.reason) == ("Pending", "up_for_reschedule", "Rescheduled")
    assert (status.next_attempt_time, status.failed_tries) == (due, 0)
    assert world.decide().requeue_at == due
    assert world.step() == []
    world.later(300)
    [created] = [item for item in world.step() if isinstance(item, d.CreatePod)]
    labels = created.manifest["metadata"]["labels"]
    assert (labels["polypod.dev/attempt"], labels["polypod.dev/try"]) == ("2", "1")


def test_a_time_that_has_passed_is_a_second_away() -> None:
    world = started()
    world.see(**rescheduled(NOW - timedelta(days=1)))
    assert world.status.next_attempt_time == NOW + POLICY.reschedule_min


@pytest.mark.parametrize(
    "spec",
    [
        {"workloadSecretRef": {"name": "s", "key": "k"}},
        {"executionApi": {"url": "https://a/execution", "tokenSecretRef": {"name": "s", "key": "k"}}},
    ],
)
def test_with_airflow_behind_it_the_scheduler_starts_it_again(spec: dict[str, Any]) -> None:
    world = started(**spec)
    world.see(**rescheduled(NOW + timedelta(minutes=5)))
    assert (world.status.phase, world.status.state) == ("Succeeded", "up_for_reschedule")


@pytest.mark.parametrize(("change", "phase"), [({"cancel": True}, "Failed"), ({"suspend": True}, "Pending")])
def test_one_that_waits_to_be_started_again_can_be_ended(change: dict[str, Any], phase: str) -> None:
    world = started()
    world.see(**rescheduled(NOW + timedelta(minutes=5)))
    world.run = task_run(spec=world.run.spec, status=world.status, **change)
    world.step()
    world.later(600)
    assert not [item for item in world.step() if isinstance(item, d.CreatePod)]
    assert world.status.phase == phase


def waits_for(*missing: str) -> dict[str, Any]:
    return {"upstream": Waits((), missing)}


def test_a_task_waits_for_those_that_it_depends_on_and_says_for_whom() -> None:
    world = World()
    world.extra = {"upstream": Waits(("extract", "load"), ())}
    assert world.step() == []
    status = world.run.status
    assert (status.phase, status.state, status.reason) == ("Pending", None, Reason.WAITING_FOR_UPSTREAM)
    assert status.message == "waits for tasks 'extract', 'load' to end"
    assert world.decide().requeue_at is None, "it is woken, and does not look by itself"
    world.extra = {}
    assert isinstance(world.step()[0], d.CreatePod)
    # after its first attempt has started, their state no longer matters
    world.extra = {"upstream": Stops("upstream_failed", "too late")}
    assert world.decide().status.phase == "Pending"


@pytest.mark.parametrize(
    ("verdict", "phase", "state", "reason"),
    [
        (Stops("upstream_failed", "why"), "Failed", "upstream_failed", Reason.UPSTREAM_FAILED),
        (Stops("skipped", "why"), "Succeeded", "skipped", Reason.UPSTREAM_SKIPPED),
        (Cycle(("t", "u", "t")), "Failed", "failed", Reason.DEPENDENCY_CYCLE),
    ],
)
def test_what_became_of_a_task_upstream_can_end_this_one_without_a_pod(
    verdict: Verdict, phase: str, state: str, reason: Reason
) -> None:
    world = World(retries={"limit": 3})
    world.extra = {"upstream": verdict}
    assert not any(isinstance(action, d.CreatePod) for action in world.step())
    status = world.run.status
    assert (status.phase, status.state, status.reason, status.attempts) == (phase, state, reason, [])
    assert status.finish_time == NOW
    complete = {item.type: item.status for item in status.conditions}
    assert (complete["Complete"], complete["Succeeded"]) == ("True", str(phase == "Succeeded"))


def test_how_a_task_without_a_taskrun_has_ended_is_asked_once() -> None:
    world = World()
    world.extra = waits_for("extract", "load")
    assert world.decide().actions == [d.AskForEnded(("extract", "load"))]
    world.extra["earlier"] = d.Earlier({"extract": "", "load": "failed"})
    assert world.step() == []
    assert "'extract'" in world.run.status.message
    # it cannot be asked: that is said, and tried again
    world.extra["earlier"] = d.Earlier({"extract": ""}, "503", NOW)
    decision = world.decide()
    assert "503" in decision.status.message
    assert decision.requeue_at == NOW + POLICY.ask_again
    world.now = NOW + POLICY.ask_again
    assert world.decide().actions == [d.AskForEnded(("load",))]


def test_who_waits_for_others_can_be_suspended_and_cancelled() -> None:
    world = World(suspend=True)
    world.extra = waits_for("extract")
    assert world.step()[0] == d.RecordEvent(False, Reason.SUSPENDED, "spec.suspend is true: no attempt is started")
    world = World(cancel=True)
    world.extra = waits_for("extract")
    world.step()
    assert world.run.status.reason == Reason.CANCELLED


def test_airflow_is_told_of_what_cannot_be_routed_by_a_pod_that_only_refuses() -> None:
    secret = {"name": "w", "key": "workload.json"}
    world = World(queue="nowhere", workloadSecretRef=secret)
    [create] = world.step()
    assert isinstance(create, d.CreatePod)
    assert [item["name"] for item in create.manifest["spec"]["containers"]] == ["bridge"]
    assert world.run.status.phase == "Pending"
    # without Airflow there is nobody else to tell
    world = World(queue="nowhere")
    assert not any(isinstance(action, d.CreatePod) for action in world.step())
    assert (world.run.status.phase, world.run.status.reason) == ("Failed", "InvalidRouting")


def test_an_edit_after_the_end_is_seen_and_changes_nothing_else() -> None:
    done = TaskRunStatus(phase="Succeeded", state="success", observed_generation=1, finish_time=NOW)
    edited = replace(task_run(status=done, cancel=True), generation=2)
    decision = reconcile(edited, d.Observed(), ROUTING, SETTINGS, NOW)
    assert decision.status == done.model_copy(update={"observed_generation": 2})
    [told] = decision.actions
    assert isinstance(told, d.RecordEvent)
    assert "had already finished" in told.message


def test_a_pod_that_is_not_valid_is_the_templates_fault_only_if_there_is_one() -> None:
    world = refused("quantities must match", True, podTemplate={"spec": {"priorityClassName": "x"}})
    world.step()
    assert world.status.reason == "InvalidPodTemplate"


def test_a_routing_that_leads_nowhere_by_now_does_not_hide_why_a_pod_was_refused() -> None:
    world = refused("exceeded quota", False)
    world.step()
    [attempt] = world.status.attempts
    world.extra = {"refused": {attempt.pod_name: d.Refusal("quantities must match", True, NOW)}}
    world.routing = parse_routing({"coordinators": {}, "queue_to_coordinator": {}}, "test")
    world.step()
    assert (world.status.phase, world.status.reason) == ("Failed", "InvalidPod")


def test_the_steps_of_a_pod_that_starts_slowly_are_not_a_write_each() -> None:
    world = World()
    world.step()
    world.later(4)
    world.see(waiting=("task", "PodInitializing", ""))
    assert world.status.message == "container 'task': PodInitializing"
    world.see(waiting=("task", "ContainerCreating", ""))
    assert world.status.message == "container 'task': PodInitializing", "it is written when the Events are looked at"
    world.later(12)
    world.extra = {"events_checked_at": {world.pods[world.only].uid: world.now}}
    world.see(waiting=("task", "ContainerCreating", ""))
    assert world.status.message == "container 'task': ContainerCreating"


@pytest.mark.parametrize("node_ahead", [-660, 0, 660])
def test_a_nodes_clock_moves_no_time_of_ours(node_ahead: int) -> None:
    """How long a pause is, and how long a pod may end, does not depend on what the bridge and the kubelet call now."""
    world = started(retries={"limit": 1, "delay": "30s"})
    theirs = NOW + timedelta(seconds=node_ahead)
    message = outcome_of("up_for_retry", "RuntimeExited", finishTime=theirs.isoformat())
    world.see(phase="Running", task_started=theirs, task_exit=1, bridge_message=message)
    assert world.status.attempts[-1].finish_time == theirs
    assert world.status.next_attempt_time == NOW + timedelta(seconds=30)
    # the pod has not ended yet: it is left alone for a while, and then deleted
    assert kinds(world.step()) == []
    world.later(POLICY.teardown.total_seconds() - 31)
    assert "DeletePod" not in kinds(list(world.decide().actions))
    world.later(31)
    assert "DeletePod" in kinds(list(world.decide().actions))
