"""Which queues lead to Polypod: those of its routing ConfigMap, or of Airflow's configuration."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from polypod_airflow.reading import decode

DEFAULT = "polypod-system/polypod-routing"
FRESH = 30.0
"""Seconds for which what was read is used without asking again: each Dag file is parsed by a process of its own."""


class RoutingProblem(Exception):
    """It is not known which queues are mapped; the message says why."""


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] = {}


def queues_of(raw: bytes, where: str) -> frozenset[str]:
    """Return the queues that a routing ConfigMap maps.

    Raises:
        RoutingProblem: it is no routing.
    """
    try:
        text = decode(raw, _ConfigMap).data.get("queue_to_coordinator", "{}")
        found: Any = yaml.safe_load(text) or {}
    except (msgspec.MsgspecError, yaml.YAMLError) as error:
        raise RoutingProblem(f"ConfigMap {where}, queue_to_coordinator: {error}") from None
    if not isinstance(found, dict):
        raise RoutingProblem(f"ConfigMap {where}, queue_to_coordinator: a mapping of queues is expected")
    return frozenset(str(name) for name in found)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the last look at the routing has found. `queues` is None if it never could be read."""

    queues: frozenset[str] | None = None
    when: float = float("-inf")
    problem: str = ""


_UNWRITTEN: dict[Path, _Kept] = {}
"""What could not be kept in a file, for this process."""


def remembered(file: Path, read: Callable[[], frozenset[str]], now: float | None = None) -> frozenset[str]:
    """Return the queues, asked for at most every half a minute; what was read last serves while they cannot be read.

    A failure counts as asked: with the API server away, each stub of each Dag file would wait for it otherwise.

    Args:
        file: where they are kept for the next process.
        read: reads them; raises RoutingProblem.

    Raises:
        RoutingProblem: they cannot be read, and never were.
    """
    now = time.time() if now is None else now
    kept = _kept(file)
    if not 0 <= now - kept.when < FRESH:
        try:
            kept = _Kept(read(), now)
        except RoutingProblem as error:
            kept = _Kept(kept.queues, now, str(error))
        _keep(file, kept)
    if kept.queues is None:
        raise RoutingProblem(kept.problem)
    return kept.queues


def _kept(file: Path) -> _Kept:
    try:
        document = json.loads(file.read_text())
        queues = document["queues"]
        found = None if queues is None else frozenset(queues)
        return _Kept(found, float(document["when"]), str(document.get("problem", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _UNWRITTEN.get(file, _Kept())


def _keep(file: Path, kept: _Kept) -> None:
    part = file.with_name(f"{file.name}.{os.getpid()}")
    queues = None if kept.queues is None else sorted(kept.queues)
    try:
        part.write_text(json.dumps({"queues": queues, "when": kept.when, "problem": kept.problem}))
        part.replace(file)
    except OSError:
        # a home that cannot be written to costs a call for each Dag file
        _UNWRITTEN[file] = kept
        with suppress(OSError):
            part.unlink(missing_ok=True)
