"""cluster.py: tokens checked against a cluster's keys, also while its API server is away."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from polypod_core.pod_tokens import AUDIENCE, InvalidToken, KeyCache, UnknownKey
from polypod_execution_api import registry
from polypod_execution_api.app import create_app
from polypod_execution_api.cluster import ClusterAccess, ClusterUnavailable
from polypod_execution_api.database import connect, migrate
from polypod_execution_api.registry import RunSpec, TaskSpec
from polypod_execution_api.server import ServerThread
from polypod_execution_api.tokens import TokenSigner
from polypod_operator.control.history import ExecutionApiHistory, HistoryUnavailable
from sqlalchemy.orm import Session

ISSUER = "https://issuer"


class Keys(BaseHTTPRequestHandler):
    """The two pages of an API server that a token is checked with."""

    pages: dict[str, Any]

    def do_GET(self) -> None:
        body = json.dumps(self.pages[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def published(**keys: rsa.RSAPrivateKey) -> dict[str, Any]:
    """Return keys as an API server publishes them."""
    to_jwk = jwt.algorithms.RSAAlgorithm.to_jwk
    return {"keys": [{**to_jwk(key.public_key(), as_dict=True), "kid": kid} for kid, key in keys.items()]}


@pytest.fixture
def server(key: rsa.RSAPrivateKey) -> Iterator[HTTPServer]:
    pages = {
        "/.well-known/openid-configuration": {"issuer": ISSUER},
        "/openid/v1/jwks": published(k=key),
        "/api/v1/namespaces/n": {"metadata": {"uid": "the-first"}},
    }
    made = HTTPServer(("127.0.0.1", 0), type("Pages", (Keys,), {"pages": pages}))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def token(
    key: rsa.RSAPrivateKey, kid: str = "k", pod: bool = True, account: str = "a", namespace: str = "n", **changes: Any
) -> str:
    now = int(time.time())
    bound = {
        "namespace": namespace,
        "serviceaccount": {"name": account, "uid": "v"},
        **({"pod": {"name": "p", "uid": "u"}} if pod else {}),
    }
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": "s",
        "iat": now,
        "exp": now + 600,
        "kubernetes.io": bound,
    }
    return jwt.encode({**claims, **changes}, key, algorithm="RS256", headers={"kid": kid})


def test_only_tokens_of_this_cluster_for_us_and_bound_to_a_pod_are_taken(
    server: HTTPServer, key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("mine")
    access = ClusterAccess(f"http://127.0.0.1:{server.server_port}", tmp_path)
    assert access.check(token(key)).uid == "u"
    other = rsa.generate_private_key(65537, 2048)
    for bad in (
        token(other),
        token(key, kid="another"),
        token(key, aud=["api"]),
        token(key, iss="https://other"),
        token(key, exp=int(time.time()) - 60),
        token(key, pod=False),
        "no token",
    ):
        with pytest.raises(InvalidToken):
            access.check(bad)


def test_known_keys_outlive_an_outage_of_the_api_server(
    server: HTTPServer, key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("mine")
    access = ClusterAccess(f"http://127.0.0.1:{server.server_port}", tmp_path)
    access.check(token(key))
    server.shutdown()
    server.server_close()
    access._keys._read -= 3600
    assert access.check(token(key)).uid == "u"
    # the next callers do not wait for the API server as well
    assert not access._keys.renew()
    access._keys._renewing -= 3600
    assert access._keys.renew()
    with pytest.raises(ClusterUnavailable):
        access.check(token(key, kid="another"))


def test_a_key_that_is_new_is_looked_for_soon_and_not_all_the_time(key: rsa.RSAPrivateKey) -> None:
    now = 1000.0
    cache = KeyCache(lambda: now)
    other = rsa.generate_private_key(65537, 2048)
    cache.put({"issuer": ISSUER}, published(k=key))
    now += 4.9
    with pytest.raises(UnknownKey):
        cache.claims(token(other, kid="new"))
    now += 0.2
    assert cache.claims(token(other, kid="new")) is None, "the keys are to be read"
    cache.put({"issuer": ISSUER}, published(k=key, new=other))
    claims = cache.claims(token(other, kid="new"))
    assert claims is not None
    assert claims.uid == "u"
    # known keys are read again every five minutes
    now += 299
    assert not cache.renew()
    now += 2
    assert cache.renew()
    assert not cache.renew()


def test_the_operator_and_nobody_else_learns_how_tasks_have_ended(
    server: HTTPServer, key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    """Asked by the operator's own client, over a real connection."""
    (tmp_path / "token").write_text("unused")
    (tmp_path / "ca.crt").write_text("")
    engine = connect(f"sqlite:///{tmp_path}/api.db")
    migrate(engine)
    run = RunSpec("d", "r", namespace="n")
    with Session(engine) as session, session.begin():
        for task_id, index, state in ENDS:
            registry.add_task(session, run, TaskSpec(task_id, index)).state = state
        registry.add_task(session, RunSpec("d", "r", namespace="other"), TaskSpec("elsewhere")).state = "success"
    cluster = ClusterAccess(f"http://127.0.0.1:{server.server_port}", tmp_path)
    app = create_app(engine, TokenSigner(b"s" * 32), cluster, "n/operator")
    asked = ("good", "skipped", "both", "mapped", "half", "running", "elsewhere", "unknown")

    def ask(url: str, **claims: Any) -> dict[str, str]:
        (tmp_path / "operator").write_text(token(key, **claims))
        history = ExecutionApiHistory(url, tmp_path / "operator")
        return asyncio.run(history.ended("n", "d", "r", asked, ""))

    with ServerThread(app) as api:
        url = api.url
        assert ask(api.url, account="operator") == {
            "good": "success",
            "skipped": "skipped",
            "both": "removed",
            "mapped": "failed",
        }
        for claims in STRANGERS:
            with pytest.raises(HistoryUnavailable, match="403"):
                ask(api.url, **claims)
        # made again, under the same name: nothing has ended there
        server.RequestHandlerClass.pages["/api/v1/namespaces/n"] = {"metadata": {"uid": "the-second"}}  # type: ignore[attr-defined]
        assert ask(api.url, account="operator") == {}
    with pytest.raises(HistoryUnavailable, match="Connect"):
        ask(url, account="operator")
    engine.dispose()


STRANGERS: tuple[dict[str, Any], ...] = (
    {"account": "default"},
    {"account": "operator", "aud": ["other"]},
    {"account": "operator", "namespace": "other"},
    {"account": "n/operator", "namespace": ""},
    {"account": "operator", "namespace": "n/n"},
)
"""Who is not the operator: another account, for another audience, of its name in another namespace."""
ENDS = (
    ("good", -1, "success"),
    ("skipped", -1, "skipped"),
    ("both", 0, "removed"),
    ("both", 1, "skipped"),
    ("mapped", 0, "success"),
    ("mapped", 1, "failed"),
    ("half", 0, "success"),
    ("half", 1, "running"),
    ("running", -1, "running"),
)


def test_an_execution_api_that_hangs_holds_few_of_the_operators_workers(tmp_path: Path) -> None:
    (tmp_path / "operator").write_text("token")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        history = ExecutionApiHistory(f"http://127.0.0.1:{silent.getsockname()[1]}/execution/", tmp_path / "operator")

        async def ask() -> list[str]:
            questions = [history.ended("n", "d", "r", (str(number),), "") for number in range(20)]
            return [str(answer) for answer in await asyncio.gather(*questions, return_exceptions=True)]

        answers = asyncio.run(ask())
    assert sum("too many lookups" in answer for answer in answers) == 12
    assert sum("Timeout" in answer for answer in answers) == 8
