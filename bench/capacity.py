"""What one operator and one API server carry, from what bench/burst and bench/scale have measured. A simulation.

TaskRuns arrive at once or by the hour, wait for a place in their queue, start as fast as the API server takes what each
costs it, and run for a fixed time. It answers in seconds what a real run would take hours for, and no more exactly than
its inputs are.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from pathlib import Path

from page import put

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Costs:
    """Of one TaskRun over its life.

    Attributes:
        server: the API server's CPU, in seconds, the kubelet's writes included.
        operator: the operator's CPU, in seconds.
        waiting_mib: the operator's memory for one that waits.
    """

    server: float
    operator: float
    waiting_mib: float


def measured() -> Costs:
    """Return the costs of the last runs, in the full rig at the largest size."""
    bursts = json.loads((RESULTS / "burst.json").read_text())["bursts"]["full"]
    runs = bursts[max(bursts, key=int)]
    scale = json.loads((RESULTS / "scale.json").read_text())
    small, large = scale[0], scale[-1]
    each = (large["resident_mib"] - small["resident_mib"]) / (large["waiting"] - small["waiting"])
    return Costs(max(run["server_cpu_ms"] for run in runs) / 1000, max(run["cpu_ms"] for run in runs) / 1000, each)


def last_start(number: int, limit: int, seconds: float, cores: float, costs: Costs) -> float:
    """Return after how many seconds the last of those that arrive at once starts.

    Args:
        limit: attempts of the queue at once.
        seconds: that each runs.
        cores: of the API server; the operator has one, as it is one process.
    """
    every = max(costs.server / cores, costs.operator)
    ends: list[float] = []
    now = 0.0
    for _ in range(number):
        if len(ends) == limit:
            now = max(now, heapq.heappop(ends))
        now += every
        heapq.heappush(ends, now + seconds)
    return now


CASES = [(5_000, 500, 60), (5_000, 5_000, 60), (50_000, 500, 60), (50_000, 5_000, 600), (100_000, 2_000, 300)]
CORES = (2, 8, 32)


def table(costs: Costs) -> str:
    """Return the cases as Markdown."""
    head = " | ".join(f"last start, API server with {cores} cores" for cores in CORES)
    lines = [f"| at once | limit | each runs | {head} | what bounds it with {CORES[-1]} | operator's memory |"]
    lines.append("|---" * (len(CORES) + 5) + "|")
    for number, limit, seconds in CASES:
        times = [last_start(number, limit, seconds, cores, costs) for cores in CORES]
        bound = "the limit" if number / limit * seconds > times[-1] * 0.5 and number > limit else _bound(costs)
        memory = 100 + number * costs.waiting_mib
        cells = " | ".join(_time(time) for time in times)
        lines.append(f"| {number:,} | {limit:,} | {seconds} s | {cells} | {bound} | {memory:.0f} MiB |")
    return "\n".join(lines)


def _bound(costs: Costs) -> str:
    return "the operator" if costs.operator > costs.server / CORES[-1] else "the API server"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36000
        else f"{seconds / 3600:.1f} h"
    )


def main(costs: Costs | None = None) -> str:
    """Write the table into RESULTS.md; return it."""
    costs = costs or measured()
    rate = min(CORES[0] / costs.server, 1 / costs.operator)
    said = (
        f"A TaskRun costs the API server {costs.server * 1000:.0f} ms and the operator {costs.operator * 1000:.1f} ms "
        f"of CPU; one that waits takes {costs.waiting_mib * 1024:.1f} KiB. That is {rate:.0f} TaskRuns a second on "
        f"{CORES[0]} cores of API server, and {1 / costs.operator:.0f} a second of one operator at most."
    )
    text = f"{said}\n\n{table(costs)}"
    put("capacity", "make bench-capacity", text)
    return text


if __name__ == "__main__":
    main()
