"""`make test`: builds what the tests need, runs them, gives a failure of real processes a second chance, and sums up.

A test of real processes (it has the mark `needs`) that fails is run once more, by itself, when all others have ended.
If it passes then, the run is green, says FLAKY, and keeps what the first failure showed in `build/flaky`. A failure
with random inputs is a find and stays one, and so does any failure beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from cluster.node import sweep
from support import owner, report, sizes
from support.marks import DURATIONS, NEEDS
from support.paths import CACHE, ROOT

BUILD = ROOT / "build"
RESULTS, AGAIN, FLAKY = BUILD / "tests.json", BUILD / "tests-again.json", BUILD / "flaky"
LAST_ALL = CACHE / "test-all.json"
PROCESSES = 4
"""More than processors, as tests on a cluster mostly wait."""
GO_MODULES = ("sdks/go", "launcher")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="with all that is long")
    parser.add_argument("tests", nargs="*", help="files or tests; by default everything")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["POLYPOD_TESTS"] = "all" if options.all else ""
    # what is compiled once need not be compiled by each of a thousand processes
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in [*sweep(), *owner.sweep()]:
        print(f"cleared away, of a run that was killed: {name}")
    folder = owner.begin()
    began = time.time()
    code = run(options.tests)
    done = report.Run.read(RESULTS)
    if code == 0:
        owner.end(folder)
    if not options.tests:
        remember(code, time.time() - began, done, options.all)
    print(*summary(code, time.time() - began, done, options.all), sep="\n")
    return code


def run(tests: list[str]) -> int:
    """Build, and run the tests; return pytest's exit code, 0 also if what failed passed when it ran again."""
    for file in (RESULTS, AGAIN):
        file.unlink(missing_ok=True)
    code = call("make", "--no-print-directory", *(needed(tests) if tests else sorted(set(NEEDS.values()))))
    if code == 0 and not tests:
        code = max(call("go", "test", "./...", cwd=ROOT / module) for module in GO_MODULES)
    if code != 0:
        return code
    side_by_side = () if tests else ("-n", str(PROCESSES), "--no-loadscope-reorder")
    code = pytest(*side_by_side, "--durations=40", f"--results={RESULTS}", *tests)
    failed = report.Run.read(RESULTS).failed
    if code != 1 or not deserve_another_run(failed):
        return code
    print(f"\n{len(failed)} failed; each is run once more, with nothing beside it", flush=True)
    if pytest("-x", f"--results={AGAIN}", *(result.nodeid for result in failed)) != 0:
        return code
    for result in failed:
        keep(result)
    return 0


def deserve_another_run(failed: list[report.Result]) -> bool:
    """Tell whether all that failed may be the machine's fault; if one is not, the run is red whatever the others do."""
    return bool(failed) and all(result.may_run_again for result in failed)


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


def call(*command: str, cwd: Path = ROOT) -> int:
    """Run a command to its end; if we are interrupted meanwhile, so is the command, and it clears up first."""
    process = subprocess.Popen(command, cwd=cwd)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise SystemExit(130) from None


def keep(result: report.Result) -> None:
    """Keep what the first failure of a test showed."""
    FLAKY.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", result.nodeid.removeprefix("tests/")).strip("-")[:150]
    (FLAKY / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{name}.log").write_text("\n\n".join(result.shown))


def remember(code: int, seconds: float, done: report.Run, everything: bool) -> None:
    """Write down how long each group took, for the order of the next run, and how `make test-all` ended."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if done.results:
        DURATIONS.write_text(json.dumps(by_group(done.results)))
    if everything:
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        last = {"at": time.time(), "commit": commit, "code": code, "seconds": seconds, "tests": len(done.results)}
        LAST_ALL.write_text(json.dumps(last))


# The last lines.


def summary(code: int, seconds: float, done: report.Run, everything: bool) -> list[str]:
    """Return what was run and what was not, how long it took, what was flaky, and when everything was last run."""
    counts = {name: sum(result.outcome == name for result in done.results) for name in ("passed", "failed", "skipped")}
    flaky = done.failed if code == 0 else []
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
    except OSError:
        return "never run on this machine"
    hours = (time.time() - last["at"]) / 3600
    ago = f"{hours / 24:.0f} days" if hours > 48 else f"{hours:.0f} hours" if hours > 2 else f"{hours * 60:.0f} minutes"
    ended = "green" if last["code"] == 0 else "RED"
    return f"{ago} ago, at {last['commit']}: {last['tests']} tests in {minutes(last['seconds'])}, {ended}"


if __name__ == "__main__":
    sys.exit(main())
