"""Very many TaskRuns that wait for their turn: memory, restart, a routing edit, throughput. Writes results/scale.json.

A bare API server, kwok for a kubelet (2 s to start, 5 s to run), one operator with its default settings. All TaskRuns
are of one queue, whose limit is 0 until they are there and say what they wait for, and 500 from then on. With 7 s a
pod, a limit of 500 allows 71 TaskRuns a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
from bare import RUN_MS, START_MS, Bare, cpu_seconds, memory_mib
from driver import post_waiting, until
from kubelet import PODS, Raw, Watched
from page import put
from products import POLYPOD

SIZES = [int(size) for size in os.environ.get("BENCH_SIZES", "5000,100000").split(",")]
LIMIT = 500
STEADY = float(os.environ.get("BENCH_STEADY", "60"))
"""Seconds for which throughput is measured, after as many to settle."""
TASK_RUNS, of = POLYPOD.objects, POLYPOD.object_of


async def scale(size: int) -> dict[str, Any]:
    """Let that many wait; return what was measured."""
    bare = Bare()
    try:
        bare.up()
        bare.route(["golang", "held"], {"golang": 0, "held": 0})
        operator = bare.start_operator()
        empty = memory_mib(operator.pid, "VmRSS")
        api_server, etcd = bare.plane.services.pid("kube-apiserver"), bare.plane.services.pid("etcd")
        assert api_server is not None
        assert etcd is not None
        async with bare.session() as session:
            began = time.monotonic()
            await post_waiting(session, size)
            posted = time.monotonic() - began
            await all_wait(session)
            said = time.monotonic() - began
            row: dict[str, Any] = {
                "waiting": size, "posted_s": posted, "all_say_why_s": said,
                "resident_mib": memory_mib(operator.pid, "VmRSS"), "peak_mib": memory_mib(operator.pid),
                "at_start_mib": empty,
            }  # fmt: skip
            pods: dict[str, float] = {}

            def saw(kind: str, pod: Raw) -> None:
                if kind in ("ADDED", "LISTED"):
                    pods.setdefault(of(pod["metadata"]["name"]), time.monotonic())

            watch = asyncio.create_task(Watched(session, PODS, saw).run())
            edited = time.monotonic()
            await asyncio.to_thread(bare.route, ["golang", "held"], {"golang": 0})
            await until(lambda: "held" in pods, [watch], 60)
            row["edit_s"] = pods["held"] - edited
            # from here on 500 at a time may run
            cpu = cpu_seconds(operator.pid)
            began = time.monotonic()
            await asyncio.to_thread(bare.route, ["golang", "held"], {"golang": LIMIT})
            row["per_s"] = await throughput(pods, watch, size)
            lasted = time.monotonic() - began
            row["operator_cores"] = (cpu_seconds(operator.pid) - cpu) / lasted
            row["serving_mib"], row["serving_peak_mib"] = memory_mib(operator.pid, "VmRSS"), memory_mib(operator.pid)
            # another one takes over
            operator.kill()
            operator.wait()
            # what it has created is shown before the next one is started
            await asyncio.sleep(5)
            count, restarted = len(pods), time.monotonic()
            operator = bare.start_operator()
            await until(lambda: len(pods) > count, [watch], 300)
            row["restart_s"] = time.monotonic() - restarted
            await asyncio.sleep(30)
            row["restarted_peak_mib"] = memory_mib(operator.pid)
            row["server_mib"], row["etcd_mib"] = memory_mib(api_server, "VmRSS"), memory_mib(etcd, "VmRSS")
            row["etcd_file_mib"] = sum(file.stat().st_size for file in (bare.folder / "etcd").rglob("db")) / 2**20
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        return row
    except BaseException:
        print(bare.logs())
        raise
    finally:
        bare.down()


async def all_wait(session: aiohttp.ClientSession) -> None:
    """Wait until every TaskRun says that its queue is at its limit."""
    give_up = time.monotonic() + 1800
    params = {"limit": "500"}
    while time.monotonic() < give_up:
        async with session.get(TASK_RUNS, params=params) as answer:
            page = await answer.json()
        if all((item.get("status") or {}).get("reason") == "QueueLimit" for item in page["items"]):
            if not page["metadata"].get("continue"):
                return
            params["continue"] = page["metadata"]["continue"]
        else:
            params.pop("continue", None)
            await asyncio.sleep(2)
    raise AssertionError("they do not all wait")


async def throughput(pods: dict[str, float], watch: asyncio.Task[None], size: int) -> float:
    """Return how many pods are created a second once pods end as well as start."""
    settle = min(STEADY, 2 * (START_MS + RUN_MS) / 1000)
    await asyncio.sleep(settle)
    begin, count = time.monotonic(), len(pods)
    lasts = min(STEADY, (size - count) / 71 * 0.8)
    while time.monotonic() - begin < lasts:
        assert not watch.done(), "the driver's watch has ended"
        await asyncio.sleep(0.2)
    return (len(pods) - count) / (time.monotonic() - begin)


async def main() -> None:
    rows = []
    for size in SIZES:
        rows.append(await scale(size))
        print(json.dumps(rows[-1]), flush=True)
    Path(__file__).with_name("results").joinpath("scale.json").write_text(json.dumps(rows, indent=1) + "\n")
    put("scale", "make bench-scale", table(rows))


FIGURES = {
    "resident_mib": ("operator's memory while all wait", "{:.0f} MiB", "≤ 600 MiB"),
    "peak_mib": ("its largest until then", "{:.0f} MiB", "≤ 600 MiB"),
    "serving_peak_mib": ("its largest while 500 at a time run", "{:.0f} MiB", "≤ 600 MiB"),
    "restarted_peak_mib": ("its largest after a restart", "{:.0f} MiB", "≤ 600 MiB"),
    "restart_s": ("killed and started again, until the next pod", "{:.1f} s", "≤ 60 s"),
    "edit_s": ("routing edit, until the pod that it lets go", "{:.2f} s", "≤ 2 s"),
    "per_s": ("TaskRuns a second with a limit of 500 (71 at most)", "{:.1f}", "the same at both"),
    "operator_cores": ("operator's CPU meanwhile", "{:.2f} cores", ""),
    "posted_s": ("the driver posted them in", "{:.0f} s", ""),
    "all_say_why_s": ("until each said what it waits for", "{:.0f} s", ""),
    "server_mib": ("API server's memory", "{:.0f} MiB", ""),
    "etcd_mib": ("etcd's memory", "{:.0f} MiB", ""),
    "etcd_file_mib": ("etcd's file", "{:.0f} MiB", ""),
}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = ["| waiting | " + " | ".join(f"{row['waiting']:,}" for row in rows) + " | goal |"]
    lines.append("|---" * (len(rows) + 2) + "|")
    for figure, (name, form, goal) in FIGURES.items():
        lines.append(f"| {name} | {' | '.join(form.format(row[figure]) for row in rows)} | {goal} |")
    return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(main())
