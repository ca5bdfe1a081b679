"""A real Airflow, 3.3 or 3.4: its database, api-server and worker command, as the peer of ours."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.artifacts import minified
from support.bridge import PATIENT, QUICK_JVM
from support.paths import (
    AIRFLOWS,
    CACHE,
    EXECUTABLE_CLASSPATH,
    GO_ROOT,
    GO_ROOT_33,
    JAVA_CLASSPATH,
    JAVA_ROOT,
    JAVA_ROOT_33,
    NODE,
    NODE_CLASSPATH,
    ROOT,
    TYPESCRIPT_ROOT,
    airflow_venv,
)
from support.ports import free_port
from support.rogue_runtime import ROGUE_SCRIPT, rogue_node
from support.waiting import wait_until
from support.zygote import Zygote

LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
DAG = ROOT / "tests/airflow_env/conformance_dag.py"


@dataclass
class Airflow:
    """An Airflow in a folder of its own, with its api-server running."""

    home: Path
    version: str = AIRFLOWS[0]
    port: int = field(default_factory=free_port)
    host: str = "127.0.0.1"
    """Where its api-server listens."""
    dag: Path = DAG
    """The file with its Dag."""
    more: dict[str, str] = field(default_factory=dict)
    """More of its environment."""
    database: str = ""
    """The URL of its database, with Airflow's tables, if it is not to be a SQLite file of its own."""
    apps: str = "execution"
    """What its api-server serves; `all` has the REST API of the UI."""
    enter: tuple[str, ...] = ()
    """The command that enters the network namespace in which it does, if that is another."""

    def __post_init__(self) -> None:
        dags = self.home / "dags"
        dags.mkdir(parents=True)
        shutil.copy(self.dag, dags / "conformance.py")
        self.venv = airflow_venv(self.version)
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self.url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database or f"sqlite:///{self.home}/airflow.db",
            "AIRFLOW__API_AUTH__JWT_SECRET": "conformance-secret-" * 3,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "noisy=debug",
            **self._sdk(dags),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "PYTHONWARNINGS": "ignore",
            **self.more,
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._peer: subprocess.Popen[str] | None = None

    def _sdk(self, dags: Path) -> dict[str, str]:
        """Return the settings for language SDKs, in the words of this version."""
        queues = {"golang": "native", "jvm": "java"}
        if self.version == "3.3":
            coordinators: dict[str, Any] = {
                "native": {
                    "classpath": EXECUTABLE_CLASSPATH,
                    "kwargs": {"executables_root": [str(GO_ROOT_33)], **PATIENT},
                },
                "java": {
                    "classpath": JAVA_CLASSPATH,
                    "kwargs": {"jars_root": [str(JAVA_ROOT_33)], "jvm_args": QUICK_JVM, **PATIENT},
                },
            }
            bundles = {"dags-folder": dags}
        else:
            scripts = self.home / "scripts"
            scripts.mkdir()
            (scripts / "conformance.min.mjs").write_bytes(minified((TYPESCRIPT_ROOT / "bundle.mjs").read_bytes()))
            rogue = self.home / "rogue"
            rogue.mkdir()
            (rogue / "rogue.min.mjs").write_bytes(minified(ROGUE_SCRIPT))
            bundles = {"dags-folder": dags, "go": GO_ROOT, "jars": JAVA_ROOT, "scripts": scripts, "rogue": rogue}
            coordinators = {
                "native": {"classpath": EXECUTABLE_CLASSPATH, "kwargs": {"task_handler_bundle_name": "go", **PATIENT}},
                "java": {
                    "classpath": JAVA_CLASSPATH,
                    "kwargs": {"task_handler_bundle_name": "jars", "jvm_args": QUICK_JVM, **PATIENT},
                },
                "node": {
                    "classpath": NODE_CLASSPATH,
                    "kwargs": {"task_handler_bundle_name": "scripts", "node_executable": str(NODE), **PATIENT},
                },
            }
            coordinators["rogue"] = {
                "classpath": NODE_CLASSPATH,
                "kwargs": {"task_handler_bundle_name": "rogue", "node_executable": str(rogue_node(self.home))},
            }
            queues |= {"typescript": "node", "rogue": "rogue"}
        listed = [
            {"name": name, "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(path)}} for name, path in bundles.items()
        ]
        return {
            "AIRFLOW__SDK__COORDINATORS": json.dumps(coordinators),
            "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": json.dumps(queues),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(listed),
        }

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/execution/"

    @property
    def python(self) -> str:
        return str(self.venv / "bin" / "python")

    def start(self) -> None:
        assert (self.venv / ".installed").exists(), "run the tests with `make test`: it installs Airflow"
        if not self.database:
            self._make_database()
        self.start_server()
        # a database of its own is where the api-server is
        peer = [*(self.enter if self.database else ()), self.python, str(ROOT / "tests/airflow_env/peer.py")]
        self._peer = subprocess.Popen(
            peer,
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.home / "peer.log").open("wb"),
            text=True,
        )
        assert self._answer() == {"ready": True}

    def _make_database(self) -> None:
        """Copy a database that holds the Dag; the first of its kind on this machine is made, in 20 s."""
        template = self.template("sqlite")
        database = self.home / "airflow.db"
        if not template.exists():
            self.migrate()
            self.read_dag()
            part = template.with_name(f"{template.name}.{os.getpid()}")
            with sqlite3.connect(database) as source, sqlite3.connect(part) as copy:
                source.backup(copy)
            copy.close()
            source.close()
            part.replace(template)
            return
        shutil.copy(template, database)

    def template(self, kind: str) -> Path:
        """Return where a database that was made once for this version and this Dag is kept."""
        made_of = self.dag.read_bytes() + Path(__file__).read_bytes() + json.dumps(sorted(self.more)).encode()
        return CACHE / f"{self.venv.name}-{hashlib.sha256(made_of).hexdigest()[:12]}-{kind}"

    def migrate(self) -> None:
        """Make Airflow's tables in an empty database."""
        self._run("db", "migrate")

    def read_dag(self) -> None:
        """Have Airflow read the Dag into its database."""
        self._run("dags", "reserialize", "--bundle-name", "dags-folder")

    def _run(self, *command: str) -> None:
        enter = self.enter if self.database else ()
        with (self.home / "setup.log").open("ab") as log:
            airflow = str(self.venv / "bin" / "airflow")
            subprocess.run([*enter, airflow, *command], env=self.env, stdout=log, stderr=log, check=True)

    def start_server(self) -> None:
        airflow = str(self.venv / "bin" / "airflow")
        command = [*self.enter, airflow, "api-server", "--host", self.host, "--port", str(self.port), "--workers", "1"]
        self._server = subprocess.Popen(
            [*command, "--apps", self.apps],
            env=self.env,
            stdout=(self.home / "api-server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        server, log = self._server, self.home / "api-server.log"
        wait_until(lambda: server.poll() is not None or self._answers(), "that the api-server answers", limit=120,
                   seen=lambda: log.read_text()[-3000:], every=0.2)  # fmt: skip
        assert server.poll() is None, log.read_text()[-3000:]

    def _answers(self) -> bool:
        if self.enter:
            ask = f"import urllib.request; urllib.request.urlopen('{self.url}health', timeout=30)"
            command = [*self.enter, sys.executable, "-c", ask]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        try:
            urllib.request.urlopen(self.url + "health", timeout=30)
            return True
        except OSError:
            return False

    def evidence(self) -> dict[str, str]:
        """Return the last lines of its api-server."""
        return {f"api-server of Airflow {self.version}": (self.home / "api-server.log").read_text(errors="replace")}

    def stop_server(self) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def stop(self) -> None:
        if self._peer is not None:
            self._peer.communicate()
        if "_worker" in vars(self):
            self._worker.stop()
        if self._server is not None and self._server.poll() is None:
            self.stop_server()

    def _answer(self) -> Any:
        assert self._peer is not None
        assert self._peer.stdout is not None
        line = self._peer.stdout.readline()
        assert line, (self.home / "peer.log").read_text()[-3000:]
        return json.loads(line)

    def ask(self, op: str, **arguments: Any) -> Any:
        """Have the peer do something."""
        assert self._peer is not None
        assert self._peer.stdin is not None
        print(json.dumps({"op": op, **arguments}), file=self._peer.stdin, flush=True)
        answer = self._answer()
        assert "ok" in answer, answer
        return answer["ok"]

    def queue(
        self, run_id: str, *task_ids: str, queue: str, conf: dict[str, Any] | None = None, retries: int = 0
    ) -> dict[str, Any]:
        """Queue tasks of the Dag `conformance`; return their workloads by task."""
        workloads: dict[str, Any] = self.ask(
            "queue",
            dag_id="conformance",
            run_id=run_id,
            task_ids=list(task_ids),
            conf=conf or {},
            queue=queue,
            retries=retries,
        )
        return workloads

    def state(self, run_id: str, task_id: str) -> dict[str, Any]:
        state: dict[str, Any] = self.ask("state", dag_id="conformance", run_id=run_id, task_id=task_id)
        return state

    def shown_log(self, run_id: str, task_id: str, attempt: int = 1) -> list[dict[str, Any]]:
        """Return what Airflow's own log reader, which its UI uses, finds of an attempt's log."""
        where = {"dag_id": "conformance", "run_id": run_id, "task_id": task_id, "attempt": attempt}
        found: list[dict[str, Any]] = self.ask("log", **where)
        return found

    def run_upstream(self, workload: dict[str, Any], **env: str) -> subprocess.CompletedProcess[str]:
        """Run a workload with upstream's own worker command."""
        return self._worker.run(["--json-string", json.dumps(workload)], {**self.env, **env}, Path.cwd(), timeout=240)

    @functools.cached_property
    def _worker(self) -> Zygote:
        late = [
            "airflow.executors.base_executor",
            "airflow.executors.workloads",
            "airflow.sdk.coordinators.executable",
            "airflow.sdk.coordinators.java",
            "airflow.sdk.definitions.dag",
            "airflow.sdk.execution_time.schema",
            "airflow.sdk.execution_time.supervisor",
            "airflow.sdk.log",
            "airflow.settings",
            "cadwyn",
        ]
        if self.version != "3.3":
            late += [
                "airflow.dag_processing.processor",
                "airflow.sdk.coordinators.node",
                "airflow.sdk.importers.python_importer",
            ]
        command = "airflow.sdk.execution_time.execute_workload:main"
        return Zygote(command, *late, python=self.python, env=self.env)

    def log_of(self, workload: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the task log that upstream's worker wrote."""
        path = self.home / "logs" / workload["log_path"]
        return [json.loads(line) for line in path.read_text().splitlines()]
