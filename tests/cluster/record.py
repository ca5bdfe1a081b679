"""An outside record: what tasks themselves have written down, on the node's disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.lab import Namespace, rogue_env, task_run


@dataclass(frozen=True)
class Record:
    """What tasks themselves have written down, on the node's disk."""

    file: Path
    namespace: Namespace

    def task_run(self, name: str, seconds: float, **spec: Any) -> dict[str, Any]:
        """Return a TaskRun whose task notes its begin and its end, that many seconds later."""
        template = rogue_env("recorded", ROGUE_NAME=name, ROGUE_RECORD="/record/runs", ROGUE_SECONDS=str(seconds))
        [container] = template["spec"]["containers"]
        container["volumeMounts"] = [{"name": "record", "mountPath": "/record"}]
        template["spec"]["volumes"] = [{"name": "record", "persistentVolumeClaim": {"claimName": "record"}}]
        return task_run(name, "rogue", "rogue", podTemplate=template, **spec)

    def lines(self) -> list[tuple[float, str, str, str]]:
        if not self.file.exists():
            return []
        rows = (line.split() for line in self.file.read_text().splitlines())
        return [(float(when), what, name, run) for when, what, name, run in rows]

    def begun(self) -> set[str]:
        return {name for _, what, name, _ in self.lines() if what == "begin"}

    def most_at_once(self) -> int:
        running, most = 0, 0
        for _, what, _, _ in sorted(self.lines()):
            running += 1 if what == "begin" else -1
            most = max(most, running)
        return most
