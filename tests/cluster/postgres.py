"""A PostgreSQL on the node's address, as the store of the Execution API."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from cluster.node import ADDRESS, Node

USER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


class Postgres:
    """A server on the node's address, with a password."""

    def __init__(self, node: Node, port: int = 5432, password: str = "") -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        assert binaries, "PostgreSQL is missing: `make test` installs it"
        self.node, self.binaries, self.port = node, binaries[-1], port
        self.name = f"postgres-{secrets.token_hex(3)}"
        self.folder = node.folder / self.name
        self.password = password or secrets.token_urlsafe(18)

    @property
    def url(self) -> str:
        return f"postgresql://polypod:{self.password}@{ADDRESS}:{self.port}/postgres"

    def make(self) -> None:
        self.folder.mkdir(mode=0o755)
        data, file = self.folder / "data", self.folder / "password"
        data.mkdir(mode=0o700)
        file.write_text(self.password)
        for path in (data, file):
            shutil.chown(path, "postgres")
        command = [*USER, str(self.binaries / "initdb"), "-D", str(data), "-U", "polypod", "-E", "UTF8",
                   "-A", "scram-sha-256", f"--pwfile={file}"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        with open(data / "pg_hba.conf", "a", encoding="utf-8") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def load(self, template: Path) -> None:
        """Begin with what another server has saved, instead of nothing."""
        self.folder.mkdir(mode=0o755)
        subprocess.run(["cp", "-a", str(template), str(self.folder / "data")], check=True)

    def save(self, template: Path) -> None:
        """Save what is there, for servers of the same password to begin with. The server must have been stopped."""
        part = template.with_name(f"{template.name}.{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.folder / "data"), str(part)], check=True)
        try:
            part.rename(template)
        except OSError:
            # another run was faster
            shutil.rmtree(part)

    def start(self) -> None:
        data = str(self.folder / "data")
        self.node.services.start(self.name, [*self.node.enter, *USER, str(self.binaries / "postgres"), "-D", data,
                                             "-h", ADDRESS, "-p", str(self.port), "-k", ""])  # fmt: skip
        self.node.services.wait(self.name, self.ready)

    def ready(self) -> bool:
        command = [*self.node.enter, str(self.binaries / "pg_isready"), "-h", ADDRESS, "-p", str(self.port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def stop(self) -> None:
        # fast: at SIGTERM it would wait until the last client has gone
        self.node.services.stop(self.name, signal.SIGINT)
