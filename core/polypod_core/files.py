"""Reading a file that a user names: at once or not at all.

A FIFO without a writer, a terminal or a device would keep the command waiting, or never end. What another program
writes into the command comes through a pipe that is open already: `-`, `/dev/stdin`, and the shell's `<(…)`.
"""

from __future__ import annotations

import os
import stat
import sys

from polypod_core.errors import UserError
from polypod_core.reasons import Reason

STANDARD_INPUT = "-"
_OPEN_ALREADY = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str, reason: Reason = Reason.INVALID_CONFIG) -> int:
    """Open a regular file, to be read; return its descriptor.

    Args:
        reason: of the error.

    Raises:
        UserError: it cannot be opened, or is something else.
    """
    try:
        # without O_NONBLOCK, a FIFO waits for a writer right here
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise UserError(reason, f"{path} cannot be read: {_why(path, error)}") from None
    kind = _kind(os.fstat(fd))
    if kind:
        os.close(fd)
        raise UserError(reason, f"{path} cannot be read: it is {kind}, not a file")
    return fd


def read_file(path: str, reason: Reason = Reason.INVALID_CONFIG) -> bytes:
    """Return what a regular file holds, or what comes through an open pipe.

    Raises:
        UserError: as `open_file`.
    """
    try:
        if path == STANDARD_INPUT:
            return sys.stdin.buffer.read() if sys.stdin is not None else b""
        if path.startswith(_OPEN_ALREADY) and stat.S_ISFIFO(os.stat(path).st_mode):
            with open(path, "rb") as pipe:
                return pipe.read()
        with os.fdopen(open_file(path, reason), "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise UserError(reason, f"{path} cannot be read: {_why(path, error)}") from None


def check_file(path: str, reason: Reason = Reason.INVALID_CONFIG) -> None:
    """Check that what is to be written, or read by somebody else, is a regular file if it is there.

    Raises:
        UserError: it is something else.
    """
    try:
        kind = _kind(os.stat(path))
    except OSError:
        return
    if kind:
        raise UserError(reason, f"{path} is {kind}, not a file")


def _kind(status: os.stat_result) -> str:
    return "" if stat.S_ISREG(status.st_mode) else _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _why(path: str, error: Exception) -> str:
    try:
        # a socket, which nobody can open, and a device that is not there have the same errno
        kind = _kind(os.stat(path))
    except (OSError, ValueError):
        kind = ""
    if kind:
        return f"it is {kind}, not a file"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
