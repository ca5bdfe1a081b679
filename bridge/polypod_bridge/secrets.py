"""Connections and variables from the environment and from mounted folders, before the Execution API is asked.

The names are those of Airflow's environment backend: `AIRFLOW_CONN_<ID>` (a URI or JSON) and `AIRFLOW_VAR_<KEY>`, in
upper case. A folder is a mounted Secret or ConfigMap: a file for each key. It is read at each look-up, so that a
rotated Secret is seen by the next one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from polypod_bridge.comm import answers as a
from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import UNREADABLE

CONN_PREFIX = "AIRFLOW_CONN_"
VAR_PREFIX = "AIRFLOW_VAR_"


class ConnectionFormatError(Exception):
    """A connection's text is neither a URI nor JSON. The message never holds the text."""


class SecretStore:
    """Looks connections and variables up in folders, then in the environment."""

    def __init__(self, folders: Sequence[str], environ: Mapping[str, str]) -> None:
        self._folders = list(folders)
        self._environ = environ

    def answer(self, message: m.Message) -> a.Answer | None:
        """Return the answer to a GetConnection or GetVariable, None if it is not here or another message.

        Raises:
            ConnectionFormatError: the connection is here and cannot be read.
        """
        if isinstance(message, m.GetConnection):
            name = CONN_PREFIX + message.conn_id.upper()
            text = self._get(name)
            return parse_connection(message.conn_id, text, name) if text is not None else None
        if isinstance(message, m.GetVariable):
            text = self._get(VAR_PREFIX + message.key.upper())
            return a.VariableResult(key=message.key, value=text) if text is not None else None
        return None

    def misnamed(self) -> list[tuple[str, str]]:
        """Return the keys that are never found though they are meant to be, each with the name to use.

        Those are keys that are like Airflow's names but for their case, and all keys of a folder that has no other.
        """
        found = []
        for folder in self._folders:
            try:
                # a mounted volume has links of the kubelet's in it, "..data" for one
                names = [name for name in os.listdir(folder) if not name.startswith("..")]
            except OSError:
                continue
            upper = {name: name.upper().replace("-", "_") for name in names}
            meant = {name: right for name, right in upper.items() if right.startswith((CONN_PREFIX, VAR_PREFIX))}
            if not meant:
                meant = {name: f"{CONN_PREFIX}{right} or {VAR_PREFIX}{right}" for name, right in upper.items()}
            found += [(name, right) for name, right in meant.items() if name != right]
        return sorted(found)

    def _get(self, name: str) -> str | None:
        if "/" in name or "\0" in name:
            return None
        for folder in self._folders:
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    raw = file.read()
            except OSError:
                continue
            return _text(raw, name)
        given = self._environ.get(name)
        return _text(given.encode("utf-8", "surrogateescape"), name) if given is not None else None


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    # after the handler: a UnicodeDecodeError holds all that was read
    raise ConnectionFormatError(f"{name} is not text in UTF-8")


def parse_connection(conn_id: str, text: str, where: str) -> a.ConnectionResult:
    """Parse a connection from JSON or from a URI, by Airflow's rules.

    Args:
        where: the name of the key, for errors.

    Raises:
        ConnectionFormatError: neither of the two. It names fields and forms, and nothing of the text: it has no cause
            and no context either, as parsers' own errors quote what they have read.
    """
    try:
        return _parsed(conn_id, text.strip())
    except _Unreadable as error:
        problem = error.problem
    except Exception:
        problem = "cannot be read"
    # after the handlers: inside, Python would keep the parser's error as the context
    raise ConnectionFormatError(f"{where}: {problem}")


