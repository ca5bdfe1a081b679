"""From the runtime's bytes to the task's log: split into lines, parse, mask, render, write. One stream, in order.

A record of the runtime and an event of the supervisor pass the same steps. A write that blocks stops the reading, and
so the runtime: nothing piles up here. Whatever a task puts into a record, the record and all others are kept.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from polypod_bridge.logs.masking import Masker
from polypod_bridge.logs.render import Renderer, safely

MAX_LINE = 32 << 20
"""Longest line kept whole, in bytes; a longer one is cut into lines of this length."""

STANDARD_ERROR = "standard error"
"""The name of that destination."""

LEVELS = {"critical": 50, "error": 40, "warning": 30, "info": 20, "debug": 10, "notset": 0}
_LEVEL_ALIASES = {
    "warn": "warning", "exception": "error", "err": "error", "severe": "error", "fatal": "critical",
    "panic": "critical", "alert": "critical", "emergency": "critical",
    "notice": "info", "trace": "debug", "fine": "debug",
}  # fmt: skip

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_ESCAPE = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", re.DOTALL)
"""An escape of JSON; the group is half a surrogate pair that has lost the other."""


class Destination(Protocol):
    """Where a task's log goes to."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def lost(self) -> int:
        """How many lines it could not take."""

    def write(self, events: list[dict[str, Any]]) -> OSError | None:
        """Write events, in order; return the error the first time that the destination fails."""


class Output:
    """Where rendered lines go: a descriptor that is never left half-written."""

    def __init__(self, fd: int, render: Renderer, name: str, levels: Levels | None = None) -> None:
        """Write to `fd`: everything, or what `levels` wants."""
        self._fd = fd
        self._render = render
        self._levels = levels
        self._failed: OSError | None = None
        self.name = name
        self.lost = 0
        self.written = 0
        """How many lines it has taken."""

    def write(self, events: list[dict[str, Any]]) -> OSError | None:
        """Write events; return the error the first time that the destination fails.

        A full disk must not end the task: what cannot be written is counted, and the next write tries again.
        """
        if self._levels is not None:
            events = [event for event in events if self._levels.wants(event)]
        rendered = b"".join([safely(self._render, event) for event in events])
        data = memoryview(rendered)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            self.lost += len(events)
            first, self._failed = self._failed is None, error
            return error if first else None
        self._failed = None
        self.written += rendered.count(b"\n")
        return None


class Levels:
    """Which records are wanted: those at a level or above, or at that of their logger's longest dotted prefix."""

    def __init__(self, level: str, namespaces: str = "") -> None:
        """Read Airflow's `[logging] logging_level` and `namespace_levels` (`name=level …`)."""
        self.minimum = LEVELS.get(level.lower(), LEVELS["info"])
        pairs = (entry.partition("=") for entry in re.split(r"[\s,]+", namespaces))
        self._namespaces = {name: LEVELS[text.lower()] for name, _, text in pairs if name and text.lower() in LEVELS}

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a runtime's record is wanted."""
        minimum, prefix = self.minimum, record["logger"] if self._namespaces else ""
        while prefix:
            if prefix in self._namespaces:
                minimum = self._namespaces[prefix]
                break
            prefix = prefix.rpartition(".")[0]
        return LEVELS[record["level"]] >= minimum


class TaskLog:
    """The log of one attempt. May be used from several threads."""

    def __init__(self, masker: Masker, outputs: Sequence[Destination], levels: Levels | None = None) -> None:
        """Write to `outputs`; of the supervisor's own events only those at the level or above.

        A runtime filters its own records (language SDK conformance, §logging); for one that does not, the pump asks
        `levels`.
        """
        self._masker = masker
        self._outputs = outputs
        self.levels = levels or Levels("info")
        self._lock = threading.Lock()
        self._post: Callable[[dict[str, Any]], None] | None = None

    def route(self, post: Callable[[dict[str, Any]], None] | None) -> None:
        """Hand the supervisor's own events to `post` instead of writing them: a blocked log must not block it."""
        self._post = post

    def event(self, level: str, event: str, **fields: Any) -> None:
        """Log something that the supervisor says."""
        if LEVELS[level] < self.levels.minimum:
            return
        record = {"level": level, "event": event, "logger": "supervisor", "timestamp": datetime.now(UTC), **fields}
        if self._post is not None:
            self._post(record)
        else:
            self.write([record])

    def write(self, events: list[dict[str, Any]]) -> None:
        """Mask, stamp, render and write events, in order."""
        masked = [self._finish(event) for event in events]
        failures: list[tuple[Destination, OSError]] = []
        with self._lock:
            for output in self._outputs:
                error = output.write(masked)
                if error is not None:
                    failures.append((output, error))
            for output, error in failures:
                notice = {
                    "level": "error",
                    "event": "cannot write the log; the task continues",
                    "logger": "supervisor",
                    "destination": output.name,
                    "error": error.strerror or errno.errorcode.get(error.errno or 0, "unknown"),
                }
                for other in self._outputs:
                    if other is not output:
                        other.write([self._finish(notice)])

    def _finish(self, event: dict[str, Any]) -> dict[str, Any]:
        redacted = self._masker.redact(event)
        if not isinstance(redacted, dict):
            # nested too deeply
            redacted = {"level": event["level"], "event": self._masker.text(event["event"]), "logger": event["logger"],
                        "fields": redacted}  # fmt: skip
        if "timestamp" not in redacted:
            redacted["timestamp"] = datetime.now(UTC)
        return redacted

    def written(self) -> int:
        """Return how many lines went to standard error, which in a pod is the container's log."""
        return sum(item.written for item in self._outputs if isinstance(item, Output) and item.name == STANDARD_ERROR)

    def lost(self) -> dict[str, int]:
        """Return how many lines each destination could not take."""
        return {output.name: output.lost for output in self._outputs if output.lost}


