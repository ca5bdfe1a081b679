"""The command `polypod`, run as a user does, and files for it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from support.bridge import COORDINATORS
from support.paths import ROOT
from support.zygote import Zygote

POLYPOD = str(Path(sys.executable).parent / "polypod")


@functools.cache
def _zygote() -> Zygote:
    # without polypod_cli.cluster: the Kubernetes client reads KUBECONFIG when it is imported
    late = ("polypod_cli.commands", "polypod_cli.local", "polypod_cli.plan", "polypod_cli.remote", "polypod_cli.report")
    of_others = ("alembic.command", "sqlalchemy.dialects.sqlite", "uvicorn.lifespan.on", "uvicorn.protocols.http.auto")
    return Zygote("polypod_cli.main:main", *late, *of_others)


def polypod(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; in an interpreter of its own if the environment is for that one, too."""
    if any(name.startswith(("LC_", "LANG", "TZ", "PYTHON")) for name in env or {}):
        return subprocess.run(
            [POLYPOD, *map(str, arguments)], capture_output=True, text=True, timeout=240, env={**os.environ, **(env or {})}, cwd=ROOT, check=False
        )  # fmt: skip
    return _zygote().run([str(item) for item in arguments], {**os.environ, **(env or {})}, ROOT, timeout=240)


def write(folder: Path, *documents: Any) -> Path:
    path = folder / "taskruns.yaml"
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return path


def routing(folder: Path, **changes: Any) -> Path:
    document = {"coordinators": COORDINATORS, "queue_to_coordinator": {name: name for name in COORDINATORS}, **changes}
    path = folder / "routing.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def task_run(task: str, queue: str = "golang", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "polypod.dev/v1alpha1",
        "kind": "TaskRun",
        "metadata": {"name": task.replace("_", "-")},
        "spec": {"queue": queue, "dagId": "conformance", "taskId": task, "runId": "run-1", **spec},
    }


def run_json(folder: Path, *documents: Any, **kwargs: Any) -> tuple[int, list[dict[str, Any]], str]:
    done = polypod("run", "-f", write(folder, *documents), "--routing", routing(folder), "-o", "json", **kwargs)
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return done.returncode, items, done.stderr
