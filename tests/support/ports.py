"""Ports for programs that take one as an argument: no two processes of any run on this machine get the same.

The kernel may assign a port that was bound and closed again to another server or connection before it is used. These
ports are outside of the kernel's range, and locked.
"""

from __future__ import annotations

import fcntl
import random
import socket
from pathlib import Path
from typing import IO

from support.paths import CACHE

_held: list[IO[str]] = []
"""Open for as long as this process lives, and with them the locks."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is this process's own until it ends."""
    folder = CACHE / "ports"
    folder.mkdir(parents=True, exist_ok=True)
    first_of_the_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, max(first_of_the_kernel, 20_000))
        file = (folder / str(port)).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            file.close()
            continue
        _held.append(file)
        return port
