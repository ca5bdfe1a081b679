"""The log lines of several tasks on one standard error: each says whose it is."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

_COLORS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class LogLines:
    """Writes the lines of one TaskRun: the whole line at once, so that no other task's is within it."""

    prefix: bytes
    as_json: bool

    @classmethod
    def of(cls, name: str, index: int, width: int, *, as_json: bool, colors: bool) -> LogLines:
        """Return those of the TaskRun `name`, the `index`-th; `width`: of the longest name."""
        if as_json:
            return cls(f'{{"taskrun":{json.dumps(name)},'.encode(), True)
        text = f"{name:<{width}} |"
        return cls((f"\x1b[{_COLORS[index % len(_COLORS)]}m{text}\x1b[0m " if colors else f"{text} ").encode(), False)

    def write(self, line: bytes) -> None:
        """Write a line with its prefix; of a JSON object, the name becomes its first field."""
        if not self.as_json:
            line = self.prefix + line
        elif line.startswith(b'{"'):
            line = self.prefix + line[1:]
        with _LOCK, suppress(OSError):
            # whoever read it may be gone, or the disk full: the task goes on
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
