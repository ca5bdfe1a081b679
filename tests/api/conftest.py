"""A real PostgreSQL for the tests of the Execution API."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest


@pytest.fixture
def postgres() -> Iterator[str]:
    """A real PostgreSQL of our own, on a free port of loopback."""
    with tempfile.TemporaryDirectory(prefix="polypod-postgres-") as folder:
        yield from _postgres(Path(folder))


def _postgres(folder: Path) -> Iterator[str]:
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert binaries, "PostgreSQL is missing: `make test` installs it"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    data.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root
        folder.chmod(0o755)
        shutil.chown(data, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    initdb = [*as_user, str(binaries[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "polypod", "-E", "UTF8"]
    subprocess.run(initdb, check=True, capture_output=True)
    server = subprocess.Popen(
        [*as_user, str(binaries[-1] / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "postgres.log").open("wb"),
    )
    try:
        url = f"postgresql://polypod@127.0.0.1:{port}/postgres"
        give_up = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < give_up
                time.sleep(0.1)
        yield url
    finally:
        # fast shutdown: it waits for no client
        server.send_signal(signal.SIGINT)
        server.wait()
