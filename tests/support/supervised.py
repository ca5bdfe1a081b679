"""A supervisor whose task runs, for tests that then send it what a runtime may send."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from polypod_bridge.comm import answers as a
from polypod_bridge.comm.requests import ApiReply
from polypod_bridge.config import Timeouts
from polypod_bridge.supervisor import actions as act
from polypod_bridge.supervisor.assignment import Assignment, Identity
from polypod_bridge.supervisor.state import Supervision

NOW = datetime(2026, 11, 21, tzinfo=UTC)
_TI = a.TaskInstance(id="ti", task_id="t", dag_id="d", run_id="r", try_number=1, dag_version_id="v")
_CONTEXT = {
    "dag_run": {"dag_id": "d", "run_id": "r", "run_after": "2026-11-21T00:00:00Z", "run_type": "manual"},
    "max_tries": 2,
    "should_retry": True,
    "multi_team": False,
}


def running(version: str = "2026-10-30") -> Supervision:
    """Return an attempt whose task runs, under this version of the supervisor schema."""
    state = Supervision(Assignment(_TI, a.BundleInfo(name="b"), Identity("host", "user"), version), Timeouts(), 10.0)
    [call] = state.spawned(0, 42, NOW)
    assert isinstance(call, act.Call)
    state.connected(0, "comm")
    state.connected(0, "logs")
    state.replied(0, call, ApiReply(200, msgspec.json.encode(_CONTEXT)))
    return state
