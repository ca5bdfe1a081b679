"""outcome.py: upstream's table, case by case, and what holds in every case."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.comm import messages as m
from polypod_bridge.process.base import Exit
from polypod_bridge.supervisor.outcome import SILENT, EndedBy, Ending, decide
from polypod_core.reason_texts import BRIDGE, OPERATOR
from polypod_core.reasons import Reason

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SUCCESS, RETRY = m.SucceedTask(end_date=NOW), m.RetryTask(end_date=NOW, retry_reason="why")
FAILED, SKIPPED = m.TaskState(state="failed"), m.TaskState(state="skipped")
REMOVED = m.TaskState(state="removed")
DEFER = m.DeferTask(classpath="c", next_method="n")
TIMEOUT = EndedBy.EXECUTION_TIMEOUT

CASES = [
    # what ended, what was said, delivered, should_retry, ended by → state, reason
    ("success", Exit(0), SUCCESS, True, False, None, "success", Reason.TASK_SUCCEEDED),
    ("success, then a crash", Exit(7), SUCCESS, True, False, None, "success", Reason.TASK_SUCCEEDED),
    ("success that could not be delivered", Exit(0), SUCCESS, False, False, None, "success", Reason.TASK_SUCCEEDED),
    ("retry asked for", Exit(0), RETRY, True, True, None, "up_for_retry", Reason.RETRY_REQUESTED),
    ("deferred", Exit(0), DEFER, True, False, None, "deferred", Reason.TASK_DEFERRED),
    ("failed", Exit(0), FAILED, False, False, None, "failed", Reason.TASK_FAILED),
    ("failed for good, with retries left", Exit(0), FAILED, False, True, None, "failed", Reason.TASK_FAILED),
    ("skipped", Exit(0), SKIPPED, False, False, None, "skipped", Reason.TASK_SKIPPED),
    ("removed", Exit(0), REMOVED, False, False, None, "removed", Reason.TASK_REMOVED),
    ("skipped, then exit 7", Exit(7), SKIPPED, False, False, None, "failed", Reason.EXITED),
    ("skipped, then exit 7, retries left", Exit(7), SKIPPED, False, True, None, "up_for_retry", Reason.EXITED),
    ("exit 0 and not a word", Exit(0), None, False, False, None, "failed", Reason.NO_TERMINAL_STATE),
    ("exit 0 and not a word, retries left", Exit(0), None, False, True, None, "failed", Reason.NO_TERMINAL_STATE),
    ("exit 1", Exit(1), None, False, False, None, "failed", Reason.EXITED),
    ("exit 1, retries left", Exit(1), None, False, True, None, "up_for_retry", Reason.EXITED),
    ("segmentation fault", Exit(None, signal.SIGSEGV), None, False, False, None, "failed", Reason.SIGNALED),
    ("killed by nobody here", Exit(None, signal.SIGKILL), None, False, False, None, "failed", Reason.LIKELY_OUT_OF_MEMORY),
    ("status lost", Exit(None), None, False, False, None, "failed", Reason.EXIT_STATUS_LOST),
    ("server", Exit(None, signal.SIGTERM), None, False, True, EndedBy.SERVER, "failed", Reason.SERVER_TERMINATED),
    ("heartbeats", Exit(None, 15), None, False, True, EndedBy.HEARTBEAT, "up_for_retry", Reason.HEARTBEAT_FAILED),
    ("terminated", Exit(None, 15), None, False, False, EndedBy.SIGNAL, "failed", Reason.TERMINATED),
    ("told, success all the same", Exit(0), SUCCESS, True, False, EndedBy.SIGNAL, "success", Reason.TASK_SUCCEEDED),
    ("told, failed by itself", Exit(0), FAILED, False, False, EndedBy.SIGNAL, "failed", Reason.TERMINATED),
    ("timeout", Exit(None, 9), None, False, True, TIMEOUT, "up_for_retry", Reason.EXECUTION_TIMEOUT),
    ("timeout, retry asked", Exit(0), RETRY, True, True, TIMEOUT, "up_for_retry", Reason.EXECUTION_TIMEOUT),
    ("startup", Exit(None, 15), None, False, False, EndedBy.STARTUP_TIMEOUT, "failed", Reason.STARTUP_TIMEOUT),
    ("stays after success", Exit(None, 15), SUCCESS, True, False, EndedBy.OVERTIME, "success", Reason.TASK_SUCCEEDED),
    ("overtime after skipped", Exit(None, 15), SKIPPED, False, False, EndedBy.OVERTIME, "skipped", Reason.TASK_SKIPPED),
    ("failed for good, then killed by us", Exit(None, 9), FAILED, False, True, EndedBy.OVERTIME, "failed",
     Reason.TASK_FAILED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ended", "said", "delivered", "should_retry", "ended_by", "state", "reason"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_the_table(
    ended: Exit,
    said: m.Terminal | None,
    delivered: bool,
    should_retry: bool,
    ended_by: EndedBy | None,
    state: str,
    reason: Reason,
) -> None:
    verdict = decide(Ending(ended, said, delivered, should_retry, ended_by, "because"))
    assert (verdict.state, verdict.reason) == (state, reason)


endings = st.builds(
    Ending,
    exit=st.sampled_from([Exit(0), Exit(1), Exit(255), Exit(None, 9), Exit(None, 15), Exit(None)]),
    said=st.sampled_from([None, SUCCESS, RETRY, FAILED, SKIPPED, REMOVED, DEFER]),
    delivered=st.booleans(),
    should_retry=st.booleans(),
    ended_by=st.none() | st.sampled_from(EndedBy),
    detail=st.just("why"),
)


@given(endings)
def test_in_every_case(ending: Ending) -> None:
    direct = ending.said is not None and not isinstance(ending.said, m.TaskState)
    verdict = decide(ending)
    assert verdict.state
    assert verdict.reason in Reason
    # what the API has accepted is never sent again, nor contradicted
    if ending.said is not None and ending.delivered:
        assert verdict.state == ending.said.state
        assert not verdict.send
        assert verdict.replay is None
    # success is only what the task itself said
    if verdict.state == "success":
        assert isinstance(ending.said, m.SucceedTask)
    # a state is sent in one way only, and not at all to a server that knows better
    assert not (verdict.send and verdict.replay)
    if ending.ended_by in SILENT:
        assert not verdict.send
        assert verdict.replay is None
    elif not (ending.said is not None and ending.delivered):
        assert verdict.send or verdict.replay is not None
        assert (verdict.replay is not None) == direct
    if verdict.state == "up_for_retry":
        assert ending.should_retry or isinstance(ending.said, m.RetryTask)


def test_every_reason_is_documented() -> None:
    assert BRIDGE.keys() | OPERATOR.keys() == set(Reason)
    assert not BRIDGE.keys() & OPERATOR.keys()
