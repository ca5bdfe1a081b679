"""Walk artifact roots by directory descriptor, and remember why each candidate was rejected.

In a pod the files live in another container: its launcher hands over open directories, and everything here works
relative to them. Relative symbolic links are followed inside that container's file system; an absolute one starts
again at that container's own root, never at ours. Directories and files are visited once, by device and inode, so a
cycle ends. The order is that of sorted names, the same on every machine.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum

from polypod_core.errors import UserError
from polypod_core.reasons import Reason

_MAX_LINKS = 40
_SHOWN, _MOST = 10, 50
"""How many rejected candidates a message lists: of those that are something else, and of all."""


@dataclass(frozen=True, slots=True)
class ArtifactRoot:
    """One folder of artifacts, open.

    Attributes:
        path: the folder's path as the runtime sees it.
        fd: the open directory.
        fs_root: the open root directory of the file system that `path` is in.
    """

    path: str
    fd: int
    fs_root: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file under a root: its path as the runtime sees it, and how to open it."""

    path: str
    _dir_fd: int
    _name: str

    def open(self) -> int:
        """Open the file for reading; the caller closes the descriptor.

        Raises:
            OSError: it cannot be read.
        """
        return os.open(self._name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._dir_fd)


class Rank(IntEnum):
    """How near a candidate is to what is looked for: what was meant to be it and is damaged is the nearest."""

    DAMAGED = 0
    MISTAKE = 1
    OTHER_DAG = 2
    SOMETHING_ELSE = 3


class Unfit(Exception):
    """A candidate is not what is looked for, or is damaged; the message says why.

    Attributes:
        rank: how near it is to what is looked for.
    """

    rank = Rank.DAMAGED


