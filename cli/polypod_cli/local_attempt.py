"""One attempt on this machine: the bridge as a child process, in place of a pod."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polypod_bridge
import polypod_coordinators
import polypod_core
import urllib3
import yaml
from polypod_bridge.config import BridgeConfig
from polypod_core.outcome import Outcome, decode
from polypod_operator.model.objects import BRIDGE, TASK, Container, PodObject

from polypod_cli.log_lines import LogLines

_BRIDGE = """import sys
arguments = sys.argv[1:]
at = arguments.index("--config")
sys.path += arguments[:at]
from polypod_bridge.main import main
sys.exit(main(arguments[at:]))"""


def bridge_command(config_file: Path) -> list[str]:
    """Return the command that starts a bridge.

    It is isolated (-I): the bridge holds passwords, and the current folder and PYTHON* variables are for the user's own
    programs. It gets the folders of the bridge's packages explicitly, as -I may hide them; they come last on its path,
    so that nothing in them shadows the standard library.
    """
    modules = (polypod_bridge, polypod_coordinators, polypod_core, msgspec, urllib3, yaml)
    folders = dict.fromkeys(str(Path(str(module.__file__)).parents[1]) for module in modules)
    return [sys.executable, "-I", "-c", _BRIDGE, *folders, "--config", str(config_file)]


@dataclass(slots=True)
class LocalAttempt:
    """A bridge that runs, and the pod that it stands for.

    Attributes:
        pod: what `reconcile` is shown.
        told: the outcome that the bridge has left, once it has ended.
    """

    pod: PodObject
    folder: Path
    lines: LogLines | None
    told: Outcome | None = None
    _process: subprocess.Popen[bytes] | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def make(
        cls, owner: str, name: str, number: int, coordinator: str, folder: Path, lines: LogLines | None
    ) -> LocalAttempt:
        """Prepare an attempt of the TaskRun with the uid `owner`.

        Args:
            folder: for the files of the attempt; not there yet.
            lines: where the log goes to; None for our own standard error as it is.
        """
        now = datetime.now(UTC)
        pod = PodObject(
            namespace="",
            name=name,
            uid=str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
            owner=owner,
            attempt=number,
            created=now,
            phase="Running",
            coordinator=coordinator,
            containers={TASK: Container(TASK, started=now), BRIDGE: Container(BRIDGE, started=now, init=True)},
        )
        return cls(pod, folder, lines)

    def start(self, config: BridgeConfig, ended: Callable[[], None]) -> None:
        """Start the bridge; `ended` is called, in another thread, when it has ended and all of its log was read."""
        self.folder.mkdir(mode=0o700)
        config_file = self.folder / "bridge.json"
        config_file.touch(mode=0o600)
        config_file.write_bytes(msgspec.json.encode(msgspec.structs.replace(config, outcome_file=str(self._outcome))))
        # a session of its own: Ctrl-C is for us, and we pass it on
        self._process = subprocess.Popen(
            bridge_command(config_file),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE if self.lines is not None else None,
            start_new_session=True,
        )
        thread = threading.Thread(target=self._follow, args=(ended,), name=f"attempt {self.pod.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def _outcome(self) -> Path:
        return self.folder / "outcome.json"

    def _follow(self, ended: Callable[[], None]) -> None:
        process = self._process
        assert process is not None
        try:
            if self.lines is not None and process.stderr is not None:
                for line in process.stderr:
                    self.lines.write(line)
                process.stderr.close()
        finally:
            # whatever happened to its lines, the run must hear of its end
            process.wait()
            ended()

    def stop(self, *, at_once: bool = False) -> None:
        """Have the bridge end its runtime cleanly, or end it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)
        if not at_once and not self.pod.deleting:
            self.pod = replace(self.pod, deleting=True)

    def finish(self) -> None:
        """Take over what the bridge has left; it has ended."""
        assert self._process is not None
        code = self._process.returncode
        try:
            self.told = decode(self._outcome.read_bytes())
        except (OSError, msgspec.MsgspecError):
            self.told = None
        now = datetime.now(UTC)
        exit_code = 128 - code if code < 0 else code
        task, bridge = self.pod.task, self.pod.bridge
        told = self.told
        containers = {BRIDGE: replace(bridge, exit_code=exit_code, finished=now)}
        if told is not None:
            task_code = told.exit_code if told.exit_code is not None else 128 + (told.signal or 0)
            containers[TASK] = replace(task, exit_code=task_code, finished=now)
        else:
            containers[TASK] = task
        self.pod = replace(self.pod, phase="Succeeded" if told and exit_code == 0 else "Failed", containers=containers)

    def join(self) -> None:
        """End it at once if it still runs, and wait for its thread."""
        self.stop(at_once=True)
        for thread in self._threads:
            thread.join()
