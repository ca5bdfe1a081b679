"""The folder of one `polypod run`, which holds passwords and tokens: gone when the run ends, whatever ends it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "polypod-run-"
_LOCK = ".lock"


@contextmanager
def run_folder() -> Iterator[Path]:
    """Make a folder that only its owner can read, and remove it; those of runs that were killed are removed first.

    The lock on the folder ends with the process that holds it. So a folder whose lock is free has nobody any more.
    """
    sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        new = Path(name) / f"{_LOCK}.new"
        lock = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # under its name only once it is held: nobody must find it free
            new.rename(Path(name) / _LOCK)
            yield Path(name)
        finally:
            os.close(lock)


def sweep(parent: Path) -> None:
    """Remove the folders of this user's runs that were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
