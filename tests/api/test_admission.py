"""admission.py: what one caller sends slowly, does not read, or sends too much of, harms no other. With a real server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from polypod_core.pod_tokens import InvalidToken, PodClaims
from polypod_execution_api.admission import Admission
from polypod_execution_api.cluster import ClusterAccess
from polypod_execution_api.server import ServerThread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LARGEST = 1 << 20


class Namespaces:
    """Takes a token for the name of a namespace."""

    def check(self, token: str) -> PodClaims:
        if not token:
            raise InvalidToken("none")
        return PodClaims(token, "pod", f"uid-{token}")


async def size(request: Request) -> Response:
    return JSONResponse(len(await request.body()))


def large(request: Request) -> Response:
    return Response(b"x" * (32 << 20))


@pytest.fixture
def server() -> Iterator[ServerThread]:
    app = Starlette(routes=[Route("/size", size, methods=["POST", "GET"]), Route("/large", large)])
    app.add_middleware(Admission, cluster=cast(ClusterAccess, Namespaces()), places=2, largest=LARGEST)
    with ServerThread(app) as made:
        yield made


def opened(server: ServerThread, who: str, head: str, body: bytes = b"") -> socket.socket:
    """Send the beginning of a request, and leave it at that."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    text = f"{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {who}\r\n"
    connection.sendall(text.encode() + body)
    return connection


def ask(server: ServerThread, who: str, body: Any = b"", path: str = "/size", chunked: bool = False) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {who}"}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # the answer may come before all of the body has gone
            connection.request("POST", path, body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_bodies_that_do_not_arrive_keep_no_place(server: ServerThread) -> None:
    slow = [
        opened(server, "hog", "POST /size", f"Content-Length: {length}\r\n\r\n{{".encode() + b"x" * begun)
        for length, begun in [(100, 0)] * 10 + [(LARGEST, 100_000)] * 10
    ]
    for _ in range(5):
        assert ask(server, "honest", b"123") == (200, 3)
        assert ask(server, "honest", b"x" * 500_000) == (200, 500_000)
    for connection in slow:
        connection.close()


def test_answers_that_nobody_reads_keep_no_place(server: ServerThread) -> None:
    unread = [opened(server, "hog", "GET /large", b"\r\n") for _ in range(10)]
    for _ in range(5):
        assert ask(server, "honest", b"123") == (200, 3)
    for connection in unread:
        connection.close()
    assert ask(server, "hog", b"12") == (200, 2), "and a client that has closed them has places again"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_and_says_what_would_be_right(server: ServerThread, chunked: bool) -> None:
    body: Any = iter([b"x" * (LARGEST // 2)] * 3) if chunked else b"x" * (LARGEST + 1)
    status, answer = ask(server, "honest", body, chunked=chunked)
    assert status == 413
    assert answer["detail"]["reason"] == "too_large"
    assert "object store" in answer["detail"]["message"]
    assert ask(server, "honest", b"x" * LARGEST) == (200, LARGEST)


def test_who_has_no_token_takes_turns_with_others_of_that_kind(server: ServerThread) -> None:
    slow = [opened(server, "", "POST /size", b"Content-Length: 9\r\n\r\n1") for _ in range(10)]
    assert ask(server, "honest", b"123") == (200, 3)
    for connection in slow:
        connection.close()
