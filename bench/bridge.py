"""The bridge beside upstream's worker command, on the same bundle, in one run. Writes bench/results/bridge.json.

Both run the same strict Go program (packed for supervisor schema 2026-06-16) against the same real Airflow api-server.
Times are taken from /proc by a sampler of ours, outside both: start of the process, appearance of the runtime, and,
from the runtime's own log lines, the moment that StartupDetails reached it.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from support.airflow import Airflow
from support.bridge import TI_FIELDS
from support.paths import EXECUTABLE_CLASSPATH, GO_ROOT_33, ROOT
from support.processes import children

RUNS = int(os.environ.get("BENCH_RUNS", "5"))


def pss(pid: int) -> int:
    """Return a process's proportional set size in KiB, 0 if it is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def measure(command: list[str], env: dict[str, str], sample_memory: bool = True) -> dict[str, Any]:
    """Run a supervisor; return seconds to spawn and to end, CPU seconds of it alone, and its peak PSS in MiB."""
    peak, spawned = 0, None
    start = time.monotonic()
    env = {key: value for key, value in env.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    done = threading.Event()

    def sample() -> None:
        nonlocal peak, spawned
        next_memory = 0.0
        while not done.is_set():
            now = time.monotonic()
            if spawned is None:
                for child in children(process.pid):
                    try:
                        if "conformance" in Path(f"/proc/{child}/cmdline").read_text():
                            spawned = now - start
                    except OSError:
                        pass
            if sample_memory and now >= next_memory:
                peak = max(peak, pss(process.pid))
                next_memory = now + 0.02
            time.sleep(0.001)

    sampler = threading.Thread(target=sample)
    sampler.start()
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    done.set()
    sampler.join()
    process.returncode = 0
    own = usage.ru_utime + usage.ru_stime
    return {"spawned": spawned, "wall": wall, "cpu": own, "peak_pss_mib": peak / 1024}


class Side:
    """One of the two supervisors."""

    def __init__(self, name: str, airflow: Airflow, folder: Path) -> None:
        self.name = name
        self.airflow = airflow
        self.folder = folder
        self.count = 0

    def run(self, task: str, conf: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        self.count += 1
        run_id = f"{self.name}-{task}-{self.count}"
        workload = self.airflow.queue(run_id, task, queue="golang", conf=conf)[task]
        if self.name == "upstream":
            command = [self.airflow.python, "-m", "airflow.sdk.execution_time.execute_workload"]
            figures = measure([*command, "--json-string", json.dumps(workload)], self.airflow.env)
            log = self.airflow.log_of(workload)
        else:
            path = self.folder / f"{run_id}.json"
            log_file = self.folder / f"{run_id}.log"
            config = {
                "ti": {key: workload["ti"].get(key) for key in TI_FIELDS},
                "bundle_info": {"name": workload["bundle_info"]["name"]},
                "dag_rel_path": workload["dag_rel_path"],
                "token": workload["token"],
                "execution_api": {"url": self.airflow.url},
                "coordinator_name": "native",
                "coordinator": {"classpath": EXECUTABLE_CLASSPATH, "kwargs": {"executables_root": [str(GO_ROOT_33)]}},
                "log_file": str(log_file),
            }
            path.write_text(json.dumps(config))
            command = [sys.executable, "-m", "polypod_bridge.main", "--config", str(path)]
            env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
            figures = measure(command, env)
            log = [json.loads(line) for line in log_file.read_text().splitlines()]
        state = self.airflow.state(run_id, task)
        assert state["state"] == "success", (self.name, task, state, log[-3:])
        figures["xcom"] = state["xcoms"].get("return_value")
        return figures, log


def server_alone(airflow: Airflow, number: int) -> float:
    """Return the milliseconds of one variable read by a bare keep-alive client: the floor of every supervisor."""
    workload = airflow.queue(f"alone-{time.time_ns()}", "success", queue="golang")["success"]
    connection = http.client.HTTPConnection("127.0.0.1", airflow.port)
    headers = {"authorization": f"Bearer {workload['token']}", "content-type": "application/json"}
    start = {"state": "running", "hostname": "h", "unixname": "u", "pid": 1, "start_date": "2026-11-21T00:00:00Z"}
    connection.request("PATCH", f"/execution/task-instances/{workload['ti']['id']}/run", json.dumps(start), headers)
    answer = connection.getresponse()
    answer.read()
    headers["authorization"] = f"Bearer {answer.headers['Refreshed-API-Token']}"
    begin = time.monotonic()
    for _ in range(number):
        connection.request("GET", "/execution/variables/conformance_in", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    return (time.monotonic() - begin) / number * 1000


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


ROWS = {
    "spawned_s": ("process start to runtime spawned", "s", "≤ 0.10"),
    "startup_details_s": ("process start to StartupDetails", "s", ""),
    "whole_task_s": ("process start to end, trivial task", "s", ""),
    "cpu_s": ("CPU of the whole trivial task", "s", "≤ 0.30"),
    "peak_pss_mib": ("peak PSS of the supervisor", "MiB", "≤ 35"),
    "round_trip_ms": ("one of 500 GetVariable round trips", "ms", "half of upstream's"),
    "own_round_trip_ms": ("the supervisor's own part of it", "ms", ""),
    "log_lines_per_s": ("log lines a second, of 100,000", "1/s", "twice upstream's"),
}


def table(report: dict[str, dict[str, dict[str, float]]], alone: float) -> str:
    """Return the report as Markdown."""
    lines = ["| | unit | upstream | Polypod | spread | ratio | goal |", "|---|---|---|---|---|---|---|"]
    for figure, (name, unit, goal) in ROWS.items():
        ours, theirs = report["polypod"][figure], report["upstream"][figure]
        ratio = theirs["median"] / ours["median"] if figure != "log_lines_per_s" else ours["median"] / theirs["median"]
        digits = 0 if figure == "log_lines_per_s" else 2
        lines.append(
            f"| {name} | {unit} | {theirs['median']:.{digits}f} | {ours['median']:.{digits}f} "
            f"| {ours['min']:.{digits}f} to {ours['max']:.{digits}f} | {ratio:.1f}x | {goal} |"
        )
    lines.append(f"| server alone: the same request by a bare client | ms | {alone:.2f} | {alone:.2f} | | | |")
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as name:
        folder = Path(name)
        airflow = Airflow(folder / "airflow")
        results: dict[str, dict[str, list[float]]] = {"upstream": {}, "polypod": {}}

        def note(side: str, figure: str, value: float) -> None:
            results[side].setdefault(figure, []).append(value)

        try:
            airflow.start()
            airflow.ask("secrets", connections={}, variables={"conformance_in": "x"})
            sides = [Side(name, airflow, folder) for name in results]
            for side in sides:  # warm the page cache and the server
                side.run("run_context", {})
            for _ in range(RUNS):
                for side in sides:
                    figures, _ = side.run("bench_start", {})
                    note(side.name, "spawned_s", figures["spawned"])
                    note(side.name, "startup_details_s", figures["spawned"] + figures["xcom"] / 1000)
                    note(side.name, "whole_task_s", figures["wall"])
                    note(side.name, "cpu_s", figures["cpu"])
                    note(side.name, "peak_pss_mib", figures["peak_pss_mib"])
            alone = []
            for _ in range(max(1, RUNS // 2)):
                alone.append(server_alone(airflow, 500))
                for side in sides:
                    figures, _ = side.run("bench_round_trips", {"number": 500})
                    note(side.name, "round_trip_ms", figures["xcom"] / 500)
                    figures, log = side.run("spam", {"lines": 100_000})
                    assert sum(record["event"] == "spam" for record in log) == 100_000
                    trivial = statistics.median(results[side.name]["whole_task_s"])
                    note(side.name, "log_lines_per_s", 100_000 / (figures["wall"] - trivial))
        finally:
            airflow.stop()
    floor = statistics.median(alone)
    for figures in results.values():
        figures["own_round_trip_ms"] = [value - floor for value in figures["round_trip_ms"]]
    report = {side: {figure: summary(values) for figure, values in every.items()} for side, every in results.items()}
    document = {"runs": RUNS, "server_alone_ms": round(floor, 3), **report}
    (ROOT / "bench/results/bridge.json").write_text(json.dumps(document, indent=2) + "\n")
    page = ROOT / "bench/RESULTS.md"
    begin, end = "<!-- begin: bridge (written by `make bench`) -->", "<!-- end: bridge -->"
    head, _, rest = page.read_text().partition(begin)
    page.write_text(f"{head}{begin}\n{table(report, floor)}\n{end}{rest.partition(end)[2]}")
    print(table(report, floor))


if __name__ == "__main__":
    main()