class _Unreadable(Exception):
    """`problem` is in our own words."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def _parsed(conn_id: str, text: str) -> a.ConnectionResult:
    return _from_json(conn_id, text) if text.startswith("{") else _from_uri(conn_id, text, "")


class _Json(msgspec.Struct):
    conn_type: str = ""
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = None
    port: int | str | None = None
    extra: Any = None
    uri: str | None = None
    # what exports of Airflow have beside
    conn_id: str | None = None
    description: str | None = None


_TYPES = {field.name: field.type for field in msgspec.structs.fields(_Json)}
_KNOWN = "a connection has conn_type, host, schema, login, password, port, extra"
_OFTEN_MEANT = {
    "user": "login", "username": "login", "pass": "password", "passwd": "password", "database": "schema",
    "db": "schema", "dbname": "schema", "hostname": "host", "server": "host", "type": "conn_type",
    "connection_type": "conn_type", "extras": "extra", "url": "uri",
}  # fmt: skip
"""Names that others use. They may be quoted, as no other unknown name may: it can be a part of a broken secret."""


def _from_json(conn_id: str, text: str) -> a.ConnectionResult:
    try:
        values = msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE:
        raise _Unreadable("starts with '{' and is not a JSON object") from None
    fields = _fields(values)
    if fields.uri:
        return _from_uri(conn_id, fields.uri, "`uri`: ")
    port = None
    if fields.port not in (None, ""):
        # `int` takes 5_432 and the digits of other scripts as well
        if not (text := str(fields.port)).isascii() or not text.isdecimal():
            raise _Unreadable(f"`port` is not a number; {_KNOWN}")
        port = int(text)
    extra = fields.extra
    if extra is not None and not isinstance(extra, str):
        extra = msgspec.json.encode(extra).decode()
    return a.ConnectionResult(
        conn_id=conn_id,
        conn_type=_normal_type(fields.conn_type),
        host=fields.host,
        schema=fields.schema,
        login=fields.login,
        password=fields.password,
        port=_checked(port, ""),
        extra=extra,
    )


def _fields(values: dict[str, Any]) -> _Json:
    for number, (name, value) in enumerate(values.items(), 1):
        if name not in _TYPES:
            meant = _OFTEN_MEANT.get(name.lower())
            shown = (
                f"field `{name.lower()}` is unknown (did you mean `{meant}`?)"
                if meant
                else f"field {number} is unknown"
            )
            raise _Unreadable(f"{shown}; {_KNOWN}")
        try:
            msgspec.convert(value, _TYPES[name])
        except msgspec.ValidationError:
            right = {"conn_type": "a string", "port": "a number, a string or null"}.get(name, "a string or null")
            raise _Unreadable(f"`{name}` is {_JSON_NAMES[type(value)]}; it must be {right}") from None
    return _Json(**values)


_JSON_NAMES = {dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number",
               bool: "a boolean", type(None): "null"}  # fmt: skip


def _checked(port: int | None, form: str) -> int | None:
    if port is not None and not 0 <= port <= 65535:
        raise _Unreadable(f"{form}`port` is not a number from 0 to 65535")
    return port


_URI = "type://login:password@host:port/schema"
_QUOTE = "in a login or password, write `/`, `?`, `#`, `@`, `:`, `[` and `]` as %2F, %3F, %23, %40, %3A, %5B and %5D"


_WORD = re.compile(r"[A-Za-z0-9_.+-]+")
"""A connection's type or protocol."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _is_torn(parts: SplitResult) -> bool:
    """Tell whether a password may hold `/`, `?` or `#`: a part of it then looks like a host, port, path or query.

    Stricter than Airflow, which takes such a part for what it looks like and does not know that it is secret.
    """
    has_login = "@" in parts.netloc or ":" in parts.netloc
    return has_login and any("@" in part for part in (parts.path, parts.query, parts.fragment))


def _from_uri(conn_id: str, text: str, form: str) -> a.ConnectionResult:
    scheme, separator, rest = text.partition("://")
    if not separator or not _WORD.fullmatch(scheme):
        raise _Unreadable(f"{form}neither a connection URI ({_URI}) nor JSON")
    if _CONTROL.search(rest):
        # `urlsplit` would leave some of them out
        raise _Unreadable(
            f"{form}not a connection URI ({_URI}): it holds a line break, a tab or another control character"
        )
    protocol = ""
    if "://" in rest.partition("?")[0]:
        # type://protocol://host: the protocol belongs to the host
        protocol, _, rest = rest.partition("://")
        if not _WORD.fullmatch(protocol):
            raise _Unreadable(f"{form}not a connection URI ({_URI}): '://' is there twice; {_QUOTE}")
    try:
        # Airflow's schemes may hold characters that URLs may not; only the rest is a URL
        parts = urlsplit("scheme://" + rest)
        host = parts.hostname
    except ValueError:
        raise _Unreadable(f"{form}not a connection URI ({_URI}): its host cannot be read; {_QUOTE}") from None
    try:
        port = parts.port
    except ValueError:
        problem = f"{form}not a connection URI ({_URI}): its port is not a number from 0 to 65535; {_QUOTE}"
        raise _Unreadable(problem) from None
    if _is_torn(parts):
        problem = f"{form}not a connection URI ({_URI}): '@' comes after the first '/', '?' or '#'; {_QUOTE}"
        raise _Unreadable(problem)
    if host is not None and "@" not in parts.netloc and parts.netloc.partition(":")[0].lower() == host:
        host = parts.netloc.partition(":")[0]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = query.get("__extra__")
    if extra is None and query:
        extra = msgspec.json.encode(query).decode()
    full_host = unquote(host) if host else None
    return a.ConnectionResult(
        conn_id=conn_id,
        conn_type=_normal_type(scheme),
        host=f"{protocol}://{full_host or ''}" if protocol else full_host,
        schema=unquote(parts.path[1:]) if len(parts.path) > 1 else None,
        login=unquote(parts.username) if parts.username is not None else None,
        password=unquote(parts.password) if parts.password is not None else None,
        port=port,
        extra=extra,
    )


def _normal_type(conn_type: str) -> str:
    name = conn_type.lower().replace("-", "_")
    return "postgres" if name == "postgresql" else name
