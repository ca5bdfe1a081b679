"""Artifacts made for a test."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from polypod_coordinators.artifacts import executable_bundle as eb


def manifest(*dags: str, version: str = "2026-10-30", **more: Any) -> bytes:
    document = {
        "airflow_bundle_metadata_version": "1.0",
        "sdk": {"language": "c", "version": "1", "supervisor_schema_version": version},
        "source": "main.c",
        "dags": {dag: {"tasks": ["t"]} for dag in dags},
        **more,
    }
    return json.dumps(document).encode()


def bundle(path: Path, *dags: str, version: str = "2026-10-30", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(eb.pack(b"\x7fELF program", b"int main;", manifest(*dags, version=version)))
    path.chmod(mode)
    return path


def make_jar(path: Path, main: str | None = None, version: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["Manifest-Version: 1.0"]
    lines += [f"Main-Class: {main}"] if main else []
    lines += [f"Airflow-Supervisor-Schema-Version: {version}"] if version else []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "\r\n".join(lines) + "\r\n")
    return path
