"""One object hurts nobody else: what anybody may write is read, or left out alone; a copied label says nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_airflow import reading as executor_reading
from polypod_core.kinds import ATTEMPT_LABEL, UID_LABEL
from polypod_crds.nesting import DEEPEST, depth
from polypod_operator.control.controller import Controller
from polypod_operator.kube import reading
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.kube.pace import Pace
from polypod_operator.kube.watch import Head, Sink, Watch
from polypod_operator.model import objects
from polypod_operator.pods.pod import Settings
from polypod_operator.serve.metrics import Metrics

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def nested(levels: int, shape: str) -> str:
    opened, closed = {"list": ("[", "]"), "map": ('{"a":', "}"), "odd": ('[{"]\\"}[":', "}]")}[shape]
    return opened * levels + "1" + closed * levels


def task_run(name: str, params: str = "{}", **metadata: Any) -> bytes:
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": 1, "resourceVersion": "5",
            "creationTimestamp": "2026-11-21T00:00:00Z", **metadata}  # fmt: skip
    spec = f'{{"queue":"q","dagId":"d","taskId":"{name}","runId":"r","params":{params}}}'
    return f'{{"spec":{spec},"metadata":{json.dumps(meta)}}}'.encode()


@pytest.mark.parametrize("levels", [DEEPEST, 200, 999, 1_500, 9_999])
@pytest.mark.parametrize("shape", ["list", "map", "odd"])
def test_a_document_of_any_depth_is_read_and_what_is_beside_it_is_kept(levels: int, shape: str) -> None:
    raw = task_run("deep", f'{{"a":{nested(levels, shape)}}}')
    assert reading.decode(raw, Head).metadata.uid == "uid-deep"
    found: Any = reading.decode(raw)
    assert found["spec"]["dagId"] == "d"
    run = objects.task_run(found)
    assert run.spec is None
    assert f"spec.params: it is nested deeper than {DEEPEST} levels" in run.problems


def test_as_many_levels_as_are_allowed_are_kept_as_they_are() -> None:
    params = {"a": json.loads(nested(DEEPEST - 1, "list"))}
    found = objects.task_run(reading.decode(task_run("deep", json.dumps(params))))
    assert found.spec is not None
    assert found.spec.params == params


@given(value=VALUES, where=st.sampled_from(["before", "after", "both"]))
def test_cutting_takes_away_what_is_deep_and_nothing_else(value: Any, where: str) -> None:
    text = json.dumps(value)
    deep = f'"deep":{nested(400, "odd").replace("odd", "x")}'
    parts = [f'"a":{text}'] * (where != "after") + [deep] + [f'"b":{text}'] * (where != "before")
    found = json.loads(reading.cut(("{" + ",".join(parts) + "}").encode()))
    assert all(found[name] == value for name in ("a", "b") if name in found)
    assert depth(found["deep"], 300) < 300


@given(value=VALUES, levels=st.integers(0, 3000), shape=st.sampled_from(["list", "map", "odd"]))
def test_the_executor_reads_what_the_operator_reads(value: Any, levels: int, shape: str) -> None:
    raw = b'{"deep":' + nested(levels, shape).encode() + b',"value":' + json.dumps(value).encode() + b"}"
    assert executor_reading.decode(raw, dict[str, Any]) == reading.decode(raw)


@given(value=VALUES)
def test_what_is_not_deep_is_not_touched(value: Any) -> None:
    raw = json.dumps(value).encode()
    assert reading.cut(raw) == raw
    assert reading.decode(raw) == value


@pytest.mark.parametrize("bad", [b"", b"{", b'{"a":', b"\xff", b'{"a":"\xed\xa0\xbd"}', b"[" * 5000])
def test_what_is_no_json_is_an_error_of_its_own(bad: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        reading.decode(bad)


def controller() -> Controller:
    return Controller(cast(KubernetesApi, Told()), Settings("bridge:1", "http://api/"), [], Metrics())


class Told:
    """Of the API, what takes Events and statuses."""

    pace = Pace()

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.statuses: list[Any] = []

    async def post_event(self, event: Any) -> None:
        self.events.append(event)

    async def patch_status(self, path: str, version: str, status: Any) -> Any:
        self.statuses.append(status)
        return {"metadata": {"resourceVersion": str(10 + len(self.statuses))}}


HOSTILE = [
    task_run("deep", nested(9_999, "map")),
    task_run("odd-status").replace(b'"spec"', b'"status":{"phase":"Sleeping","attempts":7},"spec"'),
    task_run("odd-date", creationTimestamp="yesterday"),
    task_run("no-uid").replace(b'"uid"', b'"iud"'),
    task_run("large", json.dumps({"a": "x" * 1_100_000})),
]


@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_an_object_that_cannot_be_read_is_told_of_and_the_next_one_is_served(raw: bytes) -> None:
    async def scenario() -> None:
        ours = controller()
        sink = Sink(ours.cache.store.knows_run, ours.cache.saw_run, cast(Any, None))
        watch = Watch(cast(KubernetesApi, None), "/apis/polypod.dev/v1alpha1", "taskruns", sink)
        for item in (raw, task_run("honest")):
            line = b'{"type":"ADDED","object":' + item + b"}"
            event = watch.news(line)
            if event is not None:
                watch._show(reading.decode(event.object, Head).metadata, event.object, False)
        await asyncio.sleep(0)
        honest = ours.cache.store.run(("ns", "honest"))
        assert honest is not None
        assert honest.spec is not None
        store = ours.cache.store
        served = [run for key in store.task_runs() if key[1] != "honest" and (run := store.run(key)) is not None]
        told = cast(Told, ours.api).events
        # either its status will say what is wrong, or an Event does
        assert all(run.problems or run.altered for run in served)
        assert served or told

    asyncio.run(scenario())


def pod(name: str, namespace: str = "ns", owner: dict[str, Any] | None = None, **labels: str) -> dict[str, Any]:
    metadata = {
        "name": name, "namespace": namespace, "uid": f"pod-{namespace}-{name}", "resourceVersion": "7",
        "creationTimestamp": "2026-11-21T00:00:00Z", "annotations": {"polypod.dev/queue": "q"},
        "labels": {UID_LABEL: "uid-honest", ATTEMPT_LABEL: "1", **labels},
        "ownerReferences": [owner] if owner else [],
    }  # fmt: skip
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}


OWNER = {
    "apiVersion": "polypod.dev/v1alpha1",
    "kind": "TaskRun",
    "name": "honest",
    "uid": "uid-honest",
    "controller": True,
}
IMITATIONS = [
    pod("copied-labels"),
    pod("other-namespace", "elsewhere", OWNER),
    pod("not-the-controller", owner={**OWNER, "controller": False}),
    pod("other-kind", owner={**OWNER, "kind": "Job"}),
    pod("other-group", owner={**OWNER, "apiVersion": "evil.dev/v1"}),
    pod("invented", owner={**OWNER, "uid": "nobody"}),
]


@pytest.mark.parametrize("imitation", IMITATIONS, ids=[item["metadata"]["name"] for item in IMITATIONS])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_an_imitated_pod_is_nobodys(imitation: dict[str, Any], first: bool) -> None:
    ours = controller()
    if first:
        ours.cache.saw_pod(imitation, False)
    ours.cache.saw_run(reading.decode(task_run("honest")), False)
    if not first:
        ours.cache.saw_pod(imitation, False)
    run = ours.cache.store.run(("ns", "honest"))
    assert run is not None
    assert ours.cache.store.observed(run).pods == {}
    assert ours.cache.places.depths() == {"q": (0, 1)}, "it holds no place in the queue"


@pytest.mark.parametrize("number", ["abc", "-1", "", "9" * 40, "٣", "1.5"])
def test_an_odd_number_in_a_name_is_no_attempt(number: str) -> None:
    found = objects.pod(pod(f"x-{number}", owner=OWNER, **{ATTEMPT_LABEL: "1"}))
    assert found.attempt == 0


@pytest.mark.parametrize("phase", ["Pending", "Succeeded"])
def test_a_taskrun_at_which_the_operator_fails_says_so_unless_it_has_ended(phase: str) -> None:
    async def scenario() -> None:
        ours = controller()
        status = json.dumps({"phase": phase, "reason": "Before"})
        raw = task_run("odd").replace(b'"spec"', b'"status":' + status.encode() + b',"spec"', 1)
        raw = raw.replace(b'"queue":"q"', b'"queue":"q","ttlSecondsAfterFinished":5')
        ours.cache.saw_run(reading.decode(raw), False)

        async def fails(key: Any) -> bool:
            raise ValueError("a defect")

        ours._look_at = fails  # type: ignore[method-assign]
        told = cast(Told, ours.api)
        for _ in range(4):
            await ours.turn(("ns", "odd"))
        assert [event["reason"] for event in told.events] == ["OperatorFailed"]
        if phase == "Succeeded":
            assert told.statuses == []
        else:
            [written] = told.statuses
            assert (written["phase"], written["reason"]) == ("Pending", "OperatorFailed")
            assert "a defect" in written["message"]

    asyncio.run(scenario())
