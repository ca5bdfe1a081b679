"""What the supervisor needs of a runtime process and of the place that it runs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from polypod_coordinators.artifacts.search import ArtifactRoot

Address = tuple[str, int]
"""An IPv4 address in dotted form, and a port."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended.

    Attributes:
        code: its exit code, None if a signal ended it or its status was lost.
        signal: the signal that ended it, else None.
        peak_memory: largest resident set, in bytes; None if not known.
        cpu_seconds: user and system time; None if not known.
    """

    code: int | None
    signal: int | None = None
    peak_memory: int | None = None
    cpu_seconds: float | None = None

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def lost(self) -> bool:
        """True if somebody else collected the status."""
        return self.code is None and self.signal is None


class Process(Protocol):
    """One started runtime."""

    @property
    def pid(self) -> int:
        """The runtime's process id, in the place that it runs in."""

    @property
    def stdout(self) -> int:
        """Descriptor to read its standard output from."""

    @property
    def stderr(self) -> int:
        """Descriptor to read its standard error from."""

    @property
    def exit_fd(self) -> int | None:
        """A descriptor that turns readable when the process has ended; None: poll."""

    def poll(self) -> Exit | None:
        """Return how it ended, None while it runs. Never blocks."""

    def signal(self, number: int, *, alone: bool = False) -> None:
        """Send a signal to it and, unless `alone`, to the processes it started; none left is no error."""

    def end_tree(self) -> None:
        """End every process of its tree that is left, at once."""

    def owns(self, peer: Address, local: Address) -> bool:
        """Tell whether the TCP connection from `peer` to our `local` belongs to a process of its tree."""

    def close(self) -> None:
        """Give back descriptors other than stdout and stderr."""


class Host(Protocol):
    """The place that a runtime runs in: this machine, or the language container."""

    def open_roots(self, keyword: str, paths: Sequence[str]) -> AbstractContextManager[list[ArtifactRoot]]:
        """Open artifact roots for the length of a `with` block.

        Raises:
            UserError: one is missing or not a folder; the message names it.
        """

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], *, native: bool = False) -> Process:
        """Start a process.

        Args:
            argv: the command, looked up on PATH.
            env: what to set on top of the place's own environment.
            native: the command is a native bundle, whose executable bit may be lost: it is set, or a copy is run.

        Raises:
            UserError: the command is missing or cannot be executed.
        """
