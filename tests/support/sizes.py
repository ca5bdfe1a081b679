"""Sizes of the tests that could run indefinitely: small in `make unit`, medium in `make test`, full in `make test-all`.

The behaviours that are checked are the same. Of a test marked `either`, `make test-all` runs both Airflows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of steps, runs and tasks; for each, what it counts."""

    history_steps: int
    """steps of the operator's random histories"""
    fuzz_frames: int
    """mutated frames sent to the protocol code"""
    graph_tasks: int
    """tasks in the random graph whose operator is killed"""
    operator_kills: int
    """times that the operator of thirty tasks is killed"""
    generated_objects: int
    """TaskRuns generated from the CRD's schema"""
    upgrade_tasks: int
    """tasks that run while the chart is upgraded"""
    scheduler_tasks: int
    """tasks of Airflow that run while its schedulers are killed"""


QUICK = Sizes(
    history_steps=2_000, fuzz_frames=1_000, graph_tasks=10, operator_kills=2, generated_objects=100, upgrade_tasks=2, scheduler_tasks=2
)  # fmt: skip
SHORT = Sizes(
    history_steps=6_000, fuzz_frames=10_000, graph_tasks=45, operator_kills=7, generated_objects=250, upgrade_tasks=10, scheduler_tasks=12
)  # fmt: skip
LONG = Sizes(
    history_steps=100_000, fuzz_frames=1_000_000, graph_tasks=200, operator_kills=20, generated_objects=1_000, upgrade_tasks=20,
    scheduler_tasks=30,
)  # fmt: skip
WANTED = os.environ.get("POLYPOD_TESTS", "")
ALL = WANTED == "all"
"""Whether this is `make test-all`."""
SIZES = {"all": LONG, "quick": QUICK}.get(WANTED, SHORT)


def left_out() -> str:
    """Return what `make test` leaves to `make test-all`, as a list of numbers."""
    names = (
        (field.name.replace("_", " "), getattr(SHORT, field.name), getattr(LONG, field.name)) for field in fields(Sizes)
    )
    return ", ".join(f"{name} {short:,} of {long:,}" for name, short, long in names)
