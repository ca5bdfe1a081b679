"""sizes.py: what a namespace keeps is measured and limited; whoever is over the limit harms only itself."""

from __future__ import annotations

import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from polypod_bridge.api.client import ExecutionApiClient
from polypod_bridge.comm.requests import ApiCall, ApiReply
from polypod_bridge.config import ExecutionApiConfig
from polypod_execution_api import models
from polypod_execution_api.app import create_app
from polypod_execution_api.metrics import Metrics
from polypod_execution_api.server import ServerThread
from polypod_execution_api.sizes import NamespaceFull, Sizes
from prometheus_client import start_http_server
from sqlalchemy import create_engine, delete
from sqlalchemy.orm import Session
from support.api import Store, make_store

pytestmark = pytest.mark.needs("postgresql")

LIMIT = 1 << 20


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = request.getfixturevalue("postgres") if request.param == "postgres" else None
    made = make_store(tmp_path, url=url)
    yield made
    made.engine.dispose()


def call(store: Store, ti: uuid.UUID, method: str, path: str, body: object) -> ApiReply:
    client = ExecutionApiClient(ExecutionApiConfig(url=store.url), store.signer.issue(ti))
    return client.call(ApiCall(method, path, body=body))


def xcom(store: Store, ti: uuid.UUID, key: str, value: object) -> ApiReply:
    return call(store, ti, "POST", f"xcoms/conformance/run-1/{store.ti(ti).task_id}/{key}", value)


def test_a_full_namespace_is_refused_more_and_others_are_not(store: Store) -> None:
    sizes = Sizes(store.engine, LIMIT)
    store.server = ServerThread(create_app(store.engine, store.signer, sizes=sizes))
    big, small = store.add("big", namespace="a"), store.add("small", namespace="b")
    sizes.measure()
    # what is kept cannot be packed to next to nothing
    text = "".join(str(uuid.uuid4()) for _ in range(28_000))
    with store.server:
        assert xcom(store, big, "first", text).status == 201
        sizes.measure()
        assert 1_000_000 < sizes.known()["a"] < 1_100_000
        # what is measured is what counts
        for method, path, body in (
            ("POST", "xcoms/conformance/run-1/big/second", text),
            ("PUT", f"store/ti/{big}/k", {"value": text}),
            ("PUT", "variables/k", {"value": text}),
            ("PUT", f"task-instances/{big}/rtif", {"k": text}),
        ):
            refused = call(store, big, method, path, body)
            assert refused.status == 413, (path, refused.text())
            detail = refused.detail()
            assert detail["reason"] == "namespace_full"
            assert "namespace 'a' stores 1.0 MiB" in detail["message"]
        assert set(store.xcoms("big")) == {"first"}
        assert xcom(store, small, "first", text).status == 201
        # reading and ending go on
        running = {"state": "running", "hostname": "h", "unixname": "u", "pid": 1, "start_date": "2026-01-01T00:00:00Z"}
        assert call(store, big, "PATCH", f"task-instances/{big}/run", running).status == 200
        assert xcom(store, big, "first", 1).status == 201, "there is room for a small one"


def test_what_is_deleted_makes_room(store: Store) -> None:
    sizes = Sizes(store.engine, LIMIT)
    with Session(store.engine) as session, session.begin():
        session.merge(models.Variable(namespace="a", key="k", value="x" * LIMIT, description=None))
    sizes.add("a", 1000)
    sizes.measure()
    if store.engine.dialect.name == "sqlite":
        with pytest.raises(NamespaceFull, match=r"limit is 1\.0"):
            sizes.add("a", 1)
    with Session(store.engine) as session, session.begin():
        session.execute(delete(models.Variable))
    sizes.measure()
    sizes.add("a", LIMIT // 2)
    with pytest.raises(NamespaceFull):
        sizes.add("a", LIMIT // 2)
    sizes.add("b", LIMIT // 2)
    sizes.measure()
    assert sizes.known() == {}


def test_what_is_added_while_the_database_is_away_counts(store: Store) -> None:
    sizes = Sizes(store.engine, LIMIT)
    sizes.add("a", LIMIT // 2)
    models.Base.metadata.tables["xcom"].drop(store.engine)
    with pytest.raises(Exception, match="xcom"):
        sizes.measure()
    with pytest.raises(NamespaceFull):
        sizes.add("a", LIMIT // 2)


def test_metrics_tell_the_sizes() -> None:
    sizes = Sizes(create_engine("sqlite://"), LIMIT)
    sizes.add("team-a", 800)
    metrics = Metrics(sizes)
    for method in ("GET", "POST", "BREW", "STEEP"):
        metrics.answered(method, 200)
    server, thread = start_http_server(0, "127.0.0.1", metrics.registry)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'polypod_execution_api_namespace_bytes{namespace="team-a"} 1000.0' in text
    assert "polypod_execution_api_namespace_limit_bytes 1.048576e+06" in text
    assert 'polypod_execution_api_requests_total{code="200",method="other"} 2.0' in text
