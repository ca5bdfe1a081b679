"""Airflow 3.4's own Dag processor, over the artifacts that a Dag bundle holds."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.airflow import LOCAL_BUNDLE, Airflow

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

COORDINATORS = {"go": "native", "jars": "java", "scripts": "node", "broken": "native"}


def test_artifacts_in_a_dag_bundle_are_no_import_errors(airflow_34: Airflow, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    program, manifest = tmp_path / "false", tmp_path / "airflow-metadata.yaml"
    shutil.copy("/bin/false", program)
    manifest.write_text(
        'airflow_bundle_metadata_version: "1.0"\n'
        'sdk: {language: c, version: "1", supervisor_schema_version: "2026-10-30"}\n'
    )
    polypod = str(Path(sys.executable).with_name("polypod"))
    pack = [polypod, "bundle", "pack", str(program), "--manifest", str(manifest), "-o", str(broken / "silent")]
    subprocess.run(pack, check=True, capture_output=True)

    # a database of its own, so that the other tests do not see what the processor writes
    database = tmp_path / "airflow.db"
    with sqlite3.connect(airflow_34.home / "airflow.db") as source, sqlite3.connect(database) as copy:
        source.backup(copy)
    listed = json.loads(airflow_34.env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    listed.append({"name": "broken", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(broken)}})
    environ = {
        **airflow_34.env,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database}",
        "AIRFLOW__SDK__DAG_BUNDLE_TO_COORDINATOR": json.dumps(COORDINATORS),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(listed),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(tmp_path / "logs"),
    }
    command = [str(airflow_34.venv / "bin/airflow"), "dag-processor", "--num-runs", "1"]
    for bundle in COORDINATORS:
        command += ["--bundle-name", bundle]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    # it found each artifact and has read it
    assert (done.stdout + done.stderr).count("Found 1 files") == len(COORDINATORS)
    with sqlite3.connect(database) as connection:
        errors = connection.execute("select bundle_name, filename from import_error").fetchall()
    # the one that gives no answer proves that an error would be seen
    assert errors == [("broken", "silent")]
