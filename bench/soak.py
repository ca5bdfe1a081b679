"""Short TaskRuns, one after another, on a bare API server: the operator's memory at the end. Writes results/soak.json.

Each is applied when the one before has ended, and is removed with its pod some time later, as a TTL would.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import bare as bare_cluster
from bare import Bare, cpu_seconds, memory_mib, task_run
from page import put

COUNT = int(os.environ.get("BENCH_COUNT", "2000"))
FIRST, KEPT = 200, 300
PODS, TASK_RUNS = "/api/v1/namespaces/default/pods", "/apis/polypod.dev/v1alpha1/namespaces/default/taskruns"


async def soak(bare: Bare) -> dict[str, Any]:
    operator = bare.start_operator()
    samples: dict[int, float] = {}
    names: list[str] = []
    async with bare.session() as session:
        for number in range(1, COUNT + 1):
            name = f"run-{number:05d}"
            async with session.post(TASK_RUNS, json=task_run(name)) as answer:
                assert answer.status == 201, await answer.text()
            names.append(name)
            give_up = time.monotonic() + 120
            while True:
                async with session.get(f"{TASK_RUNS}/{name}") as answer:
                    item = await answer.json()
                if (item.get("status") or {}).get("phase") == "Succeeded":
                    break
                assert time.monotonic() < give_up, item
                await asyncio.sleep(0.02)
            if len(names) > KEPT:
                old = names.pop(0)
                async with session.get(f"{TASK_RUNS}/{old}") as answer:
                    pod = (await answer.json())["status"]["attempts"][0]["podName"]
                for path in (f"{TASK_RUNS}/{old}", f"{PODS}/{pod}"):
                    async with session.delete(path) as answer:
                        assert answer.status == 200, await answer.text()
            if number % FIRST == 0 or number == COUNT:
                samples[number] = round(memory_mib(operator.pid, "VmRSS"), 2)
                print(number, samples[number], flush=True)
        cpu = cpu_seconds(operator.pid)
    return {
        "task_runs": COUNT,
        "resident_mib": samples,
        "growth": round(samples[COUNT] / samples[FIRST] - 1, 4),
        "cpu_ms_per_task_run": round(cpu * 1000 / COUNT, 2),
    }


async def main() -> None:
    # a kubelet of great haste, so that it is the operator which is at work all the time
    bare_cluster.START_MS, bare_cluster.RUN_MS = 0, 0
    bare = Bare()
    try:
        bare.up()
        report = await soak(bare)
    finally:
        bare.down()
    Path(__file__).with_name("results").joinpath("soak.json").write_text(json.dumps(report, indent=1) + "\n")
    rows = ["| TaskRuns done | operator's resident memory |", "|---|---|"]
    rows += [f"| {number} | {mib:.1f} MiB |" for number, mib in report["resident_mib"].items()]
    put(
        "soak",
        "make bench-soak",
        "\n".join([*rows, "", f"Growth from {FIRST} to {COUNT}: {report['growth']:+.1%} (goal: within 10 %)."]),
    )


if __name__ == "__main__":
    asyncio.run(main())
