"""The marks beside the tests: what a test needs (`needs`), and with which others it may share what it starts (`shares`).

`make test` runs several processes side by side (pytest-xdist), as tests on a cluster mostly wait. Tests that share
something run in one of them, one after the other; all others run by file. xdist's own `loadgroup` does not work with
pytest 9.2. Only its workers collect tests, so the first of them writes down which group each test is in.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.paths import AIRFLOWS, CACHE, GO_ROOT, JAVA_ROOT, ROOT, TYPESCRIPT_ROOT, airflow_venv

NEEDS = {
    "airflow": "airflow",
    "api-server": "cluster-programs",
    "browser": "browser",
    "conformance": "conformance",
    "examples": "examples",
    "launcher": "launcher",
    "node": "cluster-programs",
    "postgresql": "postgres",
    "promtool": "promtool",
}
"""What a test may need, and the make target that provides it."""
SHARES = {
    "tenants": "one cluster with Polypod, each test in a namespace of its own, harming nothing outside of it",
    "disturbed": "one cluster with Polypod, of which tests break parts that others would notice",
    "installed": "one cluster, on which each file installs Polypod with other values, and leaves it as it was",
    "airflow": "the api-servers of two Airflows",
}
"""What tests may share; whatever else a file needs, it starts for itself."""
DURATIONS = CACHE / "test-seconds.json"
"""How long each group took when all tests ran last on this machine."""
FIXTURES = {
    "lab": "node", "node": "node", "fresh": "node", "stack": "airflow", "api": "api-server", "airflow": "airflow", "airflow_33": "airflow",
    "airflow_34": "airflow", "postgresql": "postgresql",
}  # fmt: skip
"""Fixtures, and what a test that uses them needs."""


def needs_of(item: pytest.Item) -> set[str]:
    """Return what a test needs."""
    return {str(name) for mark in item.iter_markers("needs") for name in mark.args}


def shares_of(item: pytest.Item) -> str:
    """Return what a test shares with others; empty if nothing."""
    mark = item.get_closest_marker("shares")
    return str(mark.args[0]) if mark else ""


def group_of(item: pytest.Item) -> str:
    """Return the group of tests that run in one process: those that share something, or those of one file."""
    return shares_of(item) or str(item.path.relative_to(ROOT / "tests"))


def last_durations() -> dict[str, float]:
    """Return how many seconds each group took when all tests ran last on this machine."""
    try:
        found: dict[str, float] = json.loads(DURATIONS.read_text())
    except (OSError, ValueError):
        return {}
    return found


def longest_first(items: list[pytest.Item], took: dict[str, float]) -> None:
    """Sort tests, so that the groups that took longest last time start first; without a last time, those that share."""
    usual = {group_of(item): 60.0 for item in items if needs_of(item)} | dict.fromkeys(SHARES, 600.0) | took
    # by name as well: two groups of the same duration must not mix
    items.sort(key=lambda item: (-usual.get(group_of(item), 0.0), group_of(item)))


def is_for_all_only(item: pytest.Item) -> bool:
    """Tell whether a test is for `make test-all` only: an `either` test for the version not chosen."""
    if item.get_closest_marker("either") is None:
        return False
    callspec = getattr(item, "callspec", None)
    [version] = [value for value in callspec.params.values() if value in AIRFLOWS] if callspec is not None else [""]
    name = item.nodeid.replace(version, "")
    return version != AIRFLOWS[zlib.crc32(name.encode()) % len(AIRFLOWS)]


def may_run_again(item: pytest.Item) -> bool:
    """Tell whether a failure may be the machine's: real processes, and no random input, whose failures are new bugs."""
    generated = getattr(getattr(item, "function", None), "is_hypothesis_test", False)
    return bool(needs_of(item)) and not generated and item.get_closest_marker("generated") is None


def check(item: pytest.Item) -> None:
    """Refuse marks that do not fit.

    Raises:
        pytest.UsageError: a mark is unknown, or is missing.
    """
    needs, shares = needs_of(item), shares_of(item)
    if not needs <= set(NEEDS):
        raise pytest.UsageError(f"{item.nodeid}: unknown needs {sorted(needs - set(NEEDS))}; there are {sorted(NEEDS)}")
    if shares and shares not in SHARES:
        raise pytest.UsageError(f"{item.nodeid}: nothing is shared by the name {shares!r}; there are {list(SHARES)}")
    used = set(getattr(item, "fixturenames", ()))
    for fixture, need in FIXTURES.items():
        if fixture in used and need not in needs:
            raise pytest.UsageError(f"{item.nodeid} uses the fixture {fixture!r}: mark it with needs({need!r})")
    if "lab" in used and not shares:
        raise pytest.UsageError(
            f"{item.nodeid} uses a cluster with Polypod: mark it with shares('tenants') or shares('disturbed')"
        )


def skip_what_is_missing(items: list[pytest.Item]) -> None:
    """Skip tests that need what is not built here; with CI=true they run, and fail."""
    if os.environ.get("CI") == "true":
        return
    there = {
        "airflow": all((airflow_venv(version) / ".installed").exists() for version in AIRFLOWS),
        "conformance": all(root.exists() for root in (GO_ROOT, JAVA_ROOT, TYPESCRIPT_ROOT)),
    }
    for item in items:
        for name in needs_of(item):
            if not there.get(name, True):
                item.add_marker(pytest.mark.skip(reason=f"run `make {NEEDS[name]}` first"))


class Groups(LoadScopeScheduling):
    """Gives each process whole groups."""

    def __init__(self, config: pytest.Config, log: Any, file: Path) -> None:
        super().__init__(config, log)
        self._file = file
        self._groups: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._groups:
            self._groups = json.loads(self._file.read_text())
        return self._groups[nodeid]
