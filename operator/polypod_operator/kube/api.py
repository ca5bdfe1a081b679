"""The Kubernetes API, as far as the operator writes to it: one HTTP session, few calls, typed errors.

Plain aiohttp, which kopf brings along: half the CPU a pod of the generated client (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import msgspec

from polypod_operator.kube import reading, trust
from polypod_operator.kube.clock import ServerClock
from polypod_operator.kube.pace import Pace
from polypod_operator.kube.writes import Flight, Writes

TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TOKEN_AGE = 60.0
_ATTEMPTS = 6
_PAGE, _LARGEST_PAGE = 50, 500
"""Objects in the first page of a list, of which each may have 1.5 MB, and in a page at most."""
_PAGE_SIZE = 4 << 20
"""Bytes that a page is to have."""
_CALLS = 64
"""Connections for calls at once."""
_BUFFER = 1 << 20
_TIMEOUT, _SHORT, _PROMPT = (aiohttp.ClientTimeout(total=seconds) for seconds in (40, 3, 1))
"""The longest is more than an admission webhook may take (30 s)."""
_PROMPT_WRITE = 1.0
"""Seconds after which a write without an answer says that the API server is slow."""
_PODS = "/pods"
_MERGE_PATCH = "application/merge-patch+json"
MANAGER = "polypod-operator"
"""Who makes pods and writes statuses, in their managedFields."""
_WRITES = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_AGAIN = frozenset({0, 401, 429, 500, 502, 503, 504})
"""Answers after which a call is tried again; 0: none."""
_NOT_BEGUN = frozenset({401, 429, 503})
"""Those that say that nothing was done."""
_BUSY = frozenset({429, 503, 504})
_DENIED = re.compile(r"\badmission webhook\b|\bdenied (the )?request\b")
"""In the message of an admission webhook or policy, which may answer with any status."""
_UNDECODABLE = ("strict decoding error", "cannot be handled as a")
"""In the message of an object that is none of its kind."""
_LONGEST_WAIT = 30
"""Seconds that are waited at most when the API server asks for it (Retry-After)."""


class ApiError(Exception):
    """The API server's answer was an error.

    Attributes:
        status: the HTTP status; 0 if there was no answer at all.
        reason: the word of the Status object, such as AlreadyExists.
        message: its sentence.
        retry_after: seconds that it asks to wait before the next try.
        fields: the fields that it says are wrong.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float = 0.0, fields: Sequence[str] = ()
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message
        self.retry_after, self.fields = retry_after, fields

    @property
    def by_webhook(self) -> bool:
        """True if an admission webhook could not be asked: the API server is well, and has done nothing."""
        return self.status == 500 and "failed calling webhook" in self.message

    @property
    def by_admission(self) -> bool:
        """True if an admission webhook or policy has refused the object, by whatever status: another day it may not."""
        return self.by_webhook or (self.status >= 400 and _DENIED.search(self.message) is not None)

    @property
    def too_large(self) -> bool:
        """True if the object is more than the API server takes, or than etcd does, which answers 500."""
        return self.status == 413 or "request is too large" in self.message

    @property
    def invalid(self) -> bool:
        """True if the object itself is not valid, whoever makes it, and wherever and whenever."""
        if self.by_admission:
            return False
        if self.status == 422:
            return bool(self.fields)
        return self.too_large or (self.status == 400 and any(text in self.message for text in _UNDECODABLE))


