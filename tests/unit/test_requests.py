"""requests.py and messages.py: the table against upstream's own schema, row by row."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
import pytest
from polypod_bridge.comm import answers as a
from polypod_bridge.comm import messages as m
from polypod_bridge.comm import requests
from polypod_bridge.comm.requests import ApiReply
from support.paths import AIRFLOWS, airflow_venv

TI = "01234567-89ab-cdef-0123-456789abcdef"
ROWS = requests.rows(TI)
WHEN = datetime(2026, 11, 21, tzinfo=UTC)


def test_every_message_has_one_row_or_is_answered_here() -> None:
    assert set(m.REQUEST_TYPES.values()) == set(ROWS) | requests.LOCAL_TYPES
    assert not set(ROWS) & requests.LOCAL_TYPES


SCRIPT = """
import json, os, sys, typing
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import airflow.sdk.execution_time.schema as schema
from airflow.sdk.execution_time import comms

def members(annotated):
    found = typing.get_args(annotated)[0]
    return [item.__name__ if isinstance(item, type) else typing.get_args(item)[0].__name__
            for item in typing.get_args(found)]

path = os.path.join(os.path.dirname(schema.__file__), "schema.json")
document = json.load(open(path))
print(json.dumps({"version": document["api_version"], "definitions": document["$defs"],
                  "requests": members(comms.ToSupervisor), "answers": members(comms.ToTask)}), file=out)
