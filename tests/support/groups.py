"""Which tests run in one process: those that share a cluster, or the Airflow servers; all others by file.

`make test` runs several processes side by side (pytest-xdist), as tests on a cluster mostly wait. Its own `loadgroup`
does not work with pytest 9.2: the group is looked up here by the file.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from xdist.scheduler import LoadScopeScheduling

ORDER = ("cluster", "faults", "alone", "airflow")
"""The longest first, so that each gets a process of its own."""
FAULTS = frozenset({"faults", "postgresql", "replicas"})
"""Tests on a cluster that others would notice."""
ALONE = frozenset({
    "anything", "api_server", "executor", "full_api_server", "kopf", "lifecycle", "node", "other_operators", "policies", "standing_by",
    "stored_logs", "webhooks",
})  # fmt: skip
"""Tests in `tests/cluster` that make what they need themselves."""
AIRFLOW = frozenset({"swap", "cli/test_cli.py"})
"""Folders and files whose tests use the Airflow servers of the session."""


def group_of(nodeid: str) -> str:
    """Return the group of a test."""
    where = PurePosixPath(nodeid.partition("::")[0]).relative_to("tests")
    if where.parts[0] in AIRFLOW or str(where) in AIRFLOW:
        return "airflow"
    if where.parts[0] != "cluster":
        return str(where)
    name = where.stem.removeprefix("test_")
    return "faults" if name in FAULTS else "alone" if name in ALONE else "cluster"


def place(nodeid: str) -> int:
    """Return where a test's group stands in the order of their starts."""
    group = group_of(nodeid)
    return ORDER.index(group) if group in ORDER else len(ORDER)


class Groups(LoadScopeScheduling):
    """Gives each process whole groups."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
