"""What one workload cannot do to the others of its batch, whatever a Dag or the API server has put into it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_airflow import template
from polypod_airflow.cluster import Cluster, ClusterError
from polypod_airflow.connection import Connection
from polypod_airflow.creator import Absent, Creator, Made, Refused
from polypod_airflow.taskruns import Settings, Work, secret
from polypod_airflow.template import TemplateProblem
from polypod_airflow.verdicts import storable
from support.waiting import wait_until

SETTINGS = Settings("tasks", "airflow")
COUNT = 25


class Moment(datetime):
    """As pendulum's DateTime: a class of its own, that no encoder knows."""


def itself() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["again"] = found
    return found


def deep() -> Any:
    found: Any = []
    for _ in range(500):
        found = [found]
    return found


NO_JSON: dict[str, Callable[[], Any]] = {
    "a Moment": lambda: Moment(2026, 11, 28, tzinfo=UTC),
    "a datetime": lambda: datetime(2026, 11, 28, tzinfo=UTC),
    "a set": lambda: {1},
    "a bytes": lambda: b"text",
    "a Decimal": lambda: Decimal("1.5"),
    "a object": object,
    "a float (nan)": lambda: float("nan"),
    "a float (inf)": lambda: float("inf"),
    "an integer of more than 64 bits": lambda: 1 << 70,
    "text that is not valid Unicode": lambda: "\ud83d",
    "the key 1": lambda: {1: 2},
    "the key None": lambda: {None: 2},
    "nested more than": itself,
    "levels deep": deep,
}
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(
    [make() for make in NO_JSON.values()]
)  # fmt: skip
NAMES = st.sampled_from(["metadata", "spec", "containers", "name", "labels", "pod_template", "pod_override"])
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(NAMES | st.text(), inner, max_size=3)
        | st.dictionaries(st.integers() | st.none(), inner, max_size=2)
    ),
    max_leaves=8,
)
CONFIGS = (
    ANYTHING | st.fixed_dictionaries({"pod_template": ANYTHING}) | st.fixed_dictionaries({"pod_override": ANYTHING})
)


@given(CONFIGS)
def test_whatever_an_executor_config_is_it_is_a_template_in_json_or_refused_with_a_reason(config: Any) -> None:
    said, found = "executor_config", {}
    try:
        found = template.pod_template(config)
    except TemplateProblem as problem:
        said = storable(str(problem))
    assert said.startswith("executor_config")
    text = msgspec.json.encode(found)
    assert json.loads(text) == json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("key", template.KEYS)
@pytest.mark.parametrize("said", NO_JSON)
def test_a_value_that_is_no_json_is_named_with_its_path(key: str, said: str) -> None:
    config = {key: {"spec": {"tolerations": [{}, {"value": NO_JSON[said]()}]}}}
    with pytest.raises(TemplateProblem) as raised:
        template.pod_template(config)
    assert f"{key}.spec.tolerations[1].value" in str(raised.value)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "config", [[1], "spec", 3, {"pod_override": {"metadata": []}}, {"pod_override": {"spec": "x"}}]
)
def test_what_must_be_a_mapping_and_is_none_is_refused(config: Any) -> None:
    with pytest.raises(TemplateProblem, match="must be a mapping"):
        template.pod_template(config)


def test_a_text_that_a_database_refuses_is_made_one_that_it_takes() -> None:
    assert storable("a\0b \ud83d c") == "a\ufffdb ? c"
    assert storable("grüße ✓") == "grüße ✓"
    assert len(storable("ä" * 1_000_000).encode()) < 65_535


class Server(Cluster):
    """An API server that keeps what it is sent, unless `refuse` raises."""

    def __init__(self, refuse: Callable[[str, str], None]) -> None:
        super().__init__(Connection("http://127.0.0.1:1"))
        self.refuse = refuse
        self.made: dict[str, Any] = {}
        self.owned: dict[str, set[str]] = {}
        self.deleted: set[str] = set()
        self.calls: list[tuple[str, str]] = []

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> bytes:
        name = body["metadata"].get("name", "") if method == "POST" else path.rpartition("/")[2]
        text = msgspec.json.encode(body)
        self.calls.append((method, name))
        self.refuse(method, text.decode())
        if method == "POST":
            if name in self.made:
                raise ClusterError(409, "AlreadyExists", "it is there")
            self.made[name] = {**body, "metadata": {**body["metadata"], "uid": f"uid-{name}"}}
            return msgspec.json.encode(self.made[name])
        if method == "PATCH":
            self.owned[name] = {owner["name"] for owner in body["metadata"]["ownerReferences"]}
        if method == "DELETE":
            self.made.pop(name, None)
            self.deleted.add(name)
        return msgspec.json.encode(self.made.get(name, {}))


def work(number: int) -> Work:
    return Work(f"00000000-0000-0000-0000-{number:012}", "jvm", "dag", "t", "r", number, 1, json.dumps({"n": number}))


def created(server: Server, works: list[Work]) -> dict[str, Made | Refused]:
    """Have TaskRuns made; return the last result of each, once each has one and the Secrets are settled."""
    creator = Creator(server, SETTINGS)
    creator.start()
    creator.create(works)
    found: dict[str, Made | Refused] = {}
    give_up = time.monotonic() + 20
    while len(found) < len(works) and time.monotonic() < give_up:
        result = creator.results.get(timeout=20)
        assert isinstance(result, Made | Refused)
        found[result.name] = result
    creator.close(20)
    return found


def answers(error: Exception) -> Callable[[str, str], None]:
    def refuse(method: str, text: str) -> None:
        if method == "POST" and '"mapIndex":7' in text:
            raise error

    return refuse


