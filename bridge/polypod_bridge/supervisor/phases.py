"""The phases of an attempt, and the timers that count in each. Pure."""

from __future__ import annotations

from enum import Enum, auto


class Phase(Enum):
    """Where an attempt is. It only goes forward, from top to bottom."""

    BOOTING = auto()
    """The runtime was started; it has not connected, or the Execution API has not allowed it to run yet."""
    RUNNING = auto()
    """It has its StartupDetails."""
    REPORTED = auto()
    """It has said how the task ended, and is to exit."""
    STOPPING = auto()
    """It got SIGTERM, and SIGKILL when its grace is over."""
    DRAINING = auto()
    """The process is gone; its channels are read to their ends, and calls under way are waited for."""
    FINALIZING = auto()
    """The bridge reports the final state to the Execution API."""
    DONE = auto()

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self in _ALIVE


_ALIVE = frozenset({Phase.BOOTING, Phase.RUNNING, Phase.REPORTED, Phase.STOPPING})


class Timer(Enum):
    """What waits for the clock. Of several that are due, the one further up is handled first."""

    STARTUP = auto()
    """The runtime must have connected."""
    EXECUTION = auto()
    """The task's time is over."""
    TASK_TIMEOUT = auto()
    """The time that the task has set itself is over, and so is the grace to end itself."""
    MUTE = auto()
    """A runtime that closed the comm socket without saying how the task ended must have exited."""
    SILENCE = auto()
    """A heartbeat must have been answered."""
    SECOND_SIGNAL = auto()
    """A runtime that exits when it is terminated twice gets its second SIGTERM."""
    KILL = auto()
    """The grace is over: SIGKILL."""
    GIVE_UP = auto()
    """A process that got SIGKILL counts as gone."""
    OVERTIME = auto()
    """A runtime that said how the task ended must have exited."""
    HEARTBEAT = auto()
    """The next heartbeat is due."""
    DRAIN = auto()
    """The channels of a process that is gone are closed."""
    QUIET = auto()
    """Likewise, as nothing was read from them for a while."""


_TASK = frozenset({Timer.EXECUTION, Timer.TASK_TIMEOUT, Timer.MUTE, Timer.HEARTBEAT})
COUNT: dict[Phase, frozenset[Timer]] = {
    Phase.BOOTING: _TASK | {Timer.STARTUP, Timer.SILENCE},
    Phase.RUNNING: _TASK | {Timer.SILENCE},
    Phase.REPORTED: frozenset({Timer.EXECUTION, Timer.OVERTIME}),
    # what else comes meanwhile can only shorten the grace
    Phase.STOPPING: _TASK | {Timer.SECOND_SIGNAL, Timer.KILL, Timer.GIVE_UP, Timer.OVERTIME},
    Phase.DRAINING: frozenset({Timer.DRAIN, Timer.QUIET}),
    Phase.FINALIZING: frozenset(),
    Phase.DONE: frozenset(),
}
"""The timers that count in each phase; others wait for a phase that is to come, or have no meaning any more."""


class Timers:
    """Times at which something is due, on the clock of the events."""

    def __init__(self) -> None:
        self._due: dict[Timer, float] = {}

    def start(self, timer: Timer, due: float) -> None:
        """Set a timer, or set it to another time."""
        self._due[timer] = due

    def stop(self, *timers: Timer) -> None:
        for timer in timers:
            self._due.pop(timer, None)

    def clear(self) -> None:
        self._due.clear()

    def at(self, timer: Timer) -> float | None:
        """Return when a timer is due, None if it is not set."""
        return self._due.get(timer)

    def is_due(self, timer: Timer, now: float) -> bool:
        due = self._due.get(timer)
        return due is not None and now >= due

    def take(self, timer: Timer, now: float, phase: Phase) -> bool:
        """Tell whether a timer is due in a phase; then it is not set any more."""
        if timer not in COUNT[phase] or not self.is_due(timer, now):
            return False
        del self._due[timer]
        return True

    def next(self, phase: Phase) -> float | None:
        """Return the earliest time that counts in a phase, None if there is none."""
        return min((due for timer, due in self._due.items() if timer in COUNT[phase]), default=None)
