"""The log's way into its storage: spooled in a folder that outlives the container, brought there every few seconds.

No object store can append. So the last object is written again as it grows, up to `OBJECT_SIZE`; then the next begins.
What is lost with a node is at most what came after the last time; a container that is killed loses nothing, as its
next start finds the spool.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from polypod_bridge.logs.pipeline import Destination, Output
from polypod_bridge.logs.render import json_line, safely
from polypod_bridge.logs.storage import (
    BEGINS,
    Storage,
    StorageError,
    after,
    local_path,
    object_name,
    open_storage,
    read_options,
)

OBJECT_SIZE = 8 << 20
"""Bytes of a log in one object."""
SPOOL_SIZE = 256 << 20
"""Bytes that may wait for a storage. Beyond it a slow storage slows the task, and one that fails loses lines."""
EVERY = 5.0
"""Seconds between two writes of an object that grows."""
SETTLED = 0.5
"""Seconds after a new line, if that is later: most logs then rest for a while."""
_LONGEST_PAUSE = 30.0

Report = Callable[..., None]
"""Tells people of the storage's state, as `TaskLog.event` does."""


class StoredLog(Destination, Protocol):
    """A destination of the log that has to be finished."""

    def report_to(self, report: Report) -> None:
        """Have people told of the storage's state by `report`."""

    @property
    def loss(self) -> str:
        """How many lines are lost so far and why, or ""."""

    def finish(self, timeout: float) -> str:
        """Bring what is left to the storage, within `timeout` seconds; return what is wrong if that fails, or ""."""


def open_stored_log(url: str, spool: str, options_dir: str, pod: str) -> StoredLog:
    """Begin a pod's log, or go on with what an earlier start of its container has left in the folder `spool`."""
    path = local_path(url)
    begins: dict[str, Any] = {"level": "info", "event": BEGINS, "logger": "supervisor", "pod": pod}
    begins["timestamp"] = datetime.now(UTC)
    if path is not None:
        return AppendedLog(path, spool, begins)
    return SpooledLog(url, spool, lambda: open_storage(url, read_options(options_dir)), begins)


class AppendedLog:
    """A log in a file, which is written to at once."""

    def __init__(self, path: str, spool: str, begins: dict[str, Any]) -> None:
        self.name = path
        self._output: Output | None = None
        self._fd = -1
        self._problem: OSError | None = None
        self._why = ""
        self._dropped = 0
        # other users of our group write to the same folders: Airflow's components, or pods of other images
        before = os.umask(0o002)
        try:
            _make_folder(os.path.dirname(path))
            new = not os.path.exists(path)
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o664)
            if new:
                _share(path)
            if _is_torn(self._fd):
                os.write(self._fd, b"\n")
            self._output = Output(self._fd, json_line, path)
            if not os.path.exists(f"{spool}/0"):
                _write(f"{spool}/0", b"")
                self._problem = self._output.write([begins])
        except OSError as error:
            self._problem = error
        finally:
            os.umask(before)
        self._because(self._problem)

    @property
    def lost(self) -> int:
        """How many lines could not be written."""
        return self._output.lost if self._output is not None else self._dropped

    def report_to(self, report: Report) -> None:
        """Nothing is to be told that `write` does not return."""

    def write(self, events: list[dict[str, Any]]) -> OSError | None:
        """Write events; return the error the first time that it fails."""
        problem, self._problem = self._problem, None
        if self._output is None:
            self._dropped += len(events)
            return problem
        failed = self._output.write(events)
        self._because(failed)
        return failed or problem

    def _because(self, error: OSError | None) -> None:
        if error is not None:
            self._why = error.strerror or str(error)

    @property
    def loss(self) -> str:
        """How many lines are lost so far and why, or ""."""
        if not self.lost and self._output is not None:
            return ""
        return f"{self.lost} lines could not be written: {self._why}"

    def finish(self, timeout: float) -> str:
        """Have the volume take all of it; return what is wrong, or ""."""
        if self.loss:
            return self.loss
        try:
            # a file server may say only now that it is full
            os.fsync(self._fd)
        except OSError as error:
            return error.strerror or str(error)
        return ""


@dataclass(slots=True)
class _Part:
    """What becomes one object: a file of the spool, and how many bytes of it are in the storage."""

    number: int
    path: str
    size: int = 0
    stored: int = 0
    full: bool = False

    @property
    def due(self) -> bool:
        return self.stored < self.size


