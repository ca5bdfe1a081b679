"""A line in the log of an attempt that could not write one itself: its pod never started, or was lost."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.configuration import conf

log = logging.getLogger(__name__)


def note(log_path: str, name: str, message: str) -> None:
    """Write why an attempt failed where Airflow's UI looks for its log; also to the remote store, if there is one.

    It is a file of its own beside the log, as a triggerer's is: nobody else writes to it.

    Args:
        log_path: the workload's, relative to Airflow's folder of logs.
        name: the TaskRun's name.
    """
    relative = Path(f"{log_path}.{name}.log")
    file = Path(conf.get("logging", "base_log_folder")) / relative
    line = {"timestamp": datetime.now(UTC).isoformat(), "level": "error", "event": message, "logger": "polypod",
            "task_run": name}  # fmt: skip
    try:
        _make(file.parent)
        file.write_text(json.dumps(line, ensure_ascii=False) + "\n", "utf-8")
        _upload(relative)
    except Exception as error:
        # whatever a remote store raises: the audit log has the reason as well
        log.warning("why TaskRun %s failed cannot be written to %s: %s", name, file, error)


def _make(folder: Path) -> None:
    """Make a folder as Airflow's workers do: who writes the log of another attempt may be another user."""
    mode = int(conf.get("logging", "file_task_handler_new_folder_permissions", fallback="0o775").removeprefix("0o"), 8)
    missing = [folder, *folder.parents]
    for parent in reversed([path for path in missing if not path.exists()]):
        parent.mkdir(exist_ok=True)
        os.chmod(parent, mode)


def _upload(relative: Path) -> None:
    from airflow.logging_config import get_remote_task_log

    remote = get_remote_task_log()
    if remote is not None:
        remote.upload(relative.as_posix(), None)
