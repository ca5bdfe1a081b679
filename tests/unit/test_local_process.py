"""process/local.py and ownership.py: real child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from polypod_bridge.process.base import Exit
from polypod_bridge.process.local import LocalHost
from polypod_bridge.process.ownership import canonical, owned_by_tree
from polypod_core.errors import UserError
from support.waiting import wait_until


def wait(process: object) -> Exit:
    ended = wait_until(process.poll, "the end of the process", limit=30, every=0.01)  # type: ignore[attr-defined]
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
