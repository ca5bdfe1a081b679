"""The controller under random histories: the real one, with its store, queues and judgement, on a cluster in miniature.

Watches drop, duplicate, delay and re-order news; calls are not answered, or their answers are lost; others write first
(409); clocks jump; the operator is killed between any two calls. What must hold does at each step: one final state,
never two attempts of a TaskRun at once, limits of queues, no pod of what has finished; and once the faults stop,
everything ends and nothing is left over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from polypod_core.kinds import Key
from polypod_core.outcome import decode
from polypod_core.pod_tokens import PodClaims
from polypod_operator.control.controller import Controller
from polypod_operator.control.large import LARGE
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.model.objects import BRIDGE, KEPT, TASK
from polypod_operator.serve.metrics import Metrics

from support.cluster_model import Api, Cluster, Fault, Killed, Raw, ended
from support.objects import EXECUTABLE, NOW, SETTINGS, outcome_of

OUTCOMES = [
    ("success", "TaskSucceeded"),
    ("failed", "TaskFailed"),
    ("up_for_retry", "RuntimeExited"),
    ("up_for_retry", "Terminated"),
    ("failed", "BridgeLost"),
    ("skipped", "TaskSkipped"),
]
FAULTS = st.lists(
    st.sampled_from(cast("list[Fault]", ["none", "none", "none", "busy", "unreachable", "answer lost", "killed before", "killed after"])),
    max_size=6,
)  # fmt: skip


UPSTREAM: st.SearchStrategy[dict[int, str]] = st.one_of(
    st.just({}), st.dictionaries(st.integers(1, 7), st.sampled_from(["succeeded", "finished"]), max_size=3)
)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when we say so."""

    passed = 0.0

    def time(self) -> float:
        return self.passed


def routing(limit: int | None) -> Raw:
    data: Raw = {
        "coordinators": {"native": {"classpath": EXECUTABLE, "kwargs": {"executables_root": ["/opt"]}, "image": "x:1"}},
        "queue_to_coordinator": {"q": "native"},
    }
    if limit is not None:
        data["queue_limits"] = {"q": limit}
    metadata = {"name": "polypod-routing", "namespace": "polypod-system", "uid": "routing"}
    return {"kind": "ConfigMap", "metadata": metadata, "data": data}


