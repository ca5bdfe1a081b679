"""The runtime as a child of this process.

The child leads a session of its own, so that a signal reaches all it started; the kernel ends it should we be
killed (PR_SET_PDEATHSIG); what it leaves behind is handed to us (PR_SET_CHILD_SUBREAPER) and ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from polypod_coordinators.artifacts.search import ArtifactRoot, missing_root
from polypod_core.errors import UserError
from polypod_core.reasons import Reason

from polypod_bridge.process import ownership
from polypod_bridge.process.base import Address, Exit

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

PRIVATE_PREFIXES = ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "POLYPOD_")
"""Environment that the supervisor may hold and the runtime must not see."""

MARK = "POLYPOD_RUNTIME"
"""In the environment of a runtime and, by inheritance, of every process that it starts."""

_REAP_WAIT = 2.0


class LocalProcess:
    """A child process; see `base.Process` for the contract."""

    def __init__(
        self, popen: subprocess.Popen[bytes], stdout: int, stderr: int, mark: str, copy: str | None = None
    ) -> None:
        """Take over a child; `copy` is a program made for it alone, to be removed when it has ended."""
        self._popen = popen
        self._copy = copy
        self._mark = mark
        self._exit: Exit | None = None
        self.pid = popen.pid
        self.stdout = stdout
        self.stderr = stderr
        try:
            self.exit_fd: int | None = os.pidfd_open(popen.pid)
        except OSError:
            self.exit_fd = None

    def poll(self) -> Exit | None:
        if self._exit is not None:
            return self._exit
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            # somebody else collected it: it is gone, and how it ended will never be known
            self._exit = Exit(None)
            self._popen.returncode = -1
            return self._exit
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        self._popen.returncode = code
        self._exit = Exit(
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            peak_memory=usage.ru_maxrss * 1024,
            cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
        )
        return self._exit

    def signal(self, number: int, *, alone: bool = False) -> None:
        if self._exit is not None:
            return
        try:
            (os.kill if alone else os.killpg)(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass

    def end_tree(self) -> None:
        # looked for first: of a process that is dying no mark can be read. Not the runtime itself: its status is for
        # `poll` to collect
        orphans = [pid for pid in _orphans(self._mark) if pid != self.pid]
        if self._exit is None:
            self.signal(signal.SIGKILL)
        for pid in list(ownership.tree(self.pid)):
            # once the child is collected its pid may be somebody else's: only its session is left to look at
            if pid == self.pid and self._exit is not None:
                continue
            _kill(pid)
        for pid in orphans:
            _kill(pid)
        give_up = time.monotonic() + _REAP_WAIT
        while orphans and time.monotonic() < give_up:
            orphans = [pid for pid in orphans if not _reaped(pid)]
            if orphans:
                time.sleep(0.005)

    def owns(self, peer: Address, local: Address) -> bool:
        return ownership.owned_by_tree(peer, local, self.pid)

    def close(self) -> None:
        if self.exit_fd is not None:
            os.close(self.exit_fd)
            self.exit_fd = None
        _remove(self._copy)
        self._copy = None


def end_with_parent(parent: int, number: int) -> None:
    """Have the kernel send signal `number` to this process when the process `parent` ends, at once if it has."""
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def _orphans(mark: str) -> list[int]:
    """Return what the runtime's tree left to us, the subreaper: our children that carry the runtime's mark."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            children = [int(pid) for pid in file.read().split()]
    except OSError:
        return []
    return [pid for pid in children if _carries(pid, mark)]


