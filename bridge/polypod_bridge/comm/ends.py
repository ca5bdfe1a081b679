"""How a task ended, read leniently: a damaged text or a bad side field must not cost the task its state or its retry.

Requests are exact or refused, and their sender gets the error. A terminal message has no second chance: its meaning is
acted upon, and what cannot be used is left out and named. No I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from polypod_bridge.comm import messages as m
from polypod_bridge.comm.exact import UNREADABLE, json_problem

LONGEST_REASON = 500
"""Characters of a `retry_reason` that Airflow takes."""
LONGEST_MAP_INDEX = 250
"""Characters of a `rendered_map_index` that Airflow's table holds."""
LONGEST_DELAY = 10 * 365 * 86400.0
"""Seconds that a task may have its next try wait."""

_KINDS = {kind.__name__: kind for kind in m.TERMINAL_TYPES}
TEXTS = {"retry_reason": LONGEST_REASON, "rendered_map_index": LONGEST_MAP_INDEX}
"""Fields that people read, and how many characters they may have."""
_TIMES = ("end_date", "reschedule_date")
"""Fields that are times."""
_MEANING: dict[type[m.Message], frozenset[str]] = {
    m.TaskState: frozenset({"state"}),
    m.RescheduleTask: frozenset({"reschedule_date"}),
    m.DeferTask: frozenset({"classpath", "next_method", "trigger_kwargs", "next_kwargs"}),
    m.AwaitInputTask: frozenset({"next_method", "next_kwargs"}),
}
"""Fields without which an end means something else; every other one is a side field."""
_SCALARS = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4}
_SCALARS |= {0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
"""First byte of a msgpack value of fixed size, and how many bytes follow."""
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4}
_SIZED |= {0xDE: 2, 0xDF: 4}
"""First byte of a msgpack value with a size, and how many bytes the size has."""


@dataclass(slots=True)
class End:
    """What was read of a body.

    Attributes:
        type: the body's `type`, empty if it has none.
        message: the end; None if it cannot be understood.
        notes: what was changed or left out, and why.
    """

    type: str = ""
    message: m.Terminal | None = None
    notes: list[str] = field(default_factory=list)

    def was_meant(self, in_answer: bool) -> bool:
        """Whether the message is an end: by its type or, if that is unknown, as the answer to StartupDetails."""
        return self.type in _KINDS or (in_answer and self.type not in m.REQUEST_TYPES)


def read(body: bytes, now: datetime) -> End:
    """Read a terminal message that is not valid.

    Args:
        now: the end date, if the message has none.
    """
    end = End()
    try:
        reader = _Reader(body)
        fields = reader.value()
    except (*UNREADABLE, IndexError):
        return end
    if isinstance(fields, dict):
        end.type = _text(fields.get("type"))
    kind = _KINDS.get(end.type)
    if kind is None:
        return end
    if reader.repaired:
        end.notes.append("text that is not UTF-8 was replaced")
    if reader.dropped:
        end.notes.append("map entries were left out: their keys are no text")
    known: dict[str, Any] = {}
    for one in msgspec.structs.fields(kind):
        if one.name in fields:
            value, problem = _converted(fields[one.name], one.type)
            if not problem:
                known[one.name] = value
                continue
            if one.name in _MEANING.get(kind, ()):
                return end
            end.notes.append(f"{one.name} is ignored: {problem}")
        elif not one.required:
            continue
        if one.required:
            if one.name != "end_date":
                return end
            known[one.name] = now
            end.notes.append("end_date is the time at which the message came")
    made: Any = kind(**known)
    end.message = made
    return end


def reason_in_full(end: m.Terminal) -> str:
    """Return why a task ended so, in its own words, before `within_limits` cuts them: a cut may halve a secret."""
    return end.retry_reason or "" if isinstance(end, m.RetryTask | m.TaskState) else ""


