"""Whatever is asked, the answer is exact or a 4xx: a 500 would be tried again and would end in a task that is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from support.api import Store, make_store

ODD: list[Any] = [
    None, True, 0, -1, 1 << 31, 1 << 63, 99999999999999999999, 1.5, "", "x", "\0", "conformance", "run-1", "any", [], {},
    ["x", 99999999999999999999], {"a": "\0"}, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
]  # fmt: skip
RAW = [b"1e400", b'{"a": [1e400]}', b"0.12345678901234567890", b'"\\ud83d"', b'{"\\udc00": 1}', b"\xff", b"NaN", b"", b"[" * 5000,
       b"9" * 5000, b'"\\u0000"']  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = make_store(tmp_path)
    with made.server:
        yield made


def ask(store: Store, token: str, method: str, path: str, body: bytes | None, kind: str = "application/json") -> Any:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
    url = store.url.partition("/execution")[0] + path
    return urllib3.request(method, url, body=body, headers=headers, retries=False)


@pytest.mark.parametrize("body", RAW)
def test_an_xcom_is_exact_or_refused(store: Store, body: bytes) -> None:
    token = store.signer.issue(store.add("any", queue="q"))
    answer = ask(store, token, "POST", "/execution/xcoms/conformance/run-1/any/k", body)
    assert answer.status == (201 if body == b'"\\u0000"' else 422), answer.data


def test_a_database_that_fails_is_logged_without_sql_and_values(
    store: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    token = store.signer.issue(store.add("any", queue="q"))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE xcom RENAME TO gone")
    answer = ask(store, token, "POST", "/execution/xcoms/conformance/run-1/any/k", b'"s3cr3t"')
    assert (answer.status, answer.json()["detail"]["reason"]) == (500, "database_failed")
    said = caplog.text + "".join(capsys.readouterr())
    assert "/execution/xcoms/conformance/run-1/any/k: the database failed: no such table: xcom" in said
    assert "s3cr3t" not in said
    assert "Traceback" not in said


@pytest.mark.generated
def test_no_request_ends_in_a_500(store: Store) -> None:
    schema = urllib3.request("GET", store.url.partition("/execution")[0] + "/openapi.json").json()
    ti_id = store.add("any", queue="q")
    token, chance = store.signer.issue(ti_id), random.Random()
    components = schema["components"]["schemas"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            for _ in range(12):
                given = {p["name"]: p for p in operation.get("parameters", [])}
                filled, query = path, []
                for name, parameter in given.items():
                    value = chance.choice(ODD)
                    if name == "task_instance_id":
                        value = ti_id
                    if name in ("dag_id", "run_id", "task_id") and chance.random() < 0.8:
                        value = {"dag_id": "conformance", "run_id": "run-1", "task_id": "any"}[name]
                    if parameter["in"] == "path":
                        filled = filled.replace(f"{{{name}}}", quote(str(value), safe="") or "-")
                        filled = filled.replace(f"{{{name}:path}}", quote(str(value), safe="") or "-")
                    elif parameter["in"] == "query" and chance.random() < 0.7:
                        query.append(f"{name}={quote(str(value))}")
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
                odd = chance.random() < 0.2
                body = chance.choice(RAW) if odd else json.dumps(made(content, components, chance)).encode()
                kind = chance.choice(["application/json"] * 4 + ["text/plain"])
                url = filled + ("?" + "&".join(query) if query else "")
                answer = ask(store, token, method.upper(), url, body if content else None, kind)
                assert answer.status < 500, (method, url, body, answer.data)


def made(schema: Any, components: dict[str, Any], chance: random.Random) -> Any:
    """Return a value for a schema, with something odd in it now and then."""
    if not schema or chance.random() < 0.25:
        return chance.choice(ODD)
    if "$ref" in schema:
        return made(components[schema["$ref"].rpartition("/")[2]], components, chance)
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        return made(chance.choice(alternatives), components, chance)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            return {name: made(item, components, chance) for name, item in schema.get("properties", {}).items()}
        case "array":
            return [made(schema.get("items"), components, chance) for _ in range(2)]
        case "integer":
            return chance.choice([0, -1, 7, 1 << 40, 99999999999999999999])
        case "number":
            return chance.choice([0, 1.5, 1e300, 99999999999999999999])
        case "string":
            return chance.choice(["x", "\0", "2026-11-21T10:00:00Z", "9999-12-31T23:59:59-14:00", "success"])
    return chance.choice(ODD)