def _carries(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={mark}".encode() in file.read().split(b"\0")
    except OSError:
        return False


class LocalHost:
    """This machine; see `base.Host` for the contract."""

    @contextmanager
    def open_roots(self, keyword: str, paths: Sequence[str]) -> Iterator[list[ArtifactRoot]]:
        with ExitStack() as opened:
            fs_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, fs_root)
            roots = []
            for path in paths:
                full = os.path.abspath(os.path.expanduser(path))
                fd = _open_root(keyword, path, full)
                opened.callback(os.close, fd)
                roots.append(ArtifactRoot(full, fd, fs_root))
            yield roots

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], *, native: bool = False) -> LocalProcess:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PRIVATE_PREFIXES)}
        stdout_r, stdout_w = os.pipe()
        stderr_r, stderr_w = os.pipe()
        parent = os.getpid()
        mark = f"{parent}-{time.monotonic_ns()}"
        copy: str | None = None
        try:
            program = argv[0]
            if native and not _made_executable(program):
                program = copy = _executable_copy(program)
            popen = subprocess.Popen(
                list(argv),
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=stdout_w,
                stderr=stderr_w,
                env=_readable(argv, {**inherited, **env}) | {MARK: mark},
                start_new_session=True,
                # safe: no other thread runs yet when a runtime is started
                preexec_fn=partial(end_with_parent, parent, signal.SIGKILL),
            )
        except OSError as error:
            os.close(stdout_r)
            os.close(stderr_r)
            _remove(copy)
            raise _cannot_start(argv[0], error) from None
        finally:
            os.close(stdout_w)
            os.close(stderr_w)
        return LocalProcess(popen, stdout_r, stderr_r, mark, copy)


def _readable(argv: Sequence[str], env: dict[str, str]) -> dict[str, str]:
    """Return `env` with a locale in which the command can be read: a JVM finds no `größe/app.jar` in the locale C."""
    effective = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or "C"
    if all(part.isascii() for part in argv) or "utf8" in effective.lower().replace("-", ""):
        return env
    return {**env, "LC_ALL": "C.UTF-8"}


def _made_executable(path: str) -> bool:
    """Set a program's executable bit for whoever may read it, if it is lost; return whether it has one now."""
    if os.access(path, os.X_OK):
        return True
    mode = stat.S_IMODE(os.stat(path).st_mode)
    try:
        os.chmod(path, mode | ((mode & 0o444) >> 2))
    except OSError:
        return False
    return os.access(path, os.X_OK)


def _executable_copy(path: str) -> str:
    """Return a copy that can be executed, in a folder of its own: the file is somebody else's, or read-only."""
    import shutil
    import tempfile

    copy = os.path.join(tempfile.mkdtemp(prefix="polypod-"), os.path.basename(path))
    try:
        shutil.copyfile(path, copy)
        os.chmod(copy, 0o700)
    except OSError:
        _remove(copy)
        raise
    return copy


def _remove(copy: str | None) -> None:
    if copy is not None:
        import shutil

        shutil.rmtree(os.path.dirname(copy), ignore_errors=True)


_ROOT = "an existing folder on this machine; if a build makes it, run the build first"


def _open_root(keyword: str, path: str, full: str) -> int:
    try:
        return os.open(full, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise missing_root(keyword, path, "does not exist", _ROOT) from None
    except NotADirectoryError:
        raise missing_root(keyword, path, "is not a folder", _ROOT) from None
    except OSError as error:
        raise missing_root(keyword, path, f"cannot be read: {error.strerror}", _ROOT) from None


def _cannot_start(command: str, error: OSError) -> UserError:
    import shutil

    if isinstance(error, FileNotFoundError) and shutil.which(command) is not None:
        why = (
            f"{command!r} exists, but its interpreter or loader does not: a script's first line names it, or the "
            "program was built for another C library"
        )
    elif isinstance(error, FileNotFoundError):
        where = "does not exist" if "/" in command else f"is not on PATH ({os.environ.get('PATH', '')})"
        why = f"{command!r} {where}; install it, or set its full path in the coordinator's kwargs"
    else:
        why = f"{command!r} cannot be executed: {error.strerror}"
    return UserError(Reason.RUNTIME_NOT_FOUND, f"the runtime cannot be started: {why}")
