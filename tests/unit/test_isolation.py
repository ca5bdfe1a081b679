"""Processes that hold passwords import nothing of the folder they are started in, whatever the environment says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from polypod_cli.local_attempt import bridge_command
from support.paths import ROOT

STRANGE = {"PYTHONWARNINGS": "error", "PYTHONSTARTUP": "queue.py", "PYTHONSAFEPATH": "", "PYTHONOPTIMIZE": "x"}
SHADOWS = ("queue", "yaml", "json", "socket", "selectors", "msgspec", "urllib3", "sitecustomize", "usercustomize")


def shadowed(folder: Path) -> Path:
    """Return a folder whose modules are named after those that we import."""
    for name in SHADOWS:
        (folder / f"{name}.py").write_text("raise SystemExit(f'{__name__} of the user')")
    return folder


def test_the_bridge_of_a_local_run(tmp_path: Path) -> None:
    folder = shadowed(tmp_path)
    for extra in ({}, STRANGE, {**STRANGE, "PYTHONPATH": str(folder)}, {"PYTHONHOME": str(folder)}):
        done = subprocess.run(
            bridge_command(Path("none.json")), capture_output=True, text=True, cwd=folder, timeout=60, check=False,
            env={**os.environ, **extra},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (
            2,
            "polypod-bridge: none.json cannot be read: No such file or directory\n",
        )


@pytest.mark.parametrize("program", ["bridge", "operator", "execution_api"])
def test_the_entry_points_of_the_images(tmp_path: Path, program: str) -> None:
    [line] = [found for found in (ROOT / "Dockerfile").read_text().splitlines() if f"polypod_{program}.main" in found]
    given = json.loads(line.removeprefix("ENTRYPOINT "))
    # the bridge's has the launcher before it, which is not built for this machine
    python = given[given.index("python3") + 1 :]
    done = subprocess.run(
        [sys.executable, *python, "--help"], capture_output=True, text=True, cwd=shadowed(tmp_path), timeout=60,
        env={**os.environ, **STRANGE}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_python_is_never_started_with_the_current_folder_on_its_path() -> None:
    for path in [*(ROOT / "charts").rglob("*.yaml"), ROOT / "Dockerfile"]:
        for command in re.findall(r"python3?\W[^\n]*\W-m\W", path.read_text()):
            assert "-sP" in command or "-I" in command, f"{path}: {command}"


def test_the_command_line_is_not_stopped_by_warnings(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "polypod"), "validate", "-f", "none.yaml"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=shadowed(tmp_path), timeout=60, env={**os.environ, **STRANGE},
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "polypod: none.yaml cannot be read: No such file or directory\n")