"""


@cache
def schema_of(version: str) -> Any:
    """Return upstream's schema, and the names of the messages of either direction."""
    python = str(airflow_venv(version) / "bin/python")
    found = subprocess.run([python, "-c", SCRIPT], capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


DIFFERENCES = {
    "SentFDs": "an answer to ResendLoggingFD, which passes a descriptor on: for Python runtimes on the same host",
    "CreateHITLDetailPayload": "a message of a runtime; upstream lists it among the answers, too, and never sends it",
}
"""Where our table is not upstream's schema, and why."""


def kinds(schema: Any, definitions: Any) -> set[str]:
    """Return the JSON types that a schema admits."""
    if "$ref" in schema:
        return kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts:
        return set().union(*(kinds(part, definitions) for part in parts))
    if "const" in schema or "enum" in schema:
        return {"string"}
    kind = schema.get("type")
    if kind is None:
        return {"string", "integer", "number", "boolean", "array", "object", "null"}
    return set(kind) if isinstance(kind, list) else {kind}


def ours(kind: type[Any]) -> tuple[Any, Any]:
    [schema], definitions = msgspec.json.schema_components([kind])
    return definitions[schema["$ref"].rpartition("/")[2]], definitions


@pytest.mark.needs("airflow")
@pytest.mark.parametrize("version", AIRFLOWS)
@pytest.mark.parametrize("direction", ["requests", "answers"])
def test_messages_and_fields_are_those_of_upstreams_schema(version: str, direction: str) -> None:
    upstream, newest = schema_of(version), schema_of(AIRFLOWS[-1])
    known = m.REQUEST_TYPES if direction == "requests" else {kind.__name__: kind for kind in a.Answer.__subclasses__()}
    problems = []
    for name in upstream[direction]:
        if name not in known:
            problems.append((name, "missing"))
            continue
        theirs = upstream["definitions"][name]
        made, definitions = ours(known[name])
        later = newest["definitions"][name]["properties"]
        for field in (theirs["properties"].keys() | made["properties"].keys()) - {"type"}:
            where = f"{name}.{field}"
            if field not in made["properties"]:
                problems.append((where, "missing"))
            elif field not in theirs["properties"]:
                if field not in later:
                    problems.append((where, "unknown to upstream"))
            else:
                wanted = kinds(theirs["properties"][field], upstream["definitions"])
                taken = kinds(made["properties"][field], definitions)
                if not wanted <= taken | ({"integer"} if "number" in taken else set()):
                    problems.append((where, f"upstream's {wanted - taken} are refused"))
                required = field in theirs.get("required", ())
                if direction == "requests" and not required and field in made.get("required", ()):
                    problems.append((where, "upstream lets it be left out"))
    assert not [problem for problem in problems if problem[0] not in DIFFERENCES]


@pytest.mark.needs("airflow")
def test_every_difference_that_is_written_down_is_one() -> None:
    ours_too = {kind.__name__ for kind in a.Answer.__subclasses__()}
    assert DIFFERENCES.keys() == set(schema_of(AIRFLOWS[-1])["answers"]) - ours_too


CALLS: list[tuple[m.Message, str, str, Any]] = [
    (m.GetConnection(conn_id="a/b c"), "GET", "connections/a%2Fb%20c", None),
    (m.GetVariable(key="ü?"), "GET", "variables/%C3%BC%3F", None),
    (m.PutVariable(key="k", value="v"), "PUT", "variables/k", {"val": "v", "description": None}),
    (m.GetXCom(key="k", dag_id="d", run_id="r+1", task_id="t", map_index=-1), "GET", "xcoms/d/r%2B1/t/k", None),
    (m.SetXCom(key="k", value=[1], dag_id="d", run_id="r", task_id="t"), "POST", "xcoms/d/r/t/k", [1]),
    (m.GetXComSequenceItem(key="k", dag_id="d", run_id="r", task_id="t", offset=-1), "GET", "xcoms/d/r/t/k/item/-1",
     None),
    (m.SkipDownstreamTasks(tasks=["a", ["b", 1]]), "PATCH", f"task-instances/{TI}/skip-downstream",
     {"tasks": ["a", ["b", 1]]}),
    (m.SetRenderedMapIndex(rendered_map_index="x"), "PATCH", f"task-instances/{TI}/rendered-map-index", "x"),
    (m.ClearTaskStateStore(ti_id=TI), "DELETE", f"store/ti/{TI}", None),
    (m.SetAssetStateStoreByUri(uri="u", key="k", value=1), "PUT", "store/asset/by-uri/value", {"value": 1}),
    (m.TriggerDagRun(dag_id="d", run_id="r"), "POST", "dag-runs/d/r", {"conf": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "method", "path", "body"), CALLS)
def test_a_message_becomes_its_call(message: m.Message, method: str, path: str, body: Any) -> None:
    call = ROWS[type(message)].call(message)
    assert (call.method, call.path) == (method, path)
    assert call.body == (requests.NO_BODY if body is None else body)


def test_a_query_leaves_out_none_and_repeats_lists() -> None:
    message = m.GetTICount(dag_id="d", task_ids=["a", "b"], logical_dates=[WHEN], map_index=-1)
    query = ROWS[m.GetTICount].call(message).params
    assert query == (
        ("dag_id", "d"),
        ("task_ids", "a"),
        ("task_ids", "b"),
        ("logical_dates", "2026-11-21T00:00:00+00:00"),
    )


def test_a_success_sends_lists_where_the_api_takes_no_null() -> None:
    call = requests.state_call(TI, m.SucceedTask(end_date=WHEN))
    assert call.body["task_outlets"] == []
    assert call.body["outlet_events"] == []
    assert "type" not in call.body


def answer(message: m.Message, status: int, body: Any = None, **headers: str) -> tuple[Any, Any]:
    raw = json.dumps(body).encode() if body is not None else b""
    return requests.interpret(ROWS[type(message)], message, ApiReply(status, raw, headers))


def test_not_found_and_denied_are_never_the_same() -> None:
    message = m.GetConnection(conn_id="c")
    body, error = answer(message, 404, {"detail": {"reason": "not_found"}})
    assert (body.error, error) == ("CONNECTION_NOT_FOUND", None)
    for status in (401, 403):
        body, error = answer(message, status, {"detail": "no"})
        assert (body.error, body.detail) == ("PERMISSION_DENIED", {"conn_id": "c", "status_code": status})


def test_any_other_refusal_carries_status_and_words() -> None:
    for status in (400, 409, 410, 422, 500):
        body, error = answer(m.GetVariable(key="k"), status, {"detail": {"reason": "r", "message": "in words"}})
        assert body is None
        assert error.error == "API_SERVER_ERROR"
        assert (error.detail["status_code"], error.detail["message"]) == (status, "in words")


def test_an_xcom_that_nobody_left_reads_as_none() -> None:
    body, _ = answer(m.GetXCom(key="k", dag_id="d", run_id="r", task_id="t"), 404)
    assert (body.key, body.value) == ("k", None)


def test_the_count_of_xcoms_is_in_a_header() -> None:
    message = m.GetXComCount(key="k", dag_id="d", run_id="r", task_id="t")
    body, _ = answer(message, 200, **{"content-range": "map_indexes 3"})
    assert body.len == 3
    _, error = answer(message, 200)
    assert "Content-Range" in error.detail["message"]


def test_an_existing_dag_run_has_an_error_of_its_own() -> None:
    body, _ = answer(m.TriggerDagRun(dag_id="d", run_id="r"), 409)
    assert body.error == "DAGRUN_ALREADY_EXISTS"


def test_an_answer_that_is_not_json_is_an_error_not_a_crash() -> None:
    body, error = requests.interpret(ROWS[m.GetVariable], m.GetVariable(key="k"), ApiReply(200, b"<html>"))
    assert body is None
    assert "could not be read" in str(error)


def test_what_the_server_leaves_out_is_left_out() -> None:
    body, _ = answer(m.GetConnection(conn_id="c"), 200, {"conn_id": "c", "conn_type": "http", "password": None})
    encoded = msgspec.to_builtins(body)
    assert encoded == {"type": "ConnectionResult", "conn_id": "c", "conn_type": "http", "password": None}


@pytest.mark.parametrize("body", [b"\xc0", b"\x93\x01\x02\x03", b"\x80", b"", b"\xff"])
def test_a_body_that_is_no_message_is_a_message_error(body: bytes) -> None:
    with pytest.raises(m.MessageError):
        m.decode_request(body)


def test_times_are_read_from_text_and_from_timestamps() -> None:
    for value in (WHEN, "2026-11-21T00:00:00Z", "2026-11-21T01:00:00+01:00"):
        message = m.decode_request(msgspec.msgpack.encode({"type": "SucceedTask", "end_date": value}))
        assert isinstance(message, m.SucceedTask)
        assert message.end_date == WHEN
