"""Large TaskRuns are read one at a time, and namespaces take turns: somebody may make very many of them. Pure."""

from __future__ import annotations

from collections import OrderedDict

from polypod_core.kinds import Key

LARGE = 64 << 10
"""Bytes of JSON from which a TaskRun is large: parsed, it takes up to twenty times that."""


class LargeTurns:
    """Whose turn it is. A TaskRun that has to wait holds no worker."""

    def __init__(self) -> None:
        """Begin, with nobody there."""
        self._now: Key | None = None
        self._waiting: OrderedDict[str, OrderedDict[Key, None]] = OrderedDict()

    def enter(self, key: Key) -> bool:
        """Tell whether it is the TaskRun's turn; if not, it waits until `leave` returns it."""
        if self._now in (None, key):
            self._now = key
            return True
        self._waiting.setdefault(key[0], OrderedDict())[key] = None
        return False

    def leave(self, key: Key) -> Key | None:
        """End the TaskRun's turn or its wait; return the one whose turn it is now, if that has changed."""
        namespace = key[0]
        mine = self._waiting.get(namespace)
        if mine is not None:
            mine.pop(key, None)
            if not mine:
                del self._waiting[namespace]
        if self._now != key:
            return None
        self._now = self._next()
        return self._now

    def _next(self) -> Key | None:
        if not self._waiting:
            return None
        namespace, waiting = next(iter(self._waiting.items()))
        following, _ = waiting.popitem(last=False)
        if waiting:
            self._waiting.move_to_end(namespace)
        else:
            del self._waiting[namespace]
        return following
