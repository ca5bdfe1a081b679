"""Connections and variables from the environment and from mounted folders, before the Execution API is asked.

The names are those of Airflow's environment backend: `AIRFLOW_CONN_<ID>` (a URI or JSON) and `AIRFLOW_VAR_<KEY>`, in
upper case. A folder is a mounted Secret or ConfigMap: a file for each key. It is read at each look-up, so that a
rotated Secret is seen by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from polypod_bridge.comm import answers as a
from polypod_bridge.comm import messages as m

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
        """Return the keys that look like a connection or variable and are never found, each with the name to use."""
        found = []
        for folder in self._folders:
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            upper = [(name, name.upper().replace("-", "_")) for name in names]
            found += [(name, right) for name, right in upper
                      if name != right and right.startswith((CONN_PREFIX, VAR_PREFIX))]  # fmt: skip
        return sorted(found)

    def _get(self, name: str) -> str | None:
        if "/" in name or "\0" in name:
            return None
        for folder in self._folders:
            try:
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    return file.read()
            except UnicodeDecodeError:
                raise ConnectionFormatError(f"{name} is not text in UTF-8") from None
            except OSError:
                continue
        return self._environ.get(name)


def parse_connection(conn_id: str, text: str, where: str) -> a.ConnectionResult:
    """Parse a connection from JSON or from a URI, by Airflow's rules.

    Args:
        where: the name of the key, for errors.

    Raises:
        ConnectionFormatError: neither of the two.
    """
    text = text.strip()
    if text.startswith("{"):
        return _from_json(conn_id, text, where)
    return _from_uri(conn_id, text, where)


class _Json(msgspec.Struct, forbid_unknown_fields=True):
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


_KNOWN = ("conn_type", "host", "schema", "login", "password", "port", "extra")


def _from_json(conn_id: str, text: str, where: str) -> a.ConnectionResult:
    try:
        fields = msgspec.json.decode(text, type=_Json)
        port = int(fields.port) if fields.port not in (None, "") else None
    except msgspec.ValidationError as error:
        # it names the field, and never what is in it
        raise ConnectionFormatError(f"{where}: {error}; a connection has {', '.join(_KNOWN)}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        what = (
            "its port is not a number" if not isinstance(error, msgspec.MsgspecError) else "it cannot be read as JSON"
        )
        raise ConnectionFormatError(f"{where}: {what}; a connection has {', '.join(_KNOWN)}") from None
    if fields.uri:
        return _from_uri(conn_id, fields.uri, where)
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
        port=port,
        extra=extra,
    )


def _from_uri(conn_id: str, text: str, where: str) -> a.ConnectionResult:
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme:
        raise ConnectionFormatError(
            f"{where} is neither a connection URI (type://login:password@host:port/schema) nor JSON"
        )
    try:
        # Airflow's schemes may hold characters that URLs may not; only the rest is a URL
        parts = urlsplit("scheme://" + rest)
        port = parts.port
    except ValueError:
        raise ConnectionFormatError(f"{where} is not a valid connection URI: its host or port cannot be read") from None
    protocol, host = "", parts.hostname
    if "://" in rest.partition("?")[0]:
        # type://protocol://host: the protocol belongs to the host
        protocol, _, tail = rest.partition("://")
        parts = urlsplit("scheme://" + tail)
        host, port = parts.hostname, parts.port
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