class Unreadable(Unfit):
    """A candidate cannot be read at all, such as for the lack of a right."""

    rank = Rank.MISTAKE


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that was not taken, and why."""

    path: str
    why: str
    rank: Rank = Rank.OTHER_DAG

    @property
    def mistaken(self) -> bool:
        return self.rank <= Rank.MISTAKE

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def describe(rejected: list[Rejected]) -> str:
    """Return the part of an error message that lists every candidate seen."""
    if not rejected:
        return "no candidate was seen there at all"
    # what has a mistake is what was meant; of files that are something else a few are enough
    ordered = sorted(rejected, key=lambda item: item.rank)
    shown = max(_SHOWN, sum(item.mistaken for item in rejected))
    lines = [f"  - {item}" for item in ordered[: min(shown, _MOST)]]
    if len(ordered) > len(lines):
        lines.append(f"  - and {len(ordered) - len(lines)} more")
    return f"{len(rejected)} seen and rejected:\n" + "\n".join(lines)


def why_none(rejected: list[Rejected]) -> Reason:
    """Return the reason of an error if no candidate was taken: a damaged one was most likely meant."""
    damaged = any(item.rank is Rank.DAMAGED for item in rejected)
    return Reason.INVALID_ARTIFACT if damaged else Reason.ARTIFACT_NOT_FOUND


def walk(roots: list[ArtifactRoot], wanted: Callable[[str], bool], rejected: list[Rejected]) -> Iterator[Candidate]:
    """Yield the regular files under `roots` whose name is `wanted`, sorted by path within each root.

    A candidate can be opened until the next one is asked for. What cannot be read, or is a dangling link, is added to
    `rejected`.
    """
    seen: set[tuple[int, int]] = set()
    for root in roots:
        yield from _walk_dir(os.dup(root.fd), root.path, root.fs_root, wanted, rejected, seen)


@contextmanager
def named(roots: list[ArtifactRoot], rel_path: str) -> Iterator[Candidate]:
    """Open the one file that a path below a root names; nothing is searched. Links are followed as in `walk`.

    Raises:
        UserError: the path leads out of its root, or there is no such file under any root, or under several.
    """
    parts = [part for part in rel_path.split("/") if part not in ("", ".")]
    where = ", ".join(root.path for root in roots)
    if not parts or rel_path.startswith("/") or ".." in parts:
        raise UserError(Reason.ARTIFACT_NOT_FOUND, f"artifact {rel_path!r} must be a path below {where}")
    with ExitStack() as opened:
        found: list[Candidate] = []
        why = "it is not there"
        for root in roots:
            try:
                found.append(_named_in(root, parts, opened))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    why = str(error.strerror)
        if len(found) != 1:
            problem = f"there are {len(found)} of that name" if found else why
            reason = Reason.ARTIFACT_AMBIGUOUS if found else Reason.ARTIFACT_NOT_FOUND
            raise UserError(reason, f"artifact {rel_path!r} in {where} cannot be taken: {problem}")
        yield found[0]


def _named_in(root: ArtifactRoot, parts: list[str], opened: ExitStack) -> Candidate:
    fd = os.dup(root.fd)
    opened.callback(os.close, fd)
    for index, part in enumerate(parts):
        folder, name = _resolve(fd, part, root.fs_root)
        if folder != fd:
            opened.callback(os.close, folder)
        if index == len(parts) - 1:
            if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            return Candidate(f"{root.path.rstrip('/')}/{'/'.join(parts)}", folder, name)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        opened.callback(os.close, fd)
    raise AssertionError("there is at least one part")


def _walk_dir(
    fd: int,
    path: str,
    fs_root: int,
    wanted: Callable[[str], bool],
    rejected: list[Rejected],
    seen: set[tuple[int, int]],
) -> Iterator[Candidate]:
    try:
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        try:
            names = sorted(os.listdir(fd))
        except OSError as error:
            rejected.append(Rejected(path, f"this folder cannot be read: {error.strerror}"))
            return
        for name in names:
            child = f"{path.rstrip('/')}/{name}"
            try:
                target_dir, target_name = _resolve(fd, name, fs_root)
            except OSError as error:
                if wanted(name):
                    rejected.append(Rejected(child, f"this link cannot be followed: {error.strerror}"))
                continue
            try:
                found = os.stat(target_name, dir_fd=target_dir, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    sub = os.open(target_name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_dir)
                    yield from _walk_dir(sub, child, fs_root, wanted, rejected, seen)
                elif stat.S_ISREG(found.st_mode) and wanted(name) and (found.st_dev, found.st_ino) not in seen:
                    # "latest -> pipeline", or a mounted ConfigMap's "..data": one file of two names is one candidate
                    seen.add((found.st_dev, found.st_ino))
                    yield Candidate(child, target_dir, target_name)
            except OSError as error:
                rejected.append(Rejected(child, f"it cannot be read: {error.strerror}"))
            finally:
                if target_dir != fd:
                    os.close(target_dir)
    finally:
        os.close(fd)


def _resolve(fd: int, name: str, fs_root: int) -> tuple[int, str]:
    """Follow symbolic links by hand; return the directory and name of what is at their end.

    The directory is `fd` itself, or a new descriptor that the caller closes.

    Raises:
        OSError: a link is broken, or there are more than 40.
    """
    current = fd
    pending = [name]
    links = 0
    try:
        while True:
            part = pending.pop(0)
            last = not pending
            try:
                target = os.readlink(part, dir_fd=current)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                if last:
                    return current, part
                entered = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=current)
            else:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                pending[:0] = [item for item in target.split("/") if item] or ["."]
                if not target.startswith("/"):
                    continue
                entered = os.dup(fs_root)
            if current != fd:
                os.close(current)
            current = entered
    except BaseException:
        if current != fd:
            os.close(current)
        raise


def missing_root(keyword: str, path: str, why: str, right: str) -> UserError:
    """Return the error for a root that cannot be opened; `right`: what it should be."""
    return UserError(Reason.INVALID_ROOT, f"{keyword}: {path!r} {why}; each entry must be {right}")
