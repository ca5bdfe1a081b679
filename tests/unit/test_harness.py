"""The tests' own tools: waits, marks, second chances, and the clearing up after runs that were killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import run
from support import marks, owner, waiting
from support.paths import ROOT
from support.ports import free_port
from support.processes import alive
from support.report import Result, Run
from support.waiting import NotInTime, Patience, until, wait_until

STARTS_ONE = """
import os, subprocess, sys
from support import owner
owner.LONGEST_FOLDER = int(sys.argv[1])
folder = owner.begin()
print(folder, flush=True)
log = open(folder / "log", "w")
for environ, output in ((os.environ, subprocess.DEVNULL), ({}, log)):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, stdout=output, stderr=subprocess.DEVNULL, env=environ)
    print(child.pid, flush=True)
sys.stdin.read()
"""
"""A run with two processes in other sessions, of which one has lost its environment."""


def start(folder: Path, longest: int = 200) -> subprocess.Popen[str]:
    environ = {key: value for key, value in os.environ.items() if key != owner.RUN}
    return subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(longest)], cwd=ROOT / "tests", env={**environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_run(folder: Path) -> tuple[subprocess.Popen[str], Path, list[int]]:
    process = start(folder)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip()), [int(process.stdout.readline()) for _ in range(2)]


def test_what_a_killed_run_has_left_is_cleared_away_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, folder, children = start_run(tmp_path)
    living, other_folder, other_children = start_run(tmp_path)
    ours = [path.name.partition(".")[2] for path in (folder, other_folder)]
    try:
        assert owner.sweep(ours) == []
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(owner.sweep(ours)) == 3
        wait_until(lambda: not any(map(alive, children)), "the end of the killed run's processes")
        assert not folder.exists()
        assert all(map(alive, other_children))
        assert other_folder.exists()
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()
        for pid in filter(alive, [*children, *other_children]):
            os.kill(pid, signal.SIGKILL)


def test_a_process_that_only_looks_like_one_of_a_run_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pid is there again, of another process; and a value that is no owner at all."""
    environ = {**os.environ, owner.RUN: owner.owner_of(os.getpid())}
    ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environ)
    try:
        assert not owner.lives(owner.owner_of(os.getpid()).replace("-", "-1", 1))
        # what another machine or container has written says nothing about this one
        assert owner.lives("1-1-elsewhere")
        assert owner.lives("x")
        owner.sweep([environ[owner.RUN]])
        assert alive(ours.pid)
    finally:
        ours.kill()
        ours.wait()


def test_a_socket_in_a_tests_folder_has_a_path_that_fits_on_every_machine(tmp_path: Path) -> None:
    """The largest pid of Linux, a machine that is up for ten years, and the longest folder that pytest makes of a name."""
    longest = owner.name_of(1 << 22, str(10 * 365 * 24 * 3600 * 100), "a1b2c3")
    assert len(longest) == owner.LONGEST >= len(owner.owner_of(os.getpid()))
    folder = Path("/tmp") / owner.folder_of(longest).name
    assert len(str(folder)) <= owner.LONGEST_FOLDER
    [base, *_] = tmp_path.relative_to(tempfile.gettempdir()).parts
    below = Path(base, "popen-gw3", "t" * 30 + "999", "bridge.sock")
    assert len(str(Path("/" + "x" * (owner.LONGEST_FOLDER - 1)) / below)) <= 107


def test_a_temporary_folder_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 10)
    folder.mkdir()
    process = start(folder, owner.LONGEST_FOLDER)
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert "too long for the tests" in stderr
    assert list(folder.iterdir()) == []


def test_a_wait_that_fails_says_what_it_waited_for_and_what_it_saw() -> None:
    with pytest.raises(NotInTime, match=r"the end: not met within 0 s \(limit: 0 s .* last seen: almost"):
        wait_until(lambda: 0, "the end", limit=0.01, seen=lambda: "almost")
    with pytest.raises(NotInTime, match="last seen: ''"):
        wait_until(lambda: "", limit=0.01)
    with pytest.raises(NotInTime):
        asyncio.run(until(lambda: False, limit=0.01))
    assert wait_until(lambda: "there") == "there"


