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
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "polypod"
_LOCK = hashlib.sha256((ROOT / "tests/airflow_env/airflow.lock").read_bytes()).hexdigest()[:12]
# the Makefile's rule: an environment for each state of the lock file
AIRFLOW_VENV = Path(os.environ.get("POLYPOD_AIRFLOW_VENV", _CACHE / f"airflow-{_LOCK}"))

JAVA_CLASSPATH = "airflow.sdk.coordinators.java.JavaCoordinator"
EXECUTABLE_CLASSPATH = "airflow.sdk.coordinators.executable.ExecutableCoordinator"
NODE_CLASSPATH = "airflow.sdk.coordinators.node.NodeCoordinator"
