"""control/controller.py and cache.py, without a cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from polypod_core.kinds import ATTEMPT_LABEL, UID_LABEL, Key
from polypod_operator.control.controller import Controller
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.pace import Pace
from polypod_operator.kube.watch import Watch
from polypod_operator.model import objects
from polypod_operator.pods.pod import Settings
from polypod_operator.serve.metrics import Metrics

API = cast(KubernetesApi, SimpleNamespace(pace=Pace()))
"""None is called."""


def test_what_is_under_way_is_waited_for_and_nothing_new_is_begun() -> None:
    async def scenario() -> tuple[list[Key], int]:
        controller = Controller(API, Settings("bridge:1", "http://api/"), [], Metrics())
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


def pod_of(phase: str) -> dict[str, Any]:
    labels = {UID_LABEL: "old", ATTEMPT_LABEL: "1"}
    metadata = {
        "namespace": "n", "name": "run-1", "uid": "pod", "labels": labels, "resourceVersion": "2",
        "annotations": {"polypod.dev/queue": "q"}, "creationTimestamp": "2026-11-21T00:00:00Z",
        "ownerReferences": [{"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "name": "run", "uid": "old",
                             "controller": True}],
    }  # fmt: skip
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}


def test_a_restarted_operator_lets_the_pod_of_a_deleted_taskrun_hold_its_place() -> None:
    """It was deleted while no operator ran; its pod ends by itself, and counts for the queue's limit until then."""

    async def no_routing(*call: str) -> None:
        raise ApiError(404, "NotFound", "no routing yet")

    api = cast(KubernetesApi, SimpleNamespace(pace=Pace(), call=no_routing))
    controller = Controller(api, Settings("bridge:1", "http://api/"), [], Metrics())

    async def listed() -> None:
        controller.cache.saw_pod(pod_of("Running"), False)

    controller.pods = [cast(Watch, SimpleNamespace(list=listed))]
    controller.runs = []
    asyncio.run(controller.start(("n", "routing")))
    assert controller.cache.places.depths() == {"q": (1, 0)}
    controller.cache.saw_pod(pod_of("Succeeded"), False)
    assert controller.cache.places.depths().get("q", (0, 0))[0] == 0


def test_the_pod_of_a_taskrun_that_was_made_anew_keeps_its_place() -> None:
    """Nothing was seen of the deletion: the watch was broken."""

    def raw(uid: str) -> dict[str, Any]:
        metadata = {
            "namespace": "n", "name": "run", "uid": uid, "generation": 1, "resourceVersion": "1" if uid == "old" else "9",
            "creationTimestamp": "2026-11-21T00:00:00Z",
        }  # fmt: skip
        return {"metadata": metadata, "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}}

    controller = Controller(API, Settings("bridge:1", "http://api/"), [], Metrics())
    controller.cache.saw_pod(pod_of("Running"), False)
    controller.cache.saw_run(raw("old"), False)
    assert controller.cache.places.depths() == {"q": (1, 0)}
    controller.cache.saw_run(raw("new"), False)
    assert controller.cache.places.depths() == {"q": (1, 1)}, "its pod runs still"
    controller.cache.saw_pod(pod_of("Succeeded"), False)
    assert controller.cache.places.depths() == {"q": (0, 1)}


@pytest.mark.parametrize(
    ("spec", "status", "pod", "first"),
    [
        ({}, {}, "", True),
        ({}, {}, "Running", False),
        ({}, {}, "Succeeded", False),
        ({"cancel": True}, {}, "Running", True),
        ({"suspend": True}, {}, "Running", True),
        ({}, {"attempts": [{"number": 1, "state": "up_for_retry", "reason": "TaskFailed"}]}, "Failed", True),
        ({}, {"attempts": [{"number": 1, "state": "running", "reason": "Running"}]}, "Failed", False),
        ({"queue": "full"}, {}, "", False),
        ({}, {"phase": "Failed"}, "", False),
    ],
)
def test_what_goes_first_is_to_begin_or_somebody_waits_for_its_end(
    spec: dict[str, Any], status: dict[str, Any], pod: str, first: bool
) -> None:
    controller = Controller(API, Settings("bridge:1", "http://api/"), [], Metrics())
    cache = controller.cache
    cache.places.set_limits({"full": 0})
    metadata = {
        "namespace": "n", "name": "run", "uid": "u", "generation": 1, "resourceVersion": "1",
        "creationTimestamp": "2026-11-21T00:00:00Z",
    }  # fmt: skip
    given = {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r", **spec}
    run = objects.task_run({"metadata": metadata, "spec": given, "status": status})
    cache.store.put_run(run)
    if pod:
        owner = {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "name": "run", "uid": "u", "controller": True}
        named = {**metadata, "name": "run-1", "uid": "p", "labels": {ATTEMPT_LABEL: "1"}, "ownerReferences": [owner]}
        cache.store.put_pod(objects.pod({"metadata": named, "spec": {}, "status": {"phase": pod}}))
    assert controller.queue.urgent(("n", "run")) is first
