"""PolypodExecutor beside KubernetesExecutor in a real Airflow, on one bare API server. Writes results/airflow.json.

Both get the same 500 workloads at once, by the calls that a scheduler makes, without its pause between loops. What is
measured is the scheduler's part: nobody runs the pods here. KubernetesExecutor comes from its provider, with its
defaults (one pod a loop) and tuned (`worker_pods_creation_batch_size` as large as the burst).
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import statistics
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.control_plane import ControlPlane, Reached
from page import put
from polypod_crds import crd
from support.paths import CACHE, ROOT, airflow_venv
from support.processes import children

VERSION, PROVIDER = "3.3", "apache-airflow-providers-cncf-kubernetes==10.25.0"
TASKS, REVOKED, LOOPS = 500, 120, 200
KINDS = re.compile(r'resource="(taskruns|secrets|pods)"')
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
PATIENCE = 240.0
Raw = dict[str, Any]
SIDES = {
    "Polypod": ("polypod_airflow.executor.PolypodExecutor", {}),
    "KubernetesExecutor": ("airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor", {}),
    "KubernetesExecutor, tuned": (
        "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor",
        {"AIRFLOW__KUBERNETES_EXECUTOR__WORKER_PODS_CREATION_BATCH_SIZE": str(TASKS)},
    ),
}
ROWS = {
    "created": f"{TASKS} queued to the last object created, s",
    "longest": "longest loop of the scheduler meanwhile, ms",
    "sync": f"a loop with {TASKS} running and no news, median, ms",
    "sync_p99": "the same, p99, ms",
    "revoke": f"revoking {REVOKED} of them, s",
    "cpu": "CPU of the scheduler's processes for all of it, s",
    "memory": "their memory (PSS) at the end, MiB",
    "calls": "calls to the Kubernetes API",
}


def provider() -> Path:
    """Install KubernetesExecutor's provider into a folder of its own; Airflow's packages stay as they are."""
    folder = CACHE / "cncf-kubernetes"
    if folder.exists():
        return folder
    uv, python = str(ROOT / ".venv/bin/uv"), str(airflow_venv(VERSION) / "bin/python")
    with tempfile.TemporaryDirectory() as made:
        frozen = Path(made) / "constraints.txt"
        listed = subprocess.run([uv, "pip", "freeze", "--python", python], check=True, capture_output=True)
        frozen.write_bytes(listed.stdout)
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", python, "--target", str(folder), "-c", str(frozen), PROVIDER],
            check=True,
        )
    return folder


class Server:
    """The API server, as an outsider asks it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._reached = Reached.by(plane.kubeconfig)
        self._trust = ssl.create_default_context(cafile=self._reached.authority)

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        request = urllib.request.Request(
            self._reached.server + path, None if body is None else json.dumps(body).encode(), method=method,
            headers={"Authorization": f"Bearer {self._reached.token}", "Content-Type": kind},
        )  # fmt: skip
        with urllib.request.urlopen(request, context=self._trust, timeout=60) as answer:
            return json.loads(answer.read())

    def count(self, path: str) -> int:
        page = self.call("GET", f"{path}?limit=1")
        return len(page["items"]) + (page["metadata"].get("remainingItemCount") or 0)

    def calls(self) -> int:
        """Return how many calls for these kinds of object have been answered so far."""
        request = urllib.request.Request(
            f"{self._reached.server}/metrics", headers={"Authorization": f"Bearer {self._reached.token}"}
        )
        with urllib.request.urlopen(request, context=self._trust, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        counted = [line for line in lines if line.startswith("apiserver_request_total{") and KINDS.search(line)]
        return sum(int(float(line.rpartition(" ")[2])) for line in counted)

    def names(self, path: str) -> list[str]:
        return [item["metadata"]["name"] for item in self.call("GET", path)["items"]]


class Side:
    """An executor in a process of its own, driven as a scheduler drives it."""

    def __init__(self, name: str, plane: ControlPlane, folder: Path) -> None:
        path, more = SIDES[name]
        self.ours = name == "Polypod"
        self.path = "/apis/polypod.dev/v1alpha1/namespaces/default/taskruns"
        if not self.ours:
            self.path = "/api/v1/namespaces/default/pods"
        environ = {
            **os.environ, **more,
            "EXECUTOR": path,
            "PYTHONPATH": f"{ROOT / 'executor'}:{provider()}",
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of a benchmark, long enough",
            "AIRFLOW__CORE__PARALLELISM": str(2 * TASKS),
            "AIRFLOW__POLYPOD__KUBECONFIG": str(plane.kubeconfig),
            "AIRFLOW__POLYPOD__NAMESPACE": "default",
            "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(plane.kubeconfig),
            "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
            "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "default",
            "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": "registry.example/airflow",
            "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": "3.3.2",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [str(airflow_venv(VERSION) / "bin/python"), str(ROOT / "tests/airflow_env/drive_executor.py")],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=(folder / "side.log").open("ab"), start_new_session=True,
        )  # fmt: skip
        self.log = folder / "side.log"

    def ask(self, do: str, **fields: Any) -> Raw:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"do": do, **fields}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        found: Raw = json.loads(line)
        return found

    def tree(self) -> list[int]:
        """Return its processes: KubernetesExecutor watches in others."""
        found, left = [], [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            left += children(pid)
        return found

    def cpu(self) -> float:
        ticks = 0
        for pid in self.tree():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        total = 0
        for pid in self.tree():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def measure(name: str, plane: ControlPlane, folder: Path) -> dict[str, float]:
    """Run one side once."""
    server, side = Server(plane), Side(name, plane, Path(tempfile.mkdtemp(dir=folder)))
    try:
        side.ask("migrate")
        began_calls, began_cpu = server.calls(), side.cpu()
        side.ask("queue", tasks=[{"name": f"task-{number}", "queue": "golang"} for number in range(TASKS)])
        side.ask("store")
        began, longest, looked = time.monotonic(), 0.0, 0
        while server.count(side.path) < TASKS:
            looked += 1
            longest = max(longest, side.ask("heartbeat")["took"])
            assert time.monotonic() - began < PATIENCE, side.log.read_text()[-3000:]
        created = time.monotonic() - began
        run(server, side)
        for _ in range(20):
            side.ask("heartbeat")
            time.sleep(0.1)
        took = sorted(side.ask("heartbeat")["took"] for _ in range(LOOPS))
        revoke = sum(side.ask("revoke", name=f"task-{number}")["took"] for number in range(REVOKED))
        time.sleep(1.0)
        return {
            "created": created, "longest": longest * 1000, "sync": statistics.median(took) * 1000,
            "sync_p99": took[int(0.99 * LOOPS)] * 1000, "revoke": revoke, "cpu": side.cpu() - began_cpu,
            "memory": side.memory(), "calls": float(server.calls() - began_calls - looked - TASKS - 1),
        }  # fmt: skip
    finally:
        side.stop()
        for path in (side.path, "/api/v1/namespaces/default/secrets"):
            server.call("DELETE", f"{path}?gracePeriodSeconds=0")
        while server.count(side.path):
            time.sleep(0.1)


def run(server: Server, side: Side) -> None:
    """Have everything run, as the operator or a kubelet would say."""
    status: Raw = {"phase": "Running"}
    if side.ours:
        status |= {"state": "running", "attempts": [{"number": 1, "state": "running", "podName": "p"}]}

    def start(name: str) -> None:
        server.call("PATCH", f"{side.path}/{name}/status", {"status": status}, "application/merge-patch+json")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(start, server.names(side.path)))


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="polypod-bench-"))
    plane = ControlPlane(folder)
    plane.start()
    try:
        command = [str(plane.bin / "kubectl"), f"--kubeconfig={plane.kubeconfig}"]
        subprocess.run([*command, "apply", "--server-side", "-f", str(crd.PAGE)], check=True, capture_output=True)
        # no controller manager here makes it
        subprocess.run([*command, "create", "serviceaccount", "default"], check=True, capture_output=True)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
        for _ in range(RUNS):
            for name in SIDES:
                found[name].append(measure(name, plane, folder))
                print(name, {key: round(value, 3) for key, value in found[name][-1].items()}, flush=True)
    finally:
        plane.stop()
    result = {"tasks": TASKS, "runs": RUNS, "sides": found}
    (Path(__file__).parent / "results/airflow.json").write_text(json.dumps(result, indent=1) + "\n")
    put("airflow", "make bench-airflow", table(found))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the table: medians, and the spread in brackets."""
    lines = ["| | " + " | ".join(SIDES) + " |", "|---|" + "---|" * len(SIDES)]
    for key, title in ROWS.items():
        cells = []
        for name in SIDES:
            values = sorted(run[key] for run in found[name])
            cells.append(f"{statistics.median(values):.4g} ({values[0]:.4g} to {values[-1]:.4g})")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
