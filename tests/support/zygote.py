"""Runs a Python program many times and imports it once: each command is a process of its own, forked from one that has it.

`polypod run` takes a second or more of a processor for its imports, Airflow's worker command four; what either does after
that takes less. Only the standard library is imported here, as the program may be that of another environment.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


class Zygote:
    """A program that is imported; each `run` is a process of it."""

    def __init__(
        self, program: str, *also: str, python: str = sys.executable, env: Mapping[str, str] | None = None
    ) -> None:
        """Start importing.

        Args:
            program: `module:function` of the program, as for a console script.
            also: more modules, which it would import late.
            python: the interpreter of its environment.
            env: the environment in which they are imported.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [python, __file__, str(theirs.fileno()), program, *also], pass_fds=[theirs.fileno()], env=env,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._connection = ours

    def stop(self) -> None:
        self._connection.close()
        self._process.wait()

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; return what `subprocess.run` would.

        Raises:
            TimeoutError: it did not end in time. Do not use the zygote after that.
        """
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            request = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}).encode()
            socket.send_fds(self._connection, [request], [stdout.fileno(), stderr.fileno()])
            self._connection.settimeout(timeout)
            try:
                answer = self._connection.recv(64)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise
            assert answer, "the process that forks has ended"
            texts = []
            for file in (stdout, stderr):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            return subprocess.CompletedProcess(list(arguments), int(answer), *texts)


def serve(connection: socket.socket) -> None:
    """Fork for each request and return in each child; end when there are no more requests."""
    while True:
        request, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not request:
            sys.exit(0)
        child = os.fork()
        if child == 0:
            connection.close()
            become(json.loads(request), fds)
            return
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(child, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(request: dict[str, Any], fds: list[int]) -> None:
    """Take on what the process of a command has: arguments, environment, folder and outputs."""
    for number, fd in enumerate(fds, start=1):
        os.dup2(fd, number)
        os.close(fd)
    sys.argv = [sys.argv[2], *request["arguments"]]
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])


def main() -> None:
    # not this folder: its modules are no top-level ones
    sys.path.pop(0)
    module, _, name = sys.argv[2].partition(":")
    program: Callable[[], Any] = getattr(importlib.import_module(module), name)
    for also in sys.argv[3:]:
        importlib.import_module(also)
    # what is there stays in pages that the children share
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(program())


if __name__ == "__main__":
    main()
