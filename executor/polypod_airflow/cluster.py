"""Calls to the API server."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from polypod_airflow.connection import Connection, ConnectionProblem

_TIMEOUT = httpx.Timeout(40.0, connect=10.0)
_ATTEMPTS = 6
_AGAIN = frozenset({0, 401, 429, 500, 502, 503, 504})
"""Answers after which a call is tried again; 0: none."""
CONNECTIONS = 16
"""Calls at once: more do not create TaskRuns any faster."""


_ALIVE = {"TCP_KEEPIDLE": 8, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 17_000}
"""After at most 17 s the kernel gives up a connection that was cut off silently, a pooled one included."""


def _socket_options() -> list[tuple[int, int, int]]:
    known = [(getattr(socket, name), value) for name, value in _ALIVE.items() if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *((socket.IPPROTO_TCP, name, value) for name, value in known)]


class ClusterError(Exception):
    """The API server's answer was an error.

    Attributes:
        status: the HTTP status; 0 if there was no answer.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class _Problem(msgspec.Struct):
    reason: str = ""
    message: str = ""


class Cluster:
    """A session with the API server. May be used by several threads."""

    def __init__(self, connection: Connection, timeout: httpx.Timeout = _TIMEOUT) -> None:
        """Prepare; connects at the first call."""
        self._connection, self._timeout = connection, timeout
        self._client = self._new_client()
        self._date = ""

    def _new_client(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=CONNECTIONS + 4, max_keepalive_connections=CONNECTIONS + 4)
        verify = self._connection.tls if self._connection.tls is not None else False
        transport = httpx.HTTPTransport(verify=verify, limits=limits, socket_options=_socket_options())
        return httpx.Client(base_url=self._connection.server, transport=transport, timeout=self._timeout)

    @property
    def namespace(self) -> str:
        """The namespace of the service account, or the one of the kubeconfig."""
        return self._connection.namespace

    @property
    def own_namespace(self) -> str:
        """The namespace of the pod that this is; empty outside a cluster."""
        return self._connection.namespace if self._connection.of_pod else ""

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def reconnect(self) -> None:
        """Drop all connections: one that a firewall or proxy forgot looks open. Not while another thread uses them."""
        self._client.close()
        self._client = self._new_client()

    def another(self) -> Cluster:
        """Return a session with connections of its own."""
        return Cluster(self._connection, self._timeout)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        attempts: int = _ATTEMPTS,
    ) -> bytes:
        """Send a call and return the answer; it is tried again when the API server is busy or cannot be reached.

        Raises:
            ClusterError: the answer was an error, or there was none after all attempts.
        """
        data = None if body is None else msgspec.json.encode(body)
        for attempt in range(attempts):
            try:
                return self._once(method, path, data, params, content_type, accept)
            except ClusterError as error:
                if error.status not in _AGAIN or attempt == attempts - 1:
                    raise
                backoff = min(8.0, 0.2 * 2.0**attempt) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
                time.sleep(error.retry_after + backoff)
        raise AssertionError("there is at least one attempt")

    def _once(
        self,
        method: str,
        path: str,
        data: bytes | None,
        params: Mapping[str, str] | None,
        content_type: str,
        accept: str,
    ) -> bytes:
        try:
            headers = {**self._connection.headers(), "Content-Type": content_type, "Accept": accept}
            answer = self._client.request(method, path, content=data, params=params, headers=headers)
        except (httpx.HTTPError, OSError, ConnectionProblem) as error:
            raise _unreachable(error) from None
        self._date = answer.headers.get("Date", "")
        if answer.status_code >= 400:
            raise _refused(answer)
        return answer.content

    def time(self) -> datetime | None:
        """Return the API server's time at its last answer, by which its objects are dated; None if it gave none."""
        try:
            return parsedate_to_datetime(self._date)
        except ValueError:
            return None

    @contextmanager
    def watch(self, path: str, params: Mapping[str, str], silence: float) -> Iterator[Iterator[bytes]]:
        """Open a watch and give its lines.

        Args:
            silence: seconds without a byte after which it ends with an error.

        Raises:
            ClusterError: it is refused, or it breaks.
        """
        timeout = httpx.Timeout(silence, connect=10.0)
        asked = {"watch": "1", "allowWatchBookmarks": "true", **params}
        try:
            headers = {**self._connection.headers(), "Accept": "application/json"}
            with self._client.stream("GET", path, params=asked, headers=headers, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise _refused(answer)
                yield _lines(answer)
        except (httpx.HTTPError, OSError, ConnectionProblem) as error:
            raise _unreachable(error) from None


def _lines(answer: httpx.Response) -> Iterator[bytes]:
    """Yield whole lines: those of httpx break at every character that Unicode calls a line's end."""
    rest = b""
    for part in answer.iter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        yield from filter(None, whole)


def _unreachable(error: Exception) -> ClusterError:
    why = str(error) if isinstance(error, ConnectionProblem) else f"{type(error).__name__}: {error}"
    return ClusterError(0, "Unreachable", why)


def _refused(answer: httpx.Response) -> ClusterError:
    try:
        said = msgspec.json.decode(answer.content, type=_Problem)
    except msgspec.MsgspecError:
        said = _Problem(answer.reason_phrase, answer.text[:500])
    after = answer.headers.get("Retry-After", "")
    return ClusterError(
        answer.status_code, said.reason, said.message, min(float(after), 30.0) if after.isdigit() else 0.0
    )
