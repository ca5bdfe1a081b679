"""The results of a run: each test's outcome, its group, its seconds, and how it failed, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import marks


@dataclass(slots=True)
class Result:
    """One test of a run."""

    nodeid: str
    group: str = ""
    outcome: str = "passed"
    """passed, failed (also by its fixtures) or skipped"""
    may_run_again: bool = False
    seconds: float = 0.0
    """with its fixtures"""
    began: float = 0.0
    ended: float = 0.0
    """in seconds since the epoch"""
    process: str = ""
    shown: list[str] = field(default_factory=list)
    """how it failed, and what there was to see"""

    @property
    def first_failure(self) -> str:
        """The line that says what failed."""
        lines = [line for text in self.shown[:1] for line in text.splitlines() if line.startswith("E ")]
        return lines[0][1:].strip()[:200] if lines else "see its logs"


class Reporter:
    """Collects results where they arrive: in the process that the others report to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._results: dict[str, Result] = {}
        self._left = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        found = self._results.setdefault(report.nodeid, Result(report.nodeid, began=report.start))
        found.group = str(properties.get("group", found.group))
        found.may_run_again = properties.get("may_run_again") == "yes"
        found.seconds += report.duration
        found.ended = report.stop
        found.process = (getattr(getattr(report, "node", None), "gateway", None) and report.node.gateway.id) or ""
        if report.failed:
            found.outcome = "failed"
            found.shown += [report.longreprtext, *(f"--- {title} ---\n{text}" for title, text in report.sections)]
        elif report.skipped and found.outcome == "passed":
            found.outcome = "skipped"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # a file that cannot be read has tests that did not run
        if report.failed:
            self._results[report.nodeid] = Result(report.nodeid, "collection", "failed", shown=[report.longreprtext])

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._left += len(items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # each process has left out the same
        self._left = max(self._left, getattr(node, "workeroutput", {}).get("left", 0))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        results = [asdict(result) for result in self._results.values()]
        run = {"left": self._left, "failures": session.testsfailed, "results": results}
        self._file.write_text(json.dumps(run))


def say_group(items: Iterable[pytest.Item]) -> None:
    """Have each test's reports say its group, and whether it may run again."""
    for item in items:
        item.user_properties.append(("group", marks.group_of(item)))
        item.user_properties.append(("may_run_again", "yes" if marks.may_run_again(item) else "no"))


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of tests left."""

    results: list[Result]
    left: int = 0
    """how many tests were left out"""
    failures: int = 0
    """how many failures pytest itself has counted"""

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.outcome == "failed"]

    @classmethod
    def read(cls, file: Path) -> Run:
        """Read the results of a run; there are none if it wrote none."""
        raw: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        results = [Result(**item) for item in raw.get("results", ())]
        return cls(results, raw.get("left", 0), raw.get("failures", 0))
