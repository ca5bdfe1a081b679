"""A burst of TaskRuns, in two rigs: how soon each has its pod, at what cost. Writes results/burst.json.

The bare rig has our CRD alone, and kwok for a kubelet: a pod is shown as running after 2 s, as ended 5 s later. The
full one has the peers' CRDs as well, and the driver is the kubelet: running after 1 s, ended 3 s later (driver.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import products
from bare import Bare, memory_mib
from driver import burst, empty, post_waiting, until
from kubelet import PODS, Raw, Watched
from page import put
from products import POLYPOD

SIZES = [int(size) for size in os.environ.get("BENCH_SIZES", "500,5000").split(",")]
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
TASK_RUNS, of = POLYPOD.objects, POLYPOD.object_of
RIGS = {"bare": "only our CRD, kwok is the kubelet", "full": "the peers' CRDs as well, the driver is the kubelet"}
Rows = dict[str, dict[str, list[dict[str, Any]]]]


async def edit(bare: Bare, size: int) -> dict[str, Any]:
    """Edit the routing while that many TaskRuns wait for their turn; return how soon it was in use."""
    bare.route(["golang", "held"], {"golang": 0, "held": 0})
    operator = bare.start_operator()
    async with bare.session() as session:
        await post_waiting(session, size)
        give_up = time.monotonic() + 300
        while True:
            async with session.get(TASK_RUNS) as answer:
                items = (await answer.json())["items"]
            if sum((item.get("status") or {}).get("reason") == "QueueLimit" for item in items) == size:
                break
            assert time.monotonic() < give_up, "they do not all wait"
            await asyncio.sleep(1)
        seen: dict[str, float] = {}

        def saw(kind: str, pod: Raw) -> None:
            seen.setdefault(of(pod["metadata"]["name"]), time.monotonic())

        shown = Watched(session, PODS, saw)
        watch = asyncio.create_task(shown.run())
        # the limit of one queue is taken away
        edited = time.monotonic()
        await asyncio.to_thread(bare.route, ["golang", "held"], {"golang": 0})
        await until(lambda: "held" in seen, [watch], 60)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        resident = memory_mib(operator.pid, "VmRSS")
        await empty(session, TASK_RUNS)
    bare.stop(operator)
    bare.route(["golang"])
    return {"waiting": size, "edit_to_pod_s": seen["held"] - edited, "resident_mib": resident}


async def main() -> None:
    rows: Rows = {}
    edited: list[dict[str, Any]] = []
    for rig in RIGS:
        bare = Bare()
        try:
            bare.up(kwok=rig == "bare")
            if rig == "full":
                products.install(bare)
            for run in range(RUNS):
                for size in SIZES:
                    row = await burst(bare, POLYPOD, size, kubelet=rig == "full")
                    print(rig, run, json.dumps(row), flush=True)
                    rows.setdefault(rig, {}).setdefault(str(size), []).append(row)
            if rig == "bare":
                edited = [await edit(bare, max(SIZES)) for _ in range(RUNS)]
        except BaseException:
            print(bare.logs())
            raise
        finally:
            bare.down()
    report = {"bursts": rows, "routing_edits": edited}
    Path(__file__).with_name("results").joinpath("burst.json").write_text(json.dumps(report, indent=1) + "\n")
    times = sorted(run["edit_to_pod_s"] for run in edited)
    said = (
        f"With {max(SIZES):,} TaskRuns waiting for their turn, from `kubectl apply` of another limit to the pod of the "
        f"TaskRun that it lets go: {statistics.median(times):.2f} s ({times[0]:.2f} to {times[-1]:.2f}); the operator "
        f"then holds {max(run['resident_mib'] for run in edited):.0f} MiB."
    )
    tables = "\n\n".join(f"{rig.capitalize()} rig ({RIGS[rig]}):\n\n{table(rig, rows[rig])}" for rig in rows)
    put("burst", "make bench-burst", f"{tables}\n\n{said}")


FIGURES: dict[str, tuple[str, str, dict[tuple[str, str], str]]] = {
    "pods_per_s": ("pods made a second", "{:.0f}", {("bare", "500"): "≥ 300", ("bare", "5000"): "≥ 200"}),
    "p50_s": ("resource → pod, p50", "{:.2f} s", {}),
    "p99_s": ("resource → pod, p99", "{:.2f} s", {("bare", "500"): "≤ 1 s", ("bare", "5000"): "≤ 3 s"}),
    "shown_p50_s": ("until a watch shows the pod, p50", "{:.2f} s", {}),
    "shown_p99_s": ("until a watch shows the pod, p99", "{:.2f} s", {}),
    "ended_p99_s": ("until a watch shows that it has succeeded, p99", "{:.1f} s", {}),
    "to_completion_s": ("until all had succeeded", "{:.0f} s", {}),
    "posted_per_s": ("TaskRuns posted a second", "{:.0f}", {}),
    "writes": ("writes a TaskRun, over its life", "{:.2f}", dict.fromkeys(
        ((rig, size) for rig in RIGS for size in ("500", "5000")), "≤ 3.0")),
    "cpu_ms": ("operator's CPU a TaskRun, over its life", "{:.1f} ms", {}),
    "peak_mib": ("operator's largest resident memory", "{:.0f} MiB", {
        ("bare", "500"): "≤ 150", ("bare", "5000"): "≤ 250"}),
    "server_cpu_ms": ("API server's CPU a TaskRun", "{:.0f} ms", {}),
    "server_mib": ("API server's memory afterwards", "{:.0f} MiB", {}),
    "closed_watches": ("watches that it closed", "{:.0f}", {}),
    "driver_watches_closed": ("of them the driver's", "{:.0f}", {}),
}  # fmt: skip


def table(rig: str, rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return the medians as Markdown, with their spread."""
    lines = ["| | " + " | ".join(f"{size} at once | goal" for size in rows) + " |", "|---|" + "---|---|" * len(rows)]
    for figure, (name, form, goals) in FIGURES.items():
        cells = []
        for size, runs in rows.items():
            values = sorted(run[figure] for run in runs)
            spread = f"{form.format(values[0])} to {form.format(values[-1])}"
            cells += [f"{form.format(statistics.median(values))} ({spread})", goals.get((rig, size), "")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(main())