def _decode_leniently(line: bytes) -> dict[str, Any]:
    """Decode a record; half a character, as of a text that was cut, becomes U+FFFD and costs nothing else."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = line.decode("utf-8", "replace").encode()
        return _decode(_ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text))


def runtime_record(line: bytes) -> dict[str, Any]:
    """Parse one line of the logs socket; a malformed one becomes a report that keeps it."""
    return read_record(line)[0]


def read_record(line: bytes) -> tuple[dict[str, Any], bool]:
    """Do the same, and tell whether the level is the runtime's own: a malformed line and an unknown level have ours."""
    try:
        record = _decode_leniently(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        report = {
            "level": "warning",
            "event": "malformed log line from the runtime",
            "logger": "supervisor",
            "line": line.decode("utf-8", "replace"),
            "error": str(error),
        }
        return report, False
    level = str(record.get("level", "info")).lower()
    level = _LEVEL_ALIASES.get(level, level)
    has_level = level in LEVELS
    record["level"] = level if has_level else "info"
    event = record.get("event")
    record["event"] = event if isinstance(event, str) else "" if event is None else str(event)
    logger = record.setdefault("logger", "task")
    if not isinstance(logger, str):
        record["logger"] = str(logger)
    if "exception" in record:
        exception = record.pop("exception")
        if exception:
            record["error_detail"] = exception
    stamp = record.get("timestamp")
    if stamp is None:
        record.pop("timestamp", None)
    elif isinstance(stamp, str):
        try:
            record["timestamp"] = msgspec.convert(stamp, datetime)
        except msgspec.ValidationError:
            pass
    return record, has_level


def _output_record(level: str, logger: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda line: {"level": level, "event": line.decode("utf-8", "replace").rstrip(), "logger": logger}


PARSERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "logs": runtime_record,
    "stdout": _output_record("info", "task.stdout"),
    "stderr": _output_record("error", "task.stderr"),
}
"""How a line of each stream becomes an event."""


class LineSplitter:
    """Collects bytes and gives out complete lines; an endless line is cut where no secret can be hidden by the cut."""

    def __init__(self, masker: Masker, max_line: int = MAX_LINE) -> None:
        self._masker = masker
        self._max_line = max_line
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; return the lines that are complete, without their ends."""
        buffer = self._buffer
        buffer += data
        lines: list[bytes] = []
        if buffer.find(b"\n", self._searched) >= 0:
            *complete, rest = buffer.split(b"\n")
            lines = [bytes(line) for line in complete]
            self._buffer = buffer = rest
        self._searched = len(buffer)
        if len(buffer) > self._max_line:
            lines.append(self._cut())
        return lines

    def rest(self) -> list[bytes]:
        """Return what is left at the end of the stream."""
        left, self._buffer, self._searched = bytes(self._buffer), bytearray(), 0
        return [left] if left else []

    def _cut(self) -> bytes:
        # a secret may straddle the cut: mask first, and keep back what could be the start of one
        masked = self._masker.text(self._buffer.decode("utf-8", "surrogateescape"))
        keep = min(max(self._masker.longest - 1, 0), len(masked))
        head, tail = masked[: len(masked) - keep], masked[len(masked) - keep :]
        self._buffer = bytearray(tail.encode("utf-8", "surrogateescape"))
        self._searched = len(self._buffer)
        return head.encode("utf-8", "surrogateescape")
