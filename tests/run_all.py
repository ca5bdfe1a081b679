"""Run every test, in several processes side by side: those of a cluster mostly wait."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "pytest"]
CLUSTER = HERE / "cluster"
ALONE = [
    CLUSTER / f"test_{name}.py"
    for name in (
        "anything",
        "api_server",
        "executor",
        "kopf",
        "lifecycle",
        "node",
        "other_operators",
        "policies",
        "standing_by",
        "stored_logs",
        "webhooks",
    )
]
"""Tests that make what they need themselves."""
FAULTS = [CLUSTER / f"test_{name}.py" for name in ("faults", "postgresql", "replicas")]


def groups() -> list[list[str]]:
    """Return what each process is to run: together every test, and none twice."""
    apart = [*ALONE, *FAULTS]
    assert all(path.exists() for path in apart)
    return [
        [f"--ignore={CLUSTER}", f"--ignore={HERE / 'faults'}", str(HERE)],
        [*(f"--ignore={path}" for path in apart), str(CLUSTER)],
        [str(path) for path in (*FAULTS, HERE / "faults")],
        [str(path) for path in ALONE],
    ]


def main() -> int:
    first, *others = groups()
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, arguments in enumerate(others):
            # what runs on a cluster is shown with both of the stores that there are
            store = {"POLYPOD_TEST_DATABASE": "postgresql"} if arguments[-1] == str(CLUSTER) else {}
            environ = {**os.environ, **store}
            # each has a folder of its own, as pytest removes old ones of others
            said = Path(folder) / str(number)
            command = [*COMMAND, f"--basetemp={folder}/base-{number}", *arguments]
            with said.open("wb") as file:
                running.append(
                    (subprocess.Popen(command, env=environ, stdout=file, stderr=subprocess.STDOUT), said, arguments)
                )
        try:
            codes = [subprocess.run([*COMMAND, *first], check=False).returncode]
        except KeyboardInterrupt:
            # all were told by the terminal; what they have started, they end
            codes = [2]
        for process, said, arguments in running:
            codes.append(process.wait())
            named = [Path(item).stem for item in arguments if not item.startswith("-")]
            print(f"\n{', '.join(named)}:", flush=True)
            sys.stdout.buffer.write(said.read_bytes())
            sys.stdout.buffer.flush()
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
