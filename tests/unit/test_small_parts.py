"""The small modules: routing, termination message, durations, the local process, ownership of connections."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.process.base import Exit
from polypod_bridge.process.local import LocalHost
from polypod_bridge.process.ownership import canonical, owned_by_tree
from polypod_core.durations import seconds
from polypod_core.errors import UserError
from polypod_core.outcome import MAX_SIZE, Outcome, decode, encode
from polypod_core.routing import load_yaml, parse_routing
from polypod_crds.retries import retry_delay
from polypod_crds.taskrun import Retries

CONFIG_MAP = """
kind: ConfigMap
data:
  coordinators: |
    a: {classpath: airflow.sdk.coordinators.java.JavaCoordinator, kwargs: {jars_root: [/x]}}
  queue_to_coordinator: '{"q": "a"}'
  default_coordinator: a
"""


def test_a_routing_is_a_config_map_or_plain() -> None:
    routing = parse_routing(load_yaml(CONFIG_MAP, "f"), "f")
    assert routing.for_queue("q", "me")[0] == "a"
    assert routing.for_queue("anything", "me")[0] == "a"
    plain = parse_routing({"coordinators": {"a": {"classpath": "x", "extra": {"pod_template_file": "y"}}}}, "f")
    with pytest.raises(UserError, match="me: queue 'q' is not in queue_to_coordinator"):
        plain.for_queue("q", "me")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a routing is a mapping, not list"),
        ("kind: ConfigMap", "the ConfigMap has no data"),
        ("kind: ConfigMap\ndata: {coordinators: 'a: ['}", "f: data.coordinators, line 2"),
        ("coordinators: {a: {}}", "coordinators.a: .*required field `classpath`"),
        ("coordinators: {a: {classpath: x, kwarg: {}}}", "coordinators.a: .*unknown field `kwarg`"),
        ("queue_to_coordinator: {q: nope}", "names coordinator 'nope', which is not in coordinators"),
        ("default_coordinator: nope", "default_coordinator 'nope'"),
        ("queues: {}", "unknown key 'queues'"),
        ("a: b: c", "f, line 1, column 5: not valid YAML"),
    ],
)
def test_a_wrong_routing_is_explained(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_routing(load_yaml(text, "f"), "f")


@given(st.text(max_size=20_000))
def test_a_termination_message_fits_and_is_whole(message: str) -> None:
    message = message.encode("utf-8", "replace").decode()
    outcome = Outcome(state="failed", reason="TaskFailed", message=message, exit_code=1, reported=True)
    raw = encode(outcome)
    assert len(raw) <= MAX_SIZE
    back = decode(raw)
    assert (back.state, back.reason, back.exit_code, back.reported) == ("failed", "TaskFailed", 1, True)
    assert back.message == message or message.startswith(back.message.removesuffix("…"))


def test_a_message_that_fits_is_not_cut() -> None:
    outcome = Outcome(state="success", reason="r", message="m" * 3000)
    assert decode(encode(outcome)) == outcome
    assert msgspec.json.decode(encode(outcome))["message"] == "m" * 3000


@pytest.mark.parametrize(("text", "expected"), [("5s", 5), ("1h30m", 5400), ("250ms", 0.25), ("1.5s", 1.5)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5d", "-5s", "5s "])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


def test_the_delay_between_tries() -> None:
    fixed = Retries(delay="10s")
    assert [retry_delay(fixed, n) for n in (1, 2, 3)] == [10, 10, 10]
    growing = Retries(delay="10s", backoff="exponential", max_delay="1m")
    assert [retry_delay(growing, n) for n in (1, 2, 3, 4, 5000)] == [10, 20, 40, 60, 60]


def wait(process: object) -> Exit:
    give_up = time.monotonic() + 30
    while (ended := process.poll()) is None:  # type: ignore[attr-defined]
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert isinstance(ended, Exit)
    return ended


def test_a_child_tells_how_it_ended_and_what_it_used() -> None:
    process = LocalHost().spawn([sys.executable, "-c", "import sys; print('out'); sys.exit(3)"], {})
    ended = wait(process)
    assert (ended.code, ended.signal) == (3, None)
    assert ended.peak_memory is not None
    assert ended.peak_memory > 1 << 20
    assert os.read(process.stdout, 100) == b"out\n"
    process.close()


def test_a_child_that_somebody_else_collected_is_lost_not_forgotten() -> None:
    process = LocalHost().spawn(["true"], {})
    os.waitpid(process.pid, 0)
    assert wait(process).lost
    process.signal(signal.SIGTERM)
    process.end_tree()
    process.close()


def test_ending_the_tree_leaves_the_childs_status_to_be_collected() -> None:
    for _ in range(20):
        process = LocalHost().spawn(["sleep", "60"], {})
        process.end_tree()
        assert wait(process).signal == signal.SIGKILL
        process.close()


def test_a_child_does_not_see_what_the_supervisor_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_X", "http://secret")
    monkeypatch.setenv("AIRFLOW_VAR_X", "secret")
    monkeypatch.setenv("SOMETHING_ELSE", "kept")
    process = LocalHost().spawn(["env"], {"ADDED": "yes"})
    wait(process)
    seen = os.read(process.stdout, 100_000).decode()
    assert "secret" not in seen
    assert "SOMETHING_ELSE=kept" in seen
    assert "ADDED=yes" in seen
    process.close()


@pytest.mark.parametrize(
    ("command", "why"), [("/no/such", "does not exist"), ("no-such", "not on PATH"), ("/etc", "cannot be executed")]
)
def test_a_command_that_cannot_be_started_is_explained(command: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        LocalHost().spawn([command], {})


def test_a_connection_belongs_to_the_tree_that_holds_it() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        connect = f"import socket,time; s = socket.create_connection(('127.0.0.1', {port})); time.sleep(60)"
        # through a shell: the connection is a grandchild's
        child = subprocess.Popen(["sh", "-c", f'{sys.executable} -c "{connect}"; true'], start_new_session=True)
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            connection, peer = listener.accept()
            with connection:
                assert owned_by_tree(peer, connection.getsockname(), child.pid)
                assert not owned_by_tree(peer, connection.getsockname(), stranger.pid)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            stranger.kill()
            child.wait()
            stranger.wait()


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1"])
def test_a_dual_stack_peer_is_the_same_peer(host: str) -> None:
    assert canonical(host) == "127.0.0.1"
    assert canonical("::1") == "::1"
