"""A burst of TaskRuns onto a bare API server: how soon each has its pod, at what cost. Writes results/burst.json.

The driver posts TaskRuns as fast as a few connections allow. `resource → pod` is from the moment at which the API
server has received the POST of a TaskRun to the moment at which it has answered that of its pod, both by its audit log.
How late the driver's watch shows that pod is told as well: on a full machine a watch of pods may lag by seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from bare import Bare, cpu_seconds, memory_mib, task_run, writes
from page import put

SIZES = [int(size) for size in os.environ.get("BENCH_SIZES", "500,5000").split(",")]
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "16"))
PODS, TASK_RUNS = "/api/v1/namespaces/default/pods", "/apis/polypod.dev/v1alpha1/namespaces/default/taskruns"


class Seen:
    """What the driver's watches have shown."""

    def __init__(self) -> None:
        self.posted: dict[str, float] = {}
        self.pod: dict[str, float] = {}
        self.done: dict[str, float] = {}

    async def watch_pods(self, session: aiohttp.ClientSession) -> None:
        async for kind, item in watch(session, PODS):
            name = item["metadata"]["labels"]["polypod.dev/taskrun"]
            if kind == "ADDED":
                self.pod.setdefault(name, time.monotonic())

    async def watch_task_runs(self, session: aiohttp.ClientSession) -> None:
        async for _, item in watch(session, TASK_RUNS):
            if (item.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                assert item["status"]["phase"] == "Succeeded", item["status"]
                self.done.setdefault(item["metadata"]["name"], time.monotonic())


async def watch(session: aiohttp.ClientSession, path: str) -> Any:
    version = ""
    while True:
        params = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version or "0"}
        async with session.get(path, params=params) as answer:
            async for line in answer.content:
                event = msgspec.json.decode(line)
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield event["type"], event["object"]


async def burst(bare: Bare, size: int) -> dict[str, Any]:
    """Run one burst with an operator that was started for it; return what was measured."""
    operator = bare.start_operator()
    async with bare.session() as session:
        await warm(session)
        seen = Seen()
        watches = [asyncio.create_task(seen.watch_pods(session)), asyncio.create_task(seen.watch_task_runs(session))]
        before, cpu = await writes(session), cpu_seconds(operator.pid)
        names = [f"run-{number:05d}" for number in range(size)]
        left = iter(names)

        async def post() -> None:
            for name in left:
                seen.posted[name] = time.monotonic()
                async with session.post(TASK_RUNS, json=task_run(name)) as answer:
                    assert answer.status == 201, await answer.text()

        start = time.monotonic()
        await asyncio.gather(*(post() for _ in range(CONNECTIONS)))
        posted = time.monotonic()
        await until(lambda: all(name in seen.pod for name in names), watches, 300)
        await until(lambda: all(name in seen.done for name in names), watches, 600)
        ended = time.monotonic()
        await asyncio.sleep(2)
        cpu = cpu_seconds(operator.pid) - cpu
        after = await writes(session)
        peak = memory_mib(operator.pid)
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await empty(session)
    operator.terminate()
    operator.wait(timeout=30)
    asked, there = bare.made()
    waits = sorted(there[name] - asked[name] for name in names)
    shown = sorted(seen.pod[name] - seen.posted[name] for name in names)
    begin, last = min(asked[name] for name in names), max(there[name] for name in names)
    counted = {key: (after[key] - before[key]) / size for key in after}
    return {
        "task_runs": size,
        "posted_per_s": size / (posted - start),
        "pods_per_s": size / (last - begin),
        "p50_s": statistics.median(waits),
        "p99_s": waits[int(size * 0.99) - 1],
        "shown_p50_s": statistics.median(shown),
        "shown_p99_s": shown[int(size * 0.99) - 1],
        "cpu_ms_per_task_run": cpu * 1000 / size,
        "peak_mib": peak,
        "writes_per_task_run": sum(counted[key] for key in ("POST pods", "PATCH taskruns/status", "POST events")),
        "writes": counted,
        "to_completion_s": ended - start,
    }


