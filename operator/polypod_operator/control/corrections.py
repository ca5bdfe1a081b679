"""How soon a status is written again that somebody else has changed: at once, and ever later if that goes on.

It may be another controller, or another operator, that writes it back each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

_PAUSE, _PAUSE_MAX = 1.0, 60.0
_FORGIVEN_AFTER = 600.0
_KEPT = 1000
"""TaskRuns that are remembered."""


class Corrections:
    """When which TaskRun's status was corrected."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin; `clock` returns seconds that never go back."""
        self._clock = clock
        self._made: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def pause(self, uid: str) -> float:
        """Return for how many seconds a correction has to wait; 0: it is made now, and counts."""
        now = self._clock()
        count, due = self._made.get(uid, (0, now))
        if now < due:
            return due - now
        count = 0 if now > due + _FORGIVEN_AFTER else count
        self._made[uid] = (count + 1, now + min(_PAUSE * 2.0 ** min(count, 10), _PAUSE_MAX))
        self._made.move_to_end(uid)
        if len(self._made) > _KEPT:
            self._made.popitem(last=False)
        return 0.0
