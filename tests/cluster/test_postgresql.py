"""PostgreSQL as the store of the Execution API, with two replicas; it is started anew while tasks run."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import polypod
from cluster.lab import Lab, Namespace, task_run
from cluster.node import ADDRESS, Node

USER = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


class Postgres:
    """A server on the node's address, with a password."""

    def __init__(self, node: Node) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        assert binaries, "PostgreSQL is missing: `make test` installs it"
        self.node, self.binaries = node, binaries[-1]
        self.name = f"postgres-{secrets.token_hex(3)}"
        self.folder = node.folder / self.name
        self.password = secrets.token_urlsafe(18)

    @property
    def url(self) -> str:
        return f"postgresql://polypod:{self.password}@{ADDRESS}:5432/postgres"

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

    def start(self) -> None:
        data = str(self.folder / "data")
        self.node.services.start(self.name, [*self.node.enter, *USER, str(self.binaries / "postgres"), "-D", data,
                                             "-h", ADDRESS, "-p", "5432", "-k", ""])  # fmt: skip
        self.node.services.wait(self.name, self.ready)

    def ready(self) -> bool:
        command = [*self.node.enter, str(self.binaries / "pg_isready"), "-h", ADDRESS, "-p", "5432"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def stop(self) -> None:
        self.node.services.stop(self.name)


@pytest.fixture
def postgres(lab: Lab, node: Node) -> Iterator[Postgres]:
    made = Postgres(node)
    made.make()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def stored(lab: Lab, postgres: Postgres) -> Iterator[Postgres]:
    """Polypod with that store and two replicas of the Execution API; afterwards as it was."""
    own = ("-n", polypod.NAMESPACE)
    lab.kubectl(*own, "create", "secret", "generic", "database", f"--from-literal=url={postgres.url}")
    api = {**lab.values["executionApi"], "replicas": 2, "postgresql": {"existingSecret": "database"}}
    lab.helm.install({**lab.values, "executionApi": api})
    yield postgres
    lab.helm.install(lab.values)
    lab.kubectl(*own, "delete", "secret", "database")


def test_a_restart_of_the_database_loses_nothing(lab: Lab, namespace: Namespace, stored: Postgres) -> None:
    names = [namespace.run(queue, "success", queue) for queue in ("golang", "jvm", "typescript")]
    assert {status["state"] for status in namespace.finish_all(names).values()} == {"success"}

    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    variables = [{"configMapRef": {"name": "variables"}}]
    # some end while there is no database, and have their XCom to write then
    runs = {f"run-{number}": 4 + 2 * number for number in range(8)}
    namespace.apply(
        *(task_run(name, "slow", params={"seconds": wait}, variablesFrom=variables) for name, wait in runs.items())
    )
    namespace.wait(
        lambda: sum(raw.get("status", {}).get("phase") == "Running" for raw in namespace.taskruns().values()) == 8
    )
    stored.stop()
    # what starts meanwhile waits for it
    namespace.run("meanwhile", "success")
    time.sleep(8)
    assert all(raw["status"].get("phase") != "Failed" for raw in namespace.taskruns().values() if "status" in raw)
    stored.start()
    found = namespace.finish_all([*runs, "meanwhile"])
    assert {(status["state"], status["tries"]) for status in found.values()} == {("success", 1)}
    for name in [*names, *runs]:
        run = namespace.taskrun(name)["spec"]
        said = lab.kubectl("-n", polypod.NAMESPACE, "exec", "deployment/polypod-api", "--", "python3", "-m",
                           "polypod_execution_api.main", "xcoms", f"--namespace={namespace.name}",
                           "--dag-id=conformance", f"--run-id={run['runId']}").stdout  # fmt: skip
        assert "return_value" in said, name
    everything = lab.kubectl("-n", polypod.NAMESPACE, "logs", "-l", "app.kubernetes.io/name=polypod-api", "--tail=-1")
    assert stored.password not in everything.stdout
