"""A TaskRun beside a bare pod, on a real kubelet, in one run. Writes bench/results/pods.json.

All run the same JVM from the same image. The start of a container is containerd's own event, to the nanosecond: a
pod's status knows seconds only. `created` is the moment before our POST, of a pod here and of a TaskRun there. The
sides take turns, so that what else the machine does hits each of them.

There are two bare pods: one as users make it, which has the service account's token for a volume, and one without any
volume. A kubelet looks every 0.3 s whether a pod's volumes are mounted (`podAttachAndMountRetryInterval`), so the first
volume costs what all others do not.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
from cluster.control_plane import Reached
from cluster.lab import Lab, Namespace, task_run
from page import put
from support.paths import ROOT

RUNS = int(os.environ.get("BENCH_RUNS", "10"))
ROWS = {
    "started_s": ("create to container started", "≤ 0.20 over the bare pod"),
    "connected_s": ("create to runtime connected", ""),
    "succeeded_s": ("create to phase Succeeded", ""),
    "exit_to_status_s": ("container exit to phase Succeeded", ""),
    "runtime_exit_to_status_s": ("runtime exit to phase Succeeded", "≤ 0.30"),
}
_EVENT = re.compile(r"^(\S+ \S+ \S+) \S+ \S+ (/tasks/(?:start|exit)) (\{.*\})$")


class TaskEvents:
    """The starts and ends of containers, as containerd tells them."""

    def __init__(self, lab: Lab) -> None:
        assert lab.node is not None
        command = [str(lab.node.bin / "ctr"), "-a", f"{lab.node.folder}/containerd.sock", "-n", "k8s.io", "events"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._seen: dict[tuple[str, str], float] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = _EVENT.match(line.strip())
            if found is not None:
                when = datetime.strptime(found[1].split(" +")[0][:26], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
                self._seen[found[2], json.loads(found[3])["container_id"]] = when.timestamp()

    def time(self, topic: str, container: str) -> float:
        give_up = time.monotonic() + 60
        while (topic, container) not in self._seen:
            assert time.monotonic() < give_up, f"no {topic} of {container}"
            time.sleep(0.01)
        return self._seen[topic, container]

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Api:
    """One kept-open connection to the API server, so that kubectl's own start is not measured."""

    def __init__(self, lab: Lab) -> None:
        assert lab.node is not None
        reached = Reached.by(lab.node.kubeconfig)
        self._server = reached.server
        self._headers = {"authorization": f"Bearer {reached.token}"}
        self._pool = urllib3.PoolManager(ca_certs=reached.authority)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._pool.request(method, self._server + path, json=body, headers=self._headers)
        assert answer.status < 400, answer.data
        return answer.json()

    def until(self, path: str, done: Callable[[Any], bool]) -> tuple[Any, float]:
        """Watch one object until it is as wanted; return it, and when that was seen."""
        folder, _, name = path.rpartition("/")
        query = f"{folder}?watch=1&fieldSelector=metadata.name%3D{name}"
        answer = self._pool.request(
            "GET", self._server + query, headers=self._headers, preload_content=False, timeout=120
        )
        buffer = b""
        try:
            for chunk in answer.stream(65536):
                buffer += chunk
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    seen = json.loads(line)["object"]
                    if done(seen):
                        return seen, time.time()
        finally:
            answer.close()
            answer.release_conn()
        raise AssertionError(f"{path} did not get there")


def bare(api: Api, events: TaskEvents, namespace: Namespace, image: str, number: int, token: bool) -> dict[str, float]:
    """Run a pod of the JVM alone, with or without the service account's token."""
    name = f"bare-{number}-{'token' if token else 'nothing'}"
    safe = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "task", "image": image, "securityContext": safe,
        "command": ["java", "-XX:TieredStopAtLevel=1", "-version"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }  # fmt: skip
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": token,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }
    path = f"/api/v1/namespaces/{namespace.name}/pods"
    created = time.time()
    api.send("POST", path, pod)
    seen, succeeded = api.until(f"{path}/{name}", lambda item: item["status"].get("phase") == "Succeeded")
    task = container_id(seen["status"]["containerStatuses"][0])
    return {
        "started_s": events.time("/tasks/start", task) - created,
        "succeeded_s": succeeded - created,
        "exit_to_status_s": succeeded - events.time("/tasks/exit", task),
    }


def polypod(api: Api, events: TaskEvents, namespace: Namespace, number: int) -> dict[str, float]:
    """Run a TaskRun of the same JVM."""
    name = f"run-{number}"
    path = f"/apis/polypod.dev/v1alpha1/namespaces/{namespace.name}/taskruns"
    document = task_run(name, "success", "jvm")
    created = time.time()
    api.send("POST", path, document)
    seen, succeeded = api.until(f"{path}/{name}", lambda item: item.get("status", {}).get("phase") == "Succeeded")
    pod = api.send("GET", f"/api/v1/namespaces/{namespace.name}/pods/{seen['status']['attempts'][0]['podName']}")
    task = container_id(pod["status"]["containerStatuses"][0])
    log = namespace.records(pod["metadata"]["name"])
    said = {record["event"]: datetime.fromisoformat(record["timestamp"]).timestamp() for record in log}
    return {
        "started_s": events.time("/tasks/start", task) - created,
        "connected_s": said["runtime connected"] - created,
        "succeeded_s": succeeded - created,
        "exit_to_status_s": succeeded - events.time("/tasks/exit", task),
        "runtime_exit_to_status_s": succeeded - said["runtime exited"],
    }


def container_id(status: Any) -> str:
    return str(status["containerID"].rpartition("/")[2])


def summary(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def table(report: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the report as Markdown."""
    lines = ["| | bare JVM pod | the same without any volume | TaskRun | over the bare pod | goal |"]
    lines.append("|---|---|---|---|---|---|")
    for figure, (name, goal) in ROWS.items():
        cells = [_cell(report[side].get(figure)) for side in ("bare", "bare_without_volumes", "polypod")]
        theirs, ours = report["bare"].get(figure), report["polypod"][figure]
        over = f"{ours['median'] - theirs['median']:+.2f} s" if theirs else ""
        lines.append(f"| {' | '.join([name, *cells, over, goal])} |")
    return "\n".join(lines)


def _cell(figure: dict[str, float] | None) -> str:
    return f"{figure['median']:.2f} s ({figure['min']:.2f} to {figure['max']:.2f})" if figure else "-"


def main() -> None:
    results: dict[str, dict[str, list[float]]] = {"bare": {}, "bare_without_volumes": {}, "polypod": {}}
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        lab = Lab(Path(folder))
        try:
            lab.up()
            lab.set_operator_option("--task-log-level=DEBUG")
            namespace, events, api = Namespace(lab), TaskEvents(lab), Api(lab)
            image = lab.images["jvm"]
            for number in range(-2, RUNS):  # the first ones pull images and warm the caches
                for side, figures in (
                    ("bare", bare(api, events, namespace, image, number + 2, token=True)),
                    ("bare_without_volumes", bare(api, events, namespace, image, number + 2, token=False)),
                    ("polypod", polypod(api, events, namespace, number + 2)),
                ):
                    for figure, value in figures.items() if number >= 0 else ():
                        results[side].setdefault(figure, []).append(value)
            events.stop()
        finally:
            lab.down()
    report = {side: {figure: summary(values) for figure, values in every.items()} for side, every in results.items()}
    (ROOT / "bench/results/pods.json").write_text(json.dumps({"runs": RUNS, **report}, indent=2) + "\n")
    put("pods", "make bench-pods", table(report))


if __name__ == "__main__":
    main()
