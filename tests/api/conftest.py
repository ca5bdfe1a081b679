"""A real PostgreSQL for the tests of the Execution API."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from support.ports import free_port
from support.waiting import wait_until


@pytest.fixture
def postgres() -> Iterator[str]:
    """A real PostgreSQL of our own, on a free port of loopback."""
    with tempfile.TemporaryDirectory(prefix="polypod-postgres-") as folder:
        yield from _postgres(Path(folder))


def _postgres(folder: Path) -> Iterator[str]:
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert binaries, "PostgreSQL is missing: `make test` installs it"
    port = free_port()
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

        def answers() -> bool:
            try:
                psycopg.connect(url).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, "that PostgreSQL answers", seen=(folder / "postgres.log").read_text)
        yield url
    finally:
        # fast shutdown: it waits for no client
        server.send_signal(signal.SIGINT)
        server.wait()
