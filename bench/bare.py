"""A bare API server with Polypod's operator beside it and kwok for a kubelet: thousands of TaskRuns, no containers.

Everything has its default settings. kwok moves a pod on as a kubelet would: Running with its bridge after START, then
ended, with an outcome as the bridge writes it, after RUN.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml
from cluster import programs
from cluster.control_plane import ControlPlane, Reached
from polypod_crds import crd

START_MS, RUN_MS = 2000, 5000
NODES = 10
OUTCOME = {"state": "success", "reason": "TaskSucceeded", "exitCode": 0, "reported": True, "cpuSeconds": 0.01}
Raw = dict[str, Any]


def stage(name: str, matches: dict[str, str], delay_ms: int, following: Raw, kind: str = "Pod") -> Raw:
    """Return a kwok Stage: what matches moves on after a delay."""
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {
                "matchExpressions": [
                    {"key": key, "operator": "DoesNotExist"}
                    if value == "-"
                    else {"key": key, "operator": "Exists"}
                    if value == "+"
                    else {"key": key, "operator": "In", "values": [value]}
                    for key, value in matches.items()
                ]
            },
            "delay": {"durationMilliseconds": delay_ms},
            "next": following,
        },
    }


def _status(phase: str, task: str, bridge: str) -> Raw:
    template = f"""
