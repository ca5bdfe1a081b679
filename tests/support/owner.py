"""What a run has started is known as its own, also when the run has been killed: the next one clears it away.

Each process of a run, however deep below it, has the run in its environment: the pid of the process that began it, and
when that started. The run's temporary folder has it in its name; programs that overwrite their environment with a title, as
Airflow's do, are known by writing their output into that folder. What belongs to a run that is still there is never touched:
several runs, from one checkout or from several, go on beside each other.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
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


def lives(owner: str) -> bool:
    """Tell whether the run `PID-STARTTIME` is still there."""
    pid, _, started = owner.partition("-")
    return pid.isdigit() and start_time(int(pid)) == started


def begin() -> Path | None:
    """Begin a run, unless this process is part of one; return its temporary folder, which `end` removes."""
    if RUN in os.environ:
        return None
    os.environ[RUN] = owner = f"{os.getpid()}-{start_time(os.getpid())}"
    folder = Path(tempfile.gettempdir()) / f"{_FOLDERS}{owner}"
    folder.mkdir(mode=0o755)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def end(folder: Path | None) -> None:
    """Remove a run's temporary folder."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> list[str]:
    """End the processes and remove the folders of runs that are gone; return what that was."""
    swept = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            owner = _owner(path.read_bytes()) or _writes_for(path.parent)
            name = (path.parent / "comm").read_text().strip()
        except OSError:
            continue
        if owner and not lives(owner):
            try:
                os.kill(int(path.parent.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
            swept.append(f"process {path.parent.name} ({name})")
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*"):
        if not lives(folder.name.removeprefix(_FOLDERS)):
            shutil.rmtree(folder, ignore_errors=True)
            swept.append(str(folder))
    return swept


def _writes_for(process: Path) -> str:
    """Return the run in whose folder a process works, or writes its output."""
    folders = f"{tempfile.gettempdir()}/{_FOLDERS}"
    for name in ("cwd", "fd/1", "fd/2"):
        target = str((process / name).readlink())
        if target.startswith(folders):
            return target.removeprefix(folders).partition("/")[0]
    return ""


def _owner(environ: bytes) -> str:
    for item in environ.split(b"\0"):
        name, _, value = item.partition(b"=")
        if name.decode(errors="replace") == RUN:
            return value.decode(errors="replace")
    return ""
