"""cluster.py: tokens checked against a cluster's keys, also while its API server is away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from polypod_crds.pod_tokens import AUDIENCE, InvalidToken
from polypod_execution_api.cluster import ClusterAccess, ClusterUnavailable

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


@pytest.fixture
def server(key: rsa.RSAPrivateKey) -> Iterator[HTTPServer]:
    page = {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k"}
    pages = {"/.well-known/openid-configuration": {"issuer": ISSUER}, "/openid/v1/jwks": {"keys": [page]}}
    made = HTTPServer(("127.0.0.1", 0), type("Pages", (Keys,), {"pages": pages}))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def token(key: rsa.RSAPrivateKey, kid: str = "k", pod: bool = True, **changes: Any) -> str:
    now = int(time.time())
    bound = {"namespace": "n", **({"pod": {"name": "p", "uid": "u"}} if pod else {})}
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
    access._keys_read -= 3600
    assert access.check(token(key)).uid == "u"
    with pytest.raises(ClusterUnavailable):
        access.check(token(key, kid="another"))
