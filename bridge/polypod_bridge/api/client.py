"""One keep-alive connection pool to the Task Execution API, with Airflow's retries, token refresh and TLS settings."""

from __future__ import annotations

import base64
import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3
from polypod_core.errors import UserError
from polypod_core.reasons import Reason

from polypod_bridge.comm.requests import NO_BODY, ApiCall, ApiReply
from polypod_bridge.config import ExecutionApiConfig

API_VERSIONS = ("2026-10-30", "2026-06-30")
"""The versions of the Execution API that we speak, newest first. A server migrates what it sends and takes to ours."""
_REFUSALS = frozenset({400, 404, 406, 415, 422, 426})
"""How a server may answer a version that it does not know."""

_ONE_LINE = re.compile(r"[!-~]+(?: [!-~]+)*")
"""What a token may consist of."""

TRACE_HEADERS = ("traceparent", "tracestate", "baggage")


class ApiUnavailable(Exception):
    """No answer was had, after every retry."""


class ExecutionApiClient:
    """Sends calls to the Execution API. May be used from several threads, once the first call was answered.

    The first calls settle which version is spoken: the newest that the server takes.

    Only transport errors and 5xx answers are tried again: after 1, 2, 4, 8 and then every 16 seconds, ten attempts over
    a minute and a half by default, so that a task does not notice that the server is restarted on a busy cluster.
    A patient call is tried for as long as its token is valid, if the server is busy: it does not answer in time, or
    answers 5xx. A certificate that is not trusted, or a host that is not known, is a mistake that has to be seen.
    """

    def __init__(
        self,
        config: ExecutionApiConfig,
        token: str,
        on_retry: Callable[[ApiCall, int, str], None] | None = None,
        token_file: str | None = None,
    ) -> None:
        """Prepare; connects at the first call.

        Args:
            config: where the API is and how to reach it.
            token: the bearer token of the task instance; empty sends none.
            on_retry: told about each retry: the call, its attempt so far, and what went wrong.
            token_file: a file with the token, in place of `token`; read for each call, as somebody else renews it.

        Raises:
            UserError: the URL is not one of http or https, or a TLS file cannot be read.
        """
        try:
            parts = urlsplit(config.url)
        except ValueError:
            # its host; refused below
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(
                Reason.INVALID_CONFIG,
                f"the Execution API's URL is {config.url!r}; it must be http://HOST[:PORT]/PATH or https://…",
            )
        self._base = config.url.rstrip("/") + "/"
        self._config = config
        self._token = token
        self._token_file = token_file
        self._token_lock = threading.Lock()
        self._version = API_VERSIONS[0]
        self._version_settled = False
        self._on_retry = on_retry
        self._closing = threading.Event()
        self._patience = threading.Event()
        self._patience.set()
        options: dict[str, Any] = {"retries": False, "maxsize": 2}
        if parts.scheme == "https":
            options["ssl_context"] = _tls(config)
        self._pool = urllib3.PoolManager(**options)

    def call(
        self,
        call: ApiCall,
        carrier: Mapping[str, str] | None = None,
        *,
        most_attempts: int | None = None,
        patient: bool = False,
    ) -> ApiReply:
        """Send one call and return the answer, whatever its status below 500.

        Args:
            carrier: W3C trace headers of the task, so that the server's spans join the task's trace.
            most_attempts: fewer than the configured ones, for a call that means nothing when it comes late.
            patient: while the server is busy, try again until the token ends, beyond the configured attempts.

        Raises:
            ApiUnavailable: no answer, or only 5xx ones, after all attempts. A last 5xx answer is returned instead.
        """
        reply = self._send(call, carrier, most_attempts, patient)
        if self._version_settled:
            return reply
        if reply.ok:
            self._version_settled = True
        elif reply.status in _REFUSALS:
            return self._in_an_older_version(call, carrier, reply)
        return reply

    def _in_an_older_version(self, call: ApiCall, carrier: Mapping[str, str] | None, refusal: ApiReply) -> ApiReply:
        """Try a call that was refused in the version before; if that is refused as well, it was not the version."""
        self._version = API_VERSIONS[1]
        reply = self._send(call, carrier)
        if reply.ok:
            self._version_settled = True
            return reply
        self._version = API_VERSIONS[0]
        return refusal

    def _send(
        self,
        call: ApiCall,
        carrier: Mapping[str, str] | None,
        most_attempts: int | None = None,
        patient: bool = False,
    ) -> ApiReply:
        body = b"" if call.body is NO_BODY else msgspec.json.encode(call.body)
        tries = min(self._config.retries, most_attempts or self._config.retries)
        wait = self._config.retry_wait_min
        for attempt in itertools.count(1):
            reply, problem, is_busy = self._once(call, body, carrier or {})
            if reply is not None and reply.status < 500:
                return reply
            goes_on = attempt < tries or (patient and is_busy and self._patience.is_set() and self._token_is_valid())
            if not goes_on or self._closing.is_set():
                if reply is not None:
                    return reply
                raise ApiUnavailable(f"{call.method} {self._base}{call.path}: {problem} (after {attempt} attempts)")
            if self._on_retry is not None:
                self._on_retry(call, attempt, problem)
            self._closing.wait(min(wait, self._config.retry_wait_max) * random.uniform(1.0, 1.1))  # noqa: S311 - jitter
            wait *= 2
        raise AssertionError("unreachable")

    def _once(self, call: ApiCall, body: bytes, carrier: Mapping[str, str]) -> tuple[ApiReply | None, str, bool]:
        """Send a call once; return the answer, what was wrong, and whether that is because the server is busy."""
        url = self._base + call.path
        if call.params:
            url += "?" + urlencode(call.params)
        try:
            response = self._pool.request(
                call.method,
                url,
                body=body or None,
                headers={**self._headers(bool(body)), **{k: carrier[k] for k in TRACE_HEADERS if k in carrier}},
                timeout=urllib3.Timeout(total=self._config.timeout),
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            # that nobody listens, or that the host is not known, is a kind of timeout to urllib3
            unreachable = isinstance(error, urllib3.exceptions.NewConnectionError)
            return None, str(error), isinstance(error, urllib3.exceptions.TimeoutError) and not unreachable
        headers = {name.lower(): value for name, value in response.headers.items()}
        refreshed = headers.get("refreshed-api-token")
        if refreshed:
            with self._token_lock:
                self._token = refreshed
        reply = ApiReply(response.status, response.data, headers)
        is_busy = response.status >= 500
        return reply, f"HTTP {response.status}: {reply.text()[:300]}" if is_busy else "", is_busy

    def _headers(self, has_body: bool) -> dict[str, str]:
        token = self._current_token()
        headers = {
            "accept": "application/json",
            "airflow-api-version": self._version,
            "correlation-id": f"{time.time_ns():x}-{random.getrandbits(48):012x}",
            "user-agent": "polypod-bridge",
        }
        # http.client would quote any other in its error
        if token and _ONE_LINE.fullmatch(token):
            headers["authorization"] = f"Bearer {token}"
        if has_body:
            headers["content-type"] = "application/json"
        return headers

    def _current_token(self) -> str:
        if self._token_file is not None:
            try:
                with open(self._token_file, encoding="ascii") as file:
                    return file.read().strip()
            except (OSError, ValueError):
                # the kubelet is just renewing it; without one the server says what is missing
                return ""
        with self._token_lock:
            return self._token

    def _token_is_valid(self) -> bool:
        """Whether the token says of itself that it has not ended; one of a file is renewed and says nothing."""
        ends = 0.0 if self._token_file is not None else token_end(self._current_token())
        return time.time() < ends

    def lose_patience(self) -> None:
        """Try patient calls no more often than others from now on."""
        self._patience.clear()

    def stop_retrying(self) -> None:
        """Try each call once from now on, one that waits for its next try included."""
        self._closing.set()


class _Claims(msgspec.Struct):
    exp: float = 0.0


def token_end(token: str) -> float:
    """Return when a JSON Web Token ends, in seconds since 1970; 0 if it does not say. Its signature is not checked."""
    _, _, rest = token.partition(".")
    payload, _, _ = rest.partition(".")
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(raw, type=_Claims).exp
    except (ValueError, msgspec.MsgspecError):
        return 0.0


def trusting(authority: str) -> Any:
    """Return a TLS context that trusts these certificates, PEM, and no others.

    Raises:
        UserError: they cannot be read.
    """
    import ssl

    try:
        return ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise UserError(Reason.INVALID_CONFIG, f"the certificates to be trusted cannot be read: {error}") from None


def _tls(config: ExecutionApiConfig) -> Any:
    import ssl

    if config.authority:
        return trusting(config.authority)
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.ca_file and config.public_cas:
            context.load_default_certs()
        if config.client_cert or config.client_key:
            if not (config.client_cert and config.client_key):
                raise UserError(Reason.INVALID_CONFIG, "client_cert and client_key must be set together")
            context.load_cert_chain(config.client_cert, config.client_key)
    except OSError as error:
        raise UserError(
            Reason.INVALID_CONFIG,
            f"the Execution API's TLS files (ca_file {config.ca_file!r}, client_cert {config.client_cert!r}, "
            f"client_key {config.client_key!r}) cannot be used: {error}",
        ) from None
    return context
