"""What a run has started is known as its own, also when the run has been killed: the next one clears it away.

Each process of a run, however deep below it, has the run in its environment: the pid of the process that began it, when
that started, and on which machine or in which container. The run's temporary folder has it in its name; programs that overwrite their environment with a title, as
Airflow's do, are known by writing their output into that folder. What belongs to a run that is still there is never touched:
several runs, from one checkout or from several, go on beside each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Collection
from pathlib import Path

RUN = "POLYPOD_TEST_RUN"
_FOLDERS = "polypod-t."
"""Short, as sockets below it may have 107 characters."""


def start_time(pid: int) -> str | None:
    """Return what tells a process apart from a later one of the same pid; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def owner_of(pid: int) -> str:
    """Return the name of the run that a process started: pid, start time, boot and PID namespace."""
    return f"{pid}-{start_time(pid)}-{_place()}"


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return f"{boot}{os.stat('/proc/self/ns/pid').st_ino}"


def lives(owner: str) -> bool:
    """Tell whether a run is still there, as far as can be known here: one of another container is never given up."""
    pid, _, rest = owner.partition("-")
    started, _, place = rest.partition("-")
    return place != _place() or start_time(int(pid)) == started


def begin() -> Path | None:
    """Begin a run, unless this process is part of one; return its temporary folder, which `end` removes."""
    if within():
        return None
    os.environ[RUN] = owner = owner_of(os.getpid())
    folder = Path(tempfile.gettempdir()) / f"{_FOLDERS}{owner}"
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
