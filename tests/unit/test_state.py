"""state.py: the supervisor's state machine, without a process, socket or clock; and under random histories."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polypod_bridge.comm import answers as a
from polypod_bridge.comm import frames
from polypod_bridge.comm.requests import ApiReply
from polypod_bridge.config import Timeouts
from polypod_bridge.process.base import Exit
from polypod_bridge.supervisor import actions as act
from polypod_bridge.supervisor.assignment import Assignment, Identity
from polypod_bridge.supervisor.state import Supervision
from polypod_core.reasons import Reason

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TI = a.TaskInstance(id="ti", task_id="t", dag_id="d", run_id="r", try_number=1, dag_version_id="v")
CONTEXT: dict[str, Any] = {
    "dag_run": {"dag_id": "d", "run_id": "r", "run_after": "2026-11-21T00:00:00Z", "run_type": "manual"},
    "max_tries": 0,
    "should_retry": False,
    "arg_bindings": [{"kind": "literal", "name": "x", "value": 1, "from_default": False}],
}


def reply(status: int, body: Any = None) -> ApiReply:
    return ApiReply(status, msgspec.json.encode(body) if body is not None else b"")


def machine(version: str = "2026-10-30", **times: Any) -> Supervision:
    return Supervision(assignment(version), Timeouts(**times), 10.0)


def assignment(version: str = "2026-10-30", **more: Any) -> Assignment:
    return Assignment(TI, a.BundleInfo(name="b"), Identity("host", "user"), version, **more)


def frame(body: Any, id: int = 1, answer: bool = False) -> frames.Frame:
    return frames.Frame(id, msgspec.msgpack.encode(body), None, answer)


def started(version: str = "2026-10-30", context: dict[str, Any] | None = None, **times: Any) -> Supervision:
    state = machine(version, **times)
    call = only(state.spawned(0, 42, NOW), act.Call)
    state.connected(0, "comm")
    state.connected(0, "logs")
    state.replied(0, call, reply(200, {**CONTEXT, **(context or {})}))
    return state


def only(actions: list[act.Action], kind: type) -> Any:
    [found] = [action for action in actions if isinstance(action, kind)]
    return found


def decoded(send: act.Send) -> list[Any]:
    value: list[Any] = msgspec.msgpack.decode(send.data[4:])
    return value


def test_startup_details_is_frame_0_once_everything_is_there() -> None:
    state = machine()
    call = only(state.spawned(0, 42, NOW), act.Call)
    assert call.call.path == "task-instances/ti/run"
    assert call.call.body["pid"] == 42
    assert state.connected(0, "logs") == []
    assert not [x for x in state.replied(0, call, reply(200, CONTEXT)) if isinstance(x, act.Send)]
    number, body, error = decoded(only(state.connected(0, "comm"), act.Send))
    assert (number, body["type"], error) == (0, "StartupDetails", None)
    assert body["ti_context"]["arg_bindings"][0]["value"] == 1


def test_a_runtime_that_exits_when_told_twice_is_told_again_alone_while_it_still_has_time() -> None:
    state = Supervision(assignment(exits_on_second_sigterm=True), Timeouts(stop_grace=25.0), 10.0)
    state.spawned(0, 42, NOW)
    assert only(state.signalled(1, 15), act.Signal) == act.Signal(signal.SIGTERM)
    assert state.deadline() == 16
    assert not [action for action in state.tick(15.9) if isinstance(action, act.Signal)]
    assert only(state.tick(16), act.Signal) == act.Signal(signal.SIGTERM, alone=True)
    assert state.deadline() == 26
    assert only(state.tick(26), act.Signal) == act.Signal(signal.SIGKILL)


def test_an_older_runtime_gets_its_own_schema_and_is_told_what_it_misses() -> None:
    state = machine("2026-06-16")
    call = only(state.spawned(0, 42, NOW), act.Call)
    state.connected(0, "logs")
    state.connected(0, "comm")
    actions = state.replied(0, call, reply(200, CONTEXT))
    _, body, _ = decoded(only(actions, act.Send))
    assert "arg_bindings" not in body["ti_context"]
    assert only(actions, act.Log).fields == {"arguments": 1, "schema_version": "2026-06-16"}


def test_xcoms_are_cleared_before_the_task_learns_of_anything() -> None:
    state = machine()
    call = only(state.spawned(0, 42, NOW), act.Call)
    state.connected(0, "logs")
    state.connected(0, "comm")
    answered = state.replied(0, call, reply(200, {**CONTEXT, "xcom_keys_to_clear": ["a", "b"]}))
    clears = [action for action in answered if isinstance(action, act.Call)]
    assert [clear.call.path for clear in clears] == ["xcoms/d/r/t/a", "xcoms/d/r/t/b"]
    assert state.replied(0, clears[0], reply(200)) == []
    assert decoded(only(state.replied(0, clears[1], reply(404)), act.Send))[1]["type"] == "StartupDetails"


def test_a_connection_is_masked_before_it_is_sent() -> None:
    state = started()
    ask = only(state.frame(1, frame({"type": "GetConnection", "conn_id": "c"})), act.LookUp)
    call = only(state.looked_up(ask, None), act.Call)
    actions = state.replied(1, call, reply(200, {"conn_id": "c", "conn_type": "x", "password": "p", "extra": "e"}))
    assert [type(action) for action in actions] == [act.MaskConnection, act.Send]


def test_success_is_reported_the_moment_it_is_said_and_an_answer_is_not_answered() -> None:
    state = started()
    call = only(state.frame(1, frame({"type": "SucceedTask", "end_date": NOW}, 0, answer=True)), act.Call)
    assert call.call.body["state"] == "success"
    assert state.replied(1, call, reply(204)) == []


def test_no_heartbeat_after_a_terminal_message() -> None:
    state = started(heartbeat_interval=1)
    assert only(state.tick(2), act.Beat).call.path == "task-instances/ti/heartbeat"
    state.beaten(2, reply(204))
    state.frame(2, frame({"type": "TaskState", "state": "failed"}))
    assert not [x for x in state.tick(10) if isinstance(x, act.Beat)]


@pytest.mark.parametrize("hangs", [False, True], ids=["refused", "hanging"])
def test_a_task_without_an_answered_heartbeat_is_ended_at_the_limit_however_it_fails(hangs: bool) -> None:
    state = started(heartbeat_interval=5, heartbeat_limit=100)
    now, ended = 0.0, None
    while ended is None:
        due = state.deadline()
        assert due is not None
        now = due
        for action in state.tick(now):
            if isinstance(action, act.Signal):
                ended = now
            if isinstance(action, act.Beat) and not hangs:
                state.beaten(now, None, "connection refused")
    assert ended == 100


@pytest.mark.parametrize(("connects", "reason"), [(True, Reason.HEARTBEAT_FAILED), (False, Reason.API_UNAVAILABLE)])
def test_a_task_that_never_started_is_told_apart_when_heartbeats_fail(connects: bool, reason: Reason) -> None:
    state = Supervision(assignment(), Timeouts(heartbeat_limit=100), 1000.0)
    call = only(state.spawned(0, 42, NOW), act.Call)
    if connects:
        state.connected(0, "comm")
        state.connected(0, "logs")
    state.replied(0, call, reply(200, CONTEXT))
    assert only(state.tick(100), act.Signal).number == signal.SIGTERM
    ending = state.exited(101, Exit(None, 15))
    for channel in ("comm", "logs", "stdout", "stderr"):
        ending += state.closed(101, channel)
    verdict = only(_finish(state, ending, 101), act.Finish).verdict
    assert (verdict.state, verdict.reason) == ("failed", reason)
    assert ("the task had not started" in verdict.message) == (not connects)


def test_an_answered_heartbeat_counts_from_its_answer() -> None:
    state = started(heartbeat_interval=5, heartbeat_limit=100)
    assert only(state.tick(5), act.Beat)
    state.beaten(60, reply(204))
    assert not [action for action in state.tick(159) if isinstance(action, act.Signal)]
    assert only(state.tick(160), act.Signal).number == signal.SIGTERM


def test_sigterm_then_grace_then_sigkill_then_given_up() -> None:
    state = started(stop_grace=5, heartbeat_interval=1000)
    assert only(state.signalled(1, 15), act.Signal).number == 15
    assert state.deadline() == 6
    assert only(state.tick(6), act.Signal).number == 9
    actions = state.tick(17)
    assert any(isinstance(action, act.EndTree) for action in actions)
    assert only(_finish(state, actions + state.tick(100), 100), act.Finish).verdict.state == "failed"


def _finish(state: Supervision, pending: list[act.Action], now: float) -> list[act.Action]:
    """Answer every call with success until nothing is left to do."""
    done: list[act.Action] = []
    while pending:
        action = pending.pop(0)
        done.append(action)
        if isinstance(action, act.Call):
            pending += state.replied(now, action, reply(204))
    return done


def test_the_first_reason_stands() -> None:
    state = started(execution=1, stop_grace=60)
    state.tick(1)
    state.signalled(1.5, 15)
    ending = state.exited(2, Exit(None, 15))
    for channel in ("comm", "logs", "stdout", "stderr"):
        ending += state.closed(2, channel)
    final = only(ending, act.Call)
    assert final.purpose == "final"
    assert only(state.replied(2, final, reply(204)), act.Finish).verdict.reason == "ExecutionTimeout"


MESSAGES = [
    {"type": "GetVariable", "key": "k"},
    {"type": "MaskSecret", "value": "secret"},
    {"type": "nonsense"},
    {"type": "SetXCom", "key": "k", "value": 1, "dag_id": "d", "run_id": "r", "task_id": "t"},
    {"type": "SucceedTask", "end_date": NOW},
    {"type": "RetryTask", "end_date": NOW},
    {"type": "TaskState", "state": "failed"},
    {"type": "TaskState", "state": "skipped"},
]
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["connect", "frame", "reply", "beat", "exit", "close", "told", "tick", "broken", "exit", "reply", "tick"]
        ),
        st.integers(0, 7),
        st.sampled_from([200, 204, 404, 409, 410, 500, None]),
        st.floats(0, 40),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps, st.booleans())
def test_random_histories_end_once_and_in_bounded_time(history: list[Any], retry: bool) -> None:
    state = machine(execution=100)
    now = 0.0
    calls: list[act.Call] = []
    finished: list[act.Finish] = []
    sent_states: list[str] = []
    beating = killed = exited = False
    open_channels = {"stdout", "stderr"}
    to_connect = ["comm", "logs"]

    def do(actions: list[act.Action]) -> None:
        nonlocal beating, killed
        for action in actions:
            assert not finished, f"an action after the end: {action}"
            if isinstance(action, act.LookUp):
                do(state.looked_up(action, None))
            elif isinstance(action, act.Call):
                calls.append(action)
            elif isinstance(action, act.Finish):
                finished.append(action)
            elif isinstance(action, act.Beat):
                assert not beating, "two heartbeats at once"
                beating = True
            elif isinstance(action, act.Signal) and action.number == 9:
                killed = True
            elif isinstance(action, act.CloseChannels):
                open_channels.clear()

    def answer(status: int | None) -> None:
        call = calls.pop(0)
        body = {**CONTEXT, "should_retry": retry} if call.purpose == "run" else {"key": "k", "value": "v"}
        if call.purpose in ("terminal", "final") and status in (200, 204):
            sent_states.append(call.call.body["state"])
        do(state.replied(now, call, reply(status, body) if status is not None else None, "unreachable"))

    def leave() -> None:
        nonlocal exited
        exited = True
        do(state.exited(now, Exit(0) if not killed else Exit(None, 9)))

    do(state.spawned(now, 42, NOW))
    for kind, number, status, wait in history:
        if finished:
            break
        now += wait
        if kind == "connect" and to_connect and not exited:
            channel = to_connect.pop()
            open_channels.add(channel)
            do(state.connected(now, channel))
        elif kind == "frame" and "comm" in open_channels and not exited:
            do(state.frame(now, frame(MESSAGES[number])))
        elif kind == "reply" and calls:
            answer(status)
        elif kind == "beat" and beating:
            beating = False
            do(state.beaten(now, reply(status) if status is not None else None))
        elif kind == "exit" and not exited:
            leave()
        elif kind == "close" and exited and open_channels:
            do(state.closed(now, open_channels.pop()))
        elif kind == "told":
            do(state.signalled(now, 15))
        elif kind == "broken" and "comm" in open_channels:
            do(state.broken(now, "nonsense"))
        else:
            do(state.tick(now))
    # from here on nothing unusual happens any more: it must come to an end
    for _ in range(400):
        if finished:
            break
        due = state.deadline()
        if calls:
            answer(204 if calls[0].purpose != "run" else 200)
        elif killed and not exited:
            leave()
        elif due is not None:
            now = max(now, due)
            do(state.tick(now))
        elif not exited:
            do(state.signalled(now, 15))
    assert len(finished) == 1, "it never ended"
    assert len(sent_states) <= 1, "the API accepted two final states"
    verdict = finished[0].verdict
    assert verdict.state
    assert state.ended


# What came with version 2026-10-30.

NEWEST = {"multi_team": False}


def test_a_server_of_the_newest_version_is_known_by_its_run_context() -> None:
    said = {"type": "TaskState", "state": "failed", "end_date": NOW, "retry_reason": "why"}
    for context, told in (({}, None), (NEWEST, "why")):
        state = started(context=context)
        state.frame(1, frame(said))
        final = only(state.exited(2, Exit(0)) + closed(state), act.Call)
        assert final.call.body.get("retry_reason") == told
        assert "loop_decision" not in final.call.body


def test_a_server_of_the_newest_version_is_told_why_a_task_has_failed() -> None:
    for context, told in (({}, None), (NEWEST, "the runtime exited with code 3")):
        state = started(context=context)
        final = only(state.exited(2, Exit(3)) + closed(state), act.Call)
        assert (final.call.body["state"], final.call.body.get("retry_reason")) == ("failed", told)


@pytest.mark.parametrize("answer", [204, 404, 409, 410, 422, None])
def test_a_server_of_the_newest_version_hears_that_a_task_it_gave_up_has_ended(answer: int | None) -> None:
    for context in ({}, NEWEST):
        state = started(context=context, heartbeat_interval=1)
        state.tick(2)
        state.beaten(2, reply(409, {"detail": {"reason": "not_running"}}))
        actions = state.exited(3, Exit(None, signal.SIGTERM)) + closed(state)
        if context:
            final = only(actions, act.Call)
            sent = {name: final.call.body[name] for name in ("state", "hostname", "pid")}
            assert sent == {"state": "server_terminated", "hostname": "host", "pid": 42}
            actions = state.replied(4, final, reply(answer) if answer else None, "no answer")
        finish = only(actions, act.Finish)
        assert (finish.verdict.reason, finish.reported) == (Reason.SERVER_TERMINATED, True)


def closed(state: Supervision) -> list[act.Action]:
    return [action for channel in ("comm", "logs", "stdout", "stderr") for action in state.closed(3, channel)]


def test_what_an_older_server_cannot_be_told_is_said_in_the_log() -> None:
    said = {"type": "SucceedTask", "end_date": NOW, "loop_decision": {"stop": True, "reason": "r"}}
    actions = started().frame(1, frame(said))
    assert only(actions, act.Log).fields == {"fields": ["loop_decision"]}
    assert "loop_decision" not in only(actions, act.Call).call.body
    [call] = started(context=NEWEST).frame(1, frame(said))
    assert isinstance(call, act.Call)
    assert call.call.body["loop_decision"] == {"stop": True, "reason": "r"}


XCOM = {"key": "k", "dag_id": "d", "run_id": "r", "task_id": "t", "previous_iteration": True}
NEWER: list[tuple[dict[str, Any], str]] = [
    ({"type": "GetXCom", **XCOM}, "previous_iteration"),
    ({"type": "GetXComCount", **XCOM}, "previous_iteration"),
    ({"type": "GetXComSequenceItem", "offset": 0, **XCOM}, "previous_iteration"),
    ({"type": "GetXComSequenceSlice", **XCOM}, "previous_iteration"),
    ({"type": "GetAssetEventByAsset", "name": "a", "extra": {"x": "1"}}, "the asset event filter extra"),
    ({"type": "GetAssetEventByAssetAlias", "alias_name": "a", "partition_key": "p"}, "filter partition_key"),
    ({"type": "UpdateDagRunNote", "ti_id": "ti", "note": "n"}, "UpdateDagRunNote"),
]


@pytest.mark.parametrize(("message", "words"), NEWER)
def test_an_older_server_is_not_asked_for_what_it_would_pass_over(message: dict[str, Any], words: str) -> None:
    _, body, error = decoded(only(started().frame(1, frame(message)), act.Send))
    assert (body, error["error"], error["detail"]["status_code"]) == (None, "API_SERVER_ERROR", 400)
    assert words in error["detail"]["message"]
    assert "needs Airflow 3.4" in error["detail"]["message"]
    assert only(started(context=NEWEST).frame(1, frame(message)), act.Call)
    # without what is new, an older server serves it as before
    if message["type"] != "UpdateDagRunNote":
        older = {k: v for k, v in message.items() if k not in ("previous_iteration", "extra", "partition_key")}
        assert only(started().frame(1, frame(older)), act.Call)


def test_the_tasks_own_timeout_is_enforced_after_a_grace() -> None:
    state = started(stop_grace=25, heartbeat_interval=1000)
    assert decoded(only(state.frame(1, frame({"type": "SetExecutionTimeout", "timeout_seconds": 10})), act.Send)) == [
        1, None, None,
    ]  # fmt: skip
    assert state.deadline() == 36
    assert state.tick(35.9) == []
    actions = state.tick(36)
    assert only(actions, act.Signal).number == 15
    final = only(state.exited(37, Exit(None, 15)) + closed(state), act.Call)
    assert final.call.body["state"] == "failed"
    finish = only(state.replied(38, final, reply(204)), act.Finish)
    assert (finish.verdict.reason, "its own execution timeout of 10 s" in finish.verdict.message) == (
        "ExecutionTimeout", True,
    )  # fmt: skip


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0, -1, "10"])
def test_a_timeout_that_is_none_is_refused(seconds: Any) -> None:
    state = started(heartbeat_interval=1000)
    before = state.deadline()
    _, _, error = decoded(
        only(state.frame(1, frame({"type": "SetExecutionTimeout", "timeout_seconds": seconds})), act.Send)
    )
    assert error["error"] == "GENERIC_ERROR"
    assert state.deadline() == before


def test_a_timeout_does_not_end_a_task_that_has_said_how_it_ended() -> None:
    state = started(heartbeat_interval=1000)
    state.frame(1, frame({"type": "SetExecutionTimeout", "timeout_seconds": 1}))
    call = only(state.frame(2, frame({"type": "SucceedTask", "end_date": NOW})), act.Call)
    state.replied(2, call, reply(204))
    assert not [action for action in state.tick(27) if "execution timeout" in getattr(action, "event", "")]


@pytest.mark.parametrize("kind", ["SucceedTask", "RetryTask", "TaskState"])
def test_a_try_that_the_server_has_archived_ends_in_silence(kind: str) -> None:
    state = started(context=NEWEST)
    said: dict[str, Any] = {"type": kind, "end_date": NOW}
    said |= {"state": "skipped"} if kind == "TaskState" else {}
    actions = state.frame(1, frame(said))
    gone = reply(410, {"detail": {"reason": "not_found", "message": "archived"}})
    if kind != "TaskState":
        answered = state.replied(1, only(actions, act.Call), gone)
        assert only(answered, act.Signal).number == 15
    ending = [*state.exited(2, Exit(0)), *closed(state)]
    if kind == "TaskState":
        ending = state.replied(3, only(ending, act.Call), gone)
    finish = only(ending, act.Finish)
    assert (finish.verdict.state, finish.verdict.reason, finish.reported) == ("failed", "ServerTerminated", True)
    assert not [action for action in ending if isinstance(action, act.Call)]


REFUSED = reply(409, {"detail": {"reason": "not_running"}})
ENDINGS: dict[str, Any] = {
    "cleared": lambda state, now: state.beaten(now, REFUSED),
    "deleted": lambda state, now: state.beaten(now, reply(404)),
    "signal": lambda state, now: state.signalled(now, 15),
    "silence": lambda state, now: state._no_heartbeat_was_answered(now),
    "mute": lambda state, now: state._stayed_mute(now),
    "execution": lambda state, now: state._execution_is_over(now),
    "its own timeout": lambda state, now: state._task_timeout_is_over(now),
    "overtime": lambda state, now: state._overtime_is_over(now),
}


@pytest.mark.parametrize("first", ENDINGS)
@pytest.mark.parametrize("later", ENDINGS)
def test_the_log_of_a_task_that_does_not_end_says_once_that_it_is_being_ended(first: str, later: str) -> None:
    state = started(kill_grace=5, stop_grace=5, execution=1000)
    notices = [action for action in ENDINGS[first](state, 1) if isinstance(action, act.Log)]
    assert len(notices) == 1, notices
    for now in range(2, 6):
        assert not [action for action in ENDINGS[later](state, now) if isinstance(action, act.Log | act.Signal)]
        state.tick(now)
    # what makes it end sooner is said
    sooner = started(kill_grace=5, stop_grace=25)
    sooner.signalled(1, 15)
    assert [action.event for action in sooner.beaten(2, REFUSED) if isinstance(action, act.Log)] == [
        "the server says that this task must not run; ending it"
    ]


def test_a_task_that_the_server_has_refused_beats_no_more() -> None:
    state = started(kill_grace=60)
    state.beaten(1, REFUSED)
    beats = [action for now in range(2, 60) for action in state.tick(now) if isinstance(action, act.Beat)]
    # one was due already
    assert len(beats) <= 1


def test_where_a_task_runs_in_a_loop_reaches_only_runtimes_that_know_of_loops() -> None:
    loop = {"node_id": "n", "index": 1, "max_iterations": 3, "terminal_task_id": "e", "terminal_is_mapped": False}
    context = {**CONTEXT, **NEWEST, "loop": loop, "first_task_reschedule_start_date": "2026-11-21T00:00:00Z"}
    for version, knows in (("2026-06-16", False), ("2026-10-30", True)):
        state = machine(version)
        call = only(state.spawned(0, 42, NOW), act.Call)
        state.connected(0, "comm")
        state.connected(0, "logs")
        _, body, _ = decoded(only(state.replied(0, call, reply(200, context)), act.Send))
        names = {"loop", "first_task_reschedule_start_date", "multi_team", "arg_bindings"}
        assert names <= body["ti_context"].keys() if knows else not names & body["ti_context"].keys()


def test_a_runtime_that_can_say_no_more_and_lives_on_is_ended_after_a_grace() -> None:
    state = started(task_success_overtime=20.0)
    [warning] = state.closed(5, "comm")
    assert isinstance(warning, act.Log)
    assert not [x for x in state.tick(24) if isinstance(x, act.Signal)]
    assert state.deadline() == 25
    assert only(state.tick(25), act.Signal).number == signal.SIGTERM
    # one that exits in time only did not say how it ended
    state = started(task_success_overtime=20.0)
    state.closed(5, "comm")
    state.exited(6, Exit(0))
    assert not [x for x in state.tick(26) if isinstance(x, act.Signal)]


@pytest.mark.parametrize("asked", [True, False])
def test_the_time_to_exit_starts_when_the_end_is_answered(asked: bool) -> None:
    state = started(task_success_overtime=20.0)
    call = only(
        state.frame(5, frame({"type": "SucceedTask", "end_date": NOW}, 7 if asked else 0, answer=not asked)), act.Call
    )
    if asked:
        assert not [x for x in state.tick(100) if isinstance(x, act.Signal)]
        assert only(state.replied(100, call, reply(204)), act.Send)
        assert state.deadline() == 120
    else:
        # it does not wait for any answer
        assert state.deadline() == 25


def test_a_param_that_msgpack_cannot_hold_ends_the_task_and_names_it() -> None:
    state = machine()
    call = only(state.spawned(0, 42, NOW), act.Call)
    state.connected(0, "comm")
    state.connected(0, "logs")
    context = json.loads(json.dumps(CONTEXT))
    context["dag_run"]["conf"] = {"ids": [1, 1 << 70]}
    actions = state.replied(0, call, reply(200, context))
    assert only(actions, act.Signal).number == signal.SIGTERM
    state.exited(1, Exit(None, 15))
    for channel in ("comm", "logs", "stdout", "stderr"):
        actions = state.closed(2, channel)
    final = only(actions, act.Call)
    assert final.call.body["state"] == "failed"
    finish = only(state.replied(3, final, reply(204)), act.Finish)
    assert finish.verdict.reason == Reason.UNSENDABLE
    assert "ti_context.dag_run.conf.ids[1]: 1180591620717411303424 does not fit into 64 bits" in finish.verdict.message
