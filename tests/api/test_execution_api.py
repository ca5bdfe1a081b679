"""Our Execution API: driven by upstream's own client through every endpoint, and its own rules."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
import urllib3
from polypod_bridge.api.client import ExecutionApiClient
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.requests import rows
from polypod_bridge.config import ExecutionApiConfig
from polypod_execution_api import registry, tokens
from polypod_execution_api.database import DatabaseUrlError, connect, migrate
from polypod_execution_api.models import Base
from polypod_execution_api.tokens import InvalidToken, TokenSigner
from polypod_operator.serve import certificates
from sqlalchemy.orm import Session
from support.api import SECRET, Store, make_store
from support.bridge import COORDINATORS, Bridge
from support.paths import AIRFLOWS, ROOT, airflow_venv
from support.ports import free_port
from support.waiting import wait_until

pytestmark = pytest.mark.needs("postgresql", "conformance")


@pytest.fixture(params=AIRFLOWS)
def driven(request: pytest.FixtureRequest, filled: Store) -> dict[str, Any]:
    """What upstream's client got from every operation."""
    ti_id = filled.add("driven", queue="q", arg_bindings=[{"kind": "literal", "name": "x", "value": 1}])
    other = filled.add("other", queue="q")
    filled.add("driven", run_id="run-2", queue="q")
    command = [str(airflow_venv(request.param) / "bin/python"), str(ROOT / "tests/airflow_env/drive_client.py")]
    put_off = filled.add("put_off", queue="q")
    arguments = [
        filled.url,
        str(ti_id),
        filled.signer.issue(ti_id),
        str(other),
        str(put_off),
        filled.signer.issue(put_off),
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout)
    assert filled.ti(ti_id).state == "success"
    assert filled.ti(ti_id).rendered_fields == {"field": "value"}
    assert filled.ti(ti_id).rendered_map_index == "a label"
    assert filled.ti(other).state == "skipped"
    assert filled.ti(put_off).state == "up_for_reschedule"
    return results


def test_upstreams_client_drives_every_endpoint(driven: dict[str, Any]) -> None:
    def value(name: str) -> Any:
        return driven[name]

    def status(name: str) -> int:
        return int(driven[name]["status"])

    assert value("start")["dag_run"]["run_id"] == "run-1"
    assert value("start again") == value("start")
    assert value("heartbeat") is None
    assert status("heartbeat of another process") == 409
    assert status("heartbeat of another task") == 403
    assert value("previous successful run")["start_date"] is None
    assert value("reschedule")["start_date"] is None
    assert value("count")["count"] == 1
    assert value("count of a map index")["count"] == 0
    assert value("states")["task_states"]["run-1"] == {"driven": "running", "other": "queued", "put_off": "queued"}
    assert value("breadcrumbs") == {"breadcrumbs": []}
    assert value("previous ti")["task_instance"] is None
    assert value("inlets") == {"inactive_assets": []}
    assert value("connection")["password"] == "s3cr3t-pa55"
    assert value("no connection")["error"] == "CONNECTION_NOT_FOUND"
    assert value("variable") == {"key": "conformance_in", "value": "a variable"}
    assert value("no variable")["error"] == "VARIABLE_NOT_FOUND"
    assert value("variable keys") == {"keys": ["a/b"], "total_entries": 1}
    assert value("delete variable again") == {"ok": True, "type": "OKResponse"}
    assert value("get xcom") == {"key": "a/key", "value": [1, None, "ü"]}
    assert value("get prior xcom")["value"] == [1, None, "ü"]
    assert value("get mapped xcom")["value"] == {"n": 2}
    assert value("no xcom")["value"] is None
    assert value("xcom count")["len"] == 4
    assert value("xcom item") == {"n": 3}
    assert value("no xcom item")["error"] == "XCOM_NOT_FOUND"
    everything = [{"n": n} for n in range(4)]
    for name in driven:
        if found := re.match(r"xcom slice \((.*)\)", name):
            start, stop, step = (None if part == "None" else int(part) for part in found[1].split(", "))
            assert value(name) == everything[start:stop:step], name
    assert status("xcom of another run") == 403
    assert status("set xcom of another task") == 403
    assert value("deleted xcom")["value"] is None
    assert value("store get") == {"value": {"x": 1}}
    assert value("store get, ended")["error"] == "TASK_STORE_NOT_FOUND"
    assert status("store of another") == 403
    assert value("dag run")["state"] == "running"
    assert value("dag run state") == {"state": "running"}
    assert value("dag run count")["count"] == 1
    assert value("previous dag run")["dag_run"] is None
    assert status("dag run of another dag") == 403
    assert value("dag")["dag_id"] == "conformance"
    needs_airflow: tuple[str, ...] = ("trigger", "asset", "asset alias", "asset events", "asset store", "asset store set",
                     "asset store clear", "hitl", "defer")  # fmt: skip
    if "dag run note" in driven:
        needs_airflow += ("dag run note",)
        assert status("previous iteration") == 400
        assert value("stopped") is None
    for name in needs_airflow:
        assert status(name) == 400, name
        assert driven[name]["detail"]["reason"] == "needs_airflow", name
    assert value("put off") is None
    assert value("put off again") is None
    assert value("succeed") is None
    assert value("succeed again") is None
    assert status("fail after success") == 409
    assert status("heartbeat after the end") == 409
    assert status("retry of another") == 403


