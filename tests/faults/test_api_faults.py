"""An Execution API that is down, refuses, or changes its mind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from polypod_bridge.api.client import API_VERSIONS
from support.api import Store, make_store
from support.bridge import COORDINATORS, Bridge
from support.rogue_runtime import rogue_coordinator
from support.waiting import slowness
from test_runtime_faults import wait_for_event

pytestmark = pytest.mark.needs("conformance", "launcher")


class Rules:
    """Which requests are answered wrongly: (method, part of the path) → statuses, one after the other."""

    def __init__(self) -> None:
        self.statuses: dict[tuple[str, str], list[int]] = {}
        self.seen: list[str] = []
        self.traces: list[str | None] = []
        self.refused_version: tuple[str, int] | None = None
        self.versions: list[str] = []

    async def __call__(self, request: Request, call_next: Any) -> Response:
        self.seen.append(f"{request.method} {request.url.path}")
        self.traces.append(request.headers.get("traceparent"))
        version = request.headers.get("airflow-api-version", "")
        if version:
            self.versions.append(version)
        if self.refused_version is not None and version == self.refused_version[0]:
            return JSONResponse({"detail": f"unknown version {version}"}, self.refused_version[1])
        for (method, part), left in self.statuses.items():
            if request.method == method and part in request.url.path and left:
                status = left.pop(0)
                body = {"detail": {"reason": "test", "message": f"made to answer {status}", "previous_state": "queued"}}
                return JSONResponse(body, status)
        answer: Response = await call_next(request)
        return answer


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[Store, Rules]]:
    from polypod_execution_api.app import create_app
    from polypod_execution_api.server import ServerThread

    rules = Rules()
    made = make_store(tmp_path)
    app = create_app(made.engine, made.signer)
    app.middleware("http")(rules)
    made.server = ServerThread(app)
    made.variable("conformance_in", "a variable")
    with made.server:
        yield made, rules
    made.engine.dispose()


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422])
def test_a_refused_start_ends_the_runtime_and_sends_nothing_more(
    faulty: tuple[Store, Rules], tmp_path: Path, status: int
) -> None:
    store, rules = faulty
    rules.statuses[("PATCH", "/run")] = [status] * 10
    ti_id = store.add("success", queue="golang")
    config = store.config(ti_id, "golang", COORDINATORS)
    config["execution_api"].update(retries=2, retry_wait_min=0.1)
    result = Bridge(tmp_path, config).run()
    assert result.outcome["reason"] == "ExecutionApiRefused"
    assert f"answered {status}" in result.outcome["message"]
    assert f"made to answer {status}" in result.outcome["message"]
    assert not any("/state" in seen for seen in rules.seen)
    assert "an info line" not in result.events()


@pytest.mark.parametrize("status", [400, 404, 406, 422])
def test_a_server_that_refuses_the_newer_version_gets_the_older_one(
    faulty: tuple[Store, Rules], tmp_path: Path, status: int
) -> None:
    store, rules = faulty
    rules.refused_version = (API_VERSIONS[0], status)
    ti_id = store.add("success", queue="golang")
    result = Bridge(tmp_path, store.config(ti_id, "golang", COORDINATORS)).run()
    assert result.outcome["state"] == "success", str(result.log)[:4000]
    # asked for once, and not with every call
    assert rules.versions.count(API_VERSIONS[0]) == 1
    assert set(rules.versions[1:]) == {API_VERSIONS[1]}


def test_a_task_that_runs_elsewhere_is_not_started(faulty: tuple[Store, Rules], tmp_path: Path) -> None:
    store, _ = faulty
    ti_id = store.add("success", queue="golang")
    store.set_state(ti_id, "running")
    result = Bridge(tmp_path, store.config(ti_id, "golang", COORDINATORS)).run()
    assert result.outcome["reason"] == "AlreadyRunning"
    assert store.ti(ti_id).state == "running"


@pytest.mark.parametrize("state", ["success", "skipped", "removed"])
def test_a_task_that_had_ended_well_in_an_earlier_attempt_is_not_run_again(
    faulty: tuple[Store, Rules], tmp_path: Path, state: str
) -> None:
    store, _ = faulty
    ti_id = store.add("success", queue="golang")
    store.set_state(ti_id, state)
    result = Bridge(tmp_path, store.config(ti_id, "golang", COORDINATORS)).run()
    assert (result.outcome["state"], result.outcome["reason"]) == (state, "AlreadyEnded")
    assert "an info line" not in result.events()
    assert store.ti(ti_id).state == state


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, "permission denied"),
        (403, "permission denied"),
        (404, "variable not found"),
        (409, "API_SERVER_ERROR: made to answer 409"),
        (410, "API_SERVER_ERROR: made to answer 410"),
        (422, "API_SERVER_ERROR: made to answer 422"),
        (500, "API_SERVER_ERROR: made to answer 500"),
    ],
)
def test_an_error_of_the_api_becomes_an_error_in_the_tasks_code(
    faulty: tuple[Store, Rules], tmp_path: Path, status: int, error: str
) -> None:
    store, rules = faulty
    rules.statuses[("GET", "/variables/")] = [status] * 10
    ti_id = store.add("slow", queue="golang", conf={"seconds": 0})
    config = store.config(ti_id, "golang", COORDINATORS)
    config["execution_api"].update(retries=2, retry_wait_min=0.1)
    result = Bridge(tmp_path, config).run()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "TaskFailed")
    failure = next(record for record in result.log if record["event"] == "the task failed")
    assert error in failure["error"]


@pytest.mark.parametrize("status", [404, 409, 410])
def test_a_heartbeat_that_is_refused_ends_the_task(faulty: tuple[Store, Rules], tmp_path: Path, status: int) -> None:
    store, rules = faulty
    rules.statuses[("PUT", "/heartbeat")] = [status] * 10
    coordinator = rogue_coordinator(tmp_path)
    ti_id = store.add("rogue", queue="rogue", retries=3)
    config = store.config(ti_id, "rogue", {"rogue": coordinator})
    config["timeouts"] = {"heartbeat_interval": 0.2, "kill_grace": 1}
    result = Bridge(tmp_path, config, {"ROGUE": "waits"}).run()
    assert result.outcome["reason"] == "ServerTerminated"
    assert f"answered {status} to a heartbeat" in result.outcome["message"]
    # the server hears that it has ended, once, and its state is the one that the server has given it
    assert sum("/state" in seen for seen in rules.seen) == 1
    assert store.ti(ti_id).state == "running"
    assert store.ti(ti_id).state == "running"


def test_no_answered_heartbeat_for_a_while_ends_the_task(faulty: tuple[Store, Rules], tmp_path: Path) -> None:
    store, rules = faulty
    rules.statuses[("PUT", "/heartbeat")] = [500, 500, 204, *([500] * 1000)]
    coordinator = rogue_coordinator(tmp_path)
    ti_id = store.add("rogue", queue="rogue")
    config = store.config(ti_id, "rogue", {"rogue": coordinator})
    config["timeouts"] = {"heartbeat_interval": 0.1, "heartbeat_limit": 3, "kill_grace": 1}
    result = Bridge(tmp_path, config, {"ROGUE": "waits"}).run()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "HeartbeatFailed")
    assert "for 3 s" in result.outcome["message"]
    assert "made to answer 500" in result.outcome["message"]
    failed = [record for record in result.log if record["event"] == "heartbeat failed"]
    assert len(failed) > 4
    assert failed[-1]["seconds_without"] <= 3
    assert store.ti(ti_id).state == "failed"


def test_a_terminal_call_that_failed_is_sent_again_at_the_end(faulty: tuple[Store, Rules], tmp_path: Path) -> None:
    store, rules = faulty
    rules.statuses[("PATCH", "/state")] = [500, 500]
    ti_id = store.add("success", queue="golang")
    config = store.config(ti_id, "golang", COORDINATORS)
    config["execution_api"].update(retries=2, retry_wait_min=0.1)
    result = Bridge(tmp_path, config).run()
    assert result.outcome["state"] == "success"
    assert result.outcome["reported"] is True
    assert store.ti(ti_id).state == "success"
    assert sum("/state" in seen for seen in rules.seen) == 3


def test_heartbeats_go_out_while_a_call_of_the_task_hangs(faulty: tuple[Store, Rules], tmp_path: Path) -> None:
    store, rules = faulty
    rules.statuses[("GET", "/variables/")] = [500] * 100
    ti_id = store.add("slow", queue="golang", conf={"seconds": 0})
    config = store.config(ti_id, "golang", COORDINATORS)
    config["execution_api"].update(retries=3, retry_wait_min=1)
    config["timeouts"] = {"heartbeat_interval": 0.2}
    Bridge(tmp_path, config).run()
    assert sum("/heartbeat" in seen for seen in rules.seen) >= 5


def test_xcoms_of_an_earlier_try_are_gone_before_the_task_runs(faulty: tuple[Store, Rules], tmp_path: Path) -> None:
    from polypod_execution_api import models, registry
    from sqlalchemy.orm import Session

    store, _ = faulty
    first = store.add("fail", queue="golang", retries=1)
    with Session(store.engine) as session, session.begin():
        from datetime import UTC, datetime

        session.add(
            models.XCom(
                dag_id="conformance",
                run_id="run-1",
                task_id="fail",
                map_index=-1,
                key="left/over",
                value="1",
                timestamp=datetime.now(UTC),
            )
        )
        second = registry.next_try(session, first).id
    result = Bridge(tmp_path, store.config(second, "golang", COORDINATORS)).run()
    assert result.outcome["state"] == "failed"
    assert store.xcoms("fail") == {}


def test_the_tasks_trace_goes_on_to_the_server(faulty: tuple[Store, Rules], tmp_path: Path) -> None:
    store, rules = faulty
    ti_id = store.add("rogue", queue="rogue")
    config = store.config(ti_id, "rogue", {"rogue": rogue_coordinator(tmp_path)})
    result = Bridge(tmp_path, config, {"ROGUE": "traced"}).run()
    # no other header of the runtime's gets through: with its "authorization" the call would have been refused
    assert result.outcome["state"] == "success", str(result.log)[:4000]
    asked = next(n for n, seen in enumerate(rules.seen) if "/variables/" in seen)
    assert rules.traces[asked] == "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    assert [trace for trace in rules.traces if trace] == [rules.traces[asked]]


def test_a_token_that_ends_is_renewed(tmp_path: Path) -> None:
    # on a busy machine the bridge takes longer to be there, and to ask
    slow = slowness()
    store = make_store(tmp_path, valid_for=3.0 * slow)
    store.variable("conformance_in", "a variable")
    with store.server:
        ti_id = store.add("slow", queue="golang", conf={"seconds": 5 * slow})
        config = store.config(ti_id, "golang", COORDINATORS)
        config["timeouts"] = {"heartbeat_interval": 0.3}
        result = Bridge(tmp_path, config).run()
        assert result.outcome["state"] == "success", str(result.log)[:4000]
        assert store.ti(ti_id).state == "success"
    store.engine.dispose()


def test_the_api_may_be_down_for_forty_seconds(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.variable("conformance_in", "a variable")
    port = store.server.port
    with store.server:
        ti_id = store.add("slow", queue="golang", conf={"seconds": 2})
        bridge = Bridge(tmp_path, store.config(ti_id, "golang", COORDINATORS)).start()
        wait_for_event(bridge, "waiting")
    store.engine.dispose()
    # from here on connections are refused, for longer than the new pod of an Execution API takes on a full node
    time.sleep(40)
    again = make_store(tmp_path, port=port)
    with again.server:
        result = bridge.finish()
        assert result.outcome["state"] == "success", str(result.log)[:4000]
        assert again.ti(ti_id).state == "success"
    again.engine.dispose()


def test_a_workload_that_waited_for_too_long_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path, valid_for=1.0)
    ti_id = store.add("success", queue="golang")
    config = store.config(ti_id, "golang", COORDINATORS)
    time.sleep(1.1)
    with store.server:
        result = Bridge(tmp_path, config).run()
    assert (result.outcome["reason"], result.outcome.get("reported")) == ("WorkloadExpired", None)
    assert "Airflow's scheduler has queued is queued again" in result.outcome["message"]
    assert store.ti(ti_id).state == "queued"
    store.engine.dispose()


def test_a_start_is_asked_for_until_the_token_ends(tmp_path: Path, faulty: tuple[Store, Rules]) -> None:
    store, rules = faulty
    ti_id = store.add("success", queue="golang")
    config = store.config(ti_id, "golang", COORDINATORS)
    config["execution_api"].update(retries=1, retry_wait_min=0.05, retry_wait_max=0.05)
    # an Execution API whose pool of connections is exhausted answers so
    rules.statuses[("PATCH", "/run")] = [500] * 30
    result = Bridge(tmp_path, config).run()
    assert result.outcome["state"] == "success", str(result.log)[:4000]
    assert rules.statuses[("PATCH", "/run")] == []


def test_an_api_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    # nobody listens there, so it is not waited for as long as the token is valid
    store = make_store(tmp_path)
    ti_id = store.add("success", queue="golang")
    config = store.config(ti_id, "golang", COORDINATORS)
    with store.server:
        pass
    config["execution_api"].update(retries=2, retry_wait_min=0.1)
    result = Bridge(tmp_path, config).run()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "ExecutionApiUnavailable")
    assert "refused" in result.outcome["message"]
    store.engine.dispose()
