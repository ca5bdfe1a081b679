"""The processes of a cluster: started in sessions of their own, remembered by pid and start time, ended by those."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class NotReady(Exception):
    """Something did not come up in time; the message has the end of its log."""


def start_time(pid: int) -> str | None:
    """Return what tells a process apart from a later one of the same pid; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Services:
    """Named processes; what runs is written down in a folder, so that another process can end them."""

    def __init__(self, folder: Path) -> None:
        self._run = folder / "run"
        self._log = folder / "log"

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> int:
        """Start a process; its output goes to a file of its own. Return its pid."""
        self._run.mkdir(parents=True, exist_ok=True)
        self._log.mkdir(parents=True, exist_ok=True)
        with open(self._log / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        (self._run / f"{name}.pid").write_text(f"{process.pid} {start_time(process.pid)}")
        return process.pid

    def pid(self, name: str) -> int | None:
        """Return the pid of a service that runs, None if it does not."""
        try:
            pid, started = (self._run / f"{name}.pid").read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_time(int(pid)) == started else None

    def stop(self, name: str, number: int = signal.SIGTERM, timeout: float = 30.0) -> None:
        """End a service and wait for it; SIGKILL after `timeout` seconds."""
        pid = self.pid(name)
        if pid is None:
            return
        os.kill(pid, number)
        give_up = time.monotonic() + timeout
        while self.pid(name) is not None:
            _collect(pid)
            if time.monotonic() > give_up:
                os.kill(pid, signal.SIGKILL)
                give_up = time.monotonic() + timeout
            time.sleep(0.02)

    def names(self) -> list[str]:
        """Return the names of the services that run."""
        names = (path.stem for path in self._run.glob("*.pid"))
        return [name for name in names if self.pid(name) is not None]

    def wait(self, name: str, ready: Callable[[], bool], timeout: float = 120.0) -> None:
        """Wait until a service is ready.

        Raises:
            NotReady: it ended, or was not ready within `timeout` seconds.
        """
        give_up = time.monotonic() + timeout
        while not ready():
            ended = self.pid(name) is None
            if ended or time.monotonic() > give_up:
                log = (self._log / f"{name}.log").read_text(errors="replace")[-3000:]
                raise NotReady(f"{name} {'has ended' if ended else f'is not ready after {timeout:.0f} s'}:\n{log}")
            time.sleep(0.05)


def _collect(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # started by another process
        pass
