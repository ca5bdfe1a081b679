"""A whole Airflow inside the cluster's network: database, api-server, Dag processor, triggerer, schedulers."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.airflow import Airflow
from support.browser import browse
from support.paths import ROOT
from support.waiting import wait_until

from cluster.lab import Lab, Namespace, Raw, share_folder
from cluster.node import ADDRESS, Node
from cluster.postgres import Postgres

DAG = ROOT / "tests/airflow_env/executor_dag.py"
DAG_ID = "conformance"
ACCOUNT = "airflow-scheduler"
EXECUTOR = "polypod_airflow.executor.PolypodExecutor"
ENDED = ("success", "failed")
PASSWORD = "airflow-of-a-test"
"""The same for each database, as they are copies of one."""
CONNECTIONS = {"conformance_db": "postgres://user:hunter2-abc@db.example:5432/sales"}
VARIABLES = {"conformance_in": "a variable"}

_BY_GROUP = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Have a process keep to the modes of files, of which root with all capabilities is free."""

_ASK = """
import json, sys, urllib.error, urllib.request
method, url, token, body = json.loads(sys.argv[1])
headers = {"Accept": "application/json", "Content-Type": "application/json"}
if token: headers["Authorization"] = "Bearer " + token
data = None if body is None else json.dumps(body).encode()
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=120)
    print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
"""