class KubernetesApi:
    """A session with the API server. Calls are tried again when it is busy (429, 503) or cannot be reached.

    Attributes:
        pace: how much is asked of it at once, by how soon it answers.
        clock: its time.
    """

    def __init__(
        self,
        connection: kopf.ConnectionInfo,
        counted: Callable[[str, str, int], None] = lambda method, path, status: None,
    ) -> None:
        """Prepare.

        Args:
            counted: told of each call: its method, its path, and the HTTP status of the answer, 0 if there was none.
        """
        self._counted = counted
        self.pace, self.clock = Pace(), ServerClock()
        self._writes = Writes()
        self._server = connection.server.rstrip("/")
        self._static_token = connection.token
        self._from_file = connection.server == "https://kubernetes.default.svc" and TOKEN_FILE.exists()
        self._token, self._token_read = connection.token or "", 0.0
        self._ssl = trust.context(connection)
        self._basic = (
            aiohttp.BasicAuth(connection.username, connection.password)
            if connection.username and connection.password
            else None
        )
        self._session: aiohttp.ClientSession | None = None
        self._urgent: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        if self._session is not None:
            return
        self._session, self._urgent = self._new_session(_CALLS), self._new_session(1)
        # a watch keeps its connection, and there may be one for each namespace
        self._streams = self._new_session(0, read_bufsize=_BUFFER)

    def _new_session(self, connections: int, **more: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=connections, ssl=self._ssl)
        return aiohttp.ClientSession(connector=connector, auth=self._basic, **more)

    def session_of_another(self, middleware: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        """Return a session for somebody else's calls, each of which passes the middleware."""
        return self._new_session(0, read_bufsize=_BUFFER, middlewares=[middleware])

    async def close(self) -> None:
        for session in (self._session, self._urgent, self._streams):
            if session is not None:
                await session.close()
        await asyncio.gather(*self._ending)

    @property
    def paused(self) -> bool:
        return not self._allowed.is_set()

    def pause(self) -> None:
        """Break off the calls that are under way, and let none begin, but for `once`, until `resume`; watches go on."""
        self._allowed.clear()
        before, self._session = self._session, self._new_session(_CALLS)
        if before is not None:
            ending = asyncio.create_task(before.close())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def resume(self) -> None:
        """Begin the calls that have waited."""
        self._allowed.set()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        again: Collection[int] = _AGAIN,
        flight: Flight | None = None,
    ) -> dict[str, Any]:
        """Send one call and return the object of the answer; the arguments are those of `send`.

        Raises:
            ApiError: the answer was an error, or there was none after all attempts.
        """
        answer = await self.send(method, path, body, params=params, content_type=content_type, again=again,
                                 flight=flight)  # fmt: skip
        return _object(answer)

    async def once(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Send one call, once, and return the object of the answer: for what is late as soon as it waits.

        It has a connection of its own and is not held back by `pause`.

        Raises:
            ApiError: the answer was an error, or there was none.
        """
        data = None if body is None else msgspec.json.encode(body)
        return _object(await self._attempt(self._urgent, method, path, data, timeout=_SHORT))

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        again: Collection[int] = _AGAIN,
        flight: Flight | None = None,
    ) -> bytes:
        """Send one call and return the answer, unread.

        Args:
            again: the statuses after which it is tried again.
            flight: shows since when it waits for an answer.

        Raises:
            ApiError: the answer was an error, or there was none after all attempts.
        """
        data = None if body is None else msgspec.json.encode(body)
        last = ApiError(0, "Unreachable", "")
        for attempt in range(_ATTEMPTS):
            if attempt:
                backoff = min(8.0, 0.2 * 2**attempt) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
                await asyncio.sleep(last.retry_after + backoff)
            await self._allowed.wait()
            flight = flight or Flight()
            flight.since = time.monotonic()
            try:
                return await self._attempt(self._session, method, path, data, params, content_type)
            except ApiError as error:
                if error.by_admission or error.too_large or error.status not in again:
                    raise
                last = error
            finally:
                flight.since = None
        raise last

    async def _attempt(
        self,
        session: aiohttp.ClientSession | None,
        method: str,
        path: str,
        data: bytes | None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> bytes:
        writes = method in _WRITES
        # one that creates a pod may wait for a webhook
        write = self._writes.begin() if writes and not path.endswith(_PODS) else None
        began = time.monotonic()
        try:
            async with self._request(session, method, path, data, params, content_type, timeout) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._counted(method, path, 0)
            self.pace.refused()
            raise ApiError(0, "Unreachable", str(error) or type(error).__name__) from None
        finally:
            if write is not None:
                self._writes.end(write)
        self._counted(method, path, answer.status)
        self.clock.answered(answer.headers.get("Date"), began)
        if answer.status in _BUSY:
            self.pace.refused()
        elif writes:
            self.pace.answered(time.monotonic() - began)
            if write is not None:
                self._writes.answered(write)
        if answer.status < 400:
            return raw
        raise self.refused(answer.status, raw, answer.headers)

    def _request(
        self,
        session: aiohttp.ClientSession | None,
        method: str,
        path: str,
        data: bytes | None,
        params: Mapping[str, str] | None,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert session is not None, "the session is not open"
        # the cluster's keys have a type of their own
        headers = {"Accept": "application/json, application/jwk-set+json", **self.authorization()}
        if data is not None:
            headers["Content-Type"] = content_type
        return session.request(method, self._server + path, data=data, params=params, headers=headers, timeout=timeout)

    def authorization(self) -> dict[str, str]:
        """Return the header that says who we are."""
        # the kubelet renews a service account's token well before it ends
        if self._from_file and time.monotonic() - self._token_read > _TOKEN_AGE:
            self._token, self._token_read = TOKEN_FILE.read_text("ascii").strip(), time.monotonic()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def refused(self, status: int, raw: bytes, headers: Mapping[str, str]) -> ApiError:
        """Return the error of an answer; after a 401, the next call reads the token again."""
        if status == 401:
            self._token_read = 0.0
        return _error(status, raw, headers)

    async def pages(self, path: str, params: Mapping[str, str] | None = None) -> AsyncIterator[Page]:
        """Yield a list page by page, its objects unread.

        Raises:
            ApiError: also 410, if the list was changed too much while it was read.
        """
        limit = _PAGE
        more: dict[str, str] = dict(params or {})
        while True:
            raw = await self.send("GET", path, params={"limit": str(limit), **more})
            try:
                page = reading.decode(raw, Page)
            except msgspec.DecodeError as error:
                raise ApiError(0, "Unreadable", f"{path}: {error}") from None
            yield page
            if not page.metadata.continue_:
                return
            more["continue"] = page.metadata.continue_
            limit = min(max(limit * _PAGE_SIZE // len(raw), 1), _LARGEST_PAGE)
            # what was read does not stay in memory beside what is read next
            del raw, page

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], silence: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a watch and yield the answer, by whose content it shows what happens.

        Args:
            silence: seconds without a byte, the first one included, after which TimeoutError is raised.

        Raises:
            ApiError: the API server refuses it; how long it asks to wait is waited first.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        async with self._request(self._streams, "GET", path, None, params, "", timeout) as answer:
            if answer.status >= 400:
                error = self.refused(answer.status, await answer.read(), answer.headers)
                await asyncio.sleep(error.retry_after)
                raise error
            yield answer

    async def answers_others(self, since: float, path: str) -> bool:
        """Tell whether the API server answers other calls while one that began at `since` has no answer.

        Args:
            since: by time.monotonic().
            path: of an object that is read if no other call can tell.
        """
        if self._writes.newest_answered > since:
            return True
        if self._writes.waits(time.monotonic() - _PROMPT_WRITE):
            return False
        try:
            await self._attempt(self._session, "GET", path, None, timeout=_PROMPT)
        except ApiError as error:
            return error.status not in (0, *_BUSY)
        return True

    # What the operator does.

    async def create_pod(
        self, manifest: Mapping[str, Any], dry_run: bool = False, flight: Flight | None = None
    ) -> dict[str, Any]:
        """Make a pod; with `dry_run`, only have the API server say what it thinks of it."""
        namespace = manifest["metadata"]["namespace"]
        # a field that the API server does not know is a mistake: dropped, the task would run otherwise than meant
        path = f"/api/v1/namespaces/{namespace}/pods"
        params = {"fieldValidation": "Strict", "fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}
        # the caller should learn soon that there was no answer
        return await self.call("POST", path, manifest, params=params, again=_NOT_BEGUN, flight=flight)

    async def get_pod(self, namespace: str, name: str) -> dict[str, Any]:
        return await self.call("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    async def delete_pod(self, namespace: str, name: str, uid: str, force: bool = False) -> None:
        """Delete that very pod; one that is gone is no error. By force: without waiting for its kubelet."""
        more = {"gracePeriodSeconds": 0} if force else {}
        await self.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", uid, **more)

    async def delete(self, path: str, uid: str, **more: int) -> None:
        """Delete the object at a path if it still is that very one; one that is gone is no error."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}, **more}
        try:
            await self.call("DELETE", path, {**body, "propagationPolicy": "Background"})
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def patch_status(self, path: str, version: str, status: Mapping[str, Any]) -> dict[str, Any]:
        """Write an object's status, if it is still the version that we have seen.

        Raises:
            ApiError: 409, somebody else has written to it; or any other.
        """
        body = {"metadata": {"resourceVersion": version}, "status": status}
        params = {"fieldManager": MANAGER}
        return await self.call("PATCH", f"{path}/status", body, params=params, content_type=_MERGE_PATCH)

    async def events(self, namespace: str, pod_uid: str) -> list[dict[str, Any]]:
        """Return the Events about a pod."""
        selector = f"involvedObject.uid={pod_uid}"
        pages = self.pages(f"/api/v1/namespaces/{namespace}/events", {"fieldSelector": selector})
        return [reading.decode(item) async for page in pages for item in page.items or ()]

    async def post_event(self, event: Mapping[str, Any]) -> None:
        await self.call("POST", f"/api/v1/namespaces/{event['metadata']['namespace']}/events", event)


class ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct):
    """A part of a list."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


def _object(answer: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = reading.decode(answer)
    except msgspec.DecodeError as error:
        raise ApiError(0, "Unreadable", f"the answer is not JSON: {error}") from None
    return found


def _retry_after(headers: Mapping[str, str]) -> float:
    asked = headers.get("Retry-After", "")
    return min(int(asked), _LONGEST_WAIT) if asked.isdecimal() else 0.0


def _error(status: int, raw: bytes, headers: Mapping[str, str]) -> ApiError:
    try:
        answer = msgspec.json.decode(raw)
        causes = (answer.get("details") or {}).get("causes") or ()
        # a policy's cause names no field
        fields = [cause["field"] for cause in causes if cause.get("field")]
        return ApiError(status, answer.get("reason", ""), answer.get("message", ""), _retry_after(headers), fields)
    except (msgspec.MsgspecError, AttributeError, TypeError, RecursionError):
        return ApiError(status, "", raw[:300].decode("utf-8", "replace"), _retry_after(headers))
