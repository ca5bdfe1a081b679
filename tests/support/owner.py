"""What a run has started is known as its own, also when the run has been killed: the next one clears it away.

Each process of a run, however deep below it, has the run in its environment: the pid of the process that began it, when
that started, and on which machine or in which container. The run's temporary folder has it in its name; programs that
overwrite their environment with a title, as Airflow's do, are known by writing their output into that folder. What belongs to a run that is still there is never touched:
several runs, from one checkout or from several, go on beside each other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

RUN = "POLYPOD_TEST_RUN"
_FOLDERS = "polypod-t."
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
LONGEST = 20
"""Characters of the longest name of a run."""
LONGEST_FOLDER = 42
"""Characters of the longest folder of a run: the path of a socket in a test's folder below it may have 107 (unix(7))."""


def start_time(pid: int) -> str | None:
    """Return what tells a process apart from a later one of the same pid; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def owner_of(pid: int) -> str:
    """Return the name of the run that a process started: pid, start time, and the place where both mean something."""
    return name_of(pid, start_time(pid) or "0", _place())


def name_of(pid: int, started: str, place: str) -> str:
    """Return the name of a run; it never has more than `LONGEST` characters, on whatever machine."""
    return f"{_short(pid)}-{_short(int(started))}-{place}"


def _short(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _place() -> str:
    """Return which boot of which machine this is, and which PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    space = os.stat("/proc/self/ns/pid").st_ino
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:6]


def folder_of(owner: str) -> Path:
    """Return the temporary folder of a run."""
    return Path(tempfile.gettempdir()) / f"{_FOLDERS}{owner}"


def lives(owner: str) -> bool:
    """Tell whether a run is still there, as far as can be known here: one of another container is never given up."""
    pid, _, rest = owner.partition("-")
    started, _, place = rest.partition("-")
    if place != _place():
        return True
    now = start_time(int(pid, len(_DIGITS)))
    return now is not None and _short(int(now)) == started


def begin() -> Path | None:
    """Begin a run, unless this process is part of one; return its temporary folder, which `end` removes.

    Raises:
        SystemExit: the folder would have too long a path.
    """
    if within():
        return None
    os.environ[RUN] = owner = owner_of(os.getpid())
    folder = folder_of(owner)
    if len(str(folder)) > LONGEST_FOLDER:
        sys.exit(
            f"{folder.parent} is too long for the tests: sockets below it may have 107 characters. Set TMPDIR=/tmp."
        )
    folder.mkdir(mode=0o755)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def within() -> bool:
    """Tell whether this process is part of a run that is there."""
    return RUN in os.environ and lives(os.environ[RUN])


def end(folder: Path | None) -> None:
    """Remove a run's temporary folder."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(among: Collection[str] | None = None) -> list[str]:
    """End the processes and remove the folders of runs that are gone; return what that was.

    Args:
        among: look at these runs only.
    """
    swept = []
    for path in Path("/proc").glob("[0-9]*"):
        owner = _owner(path)
        if _is_gone(owner, among):
            with contextlib.suppress(OSError):
                name = (path / "comm").read_text().strip()
                os.kill(int(path.name), signal.SIGKILL)
                swept.append(f"process {path.name} ({name})")
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        if _is_gone(folder.name.removeprefix(_FOLDERS), among):
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(str(folder))
    return swept


def _is_gone(owner: str, among: Collection[str] | None) -> bool:
    return bool(owner) and (among is None or owner in among) and not lives(owner)


def _owner(process: Path) -> str:
    """Return the run that a process says it belongs to, or into whose folder it writes its output; empty for none."""
    with contextlib.suppress(OSError):
        for item in (process / "environ").read_bytes().split(b"\0"):
            name, _, value = item.partition(b"=")
            if name == RUN.encode():
                return value.decode(errors="replace")
    folders = f"{tempfile.gettempdir()}/{_FOLDERS}"
    for output in ("fd/1", "fd/2"):
        with contextlib.suppress(OSError):
            target = str((process / output).readlink())
            if target.startswith(folders):
                return target.removeprefix(folders).partition("/")[0]
    return ""
