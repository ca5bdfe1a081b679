"""What Ctrl-C and SIGTERM do: the command ends at once with 130 or 143, whatever it is doing.

That is safe as long as nothing is there that must be removed. Where something is, `unwinding` lets a signal raise an
exception instead; a second signal ends the command at once all the same. `polypod run` has its own handlers.
This imports next to nothing: a signal that comes before it ends in a traceback of the interpreter's.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import FrameType, TracebackType
else:
    # what `signal` has of the interpreter: the rest takes 10 ms to import
    import _signal as signal

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came while something had to be removed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = exit_code(number)


def exit_code(number: int) -> int:
    """Return the exit code of a program that a signal has ended, as shells have it."""
    return 128 + number


def install() -> None:
    """Let each signal end the command at once."""
    for number in NUMBERS:
        signal.signal(number, _exit)
    sys.unraisablehook = _unraisable


def _exit(number: int, frame: "FrameType | None") -> None:
    # no exception: it could come in the middle of an import, and be printed or swallowed there
    os._exit(exit_code(number))


def _raise(number: int, frame: "FrameType | None") -> None:
    for other in NUMBERS:
        signal.signal(other, _exit)
    raise Interrupted(number)


class unwinding:
    """Within this, the first signal raises `Interrupted`: what is there is removed on the way out."""

    def __enter__(self) -> None:
        self._previous = {number: signal.signal(number, _raise) for number in NUMBERS}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def _unraisable(problem: object) -> None:
    """Python could not raise an exception where it came, such as in a destructor: it must not get lost."""
    error: object = getattr(problem, "exc_value", None)
    if isinstance(error, Interrupted):
        os._exit(error.exit_code)
    trace: TracebackType | None = getattr(problem, "exc_traceback", None)
    if isinstance(error, BaseException) and not isinstance(error, BrokenPipeError):
        sys.excepthook(type(error), error, trace)
