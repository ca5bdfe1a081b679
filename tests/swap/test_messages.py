"""The same messages through our bridge and through upstream's own supervisor, for the same Airflow 3.4: same answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from polypod_bridge.comm.messages import REQUEST_TYPES, TERMINAL_TYPES
from support.airflow import Airflow
from support.bridge import Bridge, workload_config
from support.rogue_runtime import rogue_coordinator

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

DAG, WHEN = "conformance", "2026-11-25T00:00:00Z"
OWN = {"dag_id": DAG, "run_id": "RUN_ID", "task_id": "success"}
ASSET = {"name": "conformance_asset"}
URI = {"uri": "file:///conformance"}

MESSAGES: list[dict[str, Any]] = [
    {"type": "GetConnection", "conn_id": "conformance_db"},
    {"type": "GetConnection", "conn_id": "none"},
    {"type": "GetVariable", "key": "conformance_in"},
    {"type": "GetVariable", "key": "none"},
    {"type": "GetVariableKeys", "prefix": "conformance_1", "limit": 3},
    {"type": "PutVariable", "key": "written", "value": "v", "description": None},
    {"type": "DeleteVariable", "key": "written"},
    {"type": "MaskSecret", "value": "hidden-value", "name": None},
    {"type": "SetXCom", "key": "k", "value": {"a": [1, 2.5, None, "ü"]}, **OWN},
    {"type": "GetXCom", "key": "k", **OWN},
    {"type": "GetXCom", "key": "none", **OWN},
    {"type": "GetXCom", "key": "k", "previous_iteration": True, **OWN},
    {"type": "GetXComCount", "key": "k", **OWN},
    {"type": "GetXComSequenceItem", "key": "k", "offset": 0, **OWN},
    {"type": "GetXComSequenceItem", "key": "k", "offset": 7, **OWN},
    {"type": "GetXComSequenceSlice", "key": "k", "start": 0, "stop": 1, "step": None, **OWN},
    {"type": "GetXComSequenceSlice", "key": "k", "start": 0, "stop": 1, "step": None, "previous_iteration": True, **OWN},
    {"type": "DeleteXCom", "key": "k", **OWN},
    {"type": "SetRenderedFields", "rendered_fields": {"field": "value"}},
    {"type": "SetRenderedMapIndex", "rendered_map_index": "a label"},
    {"type": "SkipDownstreamTasks", "tasks": ["not_there"]},
    {"type": "ValidateInletsAndOutlets", "ti_id": "TI_ID"},
    {"type": "SetExecutionTimeout", "timeout_seconds": 600.0},
    {"type": "GetTaskRescheduleStartDate", "ti_id": "TI_ID", "try_number": 1},
    {"type": "SetTaskStateStore", "ti_id": "TI_ID", "key": "a/b", "value": {"x": 1}, "expires_at": None},
    {"type": "GetTaskStateStore", "ti_id": "TI_ID", "key": "a/b"},
    {"type": "GetTaskStateStore", "ti_id": "TI_ID", "key": "none"},
    {"type": "DeleteTaskStateStore", "ti_id": "TI_ID", "key": "a/b"},
    {"type": "ClearTaskStateStore", "ti_id": "TI_ID"},
    {"type": "GetDagRun", "dag_id": DAG, "run_id": "RUN_ID"},
    {"type": "GetDagRunState", "dag_id": DAG, "run_id": "RUN_ID"},
    {"type": "GetDRCount", "dag_id": DAG, "run_ids": ["RUN_ID"], "states": ["running"]},
    {"type": "GetTICount", "dag_id": DAG, "run_ids": ["RUN_ID"], "task_ids": ["success"], "states": ["running"]},
    {"type": "GetTaskStates", "dag_id": DAG, "run_ids": ["RUN_ID"], "task_ids": ["success"]},
    {"type": "GetTaskBreadcrumbs", "dag_id": DAG, "run_id": "RUN_ID"},
    {"type": "GetPreviousDagRun", "dag_id": DAG, "logical_date": "2001-01-01T00:00:00Z", "state": None},
    {"type": "GetPrevSuccessfulDagRun", "ti_id": "TI_ID"},
    {"type": "GetPreviousTI", "dag_id": DAG, "task_id": "success", "logical_date": "2001-01-01T00:00:00Z"},
    {"type": "GetDag", "dag_id": DAG},
    {"type": "UpdateDagRunNote", "ti_id": "TI_ID", "note": "a note"},
    {"type": "TriggerDagRun", "dag_id": DAG, "run_id": "RUN_ID-next", "conf": {"a": 1}},
    {"type": "TriggerDagRun", "dag_id": DAG, "run_id": "RUN_ID-next", "conf": {"a": 1}},
    {"type": "GetAssetByName", **ASSET},
    {"type": "GetAssetByUri", **URI},
    {"type": "GetAssetByName", "name": "none"},
    {"type": "GetAssetsByAlias", "alias_name": "none"},
    {"type": "GetAssetEventByAsset", "name": "none", "uri": None},
    {"type": "GetAssetEventByAsset", "name": None, **URI, "after": "2100-01-01T00:00:00Z", "limit": 1},
    {"type": "GetAssetEventByAsset", **ASSET, **URI, "extra": {"no": "such"}, "partition_key": "none"},
    {"type": "GetAssetEventByAsset", **ASSET, "uri": None, "partition_key_regexp_pattern": "^none$", "ascending": False},
    {"type": "GetAssetEventByAssetAlias", "alias_name": "none"},
    {"type": "SetAssetStateStoreByName", "key": "k", "value": 1, **ASSET},
    {"type": "GetAssetStateStoreByName", "key": "k", **ASSET},
    {"type": "GetAssetStateStoreByUri", "key": "none", **URI},
    {"type": "SetAssetStateStoreByUri", "key": "k", "value": [2], **URI},
    {"type": "GetAssetStateStoreByUri", "key": "k", **URI},
    {"type": "DeleteAssetStateStoreByName", "key": "k", **ASSET},
    {"type": "DeleteAssetStateStoreByUri", "key": "k", **URI},
    {"type": "ClearAssetStateStoreByName", **ASSET},
    {"type": "ClearAssetStateStoreByUri", **URI},
    {"type": "CreateHITLDetailPayload", "ti_id": "TI_ID", "options": ["a", "b"], "subject": "s", "body": "x",
     "params": {}, "assigned_users": []},
]  # fmt: skip

NOT_COMPARED = {
    "GetHITLDetailResponse": "upstream's supervisor of a task answers that it does not handle it; we do",
    "UpdateHITLDetail": "likewise",
    "ResendLoggingFD": "upstream passes a descriptor to a Python runtime; we refuse it in words",
}
"""Messages that upstream and we treat differently, and how; the unknown and the malformed we answer with an error, and
upstream does not answer."""


LEFT_OUT = {("HITLDetailRequestResult", "multiple"): "upstream leaves a false out, which is the default"}


def kinds(messages: list[dict[str, Any]]) -> set[str]:
    return {message["type"] for message in messages}


def test_every_message_is_compared_or_said_why_not() -> None:
    terminal = {kind.__name__ for kind in TERMINAL_TYPES}
    assert kinds(MESSAGES) | NOT_COMPARED.keys() == REQUEST_TYPES.keys() - terminal
    assert len(kinds(MESSAGES)) >= 43


def plain(value: Any, ids: dict[str, str]) -> Any:
    """Return a value without what differs from run to run."""
    text = json.dumps(value, sort_keys=True)
    for seen, name in ids.items():
        text = text.replace(seen, name)
    return json.loads(re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "WHEN", text))


def set_fields(value: Any) -> Any:
    """Return a value without its nulls: in the schema they are the default of what upstream leaves out."""
    if isinstance(value, dict):
        return {key: set_fields(item) for key, item in value.items() if item is not None}
    return [set_fields(item) for item in value] if isinstance(value, list) else value


def meaning(body: Any, error: Any) -> Any:
    """Return an answer as a task's code sees it: of an error its kind and status, not the words."""
    failure = error or (body if isinstance(body, dict) and body.get("type") == "ErrorResponse" else None)
    if failure is None:
        return {key: value for key, value in set_fields(body or {}).items() if (body["type"], key) not in LEFT_OUT}
    detail = failure.get("detail") or {}
    return {"error": failure["error"], "status": detail.get("status_code")}


