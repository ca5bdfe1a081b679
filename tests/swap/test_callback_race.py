"""Schedulers that see the same failure at once, on PostgreSQL: its callbacks are requested by one of them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.airflow import Airflow
from support.paths import AIRFLOWS, ROOT
from support.ports import free_port
from support.waiting import wait_until

pytestmark = pytest.mark.needs("airflow", "postgresql")

SCHEDULERS, RUNS = 4, 10
_AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
Raw = dict[str, Any]


@pytest.fixture(params=AIRFLOWS)
def airflow(request: pytest.FixtureRequest) -> Iterator[Airflow]:
    """An Airflow without an api-server, its Dag read."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    # a folder that the server's user may enter
    folder = Path(tempfile.mkdtemp(prefix="polypod-race-"))
    folder.chmod(0o755)
    data, port = folder / "data", free_port()
    data.mkdir(mode=0o700)
    shutil.chown(data, "postgres")
    command = [*_AS_POSTGRES, str(binaries / "initdb"), "-D", str(data), "-U", "polypod", "-E", "UTF8", "-A", "trust"]
    subprocess.run(command, check=True, capture_output=True, cwd="/")
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*_AS_POSTGRES, str(binaries / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", ""],
            stdout=log, stderr=log, cwd="/",
        )  # fmt: skip
    try:
        ready = [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0, "that it answers")
        url = f"postgresql+psycopg2://polypod@127.0.0.1:{port}/postgres"
        made = Airflow(folder / "home", request.param, database=url)
        made.migrate()
        made.read_dag()
        yield made
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder)


class Peer:
    """A process with the executor in this Airflow's environment."""

    def __init__(self, airflow: Airflow) -> None:
        command = [airflow.python, str(ROOT / "tests/airflow_env/peer.py")]
        with (airflow.home / "peer.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=airflow.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._log = airflow.home / "peer.log"
        assert self._read() == {"ready": True}

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        return json.loads(line)

    def send(self, op: str, **fields: Any) -> None:
        print(json.dumps({"op": op, **fields}), file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        found = self._read()
        assert "ok" in found, found
        return found["ok"]

    def ask(self, op: str, **fields: Any) -> Any:
        self.send(op, **fields)
        return self.answer()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(60)


def failed(peer: Peer, number: int) -> Raw:
    """Have a task fail, as its bridge has reported; return its TaskRun."""
    where = {"dag_id": "conformance", "run_id": f"run-{number}"}
    external_id = str(uuid.uuid4())
    peer.ask("queue", **where, task_ids=["fail"], conf={}, queue="golang")
    peer.ask("queued_as", **where, task_id="fail", external_id=external_id)
    peer.ask("set_state", **where, task_id="fail", to="failed")
    last = {"reason": "TaskFailed", "reported": True}
    return {
        "metadata": {"name": f"af-{external_id}"},
        "spec": {"dagId": "conformance", "taskId": "fail", "runId": where["run_id"], "mapIndex": -1},
        "status": {"phase": "Failed", "state": "failed", "reason": "TaskFailed", "attempts": [last]},
    }


@pytest.mark.either
def test_of_schedulers_that_see_the_same_failure_one_requests_its_callbacks(airflow: Airflow) -> None:
    peers = [Peer(airflow) for _ in range(SCHEDULERS)]
    try:
        for number in range(RUNS):
            run = failed(peers[0], number)
            for peer in peers:
                peer.send("callbacks", run=run, times=2)
            requested = [found for peer in peers for found in peer.answer() if found]
            assert requested == [["on_failure_callback", "email_on_failure"]]
        assert len(peers[0].ask("take_callbacks")) == 2 * RUNS
    finally:
        for peer in peers:
            peer.stop()
