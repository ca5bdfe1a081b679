"""Processes, as /proc shows them."""

from __future__ import annotations

import os
from pathlib import Path


def may_be_others() -> bool:
    """Tell whether processes of other users can be started here; with CI=true they must."""
    return os.geteuid() == 0 or os.environ.get("CI") == "true"


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the children of a process's main thread, none if it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
