"""What keeping a log costs: the bridge in pod mode with its log not kept, on a volume, and in an S3 server.

All write to a file as well, which stands for the container's own log. The S3 server is on the same machine.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import page
from cluster import programs
from polypod_bridge.logs.storage import of_pod, read
from support.api import Store, make_store
from support.bridge import COORDINATORS, Bridge
from support.ports import free_port

from bridge import pss

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
LINES = 200_000
KINDS = ("not kept", "on a volume", "in S3")
ROWS = {
    "rate": (f"log lines a second, of {LINES:,}", "1/s", 0),
    "stored": ("the same log whole in its storage, after the task's end", "s", 2),
    "task": ("trivial task, process start to the outcome told", "s", 2),
    "cpu": ("CPU of the bridge for it, the storing included", "s", 2),
    "memory": ("peak PSS of the bridge for it", "MiB", 1),
}


class S3:
    """The server of the tests, over a folder."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir(parents=True)
        self.options = {"aws_access_key_id": "bench", "aws_secret_access_key": secrets.token_hex(8),
                        "aws_region": "us-east-1", "aws_endpoint": f"http://127.0.0.1:{free_port()}"}  # fmt: skip
        binary = programs.build((programs.S3,)) / "versitygw"
        address = self.options["aws_endpoint"].removeprefix("http://")
        self.process = subprocess.Popen(
            [str(binary), "--quiet", "--port", address, "--access", "bench", "--secret",
             self.options["aws_secret_access_key"], "posix", "--nometa", str(folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def run(store: Store, folder: Path, kind: str, s3: S3, task: str, lines: int) -> dict[str, float]:
    """Run one task; return its figures."""
    name = f"{task}-{secrets.token_hex(4)}"
    place = folder / name
    place.mkdir()
    options: dict[str, str] = {}
    pod: dict[str, Any] = {}
    if kind != "not kept":
        (place / "spool").mkdir()
        (place / "options").mkdir()
        base = f"file://{place}/volume" if kind == "on a volume" else "s3://logs"
        options = {} if kind == "on a volume" else s3.options
        for key, value in options.items():
            (place / "options" / key).write_text(value)
        pod = {"log": {"base": base, "path": f"{name}/attempt=1.log", "pod": name, "spool_dir": str(place / "spool"),
                       "options_dir": str(place / "options")}}  # fmt: skip
    config = store.config(store.add(task, run_id=name, queue="golang", conf={"lines": lines}), "golang", COORDINATORS)
    began = time.monotonic()
    bridge = Bridge(place, config, launched=True, pod=pod).start()
    assert bridge.process is not None
    assert bridge.launcher is not None
    peak, done = 0, threading.Event()

    def sample(pid: int) -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, pss(pid))

    sampler = threading.Thread(target=sample, args=(bridge.process.pid,))
    sampler.start()
    bridge.launcher.wait()
    told = time.monotonic()
    bridge.process.terminate()
    _, _, usage = os.wait4(bridge.process.pid, 0)
    ended = time.monotonic()
    bridge.process.returncode = 0
    done.set()
    sampler.join()
    assert json.loads((place / "termination-log").read_text())["state"] == "success"
    if pod and lines:
        kept = sum(b'"spam"' in line for line in of_pod(read(f"{base}/{name}/attempt=1.log", options), name))
        assert kept == lines, f"{kind}: {kept} of {lines} lines were kept"
    return {"task": told - began, "stored": ended - told, "cpu": usage.ru_utime + usage.ru_stime, "memory": peak / 1024}


def main() -> None:
    found: dict[str, dict[str, list[float]]] = {kind: {row: [] for row in ROWS} for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as name:
        folder = Path(name)
        s3 = S3(folder / "s3")
        store = make_store(folder)
        try:
            with store.server:
                for number in range(RUNS + 1):
                    for kind in KINDS:
                        short = run(store, folder, kind, s3, "bench_start", 0)
                        long = run(store, folder, kind, s3, "spam", LINES)
                        if number == 0:
                            # warms the page cache and the server
                            continue
                        for row in ("task", "cpu", "memory"):
                            found[kind][row].append(short[row])
                        found[kind]["rate"].append(LINES / (long["task"] - short["task"]))
                        found[kind]["stored"].append(long["stored"])
        finally:
            s3.stop()
            store.engine.dispose()
    lines = [f"| | unit | {' | '.join(KINDS)} |", "|---|---|" + "---|" * len(KINDS)]
    for row, (title, unit, digits) in ROWS.items():
        cells = [
            f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
            for values in (found[kind][row] for kind in KINDS)
        ]
        lines.append(f"| {title} | {unit} | {' | '.join(cells)} |")
    page.put("logs", "make bench-logs", "\n".join(lines))


if __name__ == "__main__":
    main()
