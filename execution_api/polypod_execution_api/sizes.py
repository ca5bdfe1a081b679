"""How much each namespace stores in the database, and its limit: one namespace cannot fill the database of all."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import Any

from sqlalchemy import ColumnElement, Engine, LargeBinary, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from polypod_execution_api.models import DagRun, TaskInstance, TaskState, Variable, XCom

log = logging.getLogger("polypod.execution_api")

_ROW = 200
"""Bytes that a row takes beside its values, about."""
_VALUES: tuple[tuple[Any, tuple[InstrumentedAttribute[Any], ...]], ...] = (
    (XCom, (XCom.value, XCom.key)),
    (TaskState, (TaskState.value, TaskState.key)),
    (Variable, (Variable.value, Variable.key, Variable.description)),
    (TaskInstance, (TaskInstance.rendered_fields, TaskInstance.arg_bindings)),
    (DagRun, (DagRun.conf,)),
)
"""The tables that a namespace fills, and their columns that may be large."""
_PAUSE = 60.0
"""Seconds between two measurements; longer if they take longer than a fiftieth of that."""
_SOON = 5.0


class NamespaceFull(Exception):
    """A namespace has reached its limit. The message says how much it stores, and what to do."""


class Sizes:
    """What each namespace stores: the last measurement, plus what was added since. Thread-safe."""

    def __init__(self, engine: Engine, limit: int = 0) -> None:
        """Begin, with nothing measured.

        Args:
            limit: bytes that a namespace may store; 0: no limit.
        """
        self._engine, self.limit = engine, limit
        self._measured: dict[str, int] = {}
        self._added: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._wanted = threading.Event()

    def add(self, namespace: str, size: int) -> None:
        """Count a value that is about to be stored.

        Raises:
            NamespaceFull: it does not fit.
        """
        with self._lock:
            kept = self._measured.get(namespace, 0) + self._added[namespace]
            if self.limit and kept + size + _ROW > self.limit:
                # what was replaced or deleted since was counted as added
                self._wanted.set()
                raise NamespaceFull(
                    f"namespace {namespace!r} stores {_mib(kept)} MiB in the Execution API; its limit is "
                    f"{_mib(self.limit)} MiB (executionApi.namespaceLimitMiB), and this value has {_mib(size)} MiB. "
                    "Delete unused XComs, store large values in an object store, or ask for a higher limit"
                )
            self._added[namespace] += size + _ROW

    def known(self) -> dict[str, int]:
        """Return the bytes that each namespace stores."""
        with self._lock:
            return {name: self._measured.get(name, 0) + self._added[name] for name in {*self._measured, *self._added}}

    def measure(self) -> None:
        """Read from the database how much there is."""
        with self._lock:
            before = self._added.copy()
        found: Counter[str] = Counter()
        with Session(self._engine) as session:
            for table, columns in _VALUES:
                size = sum((self._bytes(column) for column in columns), start=func.count() * _ROW)
                for namespace, number in session.execute(select(table.namespace, size).group_by(table.namespace)):
                    found[namespace] += int(number)
        with self._lock:
            self._measured = dict(found)
            # what was added meanwhile may be in both: too much for a minute, and never too little
            self._added -= before

    def _bytes(self, column: InstrumentedAttribute[Any]) -> ColumnElement[int]:
        # PostgreSQL tells the stored size of a value without reading it; SQLite has to read a text
        size = func.pg_column_size(column) if self._engine.dialect.name == "postgresql" else _length(column)
        return func.coalesce(func.sum(size), 0)

    def keep_measuring(self) -> None:
        """Measure for ever, in a thread of its own; soon after a refusal, as that may be out of date."""
        while True:
            began = time.monotonic()
            try:
                self.measure()
            except Exception:
                # the database is away: what was known stays
                log.exception("the storage use of namespaces could not be measured")
            took = time.monotonic() - began
            self._wanted.clear()
            time.sleep(max(_SOON, 10 * took))
            self._wanted.wait(max(_PAUSE, 50 * took))


def _length(column: InstrumentedAttribute[Any]) -> ColumnElement[int]:
    return func.length(cast(column, LargeBinary))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"
