"""Polypod, Argo Workflows and Tekton in one rig, one after the other. Writes results/peers.json.

One API server with the CRDs of all three, one driver that is also the kubelet, the same burst for each. `tuned` is what
their manuals recommend for load: more workers, and client limits that do not bind.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
from pathlib import Path
from typing import Any

import products
from bare import Bare
from driver import burst
from page import put
from products import POLYPOD, argo, tekton

SIZES = [int(size) for size in os.environ.get("BENCH_SIZES", "500,5000").split(",")]
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
TUNED = [
    POLYPOD,
    argo("64 workers, QPS 1000", "--workflow-workers=64", "--pod-cleanup-workers=16", "--qps=1000", "--burst=1000"),
    tekton("32 threads, QPS 1000", "-threads-per-controller=32", "-kube-api-qps=1000", "-kube-api-burst=1000"),
]
DEFAULT = [argo("default settings"), tekton("default settings")]
"""Measured at the smallest size only: they need minutes for 500."""


async def main() -> None:
    rows: list[dict[str, Any]] = []
    bare = Bare()
    try:
        bare.up(kwok=False)
        products.install(bare)
        for size in SIZES:
            # a burst of 5,000 takes minutes, and those of the peers more
            for run in range(RUNS if size == min(SIZES) else max(1, RUNS // 2)):
                for product in [*TUNED, *(DEFAULT if size == min(SIZES) and run == 0 else [])]:
                    row = {"product": product.name, "settings": product.settings,
                           **await burst(bare, product, size, kubelet=True)}  # fmt: skip
                    print(json.dumps(row), flush=True)
                    rows.append(row)
    except BaseException:
        print(bare.logs())
        raise
    finally:
        bare.down()
    Path(__file__).with_name("results").joinpath("peers.json").write_text(json.dumps(rows, indent=1) + "\n")
    put("peers", "make bench-peers", "\n\n".join(table(rows, size) for size in SIZES))


FIGURES = {
    "pods_per_s": ("pods a second", "{:.0f}"),
    "p50_s": ("object → pod, p50", "{:.2f} s"),
    "p99_s": ("p99", "{:.2f} s"),
    "shown_p99_s": ("until a watch shows the pod, p99", "{:.1f} s"),
    "to_completion_s": ("until all had succeeded", "{:.0f} s"),
    "writes": ("writes an object", "{:.1f}"),
    "cpu_ms": ("controller's CPU an object", "{:.1f} ms"),
    "peak_mib": ("its memory", "{:.0f} MiB"),
    "server_cpu_ms": ("API server's CPU an object", "{:.0f} ms"),
    "closed_watches": ("watches it closed", "{:.0f}"),
}


def table(rows: list[dict[str, Any]], size: int) -> str:
    """Return the medians of one size as Markdown, with their spread."""
    lines = [f"| {size:,} at once | " + " | ".join(name for name, _ in FIGURES.values()) + " |"]
    lines.append("|---" * (len(FIGURES) + 1) + "|")
    kinds = dict.fromkeys((row["product"], row["settings"]) for row in rows if row["objects"] == size)
    for product, settings in kinds:
        runs = [row for row in rows if (row["product"], row["settings"], row["objects"]) == (product, settings, size)]
        cells = []
        for figure, (_, form) in FIGURES.items():
            values = sorted(run[figure] for run in runs)
            spread = f" ({form.format(values[0])} to {form.format(values[-1])})" if len(values) > 1 else ""
            cells.append(form.format(statistics.median(values)) + spread)
        lines.append(f"| {product}, {settings} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(main())
