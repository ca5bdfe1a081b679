"""The operator's own state: one word for the probes, the metrics, the log and Events. No I/O.

A change is logged once, and a state whose reason changes at most once a minute.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from enum import StrEnum

log = logging.getLogger("polypod.operator")
_REPEAT = 60.0
"""Seconds between two log lines about the same state."""


class State(StrEnum):
    """What an operator is doing.

    `starting`: it does not know yet who leads, or leads and has not read everything. `standby`: another operator leads.
    `leading`: it processes TaskRuns. `paused`: it led, and cannot renew its lease. `losing`: it ends.
    """

    STARTING = "starting"
    STANDBY = "standby"
    LEADING = "leading"
    PAUSED = "paused"
    LOSING = "losing"


_WARNINGS = (State.PAUSED, State.LOSING)


class OwnState:
    """The state, and why it is so.

    Attributes:
        why: a sentence for people, empty if there is nothing to add.
        refused: True in a pause in which the API server answers and refuses.
        changed: called after each change of the state.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin as `starting`; `clock` returns seconds that never go back."""
        self._clock = clock
        self._state, self.why, self.refused = State.STARTING, "", False
        self._before_pause = State.STARTING
        self._since, self._logged = clock(), -math.inf
        self.changed: Callable[[State, str], None] = lambda state, why: None

    @property
    def now(self) -> State:
        return self._state

    @property
    def lasted(self) -> float:
        """Seconds since the state has changed last."""
        return self._clock() - self._since

    def become(self, state: State, why: str = "") -> None:
        """Change; the same state with another reason is no change."""
        if self._state is State.PAUSED and state in (State.STARTING, State.STANDBY, State.LEADING):
            # what goes on during a pause shows when that is over
            self._before_pause = state
            return
        self._set(state, why)

    def pause(self, why: str, refused: bool) -> None:
        """Note that the lease cannot be renewed."""
        if self._state is not State.PAUSED:
            self._before_pause = self._state
        self.refused = refused
        self._set(State.PAUSED, why)

    def resume(self) -> None:
        """Go on as before the pause."""
        self._set(self._before_pause, "the lease is renewed and no other operator has led in between")

    def _set(self, state: State, why: str) -> None:
        now, changed = self._clock(), state is not self._state
        self._state, news = state, why != self.why
        self.why = why
        if not changed and not (news and now - self._logged >= _REPEAT):
            return
        self._logged = now
        level = logging.WARNING if state in _WARNINGS or (why and state is State.STARTING) else logging.INFO
        log.log(level, "the operator is %s%s", state, f": {why}" if why else "", extra={"operator_state": state})
        if changed:
            self._since = now
            self.changed(state, why)