def test_the_api_can_be_pinged_without_a_token(store: Store) -> None:
    answer = urllib3.PoolManager().request("GET", store.url + "health/ping")
    assert (answer.status, answer.json()) == (200, {"ok": ["database"], "failing": {}})


def call(store: Store, ti_id: uuid.UUID, what: str, body: dict[str, Any]) -> urllib3.BaseHTTPResponse:
    """Change a task instance, as a bridge does."""
    headers = {"authorization": f"Bearer {store.signer.issue(ti_id)}"}
    url = f"{store.url}task-instances/{ti_id}/{what}"
    method = "PUT" if what == "heartbeat" else "PATCH"
    return urllib3.PoolManager().request(method, url, json=body, headers=headers)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"NaN", "NaN is not a number that JSON can represent"),
        (b'{"a": [-Infinity]}', "-Infinity is not a number that JSON can represent"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'{"gr\xfc": 1}', "not UTF-8"),
        (b"1e-99999999999999999999999", "does not fit into 64 bits"),
        (b"0e99999999999999999999999999", "does not fit into 64 bits"),
    ],
)
def test_what_is_no_json_is_refused_at_once(store: Store, body: bytes, words: str) -> None:
    ti_id = store.add("task", queue="q")
    headers = {"authorization": f"Bearer {store.signer.issue(ti_id)}", "content-type": "application/json"}
    pool = urllib3.PoolManager(retries=False)
    ti = store.ti(ti_id)
    url = f"{store.url}xcoms/{ti.dag_id}/{ti.run_id}/task/return_value"
    answer = pool.request("POST", url, body=body, headers=headers)
    assert (answer.status, words in answer.json()["detail"]["message"]) == (422, True), answer.data[:300]
    assert pool.request("GET", url, headers=headers).status == 404


def test_an_xcom_may_have_any_key(store: Store) -> None:
    ti_id = store.add("task", queue="q")
    config = ExecutionApiConfig(url=store.url)
    client = ExecutionApiClient(config, store.signer.issue(ti_id))
    ti = store.ti(ti_id)
    table = rows(str(ti_id))
    where: dict[str, Any] = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": "task"}
    for key in (".", "..", "a/b", "a b", "%2E", "größe", "a?b#c", "item/1x", "-"):
        written = table[m.SetXCom].call(m.SetXCom(key=key, value=key, **where))
        assert client.call(written).ok, key
        found = client.call(table[m.GetXCom].call(m.GetXCom(key=key, **where)))
        assert msgspec.json.decode(found.body) == {"key": key, "value": key}, key


def test_a_token_that_somebody_else_renews_is_read_for_each_call(store: Store, tmp_path: Path) -> None:
    """As the kubelet does with a pod's token, each hour."""
    file = tmp_path / "projected"
    ti_id = store.add("task", queue="q")
    ask = rows(str(ti_id))[m.GetVariable].call(m.GetVariable(key="none"))
    client = ExecutionApiClient(ExecutionApiConfig(url=store.url), "", token_file=str(file))
    statuses = []
    for token in (store.signer.issue(ti_id), "one that has ended", store.signer.issue(ti_id)):
        file.write_text(f"{token}\n")
        statuses.append(client.call(ask).status)
    assert statuses == [404, 403, 404]