async def edit(bare: Bare, size: int) -> dict[str, Any]:
    """Edit the routing while that many TaskRuns wait for their turn; return how soon it was in use."""
    bare.route(["golang", "held"], {"golang": 0, "held": 0})
    operator = bare.start_operator()
    async with bare.session() as session:
        left = iter(range(size))

        async def post() -> None:
            for number in left:
                one = task_run(f"run-{number:05d}") if number else task_run("held", "held")
                async with session.post(TASK_RUNS, json=one) as answer:
                    assert answer.status == 201, await answer.text()

        await asyncio.gather(*(post() for _ in range(CONNECTIONS)))
        give_up = time.monotonic() + 300
        while True:
            async with session.get(TASK_RUNS) as answer:
                items = (await answer.json())["items"]
            if sum((item.get("status") or {}).get("reason") == "QueueLimit" for item in items) == size:
                break
            assert time.monotonic() < give_up, "they do not all wait"
            await asyncio.sleep(1)
        seen = Seen()
        watch = asyncio.create_task(seen.watch_pods(session))
        # the limit of one queue is taken away
        edited = time.monotonic()
        await asyncio.to_thread(bare.route, ["golang", "held"], {"golang": 0})
        await until(lambda: "held" in seen.pod, [watch], 60)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        resident = memory_mib(operator.pid, "VmRSS")
        await empty(session)
    operator.terminate()
    operator.wait(timeout=30)
    bare.route(["golang"])
    return {"waiting": size, "edit_to_pod_s": seen.pod["held"] - edited, "resident_mib": resident}


async def until(ready: Any, watches: list[asyncio.Task[None]], limit: float) -> None:
    give_up = time.monotonic() + limit
    while not ready():
        for task in watches:
            if task.done():
                task.result()
                raise AssertionError("a watch of the driver has ended")
        assert time.monotonic() < give_up, f"not within {limit} s"
        await asyncio.sleep(0.05)


async def warm(session: aiohttp.ClientSession) -> None:
    """Run one TaskRun, so that the operator is known to be at work."""
    async with session.post(TASK_RUNS, json=task_run("warm")) as answer:
        assert answer.status == 201, await answer.text()
    give_up = time.monotonic() + 120
    while True:
        async with session.get(f"{TASK_RUNS}/warm") as answer:
            item = await answer.json()
        if (item.get("status") or {}).get("phase") == "Succeeded":
            break
        assert time.monotonic() < give_up, item
        await asyncio.sleep(0.1)
    await empty(session)


async def empty(session: aiohttp.ClientSession) -> None:
    """Remove what is there; without a controller manager nobody collects pods."""
    for path in (TASK_RUNS, PODS):
        async with session.delete(path) as answer:
            assert answer.status == 200, await answer.text()
    give_up = time.monotonic() + 300
    for path in (TASK_RUNS, PODS):
        while True:
            async with session.get(path, params={"limit": "1"}) as answer:
                if not (await answer.json())["items"]:
                    break
            assert time.monotonic() < give_up, path
            await asyncio.sleep(0.2)


async def main() -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    bare = Bare()
    try:
        bare.up()
        for run in range(RUNS):
            for size in SIZES:
                row = await burst(bare, size)
                print(run, json.dumps(row))
                rows.setdefault(str(size), []).append(row)
        edited = [await edit(bare, max(SIZES)) for _ in range(RUNS)]
    except BaseException:
        print((bare.folder / "operator.log").read_text()[-3000:])
        print((bare.folder / "kwok.log").read_text()[-2000:])
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
    put("burst", "make bench-burst", f"{table(rows)}\n\n{said}")


FIGURES = {
    "pods_per_s": ("pods made a second", "{:.0f}", {"500": "≥ 200"}),
    "p50_s": ("resource → pod, p50", "{:.2f} s", {}),
    "p99_s": ("resource → pod, p99", "{:.2f} s", {"500": "≤ 1 s", "5000": "≤ 3 s"}),
    "shown_p50_s": ("until a watch shows the pod, p50", "{:.2f} s", {}),
    "shown_p99_s": ("until a watch shows the pod, p99", "{:.2f} s", {}),
    "writes_per_task_run": ("writes a TaskRun, over its life", "{:.2f}", {"500": "≤ 4", "5000": "≤ 4"}),
    "cpu_ms_per_task_run": (
        "operator's CPU a TaskRun, over its life",
        "{:.1f} ms",
        {"5000": "≤ 1.2 times that at 500"},
    ),
    "peak_mib": ("operator's largest resident memory", "{:.0f} MiB", {"500": "≤ 150", "5000": "≤ 250"}),
    "posted_per_s": ("TaskRuns posted a second", "{:.0f}", {}),
    "to_completion_s": ("until all had succeeded", "{:.0f} s", {}),
}


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return the medians as Markdown, with their spread."""
    lines = ["| | " + " | ".join(f"{size} at once | goal" for size in rows) + " |", "|---|" + "---|---|" * len(rows)]
    for figure, (name, form, goals) in FIGURES.items():
        cells = []
        for size, runs in rows.items():
            values = sorted(run[figure] for run in runs)
            spread = f"{form.format(values[0])} to {form.format(values[-1])}"
            cells += [f"{form.format(statistics.median(values))} ({spread})", goals.get(size, "")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(main())