def test_answers_are_those_of_upstreams_supervisor(airflow_34: Airflow, tmp_path: Path) -> None:
    messages = tmp_path / "messages.json"
    messages.write_text(json.dumps(MESSAGES))
    seen: dict[str, Any] = {}
    for side in ("ours", "theirs"):
        answers = tmp_path / f"{side}.json"
        env = {"ROGUE": "asks", "ROGUE_MESSAGES": str(messages), "ROGUE_ANSWERS": str(answers)}
        run_id = f"messages-{side}-{tmp_path.name}"
        workload = airflow_34.queue(run_id, "success", queue="rogue")["success"]
        if side == "ours":
            config = workload_config(workload, airflow_34.url, rogue_coordinator(tmp_path))
            log: Any = Bridge(tmp_path, config, env).run().log
        else:
            log = airflow_34.run_upstream(workload, **env).stdout[-3000:]
        assert airflow_34.state(run_id, "success")["state"] == "success", log
        document = json.loads(answers.read_text())
        ids = {workload["ti"]["id"]: "TI_ID", run_id: "RUN_ID", workload["ti"]["dag_version_id"]: "DAG_VERSION"}
        seen[side] = plain(document, ids)
    pairs = zip(MESSAGES, seen["ours"]["answers"], seen["theirs"]["answers"], strict=True)
    different = [(message, ours, theirs) for message, ours, theirs in pairs if meaning(*ours) != meaning(*theirs)]
    assert not different
    ours, theirs = (seen[side]["details"] for side in ("ours", "theirs"))
    assert set_fields(ours["ti_context"]) == set_fields(theirs["ti_context"])
    assert ours.keys() == theirs.keys()
    assert set_fields(ours["bundle_info"]) == set_fields(theirs["bundle_info"])