def test_a_try_that_is_started_again_says_since_when(store: Store) -> None:
    ti_id = store.add("sensor", queue="q", retries=1)
    starts = []
    for count in range(3):
        if count:
            with Session(store.engine) as session, session.begin():
                registry.start_again(session, ti_id)
        start = datetime.now(UTC)
        starts.append(start)
        body = {"state": "running", "hostname": "h", "unixname": "u", "pid": count, "start_date": start.isoformat()}
        context = call(store, ti_id, "run", body).json()
        assert context["task_reschedule_count"] == count
        first = context["first_task_reschedule_start_date"]
        assert (datetime.fromisoformat(first) if first else None) == (starts[0] if count else None)
        assert (context["loop"], context["multi_team"]) == (None, False)
        again = {
            "state": "up_for_reschedule",
            "reschedule_date": (start + timedelta(hours=1)).isoformat(),
            "end_date": start.isoformat(),
        }
        assert call(store, ti_id, "state", again).status == 204
    assert store.ti(ti_id).try_number == 1


def test_no_endpoint_answers_without_a_token_of_ours(store: Store) -> None:
    pool = urllib3.PoolManager()
    base = store.url.removesuffix("/execution/")
    ti_id = str(store.add("t", queue="q"))
    claims = {"sub": ti_id, "aud": tokens.AUDIENCE, "iat": 0, "exp": time.time() + 99}
    foreign = f"Bearer {jwt.encode(claims, b'x' * 32, algorithm='HS256')}"
    checked = 0
    for path, operations in json.loads(pool.request("GET", f"{base}/openapi.json").data)["paths"].items():
        if not path.startswith("/execution"):
            continue
        url = base + re.sub(r"\{[^}]*\}", ti_id, path)
        for method in operations:
            assert pool.request(method.upper(), url, retries=False).status == 401, path
            headers = {"authorization": foreign}
            assert pool.request(method.upper(), url, headers=headers, retries=False).status == 403, path
            checked += 1
    assert checked >= 40


def test_a_token_is_for_one_audience_and_a_time() -> None:
    signer = TokenSigner(SECRET, valid_for=100)
    ti_id = uuid.uuid4()
    claims = signer.check(signer.issue(ti_id))
    assert claims.ti_id == ti_id
    assert not claims.is_old(claims.issued_at + 70)
    assert claims.is_old(claims.issued_at + 90)
    base = {"sub": str(ti_id), "aud": tokens.AUDIENCE, "iat": 0, "exp": time.time() + 100}
    for change in ({"aud": "else"}, {"exp": 1}, {"sub": "no uuid"}, {"sub": None}):
        forged = jwt.encode({**base, **change}, SECRET, algorithm="HS256")
        with pytest.raises(InvalidToken):
            signer.check(forged)
    with pytest.raises(ValueError, match="needs 32"):
        TokenSigner(b"short")


def test_an_archived_try_answers_gone(store: Store) -> None:
    from polypod_execution_api import registry

    ti_id = store.add("t", queue="q")
    with Session(store.engine) as session, session.begin():
        registry.next_try(session, ti_id)
    headers = {"authorization": f"Bearer {store.signer.issue(ti_id)}", "content-type": "application/json"}
    answer = urllib3.PoolManager().request(
        "PUT",
        f"{store.url}task-instances/{ti_id}/heartbeat",
        body='{"hostname": "h", "pid": 1}',
        headers=headers,
        retries=False,
    )
    assert answer.status == 410


@pytest.mark.parametrize("beats", [0, 1, 2])
def test_a_task_goes_on_when_the_store_was_lost_while_it_ran(store: Store, beats: int) -> None:
    """Its pod's token has brought it back into an empty store, queued: there it was never started."""
    ti_id = store.add("t", queue="q")
    ours, others = ({"hostname": name, "pid": 7} for name in ("pod", "elsewhere"))
    for _ in range(beats):
        assert call(store, ti_id, "heartbeat", ours).status == 204
        assert store.ti(ti_id).state == "running"
        assert call(store, ti_id, "heartbeat", others).status == 409
    end = {"state": "success", "end_date": "2026-01-01T00:00:00Z", "task_outlets": [], "outlet_events": []}
    assert call(store, ti_id, "state", end).status == 204
    assert store.ti(ti_id).state == "success"
    assert call(store, ti_id, "heartbeat", ours).status == 409


