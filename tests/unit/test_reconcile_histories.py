"""reconcile.py under random histories: events in random order, and the invariants that hold after each of them.

One final state; never two attempts at once; phases and attempts only go forward; the user's limit holds; and once the
events stop, everything comes to its end.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from polypod_crds.taskrun import TaskRunStatus
from polypod_operator import reconcile as r
from polypod_operator.objects import PodObject
from support.objects import NOW, ROUTING, SETTINGS, outcome_of, pod, task_run

LIMIT = 2
OUTCOMES = [
    ("success", "TaskSucceeded"),
    ("failed", "TaskFailed"),
    ("up_for_retry", "RuntimeExited"),
    ("up_for_retry", "Terminated"),
    ("failed", "BridgeLost"),
    ("skipped", "TaskSkipped"),
]


def over(item: PodObject) -> bool:
    return item.gone or item.phase in ("Succeeded", "Failed")


class History(RuleBasedStateMachine):
    """A cluster in miniature: the pods as they are, and the operator's cache of them, which may lag behind."""

    @initialize(suspend=st.booleans())
    def begin(self, suspend: bool) -> None:
        self.now: datetime = NOW
        self.pods: dict[str, PodObject] = {}
        self.cache: dict[str, PodObject] = {}
        self.absent: set[str] = set()
        self.refusing = False
        self.refused: dict[str, r.Refusal] = {}
        self.run = task_run(retries={"limit": LIMIT, "delay": "5s"}, timeouts={"pending": "1m"}, suspend=suspend)
        self.final: TaskRunStatus | None = None
        self.uncounted = 0
        self.created: list[int] = []

    # The operator.

    def decide(self) -> r.Decision:
        world = r.World(pods=dict(self.cache), absent=frozenset(self.absent), refused=dict(self.refused))
        return r.reconcile(self.run, world, ROUTING, SETTINGS, self.now)

    def operate(self, die_after: int = 99) -> None:
        """Reconcile and apply, as the controller does; be killed after so many calls to the API."""
        calls = 0
        for _ in range(8):
            decision = self.decide()
            found = False
            for action in decision.actions:
                if isinstance(action, r.VerifyPod):
                    if calls >= die_after:
                        return self.restart()
                    calls += 1
                    self.verify(action.name)
                    found = True
            if found:
                continue
            if decision.status != self.run.status:
                if calls >= die_after:
                    return self.restart()
                calls += 1
                self.run = task_run(spec=self.run.spec, status=decision.status)
            for action in decision.actions:
                if isinstance(action, r.DeletePod | r.CreatePod):
                    if calls >= die_after:
                        return self.restart()
                    calls += 1
                    if isinstance(action, r.DeletePod):
                        self.delete(action.name)
                    else:
                        self.create(action)
                        found = True
            if not found:
                return None
        raise AssertionError("it does not come to rest")

    def create(self, action: r.CreatePod) -> None:
        name = action.manifest["metadata"]["name"]
        if name in self.pods and not self.pods[name].gone:
            self.cache[name] = self.pods[name]
            return
        if self.refusing:
            self.refused[name] = r.Refusal("exceeded quota", False, self.now)
            return
        number = int(action.manifest["metadata"]["labels"]["polypod.dev/attempt"])
        # never two at once, counted where it matters: in the cluster
        assert all(over(item) for item in self.pods.values()), "a second pod while the first is not over"
        assert name not in self.pods, "an attempt is not run twice"
        self.created.append(number)
        self.pods[name] = self.cache[name] = pod(name, number, created=self.now)
        self.refused.pop(name, None)

    def verify(self, name: str) -> None:
        there = self.pods.get(name)
        if there is None or there.gone:
            self.absent.add(name)
        else:
            self.cache[name] = there

    def delete(self, name: str) -> None:
        if name in self.pods and not self.pods[name].gone:
            self.pods[name] = replace(self.pods[name], deleting=True)

    def restart(self) -> None:
        """The operator is killed and started again: it lists what is there, and the past is gone."""
        self.cache = {name: item for name, item in self.pods.items() if not item.gone}
        self.absent.clear()
        self.refused.clear()

    @rule(die_after=st.integers(0, 4))
    def operator_works(self, die_after: int) -> None:
        self.operate(die_after)

    @rule()
    def operator_is_killed(self) -> None:
        self.restart()

    @rule()
    def watch_catches_up(self) -> None:
        # as the store does: of what is gone the last state stays
        self.cache = {name: item for name, item in self.pods.items() if name in self.cache or not item.gone}

    @rule(seconds=st.sampled_from([1, 6, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    # The cluster.

    def alive(self) -> list[str]:
        return [name for name, item in self.pods.items() if not over(item)]

    @precondition(lambda self: self.alive())
    @rule()
    def pod_starts(self) -> None:
        [name] = self.alive()
        item = self.pods[name]
        self.pods[name] = replace(
            pod(name, item.attempt, created=item.created, phase="Running", task_started=self.now),
            deleting=item.deleting,
        )

    @precondition(lambda self: self.alive())
    @rule(problem=st.sampled_from(["ImagePullBackOff", "CreateContainerConfigError"]))
    def pod_cannot_start(self, problem: str) -> None:
        [name] = self.alive()
        item = self.pods[name]
        if item.phase == "Pending":
            waiting = ("task", problem, "because")
            self.pods[name] = replace(
                pod(name, item.attempt, created=item.created, waiting=waiting), deleting=item.deleting
            )

    @precondition(lambda self: self.alive())
    @rule(outcome=st.sampled_from(OUTCOMES))
    def pod_ends(self, outcome: tuple[str, str]) -> None:
        self.end(outcome)

    def end(self, outcome: tuple[str, str]) -> None:
        [name] = self.alive()
        item = self.pods[name]
        ended = pod(
            name, item.attempt, created=item.created, task_started=item.created,
            phase="Succeeded" if outcome[0] in ("success", "skipped") else "Failed", bridge_message=outcome_of(*outcome),
        )  # fmt: skip
        self.pods[name] = replace(ended, deleting=item.deleting)

    @precondition(lambda self: self.alive())
    @rule()
    def pod_vanishes(self) -> None:
        [name] = self.alive()
        self.pods[name] = replace(self.pods[name], gone=True)

    @precondition(lambda self: self.pods)
    @rule()
    def finished_pods_are_removed(self) -> None:
        for name, item in list(self.pods.items()):
            if over(item):
                self.pods[name] = replace(item, gone=True)

    @rule(refusing=st.booleans())
    def quota_changes(self, refusing: bool) -> None:
        self.refusing = refusing

    # The user.

    @rule(suspend=st.booleans())
    def user_suspends(self, suspend: bool) -> None:
        self.run = task_run(spec=self.run.spec, status=self.run.status, suspend=suspend)

    @precondition(lambda self: self.run.spec is not None and not self.run.spec.cancel)
    @rule(really=st.sampled_from([False, False, False, True]))
    def user_cancels(self, really: bool) -> None:
        if really:
            self.run = task_run(spec=self.run.spec, status=self.run.status, cancel=True)

    # What holds at any moment.

    @invariant()
    def there_is_one_final_state(self) -> None:
        if not hasattr(self, "run"):
            return
        if self.final is not None:
            assert self.run.status == self.final
        elif self.run.status.phase in ("Succeeded", "Failed"):
            self.final = self.run.status.model_copy(deep=True)

    @invariant()
    def attempts_go_forward_and_the_limit_holds(self) -> None:
        if not hasattr(self, "run"):
            return
        status = self.run.status
        numbers = [attempt.number for attempt in status.attempts]
        assert numbers == sorted(set(numbers))
        assert self.created == sorted(set(self.created))
        active = [attempt for attempt in status.attempts if attempt.state in ("queued", "running")]
        assert len(active) <= 1
        assert active == status.attempts[-1:] or not active
        assert status.failed_tries <= LIMIT + 1
        kinds = [item.type for item in status.conditions]
        assert len(kinds) == len(set(kinds))
        if status.phase == "Succeeded":
            assert status.attempts[-1].state in ("success", "skipped")

    def teardown(self) -> None:
        """Once the faults stop, everything comes to its end, and nothing is left running."""
        if not hasattr(self, "run"):
            return
        self.refusing = False
        self.run = task_run(spec=self.run.spec, status=self.run.status, suspend=False)
        for _ in range(12 * (LIMIT + 2)):
            self.watch_catches_up()
            self.operate()
            if self.run.status.phase in ("Succeeded", "Failed") and not self.alive():
                break
            for name in self.alive():
                if self.pods[name].deleting:
                    self.pods[name] = replace(self.pods[name], gone=True)
                else:
                    self.end(("success", "TaskSucceeded"))
            self.now += timedelta(seconds=6)
        else:
            raise AssertionError(f"it does not end: {self.run.status}")
        self.there_is_one_final_state()
        self.attempts_go_forward_and_the_limit_holds()


History.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None, print_blob=True)
TestHistory = History.TestCase
