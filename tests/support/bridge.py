"""Running the bridge as it runs in production: as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from support.paths import (
    EXECUTABLE_CLASSPATH,
    GO_ROOT,
    JAVA_CLASSPATH,
    JAVA_ROOT,
    LAUNCHER,
    NODE,
    NODE_CLASSPATH,
    TYPESCRIPT_ROOT,
)
from support.waiting import Patience

QUICK_JVM = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
"""Options of a JVM that runs for half a second: it takes 0.55 s of a processor instead of 0.9."""
PATIENT = {"task_startup_timeout": 60}
"""Options of every coordinator whose runtime is to connect: on a busy machine a JVM needs more than Airflow's 10 s."""
COORDINATORS: dict[str, dict[str, Any]] = {
    "golang": {"classpath": EXECUTABLE_CLASSPATH, "kwargs": {"executables_root": [str(GO_ROOT)], **PATIENT}},
    "jvm": {"classpath": JAVA_CLASSPATH, "kwargs": {"jars_root": [str(JAVA_ROOT)], "jvm_args": QUICK_JVM, **PATIENT}},
    "typescript": {
        "classpath": NODE_CLASSPATH,
        "kwargs": {"bundles_root": [str(TYPESCRIPT_ROOT)], "node_executable": str(NODE), **PATIENT},
    },
}
"""A coordinator for each language, under the name of its queue."""


@dataclass
class Result:
    """What an attempt left."""

    returncode: int
    outcome: dict[str, Any]
    log: list[dict[str, Any]]
    stderr: str

    def events(self, logger: str | None = None) -> list[str]:
        return [record["event"] for record in self.log if logger is None or record["logger"] == logger]


@dataclass
class Bridge:
    """A bridge process."""

    folder: Path
    config: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    log_name: str = "task.log"
    stderr_fd: int | None = None
    launched: bool = False
    """True: as in a pod, the runtime is the child of a launcher and not of the bridge."""
    launcher_comes: bool = True
    launcher_program: Path = LAUNCHER
    pod: dict[str, Any] = field(default_factory=dict)
    """Settings of the pod's."""
    started: ClassVar[list[subprocess.Popen[bytes]]] = []
    """Every process that a test has started, so that a test which fails leaves none behind."""
    made: ClassVar[list[Bridge]] = []
    """Every bridge of a test, so that a test which fails can show them."""

    def __post_init__(self) -> None:
        self.made.append(self)
        self.log_file = self.folder / self.log_name
        self.outcome_file = self.folder / "outcome.json"
        self.config_file = self.folder / "bridge.json"
        self.process: subprocess.Popen[bytes] | None = None
        self.launcher: subprocess.Popen[bytes] | None = None

    def start(self) -> Bridge:
        config = {
            "log_file": str(self.log_file),
            "outcome_file": str(self.outcome_file),
            "log_format": "none",
            "namespace_levels": "noisy=debug",
            **self.config,
            # on a busy machine a runtime may take its time, and no test but one is about that
            "timeouts": {"startup": 60, **self.config.get("timeouts", {})},
        }
        self.outcome_file.unlink(missing_ok=True)
        if self.launched:
            config["pod"] = {
                "socket": str(self.folder / "bridge.sock"),
                "state_dir": str(self.folder),
                "termination_log": str(self.folder / "termination-log"),
                **self.pod,
            }
        self.config_file.write_text(json.dumps(config))
        env = self._start_process()
        if self.launched and self.launcher_comes:
            self.start_launcher({**env, **self.env})
        return self

    @classmethod
    def end_all(cls) -> None:
        """End what is still there."""
        cls.made.clear()
        while cls.started:
            process = cls.started.pop()
            if process.poll() is None:
                process.kill()
                process.wait()

    @classmethod
    def evidence(cls) -> dict[str, str]:
        """Return the last lines of each bridge of the test."""
        found = {}
        for number, bridge in enumerate(cls.made):
            ended = None if bridge.process is None else bridge.process.poll()
            files = (
                bridge.log_file,
                bridge.folder / "stderr.txt",
                bridge.folder / "launcher-stderr.txt",
                bridge.outcome_file,
            )
            texts = [f"{file.name}:\n{file.read_text(errors='replace')[-2000:]}" for file in files if file.is_file()]
            found[f"{number}: {'runs' if ended is None else f'ended with {ended}'}"] = "\n".join(texts)
        return found

    def start_again(self) -> None:
        """As the kubelet does with a sidecar that has ended: the same container, with what its volumes hold."""
        (self.folder / "termination-log").unlink(missing_ok=True)
        self._start_process()

    def _start_process(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        self.stderr_file = self.folder / "stderr.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "polypod_bridge.main", "--config", str(self.config_file)],
            stderr=self.stderr_file.open("wb") if self.stderr_fd is None else self.stderr_fd,
            stdin=subprocess.DEVNULL,
            env={**env, **self.env},
            start_new_session=True,
        )
        self.started.append(self.process)
        return env

    def start_launcher(self, env: dict[str, str]) -> None:
        self.launcher = subprocess.Popen(
            [str(self.launcher_program)],
            env={**env, "POLYPOD_SOCKET": str(self.folder / "bridge.sock")},
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "launcher-stdout.txt").open("wb"),
            stderr=(self.folder / "launcher-stderr.txt").open("wb"),
            start_new_session=True,
        )
        self.started.append(self.launcher)

    def finish(self, timeout: float = 240) -> Result:
        assert self.process is not None
        try:
            if self.launcher is not None:
                self._end_launcher(timeout)
                # as the kubelet does: when the language container has ended, the sidecar is told to
                self.process.terminate()
            self.process.wait(timeout)
        finally:
            for process in (self.process, self.launcher):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
        outcome = json.loads(self.outcome_file.read_text()) if self.outcome_file.exists() else {}
        stderr = self.stderr_file.read_text() if self.stderr_file.exists() else ""
        return Result(self.process.returncode, outcome, self.read_log(), stderr)

    def _end_launcher(self, timeout: float) -> None:
        """Wait for the launcher; it is terminated if the bridge has ended before it came, as a pod's is."""
        assert self.launcher is not None
        assert self.process is not None
        patience = Patience(timeout)
        while self.launcher.poll() is None:
            patience.check("the end of the launcher", self.read_log)
            if self.process.poll() is not None and not (self.folder / "bridge.sock").exists():
                self.launcher.terminate()
            time.sleep(0.02)

    def read_log(self) -> list[dict[str, Any]]:
        if not self.log_file.exists() or not self.log_file.is_file():
            return []
        lines = self.log_file.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def run(self, timeout: float = 240) -> Result:
        return self.start().finish(timeout)


def workload_config(workload: dict[str, Any], url: str, coordinator: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the bridge's configuration for one of Airflow's workloads."""
    ti = {key: workload["ti"].get(key) for key in TI_FIELDS}
    name = ti["queue"]
    return {
        "ti": ti,
        "bundle_info": workload["bundle_info"],
        "dag_rel_path": workload["dag_rel_path"],
        "token": workload["token"],
        "execution_api": {"url": url},
        "coordinator_name": name,
        "coordinator": coordinator or COORDINATORS[name],
    }


TI_FIELDS = (
    "id", "task_id", "dag_id", "run_id", "try_number", "dag_version_id", "map_index", "hostname", "queue",
)  # fmt: skip
