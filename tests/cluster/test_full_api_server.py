"""An API server that is full: watches that stall or are closed, calls that are refused or wait.

A real operator and a real API server, with a proxy between them. Whatever it is, each TaskRun gets its one pod, none is
held up for longer than the fault lasts, and nothing is listed again because of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from polypod_core.kinds import UID_LABEL
from polypod_operator.kube.pace import LEAST

from cluster.api import Api
from cluster.lab import task_run
from cluster.spoilt import ROUTING, Operator

pytestmark = pytest.mark.needs("api-server")

HERE = "full"


@pytest.fixture
def operator(api: Api, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(api, tmp_path)
    documents: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "polypod-system"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HERE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": HERE}},
        ROUTING,
    ]
    for document in documents:
        api.kubectl("apply", "-f", "-", stdin=document)
    try:
        made.start()
        create(api, "before", 1)
        api.wait(lambda: len(pods(api)) == 1)
        yield made
        assert made.process.poll() is None, "the same process all the time"
        twice = {uid: count for uid, count in Counter(pods(api)).items() if count > 1}
        assert not twice, "an attempt was created twice"
    finally:
        made.proxy.heal()
        made.stop()
        api.kubectl("-n", HERE, "delete", "taskruns,pods,events", "--all", "--wait=true")


def pods(api: Api) -> list[str]:
    """Return the uids of the TaskRuns that the pods are of."""
    return [item["metadata"]["labels"][UID_LABEL] for item in api.items("pods", "-n", HERE)]


def create(api: Api, name: str, number: int) -> None:
    items = [task_run(f"{name}-{index}", "t") for index in range(number)]
    done = api.kubectl("-n", HERE, "create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items})
    assert done.returncode == 0, done.stderr


def said(api: Api) -> set[str]:
    """Return the reasons of all Events on TaskRuns."""
    return {item["reason"] for item in api.items("events", "-n", HERE)}


def test_a_watch_that_stalls_is_opened_again_as_soon_as_it_does_not_show_our_own_write(
    api: Api, operator: Operator
) -> None:
    lists = operator.proxy.lists
    create(api, "first", 3)
    api.wait(lambda: len(pods(api)) == 4)
    # one may just be opened again
    api.wait(lambda: operator.proxy.stall() >= 2)
    # that they are starting is written in a moment, and no watch shows it
    create(api, "second", 3)
    api.wait(lambda: len(pods(api)) == 7)
    assert operator.restarts("silent") >= 1
    assert operator.proxy.lists == lists, "to open a watch again takes no list"


def test_a_watch_that_stalls_while_there_is_nothing_to_write_is_opened_again_when_no_bookmark_comes(
    api: Api, operator: Operator
) -> None:
    def settled() -> bool:
        found = api.items("taskruns", "-n", HERE)
        return all(item.get("status", {}).get("reason") == "PodStarting" for item in found)

    api.wait(settled)
    lists = operator.proxy.lists
    # one may just be opened again
    api.wait(lambda: operator.proxy.stall() >= 2)
    create(api, "second", 3)
    api.wait(lambda: len(pods(api)) == 4)
    assert operator.restarts("silent") >= 1
    assert operator.proxy.lists == lists


def test_watches_that_are_closed_again_and_again_lose_nothing_and_list_nothing(api: Api, operator: Operator) -> None:
    lists = operator.proxy.lists
    operator.proxy.lasts = 0.2
    api.wait(lambda: operator.proxy.put(b'{"type":"ERROR","object":{"code":500,"message":"spoilt"}}'))
    for number in range(6):
        create(api, f"more-{number}", 5)
    api.wait(lambda: len(pods(api)) == 31)
    assert operator.restarts("closed") >= 2
    assert operator.proxy.lists == lists


def test_an_api_server_that_refuses_every_call_for_a_minute_is_waited_for(api: Api, operator: Operator) -> None:
    operator.proxy.busy = True
    create(api, "more", 10)
    # the fault lasts for a minute
    time.sleep(60)
    assert operator.proxy.refused >= 10
    assert len(pods(api)) == 1
    operator.proxy.busy = False
    api.wait(lambda: len(pods(api)) == 11)
    assert said(api) <= {"PodStarting", "Unschedulable"}


def test_an_api_server_that_answers_each_call_after_two_seconds_serves_everybody(api: Api, operator: Operator) -> None:
    operator.proxy.delay = 2.0
    create(api, "more", 40)
    api.wait(lambda: len(pods(api)) == 41)
    assert "CreatingPod" not in said(api)


def test_an_api_server_that_stands_still_is_not_taken_for_a_webhook_that_hangs(api: Api, operator: Operator) -> None:
    operator.proxy.frozen = True
    create(api, "more", 60)
    api.wait(lambda: operator.proxy.held >= LEAST)
    # more than twice as long as a creation may take before a webhook is suspected
    time.sleep(8)
    operator.proxy.frozen = False
    api.wait(lambda: len(pods(api)) == 61)
    reasons = {item.get("status", {}).get("reason") for item in api.items("taskruns", "-n", HERE)}
    assert "CreatingPod" not in said(api) | reasons
