"""Which tests run in one process: those that share a cluster, or the Airflow servers; all others by file.

`make test` runs several processes side by side (pytest-xdist), as tests on a cluster mostly wait.
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
ORDER = ("cluster", "faults", "alone", "airflow")
"""The longest first, so that each gets a process of its own."""
FAULTS = frozenset({"faults", "postgresql", "replicas"})
"""Tests on a cluster that others would notice."""
ALONE = frozenset({
    "anything", "api_server", "executor", "kopf", "lifecycle", "node", "other_operators", "policies", "standing_by",
    "stored_logs", "webhooks",
})  # fmt: skip
"""Tests in `tests/cluster` that make what they need themselves."""


def group_of(path: Path, *, airflow: bool = False) -> str:
    """Return the group of a file's tests.

    Args:
        airflow: the test uses the Airflow servers of the session.
    """
    if airflow:
        return "airflow"
    where = path.relative_to(TESTS)
    if where.parts[0] != "cluster":
        return str(where)
    name = path.stem.removeprefix("test_")
    return "faults" if name in FAULTS else "alone" if name in ALONE else "cluster"


def place(group: str) -> int:
    """Return where a group stands in the order of their starts."""
    return ORDER.index(group) if group in ORDER else len(ORDER)