@pytest.mark.parametrize("slower", [1.0, 2.0, 10.0])
def test_a_limit_lasts_longer_on_a_slower_machine(monkeypatch: pytest.MonkeyPatch, slower: float) -> None:
    now = 0.0
    monkeypatch.setattr(waiting, "slowness", lambda: slower)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patience = Patience(60)
    while now < 60 * slower - 0.5:
        now += 1.0
        if now < 60 * slower:
            patience.check()
    now = 60 * slower + 1
    with pytest.raises(NotInTime):
        patience.check()


def test_only_failures_of_real_processes_are_given_another_run() -> None:
    real, find = Result("a", outcome="failed", may_run_again=True), Result("b", outcome="failed")
    assert run.deserves_another_run(Run([real], failures=1))
    assert not run.deserves_another_run(Run([real, find], failures=2))
    # nothing that is known, something that is not known, and more than can be chance
    assert not run.deserves_another_run(Run([]))
    assert not run.deserves_another_run(Run([real], failures=2))
    assert not run.deserves_another_run(Run([real] * 6, failures=6))


def test_the_last_lines_name_what_was_flaky_and_how_it_failed() -> None:
    flaky = Result(
        "tests/x.py::test_y", "tenants", "failed", True, 61.0, shown=["def test_y():\nE   AssertionError: 3 tasks"]
    )
    done = Run([flaky, Result("tests/x.py::test_z", "unit/test_x.py", seconds=2.0)], 7)
    lines = [line for line in run.summary(0, 100.0, done, everything=False) if line]
    assert lines[0] == "FLAKY: tests/x.py::test_y: AssertionError: 3 tasks (61 s)"
    assert len(lines) == 6
    assert "2 tests in 1 min 40 s, green" in lines[1]
    assert "7 tests; history steps 6,000 of 100,000" in lines[2]
    assert "tenants 1 min 1 s, unit 2 s" in lines[3]
    assert "RED (1)" in run.summary(1, 100.0, done, everything=True)[1]


def test_ports_are_ones_own() -> None:
    ports = {free_port() for _ in range(50)}
    assert len(ports) == 50


def test_each_test_for_either_airflow_runs_under_one_of_them_here_and_all_run_in_test_all() -> None:
    """Of both versions of each, `make test` has one; both versions are chosen, and nothing else is left out."""
    names = {wanted: collected(wanted) for wanted in ("", "all")}
    left = names["all"] - names[""]
    assert names[""] < names["all"]
    assert {re.sub(r"3\.[34]", "*", name) for name in names[""]} == {
        re.sub(r"3\.[34]", "*", name) for name in names["all"]
    }
    assert {found for name in left for found in re.findall(r"3\.[34]", name)} == {"3.3", "3.4"}


def collected(wanted: str) -> set[str]:
    """Return the names of the tests that `POLYPOD_TESTS=wanted` has in the files with tests for either Airflow."""
    files = [
        "tests/cluster/test_executor.py",
        "tests/cluster/test_airflow_executor.py",
        "tests/swap/test_swap_matrix.py",
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-o",
        "addopts=",
        "-q",
        "-p",
        "no:cacheprovider",
        *files,
    ]
    environ = {**os.environ, "POLYPOD_TESTS": wanted}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return {line for line in done.stdout.splitlines() if "::" in line}


def test_groups_stay_together_in_the_order_of_their_starts(request: pytest.FixtureRequest) -> None:
    groups = [marks.group_of(item) for item in request.session.items]
    seen = [group for number, group in enumerate(groups) if number == 0 or groups[number - 1] != group]
    assert len(seen) == len(set(seen))
