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


def rogue_coordinator(folder: Path) -> dict[str, Any]:
    """Return a coordinator that starts `rogue.py` where Node would be started."""
    bundles = folder / "bundles"
    bundles.mkdir()
    metadata = base64.b64encode(MANIFEST.encode()).decode()
    (bundles / "bundle.mjs").write_text(f"//# airflowMetadata={metadata}\n")
    node = folder / "node"
    node.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/support/rogue.py "$@"\n')
    node.chmod(0o755)
    return {"classpath": NODE_CLASSPATH, "kwargs": {"bundles_root": [str(bundles)], "node_executable": str(node)}}