BAD = 7


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        (answers(ClusterError(422, "Invalid", "spec.queue: too long")), "TaskRunRefused: spec.queue: too long"),
        (answers(TypeError("Encoding objects of type DateTime is unsupported")), "cannot be sent (TypeError)"),
        (answers(RecursionError()), "cannot be sent (RecursionError)"),
        (answers(KeyError("a token")), "cannot be sent (KeyError)"),
    ],
)
def test_a_taskrun_that_cannot_be_made_settles_its_task_and_the_others_go_on(
    refuse: Callable[[str, str], None], said: str
) -> None:
    server, works = Server(refuse), [work(number) for number in range(COUNT)]
    found = created(server, works)
    bad = found.pop(works[BAD].name)
    assert isinstance(bad, Refused)
    assert bad.for_good
    assert said in bad.why
    assert "a token" not in bad.why
    assert all(isinstance(result, Made) for result in found.values())
    # the Secret goes with the others
    [names] = server.owned.values()
    assert names == {item.name for item in works} - {works[BAD].name}


@pytest.mark.parametrize("revoked", [1, COUNT])
def test_tasks_that_are_revoked_before_they_are_made_leave_no_secret_behind(revoked: int) -> None:
    server, works = Server(lambda method, text: None), [work(number) for number in range(COUNT)]
    creator = Creator(server, SETTINGS)
    creator.create(works)
    for each in works[:revoked]:
        creator.delete(each.name)
    creator.start()
    try:
        left = {each.name for each in works[revoked:]}
        if left:
            wait_until(lambda: list(server.owned.values()) == [left], "that the Secret has its owners")
        else:
            name = secret(works, SETTINGS)["metadata"]["name"]
            wait_until(lambda: name in server.deleted, "that the Secret is deleted")
        assert not {each.name for each in works[:revoked]} & set(server.made)
    finally:
        creator.close(20)


def test_a_taskrun_that_is_revoked_while_its_creation_is_under_way_does_not_stay() -> None:
    """A call that was tried again may create it after it was deleted."""
    revoked = work(BAD)

    def revoke(method: str, text: str) -> None:
        if method == "POST" and '"mapIndex":7' in text:
            creator.delete(revoked.name)
            wait_until(lambda: revoked.name in server.deleted, "that it is deleted")

    server = Server(revoke)
    creator = Creator(server, SETTINGS)
    creator.start()
    creator.create([revoked])
    try:
        wait_until(lambda: server.calls.count(("DELETE", revoked.name)) == 2, "that it is deleted again")
        assert revoked.name not in server.made
    finally:
        creator.close(20)


def test_a_taskrun_that_was_there_and_is_gone_is_not_created_again() -> None:
    """As after an answer that was lost: somebody has deleted it before it was asked for again."""
    gone = work(BAD)

    def refuse(method: str, text: str) -> None:
        if method == "POST" and '"mapIndex":7' in text:
            raise ClusterError(409, "AlreadyExists", "it is there")
        if method == "GET":
            raise ClusterError(404, "NotFound", "it is not there")

    server = Server(refuse)
    creator = Creator(server, SETTINGS)
    creator.start()
    creator.create([gone, work(1)])
    try:
        found = {result.name: result for result in (creator.results.get(timeout=20), creator.results.get(timeout=20))}
        assert found == {gone.name: Absent(gone.name), work(1).name: Made(work(1).name)}
        # the Secret goes with the other
        wait_until(lambda: list(server.owned.values()) == [{work(1).name}], "that the Secret has its owner")
        assert server.calls.count(("POST", gone.name)) == 1
    finally:
        creator.close(20)


def test_a_template_that_no_encoder_takes_settles_its_task_and_the_others_go_on() -> None:
    works = [work(number) for number in range(COUNT)]
    works[BAD] = replace(works[BAD], pod_template={"spec": object()})
    server = Server(lambda method, text: None)
    found = created(server, works)
    assert isinstance(found[works[BAD].name], Refused)
    assert sum(isinstance(result, Made) for result in found.values()) == COUNT - 1
    [names] = server.owned.values()
    assert len(names) == COUNT - 1


@pytest.mark.parametrize("error", [ClusterError(422, "Invalid", "data[af-x]: invalid key"), UnicodeError("a token")])
def test_a_secret_that_is_refused_because_of_one_workload_harms_no_other(error: Exception) -> None:
    works = [work(number) for number in range(COUNT)]

    def refuse(method: str, text: str) -> None:
        if method == "POST" and '"Secret"' in text and works[BAD].name in text:
            raise error

    server = Server(refuse)
    found = created(server, works)
    bad = found.pop(works[BAD].name)
    assert isinstance(bad, Refused)
    assert bad.for_good
    assert all(isinstance(result, Made) for result in found.values())
    assert len(server.owned) == COUNT - 1


def test_without_a_way_to_the_api_server_a_call_says_what_is_missing() -> None:
    cluster = Cluster(Connection("", missing="no service account of a pod, and kubeconfig /x: No such file"))
    with pytest.raises(ClusterError, match=r"^no service account of a pod") as raised:
        cluster.call("GET", "/version", attempts=1)
    assert raised.value.status == 0


def test_a_token_file_that_is_away_is_an_error_of_the_call(tmp_path: Path) -> None:
    cluster = Cluster(Connection("http://127.0.0.1:1", token_file=tmp_path / "token"))
    with pytest.raises(ClusterError, match="token") as raised:
        cluster.call("GET", "/version", attempts=1)
    assert raised.value.status == 0
