"""A burst of objects for one controller: they are posted as fast as a few connections allow, and two watches look on.

`object → pod` is from the moment at which the API server has received the POST of an object to the moment at which it
has answered that of its pod, both by its audit log. When a user's watch shows the pod has a figure of its own: on
a full machine a watch may lag by seconds, and the API server may close it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import aiohttp
from bare import Bare, cpu_seconds, memory_mib, task_run
from kubelet import PODS, Kubelet, Raw, Watched
from products import POLYPOD, Product

CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", "16"))
_WRITES = ("POST", "PUT", "PATCH", "APPLY", "DELETE")


class Seen:
    """What the driver's watches have shown, by the clock of the driver."""

    def __init__(self, product: Product, kubelet: Kubelet | None) -> None:
        self._product, self._kubelet = product, kubelet
        self.posted: dict[str, float] = {}
        self.pod: dict[str, float] = {}
        self.done: dict[str, float] = {}

    def saw_pod(self, kind: str, item: Raw) -> None:
        if kind != "DELETED":
            self.pod.setdefault(self._product.object_of(item["metadata"]["name"]), time.monotonic())
            if self._kubelet is not None:
                self._kubelet.saw(item)

    def saw_object(self, kind: str, item: Raw) -> None:
        if kind != "DELETED" and self._product.ended(item):
            self.done.setdefault(item["metadata"]["name"], time.monotonic())


async def burst(bare: Bare, product: Product, size: int, *, kubelet: bool) -> dict[str, Any]:
    """Run one burst with a controller that was started for it; return what was measured.

    Args:
        kubelet: True if the driver is to be the kubelet.
    """
    controller, api_server = product.start(bare), bare.plane.services.pid("kube-apiserver")
    assert api_server is not None
    async with bare.session() as session, bare.session() as others:
        moves = Kubelet(others) if kubelet else None
        seen = Seen(product, moves)
        pods, objects = Watched(session, PODS, seen.saw_pod), Watched(session, product.objects, seen.saw_object)
        tasks = [asyncio.create_task(work.run()) for work in (pods, objects, moves) if work is not None]
        await post(session, product, ["warm"], seen)
        await until(lambda: "warm" in seen.done, tasks, 120)
        before, cpu, server_cpu = await figures(session), cpu_seconds(controller.pid), cpu_seconds(api_server)
        names = [f"run-{number:05d}" for number in range(size)]
        start = time.monotonic()
        await post(session, product, names, seen)
        posted = time.monotonic()
        await until(lambda: all(name in seen.done for name in names), tasks, 900)
        ended = time.monotonic()
        await asyncio.sleep(2)
        cpu, server_cpu = cpu_seconds(controller.pid) - cpu, cpu_seconds(api_server) - server_cpu
        after, peak = await figures(session), memory_mib(controller.pid)
        await empty(session, product.objects)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    bare.stop(controller)
    asked, there = bare.made(product.objects.rpartition("/")[2], product.object_of)
    waits = sorted(there[name] - asked[name] for name in names)
    shown = sorted(seen.pod[name] - seen.posted[name] for name in names)
    said = sorted(seen.done[name] - seen.posted[name] for name in names)
    begin, last = min(asked[name] for name in names), max(there[name] for name in names)
    return {
        "objects": size,
        "posted_per_s": size / (posted - start),
        "pods_per_s": size / (last - begin),
        "p50_s": statistics.median(waits),
        "p99_s": at(waits, 0.99),
        "shown_p50_s": statistics.median(shown),
        "shown_p99_s": at(shown, 0.99),
        "ended_p99_s": at(said, 0.99),
        "to_completion_s": ended - start,
        "cpu_ms": cpu * 1000 / size,
        "peak_mib": peak,
        # the objects are the driver's
        "writes": (after["writes"] - before["writes"] - size) / size,
        "server_cpu_ms": server_cpu * 1000 / size,
        "server_mib": memory_mib(api_server, "VmRSS"),
        "closed_watches": after["closed"] - before["closed"],
        "driver_watches_closed": pods.closed + objects.closed,
        "refused_calls": after["refused"] - before["refused"],
        "kubelet_late_s": moves.late if moves is not None else 0.0,
    }


def at(ordered: Sequence[float], part: float) -> float:
    """Return a quantile."""
    return ordered[max(0, int(len(ordered) * part) - 1)]


async def post(session: aiohttp.ClientSession, product: Product, names: Iterable[str], seen: Seen) -> None:
    """Post objects over a few connections."""
    left = iter(names)

    async def one_by_one() -> None:
        for name in left:
            seen.posted[name] = time.monotonic()
            async with session.post(product.objects, json=product.make(name)) as answer:
                assert answer.status == 201, await answer.text()

    await asyncio.gather(*(one_by_one() for _ in range(CONNECTIONS)))


async def post_waiting(session: aiohttp.ClientSession, size: int) -> None:
    """Post TaskRuns that are to wait: one, named held, in the queue held, and the others in the queue golang."""
    left = iter(range(size))

    async def one_by_one() -> None:
        for number in left:
            one = task_run(f"run-{number:06d}") if number else task_run("held", "held")
            async with session.post(POLYPOD.objects, json=one) as answer:
                assert answer.status == 201, await answer.text()

    await asyncio.gather(*(one_by_one() for _ in range(CONNECTIONS)))


async def until(ready: Callable[[], bool], tasks: Sequence[asyncio.Task[None]], limit: float) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not hold in time, or one of the tasks has ended.
    """
    give_up = time.monotonic() + limit
    while not ready():
        for task in tasks:
            if task.done():
                task.result()
                raise AssertionError("a watch of the driver has ended")
        assert time.monotonic() < give_up, f"not within {limit} s"
        await asyncio.sleep(0.05)


async def empty(session: aiohttp.ClientSession, objects: str) -> None:
    """Remove what is there; without a controller manager nobody collects pods."""
    for path in (objects, PODS):
        async with session.delete(path) as answer:
            assert answer.status == 200, await answer.text()
    give_up = time.monotonic() + 300
    for path in (objects, PODS):
        while True:
            async with session.get(path, params={"limit": "1"}) as answer:
                if not (await answer.json())["items"]:
                    break
            assert time.monotonic() < give_up, path
            await asyncio.sleep(0.2)


async def figures(session: aiohttp.ClientSession) -> dict[str, int]:
    """Return what the API server counts: writes that it has carried out, watches that it has closed, calls refused."""
    async with session.get("/metrics") as answer:
        text = await answer.text()
    found = {"writes": 0, "closed": 0, "refused": 0}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("apiserver_request_total"):
            # a pod's status is its kubelet's, and leases are no matter of objects
            others = 'resource="leases"' in name or ('resource="pods"' in name and 'subresource="status"' in name)
            if any(f'verb="{verb}"' in name for verb in _WRITES) and 'code="2' in name and not others:
                found["writes"] += int(float(value))
        elif name.startswith("apiserver_terminated_watchers_total"):
            found["closed"] += int(float(value))
        elif name.startswith("apiserver_flowcontrol_rejected_requests_total"):
            found["refused"] += int(float(value))
    return found
