"""What the executor reads of others' objects: one of them never hides the rest, and times are of one clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from polypod_airflow.cluster import Cluster
from polypod_airflow.connection import Connection
from polypod_airflow.informer import Gone, Informer, Listed, Seen
from polypod_airflow.leftovers import delete_leftovers
from polypod_airflow.taskruns import Settings

SETTINGS = Settings("tasks", "airflow")
Raw = dict[str, Any]


def nested(levels: int, shape: str) -> str:
    opened, closed = {"list": ("[", "]"), "map": ('{"a":', "}"), "odd": ('[{"]\\"}[":', "}]")}[shape]
    return opened * levels + "1" + closed * levels


def task_run(name: str, params: str = "{}", **status: Any) -> str:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "7"}
    spec = f'{{"params":{params},"dagId":"dag","taskId":"{name}","runId":"run"}}'
    return f'{{"spec":{spec},"metadata":{json.dumps(metadata)},"status":{json.dumps({"phase": "Running", **status})}}}'


class Server(Cluster):
    """An API server that answers each path with a document, and a watch with lines."""

    def __init__(self, answers: dict[str, str], lines: list[str] | None = None) -> None:
        super().__init__(Connection("http://127.0.0.1:1"))
        self.answers, self.lines = answers, lines or []
        self.deleted: list[str] = []
        self.now: datetime | None = None

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> bytes:
        if method == "DELETE":
            self.deleted.append(path.rpartition("/")[2])
            return b""
        return self.answers[path.rpartition("/")[2]].encode()

    @contextmanager
    def watch(self, path: str, params: Any, silence: float) -> Iterator[Iterator[bytes]]:
        yield iter(line.encode() for line in self.lines)

    def time(self) -> datetime | None:
        return self.now


ODD = {
    **{
        f"{shape} of {levels} levels": task_run("af-odd", nested(levels, shape))
        for levels in (300, 999, 1_500, 9_999)
        for shape in ("list", "map", "odd")
    },
    "a status of another type": task_run("af-odd", phase=["Running"]),
    "an attempt of another type": task_run("af-odd", attempts=["one"]),
    "a spec of another type": task_run("af-odd").replace('"dagId":"dag"', '"dagId":1'),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_object_that_cannot_be_read_hides_no_other(odd: str) -> None:
    page = f'{{"metadata":{{"resourceVersion":"5"}},"items":[{task_run("af-1")},{ODD[odd]},{task_run("af-2")}]}}'
    lines = [f'{{"type":"{kind}","object":{each}}}' for kind, each in (
        ("MODIFIED", ODD[odd]), ("ADDED", task_run("af-3")), ("DELETED", ODD[odd]),
    )]  # fmt: skip
    informer = Informer(Server({"taskruns": page}, lines), SETTINGS)
    informer.list()
    assert informer._watch("5") == "7"
    news = [informer.news.get() for _ in range(informer.news.qsize())]
    named = [(type(item), item.run.name) for item in news if not isinstance(item, Listed)]
    assert named == [
        (Seen, "af-1"), (Seen, "af-odd"), (Seen, "af-2"), (Seen, "af-odd"), (Seen, "af-3"), (Gone, "af-odd"),
    ]  # fmt: skip
    assert [item.names for item in news if isinstance(item, Listed)] == [{"af-1", "af-odd", "af-2"}]
    found = informer.get("af-1")
    assert found is not None
    assert (found.spec.task_id, found.status.phase) == ("af-1", "Running")


@pytest.mark.parametrize("ours", [timedelta(), timedelta(days=-400), timedelta(days=400)])
def test_the_age_of_what_is_left_over_is_by_the_clock_of_the_api_server_alone(ours: timedelta) -> None:
    now = datetime.now(UTC) + ours
    ages = {"new": 0, "younger": 59, "older": 61}
    items = [
        {"metadata": {"name": name, "uid": name, "creationTimestamp": (now - timedelta(minutes=age)).isoformat()}}
        for name, age in ages.items()
    ]
    server = Server({"secrets": json.dumps({"items": items}), "taskruns": json.dumps({"items": []})})
    assert delete_leftovers(server, SETTINGS) == 0, "without a time of the API server's, nothing is old"
    server.now = now
    assert delete_leftovers(server, SETTINGS) == 1
    assert server.deleted == ["older"]


def test_an_empty_list_of_secrets_may_be_null() -> None:
    assert delete_leftovers(Server({"secrets": '{"items":null}'}), SETTINGS) == 0


@pytest.mark.parametrize("depth", [999, 9_999])
def test_a_deep_taskrun_does_not_keep_leftovers(depth: int) -> None:
    now = datetime.now(UTC)
    old = {"metadata": {"name": "old", "creationTimestamp": (now - timedelta(hours=2)).isoformat()}}
    run = {"metadata": {"name": "af-1", "creationTimestamp": now.isoformat()}, "spec": {"params": "DEEP"}}
    runs = json.dumps({"items": [run]}).replace('"DEEP"', nested(depth, "map"))
    server = Server({"secrets": json.dumps({"items": [old]}), "taskruns": runs})
    server.now = now
    assert delete_leftovers(server, SETTINGS) == 1
