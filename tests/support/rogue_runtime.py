"""Setting the rogue runtime up as a coordinator."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

from support.paths import NODE_CLASSPATH, ROOT

MANIFEST = """\
airflow_bundle_metadata_version: "1.0"
sdk: {language: typescript, version: "0", supervisor_schema_version: "2026-10-30"}
source: rogue.ts
dags: {conformance: {tasks: [rogue]}}
"""


ROGUE_SCRIPT = b"//# airflowMetadata=" + base64.b64encode(MANIFEST.encode()) + b"\n"
"""The bundle of the rogue runtime, in the published form."""


def rogue_node(folder: Path) -> Path:
    """Make the command that starts `rogue.py` where Node would be started."""
    node = folder / "node"
    node.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/rogue.py "$@"\n')
    node.chmod(0o755)
    return node


def rogue_coordinator(folder: Path) -> dict[str, Any]:
    """Return a coordinator that starts the rogue runtime."""
    bundles = folder / "bundles"
    bundles.mkdir()
    (bundles / "bundle.mjs").write_bytes(ROGUE_SCRIPT)
    node = rogue_node(folder)
    return {"classpath": NODE_CLASSPATH, "kwargs": {"bundles_root": [str(bundles)], "node_executable": str(node)}}
