"""decide/routing.py and control/routing_reload.py: a routing is reloaded, and a bad one changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
import yaml
from polypod_core.reasons import Reason
from polypod_operator.control import routing_reload
from polypod_operator.control.controller import Controller
from polypod_operator.decide.routing import RoutingState
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.pace import Pace
from polypod_operator.pods.pod import Settings
from polypod_operator.serve.metrics import Metrics
from prometheus_client import generate_latest
from support.objects import EXECUTABLE
from support.refusals import ADMISSION, FAULTS, NOBODY

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


@pytest.mark.parametrize("error", [*ADMISSION, *NOBODY], ids=str)
def test_a_refusal_by_something_else_is_no_fault_of_the_object(error: ApiError) -> None:
    assert not error.invalid


@pytest.mark.parametrize("error", FAULTS, ids=str)
def test_an_object_that_is_valid_nowhere_is_a_fault_of_its_own(error: ApiError) -> None:
    assert error.invalid
    assert not error.by_admission


class Api:
    """Answers trials as it is told to, by namespace, and keeps the Events."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.answer: dict[str, ApiError | float] = {}
        self.trials = 0
        self.events: list[str] = []

    async def create_pod(self, manifest: Mapping[str, Any], dry_run: bool = False) -> dict[str, Any]:
        assert dry_run
        self.trials += 1
        answer = self.answer.get(manifest["metadata"]["namespace"])
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        elif answer is not None:
            raise answer
        return {}

    async def post_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event["reason"])


def reloading(namespaces: list[str] | None = None) -> tuple[Api, routing_reload.RoutingReload, Metrics]:
    api, metrics = Api(), Metrics()
    controller = Controller(cast(KubernetesApi, api), Settings("bridge:1", "http://api/"), namespaces or [], metrics)
    return api, controller.routing, metrics


OTHER = {**GOOD, "queue_to_coordinator": {"q": "native", "p": "native"}}


@pytest.mark.parametrize("error", [*ADMISSION, *NOBODY, 60.0], ids=str)
def test_a_routing_that_cannot_be_tried_is_used_and_tried_again(
    error: ApiError | float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing_reload, "_PATIENCE", 0.2)

    async def scenario() -> None:
        api, routing, metrics = reloading()
        await routing.saw(config_map(**GOOD), "ns/r")
        assert routing.retry_after is None
        api.answer["ns"] = error
        await routing.saw(config_map(**OTHER), "ns/r")
        assert routing.state.problem == ""
        assert routing.state.current is not None
        assert "p" in routing.state.current.queue_to_coordinator
        assert api.events == [Reason.ROUTING_UNTRIED]
        assert "polypod_routing_tried 0" in generate_latest(metrics.registry).decode()
        pauses = []
        for _ in range(8):
            pauses.append(routing.retry_after or 0.0)
            await routing.try_again()
        assert pauses == sorted(pauses)
        assert pauses[0] >= 10
        assert pauses[-1] >= 300
        assert api.events == [Reason.ROUTING_UNTRIED], "the same is said once"
        # what refused it is gone
        api.answer = {}
        await routing.try_again()
        assert routing.retry_after is None
        assert api.events[1:] == [Reason.ROUTING_LOADED]
        text = generate_latest(metrics.registry).decode()
        assert "polypod_routing_tried 1" in text
        assert "polypod_routing_valid 1" in text

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_a_routing_that_is_found_late_brings_the_last_valid_one_back(fault: ApiError) -> None:
    async def scenario() -> None:
        api, routing, _ = reloading()
        await routing.saw(config_map(**GOOD), "ns/r")
        good = routing.state.current
        api.answer["ns"] = NOBODY[0]
        await routing.saw(config_map(**OTHER), "ns/r")
        api.answer["ns"] = fault
        await routing.try_again()
        assert routing.state.current is good
        assert fault.message in routing.state.problem
        assert api.events[-1] == Reason.ROUTING_INVALID
        assert routing.retry_after is None

    asyncio.run(scenario())


@pytest.mark.parametrize("between", [config_map(coordinators="no"), None], ids=["a mistake", "deleted"])
def test_a_routing_in_use_that_was_never_tried_is_tried_when_it_comes_back(between: dict[str, Any] | None) -> None:
    async def scenario() -> None:
        api, routing, metrics = reloading()
        await routing.saw(config_map(**GOOD), "ns/r")
        good = routing.state.current
        api.answer["ns"] = NOBODY[0]
        await routing.saw(config_map(**OTHER), "ns/r")
        await routing.saw(between, "ns/r")
        assert routing.state.problem
        assert "polypod_routing_tried 0" in generate_latest(metrics.registry).decode()
        api.answer["ns"] = FAULTS[0]
        await routing.saw(config_map(**OTHER), "ns/r")
        assert routing.state.current is good
        assert FAULTS[0].message in routing.state.problem

    asyncio.run(scenario())


def test_many_slow_trials_are_all_made_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_reload, "_PATIENCE", 0.25)

    async def scenario() -> None:
        api, routing, _ = reloading()
        api.answer["ns"] = 0.1
        images = {f"q{number}": f"x:{number}" for number in range(7)}
        many = {**GOOD, "queue_to_coordinator": dict.fromkeys(images, "native"), "queue_to_image": images}
        await routing.saw(config_map(**many), "ns/r")
        for _ in range(6):
            if routing.retry_after is None:
                break
            await routing.try_again()
        assert (routing.state.problem, routing.state.untried) == ("", "")
        assert api.trials <= len(images) + 6, "none is made twice but for those that were cut off"

    asyncio.run(scenario())


def test_a_trial_is_made_in_another_namespace_if_the_first_cannot_tell() -> None:
    async def scenario() -> None:
        api, routing, _ = reloading(["team-a", "team-b"])
        api.answer["team-a"] = ADMISSION[0]
        await routing.saw(config_map(**GOOD), "ns/r")
        assert (routing.state.problem, routing.state.untried) == ("", "")
        api.answer["team-b"] = FAULTS[0]
        await routing.saw(config_map(**OTHER), "ns/r")
        assert FAULTS[0].message in routing.state.problem

    asyncio.run(scenario())
