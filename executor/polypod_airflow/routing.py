"""Which queues lead to Polypod: those of its routing ConfigMap, or of Airflow's configuration."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

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
        text = msgspec.json.decode(raw, type=_ConfigMap).data.get("queue_to_coordinator", "{}")
        found: Any = yaml.safe_load(text) or {}
    except (msgspec.MsgspecError, yaml.YAMLError) as error:
        raise RoutingProblem(f"ConfigMap {where}, queue_to_coordinator: {error}") from None
    if not isinstance(found, dict):
        raise RoutingProblem(f"ConfigMap {where}, queue_to_coordinator: a mapping of queues is expected")
    return frozenset(str(name) for name in found)


def remembered(file: Path, read: Callable[[], frozenset[str]], now: float | None = None) -> frozenset[str]:
    """Return the queues, read at most every half a minute; what was read last serves while it cannot be read.

    Args:
        file: where they are kept for the next process.
        read: reads them; raises RoutingProblem.

    Raises:
        RoutingProblem: they cannot be read, and never were.
    """
    now = time.time() if now is None else now
    kept, when = _kept(file)
    if kept is not None and 0 <= now - when < FRESH:
        return kept
    try:
        found = read()
    except RoutingProblem:
        if kept is None:
            raise
        return kept
    _keep(file, found, now)
    return found


def _kept(file: Path) -> tuple[frozenset[str] | None, float]:
    try:
        document = json.loads(file.read_text())
        return frozenset(document["queues"]), float(document["when"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, 0.0


def _keep(file: Path, queues: frozenset[str], now: float) -> None:
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps({"queues": sorted(queues), "when": now}))
        part.replace(file)
    except OSError:
        # a home that cannot be written to costs a call for each Dag file
        part.unlink(missing_ok=True)
