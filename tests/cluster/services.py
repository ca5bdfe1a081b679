"""The processes of a cluster: started in sessions of their own, remembered by pid and start time, ended by those."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from support.owner import start_time
from support.waiting import NotInTime, Patience


class NotReady(Exception):
    """Something did not come up in time; the message has the end of its log."""


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
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        patience = Patience(timeout)
        while self.pid(name) is not None:
            _collect(pid)
            try:
                patience.check(f"the end of {name}")
            except NotInTime:
                os.kill(pid, signal.SIGKILL)
                patience = Patience(timeout)
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
        patience = Patience(timeout)
        while not ready():
            if self.pid(name) is None:
                raise NotReady(f"{name} has ended:\n{self.log_of(name)}")
            try:
                patience.check(f"that {name} is ready")
            except NotInTime as error:
                raise NotReady(f"{error}\n{self.log_of(name)}") from None
            time.sleep(0.05)

    def evidence(self) -> dict[str, str]:
        """Return which services have ended, with their last lines."""
        names = [path.stem for path in self._run.glob("*.pid")]
        ended = {f"{name} has ended": self.log_of(name) for name in names if self.pid(name) is None}
        return {"services": ", ".join(sorted(set(names) - {name.split()[0] for name in ended})), **ended}

    def log_of(self, name: str) -> str:
        """Return the last lines that a service has written."""
        return (self._log / f"{name}.log").read_text(errors="replace")[-3000:]


def _collect(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # started by another process
        pass
