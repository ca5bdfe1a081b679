"""`make test`: builds what the tests need, runs them, gives a failure of real processes a second chance, and sums up.

A test of real processes (it has the mark `needs`) that fails is run once more, by itself, when all others have ended.
If it passes then, the run is green, says FLAKY, and keeps what the first failure showed in `build/flaky`. A failure with
random inputs is a new bug and is not retried, nor is any failure beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cluster.node import sweep
from support import owner, report, sizes
from support.marks import DURATIONS, NEEDS
from support.paths import CACHE, ROOT

BUILD = ROOT / "build"
FLAKY = BUILD / "flaky"
LAST_ALL = CACHE / "test-all.json"
PROCESSES = 4
"""More than processors, as tests on a cluster mostly wait."""
GO_MODULES = ("sdks/go", "launcher")
MOST_FLAKY = 5
"""More failures than these are not the machine's."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="with all that is long")
    parser.add_argument("tests", nargs="*", help="files or tests; by default everything")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["POLYPOD_TESTS"] = "all" if options.all else ""
    # what is compiled once need not be compiled by each of a thousand processes
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # etcd, API servers and kubelets hold little, and collect garbage for a quarter of their processor time
    os.environ.setdefault("GOGC", "400")
    signal.signal(signal.SIGTERM, _terminated)
    for name in [*sweep(), *owner.sweep()]:
        print(f"removed leftovers of an earlier run: {name}")
    folder = owner.begin()
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="results-") as own:
        code, done = run(options.tests, Path(own))
    if code == 0:
        owner.end(folder)
    if not options.tests:
        remember(code, time.time() - began, done, options.all)
    print(*summary(code, time.time() - began, done, options.all), sep="\n")
    return code


def run(tests: list[str], own: Path) -> tuple[int, report.Run]:
    """Build, and run the tests; return pytest's exit code, 0 also if what failed passed when it ran again, and the results.

    Args:
        own: a folder of this run's own, for the results.
    """
    code = call("make", "--no-print-directory", *(needed(tests) if tests else sorted(set(NEEDS.values()))))
    if code == 0 and not tests:
        # negative for a signal
        code = next(filter(None, [call("go", "test", "./...", cwd=ROOT / module) for module in GO_MODULES]), 0)
    if code != 0:
        return code, report.Run([])
    side_by_side = () if tests else ("-n", str(PROCESSES), "--no-loadscope-reorder")
    code = pytest(*side_by_side, "--durations=40", f"--results={own / 'results'}", *tests)
    done = report.Run.read(own / "results")
    if code != 1 or not deserves_another_run(done):
        return code, done
    print(f"\n{len(done.failed)} failed; each is run once more, by itself", flush=True)
    for number, result in enumerate(done.failed):
        file = own / f"again-{number}"
        # in a process of its own, with its own cluster and database
        if pytest(f"--results={file}", result.nodeid) != 0:
            return code, done
        if [(again.nodeid, again.outcome) for again in report.Run.read(file).results] != [(result.nodeid, "passed")]:
            return code, done
    for result in done.failed:
        keep(result)
    return 0, done


def deserves_another_run(done: report.Run) -> bool:
    """Tell whether all that failed may be the machine's fault; if one is not, the run is red whatever the others do."""
    known = len(done.failed) == done.failures
    return known and 0 < len(done.failed) <= MOST_FLAKY and all(result.may_run_again for result in done.failed)


def needed(tests: list[str]) -> list[str]:
    """Return the make targets that tests need."""
    command = [sys.executable, "-m", "pytest", "--needs", *tests]
    done = subprocess.run(command, env={**os.environ, "CI": "true"}, capture_output=True, text=True, check=False)
    [*_, line] = [line for line in done.stdout.splitlines() if line.startswith("needs:")] or [""]
    if done.returncode != 0 or not line:
        sys.exit(done.stdout + done.stderr)
    return line.split()[1:] or ["setup"]


def pytest(*arguments: str) -> int:
    return call(sys.executable, "-m", "pytest", *arguments)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which only we have got; a Ctrl-C goes to what we have started as well."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def call(*command: str, cwd: Path = ROOT) -> int:
    """Run a command to its end and return its exit code; if we are interrupted, let it clear up first."""
    process = subprocess.Popen(command, cwd=cwd)
    try:
        return process.wait()
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, Terminated):
            process.send_signal(signal.SIGINT)
        process.wait()
        raise SystemExit(130) from None


def keep(result: report.Result) -> None:
    """Keep what the first failure of a test showed."""
    FLAKY.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", result.nodeid.removeprefix("tests/")).strip("-")[:150]
    name += f"-{zlib.crc32(result.nodeid.encode()):08x}"
    (FLAKY / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{name}.log").write_text("\n\n".join(result.shown))


def remember(code: int, seconds: float, done: report.Run, everything: bool) -> None:
    """Write down how long each group took, for the order of the next run, and how `make test-all` ended."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if done.results:
        _write(DURATIONS, by_group(done.results))
    if everything:
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        last = {"at": time.time(), "commit": commit, "code": code, "seconds": seconds, "tests": len(done.results)}
        _write(LAST_ALL, last)


def _write(file: Path, value: Any) -> None:
    # at once or not at all: another run may be reading it
    part = file.with_name(f"{file.name}.{os.getpid()}")
    part.write_text(json.dumps(value))
    part.replace(file)


# The last lines.


def summary(code: int, seconds: float, done: report.Run, everything: bool) -> list[str]:
    """Return what was run and what was not, how long it took, what was flaky, and when everything was last run."""
    counts = {name: sum(result.outcome == name for result in done.results) for name in ("passed", "failed", "skipped")}
    flaky = done.failed if code == 0 else []
    if code == 0:
        counts["passed when run again"] = counts.pop("failed")
    passed = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    left = f"{done.left} tests; {sizes.left_out()}"
    return [
        "",
        *(f"FLAKY: {result.nodeid}: {result.first_failure} ({result.seconds:.0f} s)" for result in flaky),
        f"ran       {len(done.results)} tests in {minutes(seconds)}, {'green' if code == 0 else f'RED ({code})'}: {passed}",
        f"left out  {'nothing' if everything else left}",
        f"groups    {groups(done.results)}",
        f"flaky     {f'{len(flaky)}, see {FLAKY.relative_to(ROOT)}' if flaky else 'none'}",
        f"test-all  {last_all()}",
    ]


def by_group(results: list[report.Result]) -> dict[str, float]:
    """Return the seconds that the tests of each group took."""
    took: dict[str, float] = defaultdict(float)
    for result in results:
        took[result.group] += result.seconds
    return took


def groups(results: list[report.Result]) -> str:
    """Return how long the groups took, those of one folder together."""
    took: dict[str, float] = defaultdict(float)
    for name, seconds in by_group(results).items():
        took[name.partition("/")[0]] += seconds
    return ", ".join(f"{name} {minutes(took[name])}" for name in sorted(took, key=lambda name: -took[name]))


def minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def last_all() -> str:
    """Return when `make test-all` last ran on this machine, on which commit, and how it ended."""
    try:
        last: dict[str, Any] = json.loads(LAST_ALL.read_text())
    except (OSError, ValueError):
        return "never run on this machine"
    hours = (time.time() - last["at"]) / 3600
    ago = f"{hours / 24:.0f} days" if hours > 48 else f"{hours:.0f} hours" if hours > 2 else f"{hours * 60:.0f} minutes"
    ended = "green" if last["code"] == 0 else "RED"
    return f"{ago} ago, at {last['commit']}: {last['tests']} tests in {minutes(last['seconds'])}, {ended}"


if __name__ == "__main__":
    sys.exit(main())