phase: {phase}
podIP: 10.0.0.1
startTime: {{{{ Now | Quote }}}}
initContainerStatuses:
- {{name: bridge, image: x, imageID: x, ready: true, restartCount: 0, started: true, state: {bridge}}}
containerStatuses:
- {{name: task, image: x, imageID: x, ready: true, restartCount: 0, started: true, state: {task}}}
"""
    return {"statusTemplate": template}


def stages() -> list[Raw]:
    now = "{{ Now | Quote }}"
    running = f"{{running: {{startedAt: {now}}}}}"
    ended = f"startedAt: {now}, finishedAt: {now}, reason: Completed, exitCode: 0"
    message = json.dumps(json.dumps(OUTCOME))
    return [
        stage("pod-run", {".metadata.deletionTimestamp": "-", ".status.podIP": "-"}, START_MS,
              _status("Running", running, running)),
        stage("pod-end", {".metadata.deletionTimestamp": "-", ".status.phase": "Running"}, RUN_MS,
              _status("Succeeded", f"{{terminated: {{{ended}}}}}",
                      f"{{terminated: {{{ended}, message: {message}}}}}")),
        stage("pod-delete", {".metadata.deletionTimestamp": "+"}, 0,
              {"finalizers": {"empty": True}, "delete": True}),
        stage("node-up", {".status.phase": "-"}, 0, {"statusTemplate": (
            'phase: Running\nconditions:\n- {type: Ready, status: "True", reason: KubeletReady, message: "", '
            f"lastHeartbeatTime: {now}, lastTransitionTime: {now}}}\n")}, "Node"),
    ]  # fmt: skip


class Bare:
    """The parts, each a process of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="polypod-bench-"))
        self.plane = ControlPlane(self.folder)
        self._controllers: list[subprocess.Popen[bytes]] = []
        self._kwok: subprocess.Popen[bytes] | None = None

    def up(self, kwok: bool = True) -> None:
        self.bin = programs.build((*programs.CONTROL_PLANE, programs.KWOK))
        self.plane.start()
        self.kubectl("apply", "--server-side", "-f", str(crd.PAGE))
        self.kubectl("create", "namespace", "polypod-system")
        for namespace in ("default", "polypod-system"):
            # no controller manager here makes it
            self.kubectl("-n", namespace, "create", "serviceaccount", "default", check=False)
        self.route(["golang"])
        self.kubectl("apply", "-f", "-", stdin=json.dumps({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-0", "labels": {"type": "kwok"}},
            "spec": {}}))  # fmt: skip
        if kwok:
            self._start_kwok()

    def _start_kwok(self) -> None:
        config = self.folder / "kwok.yaml"
        config.write_text(yaml.safe_dump_all(stages()))
        with open(self.folder / "kwok.log", "wb") as log:
            self._kwok = subprocess.Popen(
                [str(self.bin / "kwok"), f"--kubeconfig={self.plane.kubeconfig}", f"--config={config}",
                 "--manage-all-nodes=true", "--enable-crds=", "--node-lease-duration-seconds=0",
                 "--server-address=127.0.0.1:0"],
                stdout=log, stderr=log,
            )  # fmt: skip

    def route(self, queues: list[str], limits: dict[str, int] | None = None) -> None:
        """Write the routing: all these queues lead to one coordinator."""
        coordinator = {
            "classpath": "airflow.sdk.coordinators.executable.ExecutableCoordinator",
            "kwargs": {"executables_root": ["/opt/app/bin"]},
            "image": "registry.example/sales-go:1",
            "pod_template": {"spec": {"nodeName": "node-0"}},
        }
        data = {
            "coordinators": yaml.safe_dump({"native": coordinator}),
            "queue_to_coordinator": yaml.safe_dump(dict.fromkeys(queues, "native")),
            "queue_limits": yaml.safe_dump(limits or {}),
        }
        metadata = {"name": "polypod-routing", "namespace": "polypod-system"}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": metadata}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def start_operator(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "polypod_operator.main", "--bridge-image=registry.example/bridge:1",
                   "--execution-api-url=http://polypod-api.polypod-system.svc:8080/execution/",
                   "--routing-namespace=polypod-system"]  # fmt: skip
        return self.start("operator", command)

    def start(self, name: str, command: list[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a controller; it is the cluster's administrator."""
        environment = {**os.environ, "KUBECONFIG": str(self.plane.kubeconfig), **(env or {})}
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._controllers.append(process)
        return process

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        command = [str(self.plane.bin / "kubectl"), f"--kubeconfig={self.plane.kubeconfig}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def session(self) -> aiohttp.ClientSession:
        """Return a session with the API server, for the driver."""
        reached = Reached.by(self.plane.kubeconfig)
        context = ssl.create_default_context(cafile=reached.authority)
        return aiohttp.ClientSession(
            base_url=reached.server,
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            headers={"authorization": f"Bearer {reached.token}"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 22,
        )

    def made(self, plural: str, object_of: Callable[[str], str]) -> tuple[dict[str, float], dict[str, float]]:
        """Return by the API server's own clock when each object was asked for and when its first pod was there.

        Both are of its audit log, as Unix times by the name of the object.

        Args:
            plural: the resource of the objects, such as taskruns.
            object_of: returns an object's name by that of its pod.
        """
        asked: dict[str, float] = {}
        there: dict[str, float] = {}
        with open(self.plane.audit_log, "rb") as lines:
            for line in lines:
                event = msgspec.json.decode(line)
                if event["verb"] != "create" or event["responseStatus"].get("code") != 201:
                    continue
                name = event["objectRef"].get("name", "")
                if event["objectRef"]["resource"] == plural:
                    asked[name] = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
                elif event["objectRef"]["resource"] == "pods":
                    there[object_of(name)] = datetime.fromisoformat(event["stageTimestamp"]).timestamp()
        return asked, there

    def logs(self) -> str:
        """Return the ends of all logs, for a run that has failed."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a controller."""
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def down(self) -> None:
        for process in [*self._controllers, *([self._kwok] if self._kwok else [])]:
            self.stop(process)
        self.plane.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def task_run(name: str, queue: str = "golang") -> Raw:
    return {
        "apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "metadata": {"name": name},
        "spec": {"queue": queue, "dagId": "bench", "taskId": "task", "runId": f"run-{name}"},
    }  # fmt: skip


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, what: str = "VmHWM") -> float:
    """Return a process's largest resident set so far (VmHWM) or that of now (VmRSS), in MiB."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


async def writes(session: aiohttp.ClientSession) -> dict[str, int]:
    """Return how many writes the API server has taken that are the operator's: pods made, statuses patched, Events."""
    wanted = {
        'POST pods': ('resource="pods"', 'verb="POST"', 'subresource=""'),
        'PATCH taskruns/status': ('resource="taskruns"', 'subresource="status"', 'verb="PATCH"'),
        'POST events': ('resource="events"', 'verb="POST"'),
        'DELETE pods': ('resource="pods"', 'verb="DELETE"'),
    }  # fmt: skip
    async with session.get("/metrics") as answer:
        text = await answer.text()
    lines = [line for line in text.splitlines() if line.startswith("apiserver_request_total")]
    return {
        name: sum(int(float(line.rpartition(" ")[2])) for line in lines if all(part in line for part in parts))
        for name, parts in wanted.items()
    }