class SpooledLog:
    """A log in a storage that keeps whole objects. May be used from several threads."""

    def __init__(
        self,
        url: str,
        spool: str,
        opens: Callable[[], tuple[Storage, str]],
        begins: dict[str, Any],
        *,
        every: float = EVERY,
        settled: float = SETTLED,
        object_size: int = OBJECT_SIZE,
        spool_size: int = SPOOL_SIZE,
    ) -> None:
        """Begin.

        Args:
            url: of the log, for messages.
            spool: a folder of our own.
            opens: opens the storage; called from a thread, and again if it fails.
            begins: the event that is the first line of this pod.
            every: as EVERY.
            settled: as SETTLED.
            object_size: as OBJECT_SIZE.
            spool_size: as SPOOL_SIZE.
        """
        self.name, self.lost = url, 0
        self._report: Report = lambda *_, **__: None
        self._spool, self._opens, self._every, self._settled = spool, opens, every, settled
        self._object_size, self._spool_size = object_size, spool_size
        self._changed = threading.Condition()
        self._parts, self._next = self._left_over()
        self._fd: int | None = None
        self._opened: tuple[Storage, str] | None = None
        self._problem = self._why = ""
        self._told = False
        self._resting = False
        self._give_up: float | None = None
        if self._next == 0:
            self.write([begins])
        self._thread = threading.Thread(target=self._run, name="log storage", daemon=True)
        self._thread.start()

    def report_to(self, report: Report) -> None:
        """Have people told of the storage's state by `report`."""
        self._report = report

    def write(self, events: list[dict[str, Any]]) -> OSError | None:
        """Take events into the spool; wait for room there, as long as the storage works.

        Returns:
            The error, the first time that lines are lost.
        """
        data = b"".join([safely(json_line, event) for event in events])
        with self._changed:
            while self._waiting() > self._spool_size and not self._problem and self._give_up is None:
                self._changed.wait()
            try:
                if self._waiting() > self._spool_size:
                    raise OSError(errno.ENOSPC, f"too much of the log is waiting for the storage: {self._problem}")
                self._append(data)
            except OSError as error:
                first = self.lost == 0
                self.lost += len(events)
                self._why = error.strerror or str(error)
                return error if first else None
        return None

    def finish(self, timeout: float) -> str:
        """Bring what is left to the storage, within `timeout` seconds; return what is wrong if that fails, or ""."""
        with self._changed:
            self._give_up = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout + 1.0)
        return self._problem or ("it does not answer" if self._thread.is_alive() else "") or self.loss

    @property
    def loss(self) -> str:
        """How many lines are lost so far and why, or ""."""
        return f"{self.lost} lines could not be written: {self._why}" if self.lost else ""

    # The spool. Under the lock.

    def _left_over(self) -> tuple[list[_Part], int]:
        """Return what an earlier start has left, and the number of the next part."""
        try:
            names = [name for name in os.listdir(self._spool) if name.isdecimal()]
        except OSError:
            return [], 0
        parts = []
        for number in sorted(map(int, names)):
            path = f"{self._spool}/{number}"
            # what is in the storage as a whole was cut to nothing
            if os.path.getsize(path):
                _end_line(path)
                parts.append(_Part(number, path, os.path.getsize(path), full=True))
        return parts, max(map(int, names), default=-1) + 1

    def _waiting(self) -> int:
        return sum(part.size for part in self._parts)

    def _append(self, data: bytes) -> None:
        if self._fd is None:
            path = f"{self._spool}/{self._next}"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._parts.append(_Part(self._next, path))
            self._next += 1
        part = self._parts[-1]
        done = 0
        while done < len(data):
            # a write that failed half-way is written over by the next
            done += os.pwrite(self._fd, data[done:], part.size + done)
        part.size += len(data)
        if part.size >= self._object_size:
            part.full = True
            os.close(self._fd)
            self._fd = None
        if part.full or self._resting:
            self._changed.notify_all()

    # The thread.

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                if not self._changed.wait_for(self._urgent, pause):
                    self._resting = True
                    self._changed.wait_for(self._news)
                    self._resting = False
                    self._changed.wait_for(self._urgent, self._settled)
                give_up = self._give_up
            problem = ""
            try:
                self._bring()
            except Exception as error:
                # whatever it is, this thread goes on trying, and says so
                problem = str(error) if isinstance(error, StorageError) else f"{type(error).__name__}: {error}"
                # what it is opened with may have been renewed by then
                self._opened = None
            self._note(problem)
            if give_up is not None:
                if not problem or time.monotonic() >= give_up:
                    return
                time.sleep(0.5)
            pause = min(pause * 2, _LONGEST_PAUSE) if problem else self._every

    def _urgent(self) -> bool:
        return self._give_up is not None or (not self._problem and any(part.full for part in self._parts))

    def _news(self) -> bool:
        return self._give_up is not None or any(part.due for part in self._parts)

    def _bring(self) -> None:
        """Bring what is new to the storage."""
        while True:
            with self._changed:
                part = next((part for part in self._parts if part.due), None)
                if part is None:
                    return
                size = part.size
            if self._opened is None:
                self._opened = self._opens()
            storage, path = self._opened
            storage.put(object_name(path, self._first(storage, path) + part.number), _read(part.path, size))
            with self._changed:
                part.stored = size
                if part.full and not part.due:
                    os.truncate(part.path, 0)
                    self._parts.remove(part)
                    self._changed.notify_all()

    def _first(self, storage: Storage, path: str) -> int:
        """Return the number of our first object: others may have written there before us."""
        note = f"{self._spool}/first"
        try:
            return int(_read(note))
        except (OSError, ValueError):
            first = after(path, storage.names())
            _write(note, str(first).encode())
            return first

    def _note(self, problem: str) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()
            closing = self._give_up is not None
        if closing:
            # wake those who wait for us
            return
        if problem and not self._told:
            self._report("error", "the log cannot be stored; retrying", storage=self.name, error=problem)
        elif self._told and not problem:
            self._report("info", "the log is stored again", storage=self.name)
        self._told = bool(problem)


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, for our group to write to.

    Raises:
        OSError: one cannot be made.
    """
    if os.path.isdir(folder):
        return
    _make_folder(os.path.dirname(folder))
    try:
        os.mkdir(folder, 0o775)
    except FileExistsError:
        return
    _share(folder)


def _share(path: str) -> None:
    """Give what we have made to our group. On a volume with a group of its own it has that: only pods have it too."""
    with suppress(OSError):
        os.chown(path, -1, os.getegid())


def _is_torn(fd: int) -> bool:
    """Tell whether a file ends with half a line: whoever wrote it was killed."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _end_line(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        if _is_torn(fd):
            os.write(fd, b"\n")
    finally:
        os.close(fd)


def _read(path: str, size: int = -1) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