class History(RuleBasedStateMachine):
    """A cluster, an operator and its news."""

    PLENTY = 150
    broken = False

    @initialize(limit=st.sampled_from([None, 1, 2]), runs=st.integers(1, 4))
    def begin(self, limit: int | None, runs: int) -> None:
        logging.getLogger("polypod.operator").setLevel(logging.CRITICAL)
        self.loop = Clock()
        self.cluster = Cluster(NOW)
        self.wall_is_off = timedelta()
        self.limit = limit
        self.final: dict[str, Raw] = {}
        self.number = 0
        for number in range(runs):
            self.user_submits(0, {number: "succeeded"} if number > 1 else {})
        self.starts()

    # The operator.

    def do(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def starts(self) -> None:
        self.api = Api(self.cluster)
        clock: Callable[[], datetime] = lambda: self.cluster.now + self.wall_is_off  # noqa: E731
        self.controller = Controller(
            cast(KubernetesApi, self.api), SETTINGS, [], Metrics(), clock, self.loop.time, self.api
        )
        self.cluster.news.clear()
        self.do(self.controller.routing.saw(routing(self.limit), "polypod-system/polypod-routing"))
        for watch in self.controller.watches:
            self.do(watch.list())
        self.controller.cache.seat_orphans()

    def allow(self) -> None:
        """Tell the API what it must not see exceeded: a TaskRun with a place keeps it when a limit is lowered."""
        holding, _ = self.controller.cache.places.depths().get("q", (0, 0))
        self.api.limits = {} if self.limit is None else {"q": max(self.limit, holding)}

    def work(self, most: int, together: int = 3) -> None:
        """Have several workers look at what there is, at the same time."""
        queue = self.controller.queue
        idle = most == self.PLENTY
        self.allow()
        while most > 0 and queue.ready and not self.api.dead:
            keys = [self.do(queue.get()) for _ in range(min(together, most, queue.ready))]
            for error in self.do(self.together(keys)):
                if error is not None and not isinstance(error, Killed):
                    self.broken = True
                    raise AssertionError(str(error)) from error
            most -= len(keys)
        assert not idle or self.api.dead or not len(queue), "it does not come to rest"
        if self.api.dead:
            self.starts()

    async def together(self, keys: list[Key]) -> list[BaseException | None]:
        turns = [self.controller.turn(key) for key in keys]
        return await asyncio.gather(*turns, return_exceptions=True)

    def show(self, index: int) -> None:
        self.do(self.shown(index))

    async def shown(self, index: int) -> None:
        kind, event, raw = self.cluster.news[index]
        if kind == "pods":
            self.controller.cache.saw_pod(raw, event == "DELETED")
        elif event == "DELETED" or len(str(raw["spec"].get("params"))) < LARGE:
            self.controller.cache.saw_run(raw, event == "DELETED")
        else:
            self.controller.cache.saw_large_run({"metadata": raw["metadata"]})

    @rule(faults=FAULTS, most=st.integers(1, 8))
    def operator_works(self, faults: list[Fault], most: int) -> None:
        self.api.faults = list(faults)
        self.work(most)
        self.api.faults = []

    @rule()
    def operator_is_killed(self) -> None:
        self.starts()

    @rule(count=st.integers(1, 6))
    def watch_shows(self, count: int) -> None:
        for _ in range(min(count, len(self.cluster.news))):
            self.show(0)
            del self.cluster.news[0]

    @precondition(lambda self: self.cluster.news)
    @rule(index=st.integers(0, 20), again=st.booleans())
    def watch_shows_out_of_order_or_twice(self, index: int, again: bool) -> None:
        index %= len(self.cluster.news)
        self.show(index)
        if not again:
            del self.cluster.news[index]

    @precondition(lambda self: self.cluster.news)
    @rule()
    def watch_breaks(self) -> None:
        self.cluster.news.clear()

    @precondition(lambda self: self.cluster.news)
    @rule(seconds=st.sampled_from([1, 10, 60]))
    def watch_stalls_and_is_opened_again(self, seconds: int) -> None:
        """Show nothing for a while, though time passes and the operator works, and then all of it, without a list."""
        self.pass_time(seconds)
        self.work(8)
        self.watch_shows(len(self.cluster.news))

    @rule()
    def watch_lists(self) -> None:
        self.lists()

    def lists(self) -> None:
        self.cluster.news.clear()
        for watch in self.controller.watches:
            self.do(watch.list())

    @rule(limit=st.sampled_from([None, 0, 1, 3]), broken=st.booleans())
    def routing_is_edited(self, limit: int | None, broken: bool) -> None:
        raw = routing(limit)
        if broken:
            raw["data"]["coordinators"] = "["
        else:
            self.limit = limit
        self.do(self.controller.routing.saw(raw, "polypod-system/polypod-routing"))

    @rule(seconds=st.sampled_from([1, 4, 30, 61, 200]))
    def time_passes(self, seconds: int) -> None:
        self.pass_time(seconds)

    def pass_time(self, seconds: float) -> None:
        self.cluster.now += timedelta(seconds=seconds)
        self.loop.passed += seconds
        self.do(asyncio.sleep(0))

    @rule(seconds=st.sampled_from([-3600, -5, 0, 5, 3600]))
    def clock_jumps(self, seconds: int) -> None:
        self.wall_is_off = timedelta(seconds=seconds)

    # The cluster.

    def pick(self, index: int) -> Raw | None:
        alive = self.cluster.alive()
        return alive[index % len(alive)] if alive else None

    @rule(index=st.integers(0, 9))
    def pod_starts(self, index: int) -> None:
        pod = self.pick(index)
        if pod is not None:
            running = {"running": {"startedAt": self.cluster.now.isoformat()}}
            self.cluster.set_pod(
                pod, phase="Running", containerStatuses=[{"name": TASK, "state": running}],
                initContainerStatuses=[{"name": BRIDGE, "state": running}],
            )  # fmt: skip

    @rule(index=st.integers(0, 9), problem=st.sampled_from(["ImagePullBackOff", "CreateContainerConfigError"]))
    def pod_cannot_start(self, index: int, problem: str) -> None:
        pod = self.pick(index)
        if pod is not None and pod["raw"]["status"]["phase"] == "Pending":
            waiting = {"waiting": {"reason": problem, "message": "because"}}
            self.cluster.set_pod(pod, containerStatuses=[{"name": TASK, "state": waiting}])

    @rule(index=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES), tells=st.booleans(), seen=st.booleans())
    def pod_ends(self, index: int, outcome: tuple[str, str], tells: bool, seen: bool) -> None:
        pod = self.pick(index)
        if pod is not None:
            self.end(pod, outcome, tells, seen)

    def end(self, pod: Raw, outcome: tuple[str, str], tells: bool, seen: bool) -> None:
        """End a task: its bridge tells us, or the kubelet shows it, or both."""
        message = outcome_of(*outcome)
        if tells:
            metadata = pod["raw"]["metadata"]
            pod["told"] = message
            self.controller.cache.saw_outcome(
                PodClaims("ns", metadata["name"], metadata["uid"]), decode(message.encode())
            )
        if seen or not tells:
            self.show_end(pod, message)

    def show_end(self, pod: Raw, message: str) -> None:
        good = '"success"' in message or '"skipped"' in message
        over = {
            "startedAt": self.cluster.now.isoformat(),
            "finishedAt": self.cluster.now.isoformat(),
            "exitCode": not good,
        }
        self.cluster.set_pod(
            pod, phase="Succeeded" if good else "Failed",
            containerStatuses=[{"name": TASK, "state": {"terminated": over}}],
            initContainerStatuses=[{"name": BRIDGE, "state": {"terminated": {**over, "message": message}}}],
        )  # fmt: skip

    @rule(index=st.integers(0, 9))
    def pod_vanishes(self, index: int) -> None:
        pod = self.pick(index)
        if pod is not None:
            self.cluster.remove_pod(pod)

    @rule()
    def kubelet_ends_what_is_to_end(self) -> None:
        self.kubelet()

    def kubelet(self) -> None:
        for pod in self.cluster.pods.values():
            if not pod["gone"] and pod["raw"]["status"]["phase"] in ("Pending", "Running"):
                if pod["told"] is not None:
                    self.show_end(pod, pod["told"])
                elif "deletionTimestamp" in pod["raw"]["metadata"]:
                    self.cluster.remove_pod(pod)

    @rule()
    def finished_pods_are_removed(self) -> None:
        for pod in self.cluster.pods.values():
            if not pod["gone"] and ended(pod):
                self.cluster.remove_pod(pod)

    @rule(refusing=st.booleans())
    def quota_changes(self, refusing: bool) -> None:
        self.cluster.refusing = refusing

    # The user.

    @precondition(lambda self: len(self.cluster.runs) < 6)
    @rule(priority=st.integers(-1, 2), upstream=UPSTREAM, size=st.sampled_from([0, 0, KEPT, LARGE]))
    def user_submits(self, priority: int, upstream: dict[int, str], size: int = 0) -> None:
        """Apply a TaskRun; those that it depends on may be there, come later, or make a circle with it."""
        self.number += 1
        spec = {"priority": priority, "retries": {"limit": 2, "delay": "5s"}, "timeouts": {"pending": "1m"}}
        spec["params"] = {"text": "x" * size}
        names = {f"run-{number}": when for number, when in upstream.items() if number != self.number}
        depends = [{"taskId": name, "when": when} for name, when in names.items()]
        self.cluster.add_run(f"run-{self.number}", {**spec, "dependsOn": depends})

    @precondition(lambda self: self.cluster.gone)
    @rule(index=st.integers(0, 9))
    def user_applies_again(self, index: int) -> None:
        name = sorted(self.cluster.gone)[index % len(self.cluster.gone)]
        self.cluster.add_run(name, self.cluster.gone[name])

    @rule(
        index=st.integers(0, 9), change=st.sampled_from(["suspend", "suspend", "resume", "resume", "cancel", "delete"])
    )
    def user_changes_their_mind(self, index: int, change: str) -> None:
        if not self.cluster.runs:
            return
        name = sorted(self.cluster.runs)[index % len(self.cluster.runs)]
        if change == "cancel":
            self.cluster.edit_run(name, cancel=True)
        elif change == "delete":
            self.cluster.delete_run(name)
            self.final.pop(name, None)
        else:
            self.cluster.edit_run(name, suspend=change == "suspend")

    # What holds at any moment.

    @invariant()
    def there_is_one_final_state(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for name, raw in self.cluster.runs.items():
            status = raw.get("status") or {}
            if name in self.final:
                # that an edit was seen may be added
                generation = {"observedGeneration": self.final[name].get("observedGeneration")}
                assert {**status, **generation} == {**self.final[name], **generation}
            elif status.get("phase") in ("Succeeded", "Failed"):
                self.final[name] = status
                attempts = status["attempts"]
                assert not any(item["state"] in ("queued", "running") for item in attempts)
                assert (status["phase"] == "Succeeded") == (status["state"] in ("success", "skipped"))
                if status["reason"] in ("UpstreamFailed", "UpstreamSkipped", "DependencyCycle"):
                    assert not attempts
                elif status["reason"] != "Cancelled":
                    assert attempts

    @invariant()
    def attempts_go_forward_and_the_users_limit_holds(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for raw in self.cluster.runs.values():
            status = raw.get("status") or {}
            numbers = [item["number"] for item in status.get("attempts", ())]
            assert numbers == sorted(set(numbers))
            active = [item for item in status.get("attempts", ()) if item["state"] in ("queued", "running")]
            assert active in ([], status.get("attempts", [])[-1:])
            assert status.get("failedTries", 0) <= 3
            kinds = [item["type"] for item in status.get("conditions", ())]
            assert len(kinds) == len(set(kinds))

    def apply_what_is_waited_for(self) -> None:
        """Apply the tasks that are missing and that others wait for."""
        for raw in list(self.cluster.runs.values()):
            if (raw.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                for other in raw["spec"].get("dependsOn", ()):
                    if other["taskId"] not in self.cluster.runs:
                        self.cluster.add_run(other["taskId"], {})

    def teardown(self) -> None:
        """Once the faults stop, every TaskRun ends, and nothing is left running or remembered."""
        if not hasattr(self, "cluster") or self.broken:
            return
        self.everything_ends()
        self.there_is_one_final_state()
        self.attempts_go_forward_and_the_users_limit_holds()
        for _ in range(4):
            self.kubelet()
            self.lists()
            self.work(self.PLENTY)
            self.pass_time(100)
        assert len(self.controller.cache.store) == 0, "what has finished is let go"
        assert self.controller.cache.places.depths() == {}
        self.loop.close()

    def everything_ends(self) -> None:
        cluster = self.cluster
        cluster.refusing, self.wall_is_off = False, timedelta()
        for name in list(cluster.runs):
            if cluster.runs[name]["spec"].get("suspend"):
                cluster.edit_run(name, suspend=False)
        if self.limit == 0:
            self.routing_is_edited(1, False)
        for _ in range(60):
            cluster.collect()
            self.lists()
            self.work(self.PLENTY)
            self.apply_what_is_waited_for()
            if all(
                (raw.get("status") or {}).get("phase") in ("Succeeded", "Failed") for raw in cluster.runs.values()
            ) and (not any(not pod["gone"] and not ended(pod) for pod in cluster.pods.values())):
                break
            self.kubelet()
            for pod in cluster.alive():
                self.end(pod, ("success", "TaskSucceeded"), tells=True, seen=False)
            self.work(self.PLENTY)
            # a clock that was ahead has left times that are to come
            self.pass_time(100)
        else:
            raise AssertionError(f"it does not end: {[raw.get('status') for raw in cluster.runs.values()]}")
