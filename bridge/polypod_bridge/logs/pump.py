"""The thread that reads the runtime's logs socket, stdout and stderr, and feeds the task's log."""

from __future__ import annotations

import os
import queue
import re
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any

from polypod_bridge.logs.masking import Masker
from polypod_bridge.logs.pipeline import PARSERS, LineSplitter, TaskLog, read_record

_READ_SIZE = 256 << 10
_LONGEST_ERROR = 500
_LOOKS_LIKE_AN_ERROR = re.compile(r"^(?=\S).*(error|exception|panic|fatal|not found|cannot|no such)", re.IGNORECASE)
"""A line of standard error that says what went wrong; in a stack trace, those that do are not indented."""


class LogPump:
    """Reads streams until their end and writes their lines to the log, in order of arrival."""

    def __init__(self, log: TaskLog, masker: Masker, on_end: Callable[[str], None]) -> None:
        """Start reading.

        Args:
            on_end: called, from the pump's thread, with the name of each stream that has ended.
        """
        self._log = log
        self._masker = masker
        self._on_end = on_end
        self._selector = selectors.DefaultSelector()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._added: list[tuple[str, int]] = []
        self._posted: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopping = False
        self.last_read = time.monotonic()
        self._last_error = self._last_output = ""
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()
        log.route(self.post)

    @property
    def last_error(self) -> str:
        """The first line of the last error that the runtime has logged: what failed, if it says no more. Masked."""
        # first masked and then cut, or half a secret would be left
        return self._masker.cut_text(self._last_error)[:_LONGEST_ERROR]

    @property
    def last_output(self) -> str:
        """The last line of standard error that looks like an error: what a runtime says that cannot log. Masked."""
        return self._masker.text(self._last_output)[:_LONGEST_ERROR]

    def post(self, event: dict[str, Any]) -> None:
        """Write an event of the supervisor, in its turn; never blocks."""
        self._posted.put(event)
        self._wake()

    def add(self, name: str, fd: int) -> None:
        """Read the stream `name` ("logs", "stdout" or "stderr") from `fd`, which the pump then owns."""
        self._added.append((name, fd))
        self._wake()

    def stop(self, timeout: float) -> bool:
        """Give up the streams that are still open; return whether the thread ended within `timeout` seconds."""
        self._stopping = True
        self._wake()
        self._thread.join(timeout)
        ended = not self._thread.is_alive()
        # a thread that is still there is held by a blocked destination: nothing may wait for that one any more
        self._log.route(None if ended else lambda event: None)
        return ended

    def _wake(self) -> None:
        try:
            os.write(self._wake_w, b"\0")
        except BlockingIOError:
            # full: it will wake anyway
            pass

    def _run(self) -> None:
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        streams: dict[int, tuple[str, LineSplitter]] = {}
        while not (self._stopping and self._drained(streams)):
            for key, _ in self._selector.select(0 if self._stopping else None):
                if key.fd == self._wake_r:
                    self._accept(streams)
                else:
                    self._read(key.fd, streams)
        for fd in list(streams):
            self._end(fd, streams)
        self._selector.close()

    def _accept(self, streams: dict[int, tuple[str, LineSplitter]]) -> None:
        try:
            os.read(self._wake_r, 4096)
        except BlockingIOError:
            pass
        events = []
        while not self._posted.empty():
            events.append(self._posted.get())
        if events:
            self._log.write(events)
        while self._added:
            name, fd = self._added.pop(0)
            streams[fd] = (name, LineSplitter(self._masker))
            self._selector.register(fd, selectors.EVENT_READ)

    def _drained(self, streams: dict[int, tuple[str, LineSplitter]]) -> bool:
        """When told to stop: one last look, so that what has already arrived is not lost."""
        self._accept(streams)
        ready = [key.fd for key, _ in self._selector.select(0) if key.fd != self._wake_r]
        return not ready

    def _read(self, fd: int, streams: dict[int, tuple[str, LineSplitter]]) -> None:
        name, splitter = streams[fd]
        try:
            data = os.read(fd, _READ_SIZE)
        except OSError:
            data = b""
        self.last_read = time.monotonic()
        if data:
            self._emit(name, splitter.feed(data))
        else:
            self._end(fd, streams)

    def _end(self, fd: int, streams: dict[int, tuple[str, LineSplitter]]) -> None:
        name, splitter = streams.pop(fd)
        self._emit(name, splitter.rest())
        self._selector.unregister(fd)
        # at once: a runtime such as Node waits for our side to be closed before it exits
        os.close(fd)
        self._on_end(name)

    def _emit(self, name: str, lines: list[bytes]) -> None:
        try:
            if name == "logs":
                events = self._wanted([read_record(line) for line in lines if line.strip()])
            else:
                events = [PARSERS[name](line) for line in lines]
                if name == "stderr":
                    self._note_output(events)
            if events:
                self._log.write(events)
        except Exception as error:
            # this thread must go on: a runtime whose pipes nobody reads stops
            problem = f"{type(error).__name__}: {error}"
            self._log.event("error", "lines of the log could not be written", lines=len(lines), error=problem)

    def _wanted(self, records: list[tuple[dict[str, Any], bool]]) -> list[dict[str, Any]]:
        """Return what goes to the log: what has no level that we know is never left out for it."""
        self._note_errors([record for record, _ in records])
        return [record for record, has_level in records if not has_level or self._log.levels.wants(record)]

    def _note_errors(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["level"] in ("error", "critical"):
                # what a field's name makes a secret is none any more in the text of the whole
                text = str(self._masker.redact(event.get("error")) or event["event"]).strip()
                self._last_error = text.splitlines()[0] if text else self._last_error

    def _note_output(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if _LOOKS_LIKE_AN_ERROR.match(str(event["event"])):
                self._last_output = str(event["event"]).strip()
