"""decide/routing.py: a routing is reloaded, and a bad one changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from polypod_operator.decide.routing import RoutingState
from support.objects import EXECUTABLE

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
