"""How many pods of a namespace are created at once: an admission webhook that hangs there keeps nobody else waiting.

Pure.
"""

from __future__ import annotations

from collections import Counter

LATE = 3.0
"""Seconds after which a pod that the API server has not created counts as late, and no worker waits for it."""
FEW = 4
"""Pods that a namespace may create at once while they are late there."""


class CreateLimit:
    """The pods that are being created, by namespace."""

    def __init__(self) -> None:
        """Begin, with none."""
        self._under_way: Counter[str] = Counter()
        self._late: set[str] = set()

    def may_begin(self, namespace: str) -> bool:
        """Tell whether another pod may be created now."""
        return namespace not in self._late or self._under_way[namespace] < FEW

    def begin(self, namespace: str) -> None:
        """Note that the API server is asked for a pod."""
        self._under_way[namespace] += 1

    def late(self, namespace: str) -> None:
        """Note that one is late."""
        self._late.add(namespace)

    def end(self, namespace: str, took: float) -> None:
        """Note that the API server has answered, in time or not."""
        self._under_way[namespace] -= 1
        if took < LATE:
            self._late.discard(namespace)
        if not self._under_way[namespace]:
            del self._under_way[namespace]
