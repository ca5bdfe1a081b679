"""Masking: no secret that the supervisor handed out may appear in anything that it emits.

As in Airflow, a value under a sensitive name is hidden whatever it is, and a value that was registered is hidden
wherever it appears. Values of fewer than five characters are not registered: hiding them would blank the log.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from typing import Any

import msgspec

from polypod_bridge.logs.encodings import MIN_LENGTH, longest, pattern

MASK = "***"
SENSITIVE_NAMES = (
    "access_key",
    "access_token",
    "api_key",
    "apikey",
    "auth_header",
    "authorization",
    "bearer",
    "connection_string",
    "dsn",
    "keyfile_dict",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "proxies",
    "proxy",
    "proxy_password",
    "secret",
    "service_account",
    "service_key",
    "token",
    "webhook_url",
)
"""Parts of a name that make its value a secret; Airflow's own defaults."""

_TELLING = 5
"""Characters of a secret's beginning that are hidden at the end of a text that may have been cut."""
_NOT_SECRET = {"airflow"}
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*){0,3}")
"""By its shape: `eyJ` is how base64 begins a JSON object, and two or more parts are joined by dots."""
_NON_WORD = re.compile(r"\W+")


class Masker:
    """Knows the secrets of one task. May be used from several threads."""

    def __init__(self, extra_names: Iterable[str] = ()) -> None:
        self._names = SENSITIVE_NAMES + tuple(name.strip().lower() for name in extra_names if name.strip())
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._patterns: dict[str, str] = {}
        self._sensitive: dict[str, bool] = {}
        self._lock = threading.Lock()
        self.longest = 0

    def is_sensitive(self, name: str) -> bool:
        """Tell whether a field, variable or extra of this name holds a secret."""
        known = self._sensitive.get(name)
        if known is None:
            normal = _NON_WORD.sub("_", name.strip().lower())
            known = any(part in normal for part in self._names)
            if len(self._sensitive) < 10_000:
                self._sensitive[name] = known
        return known

    def add(self, value: Any, name: str | None = None) -> None:
        """Register a secret; what is nested in a map or list is registered too.

        Args:
            value: the secret.
            name: if given, only a sensitive name makes the value a secret (Airflow's rule for MaskSecret).
        """
        with self._lock:
            before = len(self._secrets)
            self._collect(value, name)
            if len(self._secrets) != before:
                ordered = sorted(self._secrets, key=len, reverse=True)
                found = [self._patterns.setdefault(secret, "") or self._pattern_of(secret) for secret in ordered]
                self._pattern = re.compile("|".join(found))
                self.longest = longest(ordered[0])

    def _pattern_of(self, secret: str) -> str:
        made = self._patterns[secret] = pattern(secret)
        return made

    def add_connection(self, password: Any, extra: Any) -> None:
        """Register a connection's password and extra: the extra as a whole, and its sensitive fields."""
        self.add(password)
        self.add(extra)
        if isinstance(extra, str):
            try:
                fields = msgspec.json.decode(extra)
            except msgspec.MsgspecError:
                return
            if isinstance(fields, dict):
                self.add(fields, "")

    def _collect(self, value: Any, name: str | None) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._collect(item, str(key))
        elif isinstance(value, str):
            secret = name is None or self.is_sensitive(name)
            if secret and len(value.strip()) >= MIN_LENGTH and value.lower() not in _NOT_SECRET:
                self._secrets.add(value)
        elif isinstance(value, list | tuple):
            for item in value:
                self._collect(item, name)

    def text(self, text: str) -> str:
        """Return `text` without secrets."""
        if "eyJ" in text:
            text = _JWT.sub(f"eyJ{MASK}", text)
        found = self._pattern
        return found.sub(MASK, text) if found is not None else text

    def cut_text(self, text: str) -> str:
        """Return `text` without secrets, and without the beginning of one at its end, where an SDK may have cut it."""
        text = self.text(text)
        with self._lock:
            secrets = list(self._secrets)
        left = max((_left_of(secret, text) for secret in secrets), default=0)
        return f"{text[: len(text) - left]}{MASK}" if left else text

    def redact(self, value: Any) -> Any:
        """Return `value` without secrets, at any depth, in keys' values and strings."""
        try:
            return self._redact(value)
        except RecursionError:
            return "<nested too deeply to be masked>"

    def _redact(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                key: _hide(item) if isinstance(key, str) and self.is_sensitive(key) else self._redact(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._redact(item) for item in value]
        return value


def _left_of(secret: str, text: str) -> int:
    """Return how many characters at the end of a text are the beginning of a secret; 0 if that may be chance."""
    start = text.find(secret[:_TELLING], max(0, len(text) - len(secret) + 1))
    while start >= 0:
        if secret.startswith(text[start:]):
            return len(text) - start
        start = text.find(secret[:_TELLING], start + 1)
    return 0


def _hide(value: Any) -> Any:
    if isinstance(value, str):
        return MASK
    if isinstance(value, dict):
        return {key: _hide(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hide(item) for item in value]
    return value
