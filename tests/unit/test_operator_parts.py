"""The operator's smaller parts: routing, store, work queue, parsing, the CRD."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import replace
from typing import Any, cast

import pytest
import yaml
from polypod_core.durations import seconds
from polypod_core.kinds import ATTEMPT_LABEL, UID_LABEL, Key
from polypod_crds import crd
from polypod_crds.rules import Rule
from polypod_crds.taskrun import TaskRunStatus
from polypod_execution_api.metrics import Metrics as ApiMetrics
from polypod_execution_api.sizes import Sizes
from polypod_operator.control.controller import Controller
from polypod_operator.decide.routing import RoutingState
from polypod_operator.decide.store import Store
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.kube.workqueue import WorkQueue
from polypod_operator.model import conditions, objects
from polypod_operator.model.objects import PodEvent
from polypod_operator.pods.pod import Settings
from polypod_operator.serve.metrics import Metrics
from prometheus_client import generate_latest
from sqlalchemy import create_engine
from support.objects import EXECUTABLE, NOW, pod, task_run
from support.paths import ROOT

GOOD: dict[str, Any] = {
    "coordinators": {"native": {"classpath": EXECUTABLE, "kwargs": {"executables_root": ["/opt"]}, "image": "x:1"}},
    "queue_to_coordinator": {"q": "native"},
}


def config_map(**data: Any) -> dict[str, Any]:
    texts = {key: value if isinstance(value, str) else yaml.safe_dump(value) for key, value in data.items()}
    return {"metadata": {"name": "polypod-routing", "namespace": "ns", "uid": "u"}, "data": texts}


def entry(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "coordinators": {"native": {**GOOD["coordinators"]["native"], **changes}}}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"coordinators": "native: [", "queue_to_coordinator": ""}, "data.coordinators, line 2"),
    ({**GOOD, "queue_to_cordinator": {}}, "did you mean 'queue_to_coordinator'"),
    ({**GOOD, "queue_to_coordinator": {"q": "nativ"}}, "did you mean 'native'"),
    ({**GOOD, "default_coordinator": "none"}, "default_coordinator 'none'"),
    (entry(classpath="airflow.sdk.coordinators.java.Java"), "JavaCoordinator"),
    (entry(kwargs={"executable_root": ["/opt"]}), "did you mean 'executables_root'"),
    (entry(kwargs={}), "executables_root"),
    (entry(kwargs={"executables_root": []}), "non-empty list"),
    (entry(imge="x"), "imge"),
    (entry(image=5), "coordinators.native"),
    (entry(allow=["hostNetworks"]), "did you mean 'hostNetwork'"),
    (entry(pod_template={"spec": {"containers": {}}}), "it must be a list of mappings"),
    (entry(pod_template={"name": "x"}), "name"),
    (entry(artifacts={"image": "x", "persistent_volume_claim": "claim"}), "exactly one of image"),
    (entry(artifacts={"image": "x", "mount_path": "relative"}), "must be absolute"),
    (entry(image_pull_policy="Sometimes"), "Sometimes"),
    ({**GOOD, "queue_overrides": {"p": {"image": "lang:2"}}}, "queue_overrides.p"),
    ({**GOOD, "queue_overrides": {"q": {"classpath": "y"}}}, "classpath"),
    ({**GOOD, "queue_to_image": {"p": "lang:2"}}, "queue_to_image.p"),
    ({**GOOD, "queue_limits": {"p": 3}}, "queue_limits.p"),
    ({}, "no queue is mapped"),
    ({"coordinators": GOOD["coordinators"]}, "no queue is mapped"),
    ({**GOOD, "queue_limits": {"q": -1}}, "`$.queue_limits"),
    ({**GOOD, "queue_limits": {"q": "many"}}, "Expected `int`"),
]


@pytest.mark.parametrize(("data", "word"), BAD, ids=[word for _, word in BAD])
def test_a_bad_edit_names_the_key_and_keeps_the_last_good_routing(data: dict[str, Any], word: str) -> None:
    state = RoutingState()
    assert state.load(config_map(**GOOD), "ns/polypod-routing")
    good = state.current
    assert state.load(config_map(**data), "ns/polypod-routing")
    assert state.current is good
    assert word in state.problem, state.problem
    assert "ns/polypod-routing" in state.problem or "coordinator 'native'" in state.problem
    # the same again is nothing new to tell
    assert not state.load(config_map(**data), "ns/polypod-routing")
    assert state.load(config_map(**GOOD), "ns/polypod-routing")
    assert state.problem == ""


def test_a_coordinator_that_no_queue_leads_to_keeps_nobody_from_a_new_routing() -> None:
    state = RoutingState()
    assert state.load(config_map(**GOOD), "ns/r")
    good = state.current
    broken = {"classpath": "ExecutableCoordinator", "kwargs": {"task_startup_timeout": -1}}
    data = {**GOOD, "coordinators": {**GOOD["coordinators"], "new": broken}}
    assert state.load(config_map(**data), "ns/r")
    assert (state.problem, state.current is good) == ("", False)
    assert "'new'" in state.flaw
    # as soon as a queue leads to it, it counts
    data["queue_to_coordinator"] = {**GOOD["queue_to_coordinator"], "p": "new"}
    last = state.current
    assert state.load(config_map(**data), "ns/r")
    assert state.current is last
    assert "'new'" in state.problem


def test_a_deleted_routing_stays_in_use() -> None:
    state = RoutingState()
    state.load(config_map(**GOOD), "ns/r")
    state.load(None, "ns/r")
    assert state.current is not None
    assert "does not exist" in state.problem


def test_the_store_lets_go_of_what_has_finished_and_of_what_belongs_to_it() -> None:
    store = Store()
    run = task_run()
    store.put_run(run)
    assert store.put_pod(pod()) == run.key
    event = PodEvent("FailedMount", "no such Secret")
    store.put_look("uid-of-run-1", NOW, event)
    assert store.observed(run).events == {"uid-of-run-1": event}
    store.forget(run.key)
    # late news of a TaskRun that is let go
    assert store.put_pod(pod(phase="Running")) is None
    assert store.put_pod(pod(phase="Succeeded")) is None
    assert (len(store), store.pods()) == (0, [])
    left = {name for name, value in vars(store).items() if value}
    # of a bounded number the version alone, as the watch still shows our last write
    assert left == {"_let_go"}


def test_the_store_keeps_a_pod_that_comes_before_its_taskrun() -> None:
    store = Store()
    assert store.put_pod(pod()) is None
    store.put_run(task_run())
    assert list(store.observed(task_run()).pods) == ["run-1"]


def test_an_older_version_of_a_taskrun_does_not_replace_a_newer_one() -> None:
    store = Store()
    newer = replace(task_run(status=TaskRunStatus(phase="Running")), resource_version="10")
    store.put_run(newer)
    store.put_run(replace(task_run(), resource_version="9"))
    assert store.run(newer.key) == newer


def test_an_older_state_of_a_pod_does_not_replace_a_newer_one() -> None:
    store = Store()
    run = task_run()
    store.put_run(run)
    store.put_pod(pod(phase="Running", version=5))
    assert store.put_pod(pod(version=4)) == run.key
    assert store.observed(run).pods["run-1"].phase == "Running"
    store.put_pod(pod(phase="Running", version=6, gone=True))
    store.put_pod(pod(phase="Running", version=6))
    assert store.observed(run).pods["run-1"].gone


def test_another_taskrun_of_the_same_name_is_not_the_same() -> None:
    store = Store()
    store.put_run(task_run())
    store.put_pod(pod())
    again = task_run(uid="uid-2")
    store.put_run(again)
    assert store.observed(again).pods == {}


def test_a_pod_that_appears_is_neither_absent_nor_refused() -> None:
    store = Store()
    run = task_run()
    store.put_run(run)
    store.put_absent(run, "run-1")
    assert store.observed(run).absent == {"run-1"}
    store.put_pod(pod())
    assert store.observed(run).absent == frozenset()


class Hand:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(queue: WorkQueue[str]) -> list[str]:
    """Take what there is to take."""

    async def take() -> list[str]:
        return [await queue.get() for _ in range(queue.ready)]

    return asyncio.run(take())


def test_what_is_to_begin_holds_back_what_is_to_be_written_down() -> None:
    clock = Hand()
    queue: WorkQueue[str] = WorkQueue(8, clock)
    queue.add("new", priority=True)
    for key in "abcdef":
        queue.add(key)
    # few at a time, but some: a stream of new ones must not stop them
    assert taken(queue) == ["a", "b", "new"]
    queue.add("newer", priority=True)
    queue.done("a")
    assert taken(queue) == ["c", "newer"]
    assert len(queue) == 3
    clock.now += 1.1
    queue.done("b")
    assert taken(queue) == ["d", "e", "f"], "nothing is to begin any more"
    assert len(queue) == 0


def test_the_longer_writes_wait_the_more_of_them_go_at_once() -> None:
    clock = Hand()
    queue: WorkQueue[str] = WorkQueue(8, clock)
    queue.add("new", priority=True)
    for key in "abcdefghijk":
        queue.add(key)
    assert taken(queue) == ["a", "b", "new"]
    clock.now += 11
    queue.add("newer", priority=True)
    queue.done("a")
    assert taken(queue) == ["c", "d", "e", "newer"]
    clock.now += 1000
    queue.add("newest", priority=True)
    queue.done("b")
    # never more than there are workers
    assert taken(queue) == ["f", "g", "h", "i", "j", "newest"]


def test_a_key_that_is_held_back_may_become_urgent() -> None:
    queue: WorkQueue[str] = WorkQueue(8, Hand())
    queue.add("new", priority=True)
    for key in "abcd":
        queue.add(key)
    queue.add("d", priority=True)
    queue.add("a", priority=True)
    queue.add("d")
    assert taken(queue) == ["a", "b", "new", "d"]
    queue.done("a")
    queue.done("b")
    assert taken(queue) == ["c"]
    assert len(queue) == 0


def test_what_is_under_way_is_waited_for_and_nothing_new_is_begun() -> None:
    async def scenario() -> tuple[list[Key], int]:
        controller = Controller(cast(KubernetesApi, None), Settings("bridge:1", "http://api/"), [], Metrics())
        done: list[Key] = []

        async def turn(key: Key) -> None:
            await asyncio.sleep(0.2)
            done.append(key)
            controller.queue.done(key)

        controller.turn = turn  # type: ignore[method-assign]
        for number in range(5):
            controller.queue.add(("n", str(number)), priority=True)
        workers = [asyncio.create_task(controller.work()) for _ in range(2)]
        await asyncio.sleep(0.05)
        await controller.rest(30)
        await asyncio.wait_for(asyncio.gather(*workers), 30)
        return done, len(controller.queue)

    done, left = asyncio.run(scenario())
    assert (len(done), left) == (2, 3)


def test_the_pod_of_a_taskrun_that_was_made_anew_keeps_its_place() -> None:
    """Nothing was seen of the deletion: the watch was broken."""

    def raw(uid: str) -> dict[str, Any]:
        metadata = {
            "namespace": "n", "name": "run", "uid": uid, "generation": 1, "resourceVersion": "1" if uid == "old" else "9",
            "creationTimestamp": "2026-11-21T00:00:00Z",
        }  # fmt: skip
        return {"metadata": metadata, "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}}

    def pod_of(phase: str) -> dict[str, Any]:
        labels = {UID_LABEL: "old", ATTEMPT_LABEL: "1"}
        metadata = {
            "namespace": "n", "name": "run-1", "uid": "pod", "labels": labels, "resourceVersion": "2",
            "annotations": {"polypod.dev/queue": "q"}, "creationTimestamp": "2026-11-21T00:00:00Z",
            "ownerReferences": [{"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "name": "run", "uid": "old",
                                 "controller": True}],
        }  # fmt: skip
        return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}

    controller = Controller(cast(KubernetesApi, None), Settings("bridge:1", "http://api/"), [], Metrics())
    controller.cache.saw_pod(pod_of("Running"), False)
    controller.cache.saw_run(raw("old"), False)
    assert controller.cache.places.depths() == {"q": (1, 0)}
    controller.cache.saw_run(raw("new"), False)
    assert controller.cache.places.depths() == {"q": (1, 1)}, "its pod runs still"
    controller.cache.saw_pod(pod_of("Succeeded"), False)
    assert controller.cache.places.depths() == {"q": (0, 1)}


def test_invented_names_make_no_series() -> None:
    metrics = Metrics()
    metrics.queues = lambda: {"q"}
    metrics.depths = lambda: {f"invented-{number}": (1, 0) for number in range(50)}
    metrics.active = lambda: [("Pending", f"invented-{number}", "c") for number in range(50)] + [("Running", "q", "c")]
    for number in range(50):
        metrics.queue_wait.labels(metrics.queue(f"invented-{number}")).observe(1)
        metrics.ended(f"state-{number}", f"Reason{number}", "c")
    metrics.ended("success", "TaskSucceeded", "c")
    text = generate_latest(metrics.registry).decode()
    assert "invented" not in text
    assert "Reason4" not in text
    assert 'polypod_queue_running{queue="other"} 50.0' in text
    assert 'polypod_taskruns_active{coordinator="c",phase="Pending",queue="other"} 50.0' in text
    assert 'reason="TaskSucceeded",state="success"' in text


def test_every_metric_of_the_docs_exists_and_the_other_way_round() -> None:
    registries = Metrics().registry, ApiMetrics(Sizes(create_engine("sqlite://"))).registry
    counted = (metric.name for registry in registries for metric in registry.collect())
    found = {name for name in counted if name.startswith("polypod_")}
    page = (ROOT / "docs/cluster.md").read_text()
    told = {name.removesuffix("_total") for name in re.findall(r"`(polypod_[a-z_]+)`", page)}
    assert told == found


def test_no_key_is_worked_on_twice_at_once_and_none_is_lost() -> None:
    async def play() -> None:
        queue: WorkQueue[int] = WorkQueue()
        working: set[int] = set()
        seen = [0] * 10
        added = [0] * 10

        async def work() -> None:
            while True:
                key = await queue.get()
                assert key not in working
                working.add(key)
                seen[key] = added[key]
                await asyncio.sleep(random.uniform(0, 0.002))
                working.discard(key)
                queue.done(key)

        workers = [asyncio.create_task(work()) for _ in range(5)]
        for _ in range(500):
            key = random.randrange(10)
            added[key] += 1
            if random.random() < 0.5:
                queue.add(key)
            else:
                queue.add_after(key, random.uniform(0, 0.003))
            await asyncio.sleep(0)
        give_up = asyncio.get_running_loop().time() + 30
        while seen != added:
            assert asyncio.get_running_loop().time() < give_up
            assert not any(worker.done() for worker in workers)
            await asyncio.sleep(0.005)
        for worker in workers:
            worker.cancel()

    asyncio.run(play())


def test_of_two_timers_the_earlier_one_counts() -> None:
    async def play() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add_after("k", 0.01)
        queue.add_after("k", 60)
        assert await asyncio.wait_for(queue.get(), 30) == "k"
        queue.done("k")
        queue.add_after("k", 60)
        queue.forget("k")
        assert len(queue) == 0

    asyncio.run(play())


def test_the_crd_is_what_the_models_say() -> None:
    assert crd.PAGE.read_text() == crd.rendered(), "run `make generated`"


def test_every_field_of_the_crd_is_documented() -> None:
    def undocumented(schema: dict[str, Any], path: str) -> list[str]:
        found = [] if schema.get("description") else [path]
        for name, field in schema.get("properties", {}).items():
            found += undocumented(field, f"{path}.{name}")
        if "items" in schema and "properties" in schema["items"]:
            for name, field in schema["items"]["properties"].items():
                found += undocumented(field, f"{path}[].{name}")
        return found

    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert undocumented(root["spec"], "spec") == []
    assert undocumented(root["status"], "status") == []


def test_the_rule_for_durations_is_the_same_on_both_sides() -> None:
    import re

    pattern = Rule.DURATION.expression.partition("'")[2].rpartition("'")[0]
    for text in ("5s", "1h30m", "1.5s", "100ms", "", "5", "s", "-5s", "5 s", "1d"):
        try:
            seconds(text)
            valid = True
        except ValueError:
            valid = False
        assert bool(re.search(pattern, text)) == valid, text


def test_a_taskrun_that_is_not_valid_is_parsed_with_its_problems() -> None:
    raw = {
        "metadata": {
            "name": "x", "namespace": "n", "uid": "u", "resourceVersion": "1",
            "creationTimestamp": "2026-11-21T12:00:00Z",
        },
        "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r", "arguments": [{"name": "a"}]},
    }  # fmt: skip
    found = objects.task_run(raw)
    assert found.spec is None
    assert "exactly one of value and fromXCom" in found.problems


def test_a_status_of_a_later_version_can_be_read() -> None:
    raw = {"phase": "Running", "later": 1, "attempts": [{"number": 1, "state": "running", "later": 2}]}
    status = TaskRunStatus.model_validate(raw)
    assert (status.phase, status.attempts[0].number) == ("Running", 1)


def test_a_message_is_cut_to_what_a_status_holds() -> None:
    status = TaskRunStatus()
    conditions.put(status, "Routed", "True", "R", "x" * 5000, NOW, 1)
    assert len(status.conditions[0].message) == conditions.MAX_MESSAGE
