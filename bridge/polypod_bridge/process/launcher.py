"""The runtime in another container: its launcher does there what a parent process would do here.

The launcher (see `launcher/README.md`) connects to a Unix socket of ours; packets of JSON, with open descriptors where
the answer is one. The runtime's stdout, stderr and end come by pipes, so that the supervisor sees no difference.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
from polypod_coordinators.artifacts.search import ArtifactRoot, missing_root
from polypod_core.errors import UserError
from polypod_core.reasons import Reason

from polypod_bridge.process.base import Address, Exit

_MAX_PACKET = 1 << 16
_ROOT = "an existing folder in the image"
_MAX_ROOTS = 250
"""Descriptors that one packet can carry: 253 (SCM_MAX_FD), less the file system's root."""


class LauncherLost(Exception):
    """The launcher does not answer any more: the language container is gone."""


class _Reply(msgspec.Struct):
    pid: int = 0
    owns: bool = False
    errors: list[str] = []
    error: str = ""
    missing: bool = False


class _Ending(msgspec.Struct):
    code: int | None
    signal: int | None
    peak_memory: int | None = None
    cpu_seconds: float | None = None


class LauncherProcess:
    """A runtime that the launcher has started; see `base.Process` for the contract."""

    def __init__(self, host: LauncherHost, pid: int, stdout: int, stderr: int, ended: int) -> None:
        self._host = host
        self._exit: Exit | None = None
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        os.set_blocking(ended, False)
        self.exit_fd: int | None = ended
        self._report = b""

    def poll(self) -> Exit | None:
        while self._exit is None and self.exit_fd is not None:
            try:
                data = os.read(self.exit_fd, 4096)
            except BlockingIOError:
                return None
            self._report += data
            if not data:
                self._exit = _decode_exit(self._report)
        return self._exit

    def signal(self, number: int, *, alone: bool = False) -> None:
        if self._exit is None:
            self._host.tell(op="signal", number=number, alone=alone)

    def end_tree(self) -> None:
        self._host.tell(op="end")

    def owns(self, peer: Address, local: Address) -> bool:
        try:
            reply, _ = self._host.ask(op="owns", peer=f"{peer[0]}:{peer[1]}", local=f"{local[0]}:{local[1]}")
        except LauncherLost:
            return False
        return reply.owns

    def close(self) -> None:
        if self.exit_fd is not None:
            # what is not read now is lost
            self.poll()
            os.close(self.exit_fd)
            self.exit_fd = None


def _decode_exit(report: bytes) -> Exit:
    try:
        ending = msgspec.json.decode(report, type=_Ending)
    except msgspec.MsgspecError:
        # the pipe ended without a report: the launcher itself was killed, and the runtime with it
        return Exit(None)
    return Exit(ending.code, ending.signal, ending.peak_memory, ending.cpu_seconds)


class LauncherHost:
    """The language container; see `base.Host` for the contract."""

    def __init__(self, path: str) -> None:
        """Listen at `path`; the launcher connects when its container has started."""
        try:
            # of a bridge before us, in the same pod
            os.unlink(path)
        except FileNotFoundError:
            pass
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        # the language container may run as another user; templates cannot mount its volume elsewhere
        before = os.umask(0)
        try:
            self._listener.bind(path)
        finally:
            os.umask(before)
        self._listener.listen(1)
        self._connection: socket.socket | None = None

    def wait(self, wake: int) -> bool:
        """Wait for the launcher, however long its image takes to arrive; False if `wake` turned readable first."""
        ready, _, _ = select.select([self._listener.fileno(), wake], [], [])
        if self._listener.fileno() not in ready:
            return False
        self._connection, _ = self._listener.accept()
        # one launcher, which is there before any code of the task
        self._listener.close()
        os.unlink(self._path)
        _, fds = self._receive()
        threading.Thread(target=_pass_signals_on, args=(fds[0],), name="told", daemon=True).start()
        return True

    @contextmanager
    def open_roots(self, keyword: str, paths: Sequence[str]) -> Iterator[list[ArtifactRoot]]:
        for path in paths:
            if not path.startswith("/"):
                raise missing_root(keyword, path, "is not an absolute path", _ROOT)
        if len(paths) > _MAX_ROOTS:
            raise missing_root(keyword, paths[_MAX_ROOTS], f"is one too many: there may be {_MAX_ROOTS}", _ROOT)
        reply, fds = self.ask(op="open", paths=list(paths))
        with ExitStack() as opened:
            for fd in fds:
                opened.callback(os.close, fd)
            if reply.error:
                raise UserError(Reason.INVALID_ROOT, f"the image's root folder cannot be opened: {reply.error}")
            for path, why in zip(paths, reply.errors, strict=True):
                if why:
                    raise missing_root(keyword, path, why, _ROOT)
            fs_root, *roots = fds
            yield [ArtifactRoot(path, fd, fs_root) for path, fd in zip(paths, roots, strict=True)]

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], *, native: bool = False) -> LauncherProcess:
        try:
            reply, fds = self.ask(op="spawn", argv=list(argv), env=dict(env), native=native)
        except OSError as error:
            raise UserError(Reason.RUNTIME_NOT_FOUND, f"the command line is too long: {error.strerror}") from None
        if reply.error:
            what = (
                f"{argv[0]!r} is not in the image; install it there, or set its full path in the coordinator's kwargs"
                if reply.missing
                else f"{argv[0]!r} cannot be executed: {reply.error}"
            )
            raise UserError(Reason.RUNTIME_NOT_FOUND, f"the runtime cannot be started: {what}")
        return LauncherProcess(self, reply.pid, *fds)

    def ask(self, **request: Any) -> tuple[_Reply, list[int]]:
        """Send a request and return its answer.

        Raises:
            LauncherLost: there is no launcher any more.
        """
        self._send(request)
        return self._receive()

    def tell(self, **request: Any) -> None:
        """Send what has no answer; a launcher that is gone has nothing left to be told."""
        try:
            self._send(request)
        except LauncherLost:
            pass

    def close(self) -> None:
        """Let the launcher go: it ends what is left and exits as the runtime did."""
        if self._connection is not None:
            self.tell(op="done")
            self._connection.close()
        elif self._listener.fileno() >= 0:
            # one that comes now is to find nobody, and no socket that nobody accepts from
            self._listener.close()
            os.unlink(self._path)

    def _send(self, request: dict[str, Any]) -> None:
        if self._connection is None:
            raise LauncherLost("the launcher has not connected")
        try:
            self._connection.send(msgspec.json.encode(request))
        except ConnectionError as error:
            raise LauncherLost(str(error)) from None

    def _receive(self) -> tuple[_Reply, list[int]]:
        assert self._connection is not None
        try:
            data, fds, _, _ = socket.recv_fds(self._connection, _MAX_PACKET, _MAX_ROOTS + 1)
        except ConnectionError as error:
            raise LauncherLost(str(error)) from None
        if not data:
            raise LauncherLost("the launcher has closed its connection")
        for fd in fds:
            os.set_inheritable(fd, False)
        return msgspec.json.decode(data, type=_Reply), fds


def _pass_signals_on(told: int) -> None:
    """When a pod is deleted its language container hears of it first: what it is told counts as told to us."""
    with open(told, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            os.kill(os.getpid(), signal.Signals(number[0]))
