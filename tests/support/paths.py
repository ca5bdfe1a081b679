"""Where things are."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFORMANCE = ROOT / "sdks" / "conformance"
SALES = ROOT / "examples" / "sales"
GO_ROOT = CONFORMANCE / "go" / "dist" / "2026-10-30"
GO_ROOT_33 = CONFORMANCE / "go" / "dist" / "2026-06-16"
JAVA_ROOT = CONFORMANCE / "java" / "target" / "jars"
JAVA_ROOT_33 = CONFORMANCE / "java" / "target" / "jars-2026-06-16"
TYPESCRIPT_ROOT = CONFORMANCE / "typescript" / "dist"
NODE = CONFORMANCE / "typescript" / "node_modules" / "node" / "bin" / "node"
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
LAUNCHER = ROOT / "launcher" / "dist" / f"polypod-launcher-{_MACHINE}"
CACHE = Path(
    os.environ.get("POLYPOD_CACHE", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "polypod")
)
AIRFLOWS = ("3.3", "3.4")
"""The versions of Airflow that the tests run against, as in the Makefile; the names of their lock files."""


def airflow_venv(version: str) -> Path:
    """Return the environment of one version of Airflow: one for each state of its lock file, as the Makefile has it."""
    lock = (ROOT / f"tests/airflow_env/airflow-{version}.lock").read_bytes()
    return CACHE / f"airflow-{version}-{hashlib.sha256(lock).hexdigest()[:12]}"


JAVA_CLASSPATH = "airflow.sdk.coordinators.java.JavaCoordinator"
EXECUTABLE_CLASSPATH = "airflow.sdk.coordinators.executable.ExecutableCoordinator"
NODE_CLASSPATH = "airflow.sdk.coordinators.node.NodeCoordinator"
