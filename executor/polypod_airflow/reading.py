"""Reading JSON that anybody may have written: what one object holds does not keep the others from being read. Pure.

The API server takes objects of 10,000 levels (its limit for JSON), the decoder here gives up at about 1,000.
"""

from __future__ import annotations

import logging
import re
from typing import TypeVar

import msgspec

from polypod_airflow.verdicts import Metadata, TaskRun

log = logging.getLogger(__name__)

_CUT = 256
"""Levels of a document, beyond which it is cut: more than anything that is read here has."""
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)

T = TypeVar("T")


class _Named(msgspec.Struct):
    metadata: Metadata


def decode(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode a document; what is nested too deep in it is null.

    Raises:
        msgspec.DecodeError: it is no JSON, or not of that kind.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        return msgspec.json.decode(_cut(bytes(raw)), type=kind)


def task_run(raw: bytes | msgspec.Raw) -> TaskRun:
    """Return a TaskRun; one whose spec or status cannot be read is named in the log, and counts as one that waits.

    Raises:
        msgspec.DecodeError: it is no object of Kubernetes.
    """
    try:
        return decode(raw, TaskRun)
    except msgspec.ValidationError as error:
        metadata = decode(raw, _Named).metadata
        log.warning("TaskRun %s cannot be read: %s", metadata.name, error)
        return TaskRun(metadata)


def _cut(raw: bytes) -> bytes:
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
