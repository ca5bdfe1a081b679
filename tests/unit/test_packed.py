"""model/packed.py: a TaskRun that waits comes out of its packing as it went in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from polypod_operator.decide.store import Store
from polypod_operator.kube.raw import Meta
from polypod_operator.model import objects
from polypod_operator.model.packed import Packed, coordinator_of, pack, queue_of, unpack

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text("abcXYZ019_-.äß😀 ", min_size=1, max_size=20)
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat)


@st.composite
def raw(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "queue": draw(NAMES), "dagId": draw(NAMES), "taskId": draw(NAMES), "runId": draw(NAMES),
        **draw(st.fixed_dictionaries({}, optional={
            "priority": st.integers(-100, 100), "retries": st.integers(0, 5), "suspend": st.booleans(),
            "params": st.dictionaries(st.text(max_size=5), VALUES, max_size=3),
            "arguments": st.lists(VALUES.map(lambda value: {"value": value}), max_size=3),
            "podTemplate": st.just({"spec": {"nodeSelector": {"a": "b"}}}),
            "timeouts": st.just({"pending": "5m"}), "unheard-of": VALUES,
        })),
    }  # fmt: skip
    status = {
        "phase": "Pending", "reason": "QueueLimit", "message": draw(st.text(max_size=200)), "queuePlace": 7,
        "conditions": [{"type": "Started", "status": "False", "reason": "QueueLimit", "message": draw(st.text(max_size=9)),
                        "lastTransitionTime": draw(TIMES)}],
        "attempts": draw(st.lists(st.fixed_dictionaries({
            "number": st.just(1), "state": st.just("failed"), "reason": st.just("TaskFailed"),
            "message": st.text(max_size=50), "coordinator": st.none() | NAMES, "finishTime": TIMES}), max_size=2)),
    }  # fmt: skip
    metadata = {
        "namespace": "ns", "name": "run", "uid": "u", "generation": draw(st.integers(1, 9)), "resourceVersion": "8",
        "creationTimestamp": draw(TIMES),
    }  # fmt: skip
    return {"metadata": metadata, "spec": spec, **({"status": status} if draw(st.booleans()) else {})}


@given(raw())
def test_what_is_packed_comes_out_as_it_went_in_or_is_not_packed(given_raw: dict[str, Any]) -> None:
    run = objects.task_run(given_raw)
    packed = pack(run)
    if packed is None:
        return
    again = unpack(run.key, packed)
    assert again == run
    # 1 and 1.0 and True are the same to ==, and not to a task
    assert repr(again) == repr(run)
    assert (packed.phase, packed.queue, packed.coordinator) == (run.status.phase, queue_of(run), coordinator_of(run))


def test_an_ordinary_one_takes_little_room() -> None:
    spec = {"queue": "golang", "dagId": "d", "taskId": "t", "runId": "r"}
    packed = pack(objects.task_run({"metadata": META, "spec": spec}))
    assert isinstance(packed, Packed)
    assert len(packed.data) < 300


META = {
    "namespace": "ns", "name": "run", "uid": "u", "resourceVersion": "8", "generation": 1,
    "creationTimestamp": "2026-11-27T06:00:00Z",
}  # fmt: skip


def test_the_store_tells_of_a_packed_one_what_it_tells_of_any() -> None:
    store = Store()
    run = objects.task_run({"metadata": META, "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}})
    store.put_run(run)
    store.pack(run.key)
    assert list(store.active()) == [("Pending", "q", "")]
    assert store.uids() == [(("ns", "run"), "u")]
    assert store.without_attempt() == [("ns", "run")]
    assert store.knows_run(Meta("run", "ns", "u", "8"))
    assert not store.knows_run(Meta("run", "ns", "u", "9"))
    # what is older than it does not take its place
    store.put_run(objects.task_run({"metadata": {**META, "resourceVersion": "7", "generation": 0}, "spec": {}}))
    assert store.run(run.key) == run
    store.pack(run.key)
    store.forget(run.key)
    assert store.run(run.key) is None
    assert store.knows_run(Meta("run", "ns", "u", "8"))