def test_a_task_that_waits_for_another_process_is_not_the_former_ones(store: Store) -> None:
    """As its pod was removed, or it asked to run again later: that was known here, so nothing was lost."""
    ti_id = store.add("t", queue="q")
    start = {"state": "running", "hostname": "h", "unixname": "u", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}
    assert call(store, ti_id, "run", start).status == 200
    with Session(store.engine) as session, session.begin():
        registry.start_again(session, ti_id)
    assert call(store, ti_id, "heartbeat", {"hostname": "h", "pid": 1}).status == 409
    assert call(store, ti_id, "state", {"state": "failed", "end_date": "2026-01-01T00:00:00Z"}).status == 409
    assert store.ti(ti_id).state == "queued"


@pytest.mark.parametrize("given", [20260101, "20260101", 1.5, True, "9999-12-31T23:59:59-12:00", "2026-01-01"])
def test_a_number_is_no_time_of_an_end(store: Store, given: Any) -> None:
    ti_id = store.add("t", queue="q")
    answer = call(store, ti_id, "state", {"state": "failed", "end_date": given})
    assert answer.status == 422, answer.data


def test_a_namespace_sees_nothing_of_another(store: Store) -> None:
    """The same Dag, run and task in two namespaces, and every way to ask."""
    rich, poor = (store.add("t", namespace=name, queue="q") for name in ("rich", "poor"))
    store.variable("everybody", "without a namespace")

    def ask(ti: uuid.UUID, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {store.signer.issue(ti)}"}
        answer = urllib3.request(method, store.url + path, headers=headers, json=body)
        return answer.status, json.loads(answer.data or b"null")

    run = "conformance/run-1"
    assert ask(rich, "POST", f"xcoms/{run}/t/k", {"secret": 1})[0] == 201
    assert ask(rich, "PUT", "variables/v", {"val": "secret"})[0] == 201
    assert ask(rich, "PUT", f"store/ti/{rich}/remembered", {"value": "secret"})[0] == 204
    store.connection("c", conn_type="http", namespace="rich")
    start = {"state": "running", "hostname": "h", "unixname": "u", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}
    assert ask(rich, "PATCH", f"task-instances/{rich}/run", start)[0] == 200
    seen: dict[str, Any] = {}
    for who, ti in (("rich", rich), ("poor", poor)):
        paths = [
            f"xcoms/{run}/t/k", f"xcoms/{run}/t/k/item/0", "variables/v", "connections/c",
            f"store/ti/{ti}/remembered", f"xcoms/{run}/t/k/slice", "variables/keys",
            "task-instances/count?dag_id=conformance&states=running", "task-instances/states?dag_id=conformance",
            "dag-runs/count?dag_id=conformance",
        ]  # fmt: skip
        seen[who] = [ask(ti, "GET", path) for path in paths]
    assert [status for status, _ in seen["rich"]] == [200] * 10
    assert [status for status, _ in seen["poor"]] == [404] * 5 + [200] * 5
    assert [body for _, body in seen["poor"][5:]] == [
        [], {"keys": [], "total_entries": 0}, 0, {"task_states": {"run-1": {"t": "queued"}}}, 1,
    ]  # fmt: skip
    # nor can it change or remove anything
    for method, path in (("DELETE", f"xcoms/{run}/t/k"), ("DELETE", "variables/v"), ("DELETE", f"store/ti/{poor}")):
        ask(poor, method, path)
    ask(poor, "PUT", "variables/v", {"val": "mine"})
    assert ask(rich, "GET", "variables/v")[1]["value"] == "secret"
    assert ask(rich, "GET", f"xcoms/{run}/t/k")[0] == 200
    assert ask(rich, "GET", f"store/ti/{rich}/remembered")[0] == 200
    assert ask(rich, "GET", "variables/everybody")[0] == 404


def test_the_migrations_make_the_models_tables(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = connect(f"sqlite:///{tmp_path}/x.db")
    migrate(engine)
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/x", "not a url", "oracle://x"])
def test_an_unusable_database_url_is_explained_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseUrlError) as caught:
        connect(url)
    assert "secret" not in str(caught.value)


def test_the_page_describes_the_api(store: Store) -> None:
    page = json.loads(urllib3.PoolManager().request("GET", store.url.removesuffix("execution/") + "openapi.json").data)
    assert page["info"]["title"] == "Polypod Execution API"
    assert "/execution/task-instances/{task_instance_id}/run" in page["paths"]


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    certificate, key, secret = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "secret"
    secret.write_bytes(SECRET)

    def renew() -> None:
        known = certificates.renewed(certificates.Certificates(), ["localhost"], datetime.now(UTC))
        assert known.server is not None
        for path, text in ((certificate, known.server.certificate), (key, known.server.key)):
            # replaced whole, as the kubelet does it
            (tmp_path / "new").write_text(text)
            (tmp_path / "new").rename(path)

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port))

    renew()
    port = free_port()

    def shown_at_last() -> str:
        try:
            return shown()
        except OSError:
            return ""

    server = subprocess.Popen(
        [sys.executable, "-m", "polypod_execution_api.main", "serve", f"--port={port}", f"--secret-file={secret}",
         f"--database-url=sqlite:///{tmp_path}/x.db", f"--tls-cert={certificate}", f"--tls-key={key}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        before = wait_until(shown_at_last, "a certificate")
        assert server.poll() is None
        assert before.split() == certificate.read_text().split()
        renew()
        wait_until(lambda: shown() != before, "another certificate", every=0.2)
        assert shown().split() == certificate.read_text().split()
    finally:
        server.terminate()
        server.wait()


def test_the_same_on_a_real_postgresql(postgres: str, tmp_path: Path) -> None:
    store = make_store(tmp_path, url=postgres)
    with store.server:
        store.variable("conformance_in", "a variable")
        for task in ("success", "xcom", "variables", "fail"):
            ti_id = store.add(task, queue="golang")
            result = Bridge(tmp_path, store.config(ti_id, "golang", COORDINATORS)).run()
            assert result.outcome["state"] == ("failed" if task == "fail" else "success"), result.log[-3:]
            assert store.ti(ti_id).state == result.outcome["state"]
        assert store.xcoms("xcom")["return_value"]["none"] is True
        assert store.xcoms("variables")["return_value"] == ["a variable", "a variable!", True]
    store.engine.dispose()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_of_many_that_start_or_end_a_task_at_once_one_may(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = None if database == "sqlite" else request.getfixturevalue("postgres")
    store = make_store(tmp_path, url=url)
    with store.server, ThreadPoolExecutor(8) as pool, urllib3.PoolManager(maxsize=8) as http:
        for number in range(10):
            ti_id = store.add("raced", run_id=f"run-{number}", queue="q")
            headers = {"authorization": f"Bearer {store.signer.issue(ti_id)}"}

            def start(pid: int, ti_id: uuid.UUID = ti_id, headers: dict[str, str] = headers) -> int:
                body = {"hostname": "h", "unixname": "u", "pid": pid, "start_date": "2026-11-21T00:00:00Z"}
                path = f"{store.url}task-instances/{ti_id}/run"
                return http.request("PATCH", path, json=body, headers=headers).status

            def end(state: str, ti_id: uuid.UUID = ti_id, headers: dict[str, str] = headers) -> int:
                body = {"state": state, "end_date": "2026-11-21T00:00:01Z"}
                path = f"{store.url}task-instances/{ti_id}/state"
                return http.request("PATCH", path, json=body, headers=headers).status

            assert sorted(pool.map(start, range(8))) == [200, *[409] * 7]
            states = ("success", "failed", "skipped", "up_for_retry")
            answers = dict(zip(states, pool.map(end, states), strict=True))
            assert sorted(answers.values()) == [204, 409, 409, 409]
            assert answers[str(store.ti(ti_id).state)] == 204
    store.engine.dispose()
