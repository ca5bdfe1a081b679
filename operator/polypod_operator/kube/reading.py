"""Reading JSON that anybody may have written: however deep it is nested, it harms nobody else. Pure.

The API server takes objects of 10,000 levels (its limit for JSON), every decoder here gives up at about 1,000. What is
nested deeper than that is cut off, and what is left is still too deep for a TaskRun, so its owner is told.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

_CUT = 256
"""Levels of a whole document, beyond which it is cut: more than a valid object in a list has (`nesting.DEEPEST`)."""
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)

T = TypeVar("T")


def decode(raw: bytes | msgspec.Raw, kind: type[T] = Any) -> T:  # type: ignore[assignment]
    """Decode a document; what is nested too deep in it is null.

    Raises:
        msgspec.DecodeError: it is no JSON, or not of that kind.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        return msgspec.json.decode(cut(bytes(raw)), type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from None


def bounded(raw: bytes) -> bytes:
    """Return a document that any decoder can read: what is nested deeper than 256 levels in it is null."""
    # most have fewer brackets than that, and counting is quick
    return raw if raw.count(b"{") + raw.count(b"[") < _CUT else cut(raw)


def cut(raw: bytes) -> bytes:
    """Return a document in which every value that is nested deeper than can be read is null."""
    parts: list[bytes] = []
    depth = done = 0
    for token in _TOKEN.finditer(raw):
        kind = raw[token.start()]
        if kind in b"[{":
            depth += 1
            if depth == _CUT:
                parts += [raw[done : token.start()], b"null"]
        elif kind in b"]}":
            if depth == _CUT:
                done = token.end()
            depth -= 1
    return b"".join([*parts, raw[done:]]) if parts else raw