def within_limits(end: m.Terminal) -> tuple[m.Terminal, list[str]]:
    """Return an end that Airflow can store, and what was changed."""
    changes: dict[str, Any] = {}
    notes: list[str] = []
    for name, most in TEXTS.items():
        text = getattr(end, name, None)
        if text is None:
            continue
        # PostgreSQL has no NUL
        kept = text[:most].replace("\0", "�")
        if kept != text:
            changes[name] = kept
        if len(text) > most:
            notes.append(f"{name} is cut to {most} of its {len(text)} characters")
    for name in _TIMES:
        when = getattr(end, name, None)
        kept_time = _in_utc(when) if when is not None else None
        if kept_time != when:
            changes[name] = kept_time
            notes.append(f"{name} is {when}; it must be within the years 1 to 9999 in UTC")
    delay = end.retry_delay_seconds if isinstance(end, m.RetryTask) else None
    if delay is not None and not 0 <= delay <= LONGEST_DELAY:
        changes["retry_delay_seconds"] = None if math.isnan(delay) else min(max(delay, 0.0), LONGEST_DELAY)
        notes.append(f"retry_delay_seconds is {delay}; it must be 0 to {LONGEST_DELAY:.0f}")
    return (msgspec.structs.replace(end, **changes) if changes else end), notes


def _in_utc(when: datetime) -> datetime:
    """Return a time that UTC can hold: the nearest one to it."""
    try:
        when.astimezone(UTC)
    except OverflowError:
        return (datetime.max if when.year > 1 else datetime.min).replace(tzinfo=UTC)
    return when


def shown(raw: bytes) -> str:
    """Return bytes as a log shows them."""
    return raw.decode("utf-8", "backslashreplace")


def _converted(value: Any, kind: Any) -> tuple[Any, str]:
    """Return a field's value, or what is wrong with it."""
    if isinstance(value, bytes):
        # writers of an old msgpack have one type for text and bytes
        value = _text(value)
    try:
        found = msgspec.convert(value, kind)
    except UNREADABLE as error:
        return None, str(error)
    finite = isinstance(found, float) or not json_problem(found)
    return found, "" if finite else json_problem(found)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


class _Reader:
    """Reads msgpack whose values may be damaged, each by itself.

    Not by the library `msgpack` (1.2): it replaces damaged text as well, but a timestamp that no clock has (type -1)
    is an error of the whole message there, before any hook of ours is called, and would cost the task its end. It also
    allocates lists of the length that a message claims, at each of 1,000 levels, where this takes what the bytes hold.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self.repaired = self.dropped = False

    def value(self) -> Any:
        start = self._at
        first = self._take(1)[0]
        if first <= 0x7F or first >= 0xE0:
            return first if first <= 0x7F else first - 256
        if first <= 0x8F:
            return self._map(first & 15)
        if first <= 0x9F:
            return [self.value() for _ in range(first & 15)]
        if first <= 0xBF:
            return self._string(first & 31)
        if first in _SCALARS:
            self._take(_SCALARS[first])
            return self._scalar(start)
        size = int.from_bytes(self._take(_SIZED[first]) if first in _SIZED else b"", "big")
        if first <= 0xC6:
            return self._take(size)
        if first <= 0xC9:
            self._take(size + 1)
            return self._scalar(start)
        if first <= 0xDB:
            return self._string(size)
        return [self.value() for _ in range(size)] if first <= 0xDD else self._map(size)

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("the message ends within a value")
        self._at += size
        return taken

    def _scalar(self, start: int) -> Any:
        try:
            return msgspec.msgpack.decode(self._data[start : self._at])
        except UNREADABLE:
            # such as a date that no calendar has: nothing that a field takes
            return msgspec.msgpack.Ext(0, b"")

    def _string(self, size: int) -> str:
        raw = self._take(size)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.repaired = True
            return raw.decode("utf-8", "replace")

    def _map(self, size: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for _ in range(size):
            key, value = self.value(), self.value()
            if isinstance(key, bytes):
                key = _text(key)
            if isinstance(key, str | int | float | None):
                found[key] = value
            else:
                # no field has such a name; as text, maps in keys of maps would double at each level
                self.dropped = True
        return found