class Component:
    """A process of an Airflow's: a scheduler, a Dag processor or a triggerer."""

    def __init__(self, peer: Airflow, *command: str) -> None:
        self.log = peer.home / f"{command[0]}-{secrets.token_hex(2)}.log"
        self._file = self.log.open("ab")
        self.process = subprocess.Popen(
            [*peer.enter, *_BY_GROUP, str(peer.venv / "bin/airflow"), *command],
            # Python tasks make the folders of a run's logs, and the bridge of a stub, another user, writes into them
            env=peer.env, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True, umask=0o002,
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()
        self._file.close()


class Stack:
    """An Airflow whose stub tasks run as TaskRuns, and what a test asks of it."""

    def __init__(self, lab: Lab, node: Node, version: str, folder: Path, distribution: Path, ports: range) -> None:
        self.lab, self.node, self.version = lab, node, version
        self.namespace = Namespace(lab)
        self.postgres = Postgres(node, ports[0], PASSWORD)
        self.components: list[Component] = []
        more = {
            "PYTHONPATH": str(distribution),
            "AIRFLOW__CORE__EXECUTOR": f"LocalExecutor,polypod:{EXECUTOR}",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
            "AIRFLOW__CORE__PARALLELISM": "100",
            "AIRFLOW__POLYPOD__KUBECONFIG": str(folder / "kubeconfig"),
            "AIRFLOW__POLYPOD__NAMESPACE": self.namespace.name,
            "AIRFLOW__POLYPOD__PENDING_TIMEOUT": "100s",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "0",
            "AIRFLOW__API__SECRET_KEY": "a secret of a test",
        }
        self._kubeconfig = folder / "kubeconfig"
        self.peer = Airflow(
            folder / "airflow", version, ports[1], ADDRESS, DAG, more, enter=node.enter, apps="all",
            database=self.postgres.url.replace("postgresql://", "postgresql+psycopg2://"),
        )  # fmt: skip

    def start(self) -> None:
        self._make_database()
        # with the rights that the chart gives, and no others
        accounts = [{"namespace": self.namespace.name, "name": ACCOUNT}]
        values = {
            **self.lab.values,
            "logs": {"persistentVolumeClaim": "airflow-logs"},
            "executionApi": {"mode": "airflow", "airflow": {"url": self.peer.url}},
            "airflow": {"namespace": self.namespace.name, "serviceAccounts": accounts},
        }
        self.lab.helm.install(values)
        self._log_in()
        # how a task is to be run is decided when its Dag is read, and depends on the cluster
        self.peer.read_dag()
        self.peer.start()
        self.peer.ask("secrets", connections=CONNECTIONS, variables=VARIABLES)
        share_folder(self.lab, self.namespace, self.peer.home / "logs")
        for command in (["dag-processor"], ["triggerer", "--skip-serve-logs"]):
            self.components.append(Component(self.peer, *command))

    def _make_database(self) -> None:
        """Start PostgreSQL with Airflow's tables; the first of its kind on this machine makes them, in 20 s."""
        template = self.peer.template(f"postgresql-{self.postgres.binaries.parent.name}")
        if template.exists():
            self.postgres.load(template)
            self.postgres.start()
            return
        self.postgres.make()
        self.postgres.start()
        self.peer.migrate()
        self.postgres.stop()
        self.postgres.save(template)
        self.postgres.start()

    def stop(self) -> None:
        for component in self.components:
            component.kill()
        self.peer.stop()
        self.postgres.stop()
        self.lab.helm.install(self.lab.values)
        self.namespace.delete()
        self.lab.kubectl("delete", "persistentvolume", f"airflow-{self.namespace.name}", "--wait=false")

    def _log_in(self) -> None:
        self.namespace.kubectl("create", "serviceaccount", ACCOUNT)
        token = self.namespace.kubectl("create", "token", ACCOUNT, "--duration=12h").stdout.strip()
        config = json.loads(self.node.api.inner_kubeconfig.read_text())
        config["users"] = [{"name": ACCOUNT, "user": {"token": token}}]
        config["contexts"][0]["context"]["user"] = ACCOUNT
        self._kubeconfig.write_text(json.dumps(config))

    def evidence(self) -> dict[str, str]:
        """Return the last lines of each part of Airflow, and the statuses of TaskRuns and pods."""
        parts = {
            f"{part.log.stem} (exit code {part.process.poll()})": part.log.read_text(errors="replace")
            for part in self.components
        }
        return {**self.peer.evidence(), **parts, **self.namespace.evidence(), **self.lab.evidence()}

    # Schedulers.

    def scheduler(self) -> Component:
        """Start one more."""
        made = Component(self.peer, "scheduler", "--skip-serve-logs")
        self.components.append(made)
        return made

    # Runs.

    def trigger(self, run_id: str, *follow: str, **conf: Any) -> None:
        self.peer.ask("trigger", dag_id=DAG_ID, run_id=run_id, conf={"follow": follow, **conf})

    def tasks(self, run_id: str) -> dict[str, Raw]:
        found: dict[str, Raw] = self.peer.ask("tasks", dag_id=DAG_ID, run_id=run_id)
        return {name: task for name, task in found.items() if task["state"] != "skipped"}

    def in_state(self, run_id: str, state: str | None) -> list[str]:
        return [name for name, task in self.tasks(run_id).items() if task["state"] == state]

    def ends(self, run_id: str, timeout: float = 300) -> dict[str, Raw]:
        """Wait for the end of a run; return its tasks."""

        def is_over() -> bool:
            return self.peer.ask("run", dag_id=DAG_ID, run_id=run_id)["state"] in ENDED

        self.wait(is_over, run_id, timeout)
        return self.tasks(run_id)

    def wait(self, ready: Any, run_id: str, timeout: float = 300) -> Any:
        return wait_until(ready, limit=timeout, seen=lambda: self.tasks(run_id), every=0.2)

    def runs(self, task_id: str, run_id: str) -> list[Raw]:
        """Return the TaskRuns of a task."""
        found = self.namespace.taskruns().values()
        return [run for run in found if (run["spec"]["taskId"], run["spec"]["runId"]) == (task_id, run_id)]

    def xcom(self, run_id: str, task_id: str) -> Any:
        return self.peer.state(run_id, task_id)["xcoms"]["return_value"]

    # The REST API, as the UI uses it.

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Call Airflow's REST API; return the status and the answer."""
        base = f"http://{ADDRESS}:{self.peer.port}"
        token = json.loads(self._ask("GET", f"{base}/auth/token", "", None)[1])["access_token"]
        status, text = self._ask(method, f"{base}/api/v2/dags/{DAG_ID}{path}", token, body)
        return status, json.loads(text) if text.startswith(("{", "[")) else text

    def _ask(self, *call: Any) -> tuple[int, str]:
        command = [*self.peer.enter, sys.executable, "-c", _ASK, json.dumps(call)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        status, text = json.loads(done.stdout)
        return status, text

    def shown_log(self, run_id: str, task_id: str, attempt: int = 1, map_index: int = -1) -> list[str]:
        """Return the events of a log as the UI shows it."""
        path = f"/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}?full_content=true&map_index={map_index}"
        status, found = self.rest("GET", path)
        assert status == 200, (status, found)
        return [item["event"] for item in found["content"]]

    def page(self, path: str, screenshot: Path) -> str:
        """Return a page of the UI as a browser shows it, as HTML; and a picture of it."""
        options = ["--window-size=1400,1000", f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {ADDRESS}",
                   "--virtual-time-budget=20000", "--timeout=60000"]  # fmt: skip
        url, profile = f"http://{ADDRESS}:{self.peer.port}{path}", screenshot.parent / "browser"
        browse(url, profile, *options, f"--screenshot={screenshot}", enter=self.peer.enter)
        return browse(url, profile, *options, "--dump-dom", enter=self.peer.enter)

    def airflow(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run Airflow's CLI."""
        return subprocess.run(
            [*self.peer.enter, str(self.peer.venv / "bin/airflow"), *command],
            env=self.peer.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
