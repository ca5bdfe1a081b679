"""The bridge as a sidecar: what it does when its own container, the launcher or the pod comes to grief."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from polypod_bridge.logs.storage import of_pod, read
from support.api import Store
from support.bridge import COORDINATORS, Bridge
from support.paths import LAUNCHER
from support.processes import alive, children, may_be_others
from support.rogue_runtime import rogue_coordinator
from support.waiting import wait_until

pytestmark = pytest.mark.needs("conformance", "launcher")


@pytest.fixture
def launched(filled: Store, tmp_path: Path) -> Callable[..., Bridge]:
    """A bridge with a launcher, whose runtime misbehaves in a given way."""
    coordinator = rogue_coordinator(tmp_path)

    def make(behaviour: str, **env: str) -> Bridge:
        config = filled.config(filled.add("rogue", queue="rogue"), "rogue", {"rogue": coordinator})
        config["timeouts"] = {"kill_grace": 1, "stop_grace": 2, "startup": 60}
        return Bridge(tmp_path, config, {"ROGUE": behaviour, **env}, launched=True)

    return make


def waiting(bridge: Bridge) -> None:
    wait_until(lambda: any(record["event"] == "waiting" for record in bridge.read_log()))


def message(bridge: Bridge) -> Any:
    """Return what the kubelet would find as the termination message."""
    file = bridge.folder / "termination-log"
    return json.loads(wait_until(lambda: file.read_text() if file.exists() else ""))


def test_the_launcher_exits_as_the_runtime_did_and_its_output_is_the_containers_log(
    launched: Callable[..., Bridge],
) -> None:
    bridge = launched("exits_before_connecting")
    result = bridge.run()
    assert bridge.launcher is not None
    assert bridge.launcher.returncode == 9
    assert "no such library" in (bridge.folder / "launcher-stderr.txt").read_text()
    assert "no such library" in result.events("task.stderr")
    # the sidecar itself has nothing to say by its exit code
    assert result.returncode == 0


def test_a_signal_that_ends_the_runtime_is_128_more(launched: Callable[..., Bridge]) -> None:
    bridge = launched("kills_itself", ROGUE_SIGNAL=str(int(signal.SIGSEGV)))
    bridge.run()
    assert bridge.launcher is not None
    assert bridge.launcher.returncode == 128 + signal.SIGSEGV


def test_a_second_start_tells_the_outcome_of_the_first_and_runs_nothing(launched: Callable[..., Bridge]) -> None:
    bridge = launched("late_success")
    first = bridge.run()
    assert first.outcome["state"] == "success"
    bridge.start_again()
    assert bridge.process is not None
    assert message(bridge)["state"] == "success"
    bridge.process.terminate()
    assert bridge.process.wait(30) == 0


def test_a_bridge_that_nobody_ends_gets_its_word_out_by_itself(launched: Callable[..., Bridge]) -> None:
    """As beside a mesh's container, which keeps the pod and with it the sidecar."""
    bridge = launched("late_success").start()
    assert bridge.process is not None
    assert bridge.launcher is not None
    assert bridge.launcher.wait(60) == 0
    assert bridge.process.wait(60) == 0
    assert message(bridge)["state"] == "success"
    # started again by the kubelet it stays
    bridge.start_again()
    assert message(bridge)["state"] == "success"
    time.sleep(0.5)
    assert bridge.process.poll() is None
    bridge.process.terminate()
    assert bridge.process.wait(30) == 0


def test_a_bridge_that_was_killed_is_lost_and_does_not_run_the_task_again(launched: Callable[..., Bridge]) -> None:
    bridge = launched("waits").start()
    waiting(bridge)
    assert bridge.process is not None
    assert bridge.launcher is not None
    [runtime] = children(bridge.launcher.pid)
    os.kill(bridge.process.pid, signal.SIGKILL)
    bridge.process.wait()
    wait_until(lambda: not alive(runtime))
    # it holds the pod, so that the kubelet starts the sidecar again
    assert bridge.launcher.poll() is None
    bridge.start_again()
    outcome = message(bridge)
    assert (outcome["state"], outcome["reason"]) == ("failed", "BridgeLost")
    assert bridge.launcher.wait(30) == 128 + signal.SIGTERM
    bridge.process.terminate()
    assert bridge.process.wait(30) == 0


def test_a_pod_that_is_deleted_tells_its_language_container_first(launched: Callable[..., Bridge]) -> None:
    bridge = launched("waits").start()
    waiting(bridge)
    assert bridge.launcher is not None
    bridge.launcher.terminate()
    result = bridge.finish()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "Terminated")


def test_a_launcher_that_is_told_to_end_does_so_without_the_bridges_help(launched: Callable[..., Bridge]) -> None:
    bridge = launched("waits").start()
    waiting(bridge)
    assert bridge.process is not None
    assert bridge.launcher is not None
    [runtime] = children(bridge.launcher.pid)
    os.kill(bridge.process.pid, signal.SIGSTOP)
    bridge.launcher.terminate()
    wait_until(lambda: not alive(runtime))
    os.kill(bridge.process.pid, signal.SIGCONT)
    assert bridge.finish().outcome["signal"] == signal.SIGTERM


def test_a_killed_launcher_is_an_exit_status_that_is_lost(launched: Callable[..., Bridge]) -> None:
    bridge = launched("waits").start()
    waiting(bridge)
    assert bridge.launcher is not None
    [runtime] = children(bridge.launcher.pid)
    bridge.launcher.kill()
    result = bridge.finish()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "ExitStatusLost")
    wait_until(lambda: not alive(runtime))


def test_a_bridge_that_stands_still_for_a_while_loses_no_line(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("spam", queue="golang", conf={"lines": 100_000})
    bridge = Bridge(tmp_path, filled.config(ti_id, "golang", COORDINATORS), launched=True).start()
    assert bridge.process is not None
    wait_until(lambda: len(bridge.read_log()) > 100)
    os.kill(bridge.process.pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(bridge.process.pid, signal.SIGCONT)
    result = bridge.finish()
    assert [record["number"] for record in result.log if record["event"] == "spam"] == list(range(100_000))


def test_told_to_end_before_the_language_container_came_there_is_an_outcome(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("success", queue="golang")
    bridge = Bridge(tmp_path, filled.config(ti_id, "golang", COORDINATORS), launched=True, launcher_comes=False)
    bridge.start()
    assert bridge.process is not None
    wait_until(lambda: (tmp_path / "bridge.sock").exists())
    bridge.process.terminate()
    assert bridge.process.wait(30) == 0
    assert (message(bridge)["reason"], filled.ti(ti_id).state) == ("Terminated", "queued")


@pytest.mark.skipif(not may_be_others(), reason="only root can start processes of other users")
@pytest.mark.parametrize("user", [0, 4242])
def test_the_language_container_may_have_another_user(filled: Store, tmp_path: Path, user: int) -> None:
    config = filled.config(filled.add("success", queue="golang"), "golang", COORDINATORS)
    bridge = Bridge(tmp_path, config, launched=True, launcher_comes=False).start()
    wait_until(lambda: (tmp_path / "bridge.sock").exists())
    assert (tmp_path / "bridge.sock").stat().st_mode & 0o777 == 0o777
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    program = tmp_path / "polypod-launcher"
    shutil.copy(LAUNCHER, program)
    bridge.launcher = subprocess.Popen(
        [program], env={"POLYPOD_SOCKET": str(tmp_path / "bridge.sock")}, user=user, group=user, extra_groups=[]
    )
    Bridge.started.append(bridge.launcher)
    assert bridge.finish().outcome["state"] == "success"


HOLDS = """
import signal, sys
print("ready", flush=True)
sys.stdin.readline()
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
print("end", flush=True)
"""


def test_a_bridge_gets_the_sigterm_that_came_while_it_booted() -> None:
    command = [str(LAUNCHER), "hold", sys.executable, "-c", HOLDS]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    Bridge.started.append(process)  # type: ignore[arg-type]
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    said, _ = process.communicate("\n", timeout=60)
    assert (said, process.returncode) == ("told\nend\n", 0)


def test_the_hook_before_the_stop_signal_ends_the_task_by_sigterm_and_goes_first(
    launched: Callable[..., Bridge], tmp_path: Path
) -> None:
    # on this machine others run launchers of their own, and each stops those of its name
    program = tmp_path / "polypod-launcher"
    shutil.copy(LAUNCHER, program)
    bridge = launched("waits")
    bridge.launcher_program = program
    bridge.start()
    waiting(bridge)
    assert bridge.launcher is not None
    [runtime] = children(bridge.launcher.pid)
    hook = subprocess.Popen([program, "stop"])
    assert hook.wait(60) == 0
    assert not alive(runtime)
    assert bridge.launcher.wait(60) == 128 + signal.SIGTERM
    assert bridge.finish().outcome["reason"] == "Terminated"


def test_the_hook_has_nothing_to_wait_for_where_no_launcher_runs(tmp_path: Path) -> None:
    program = tmp_path / "polypod-launcher"
    shutil.copy(LAUNCHER, program)
    assert subprocess.run([program, "stop"], timeout=60, check=False).returncode == 0


def stored(tmp_path: Path, scheme: str, **more: Any) -> dict[str, Any]:
    """Return the settings that have the log of the pod `here` kept below tmp_path/logs."""
    (tmp_path / "spool").mkdir()
    log = {"base": f"{scheme}://{tmp_path}/logs", "path": "dag_id=d/attempt=1.log", "pod": "here", **more}
    return {"log": {**log, "spool_dir": str(tmp_path / "spool")}}


def kept(tmp_path: Path, path: str = "dag_id=d/attempt=1.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in kept_lines(tmp_path, path)]


def kept_lines(tmp_path: Path, path: str = "dag_id=d/attempt=1.log") -> list[bytes]:
    return list(of_pod(read(f"local://{tmp_path}/logs/{path}", {}), "here"))


def whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("scheme", ["local", "file"])
def test_the_log_is_kept_whole_and_in_order(filled: Store, tmp_path: Path, scheme: str) -> None:
    ti_id = filled.add("spam", queue="golang", conf={"lines": 100_000})
    config = filled.config(ti_id, "golang", COORDINATORS)
    result = Bridge(tmp_path, config, launched=True, pod=stored(tmp_path, scheme)).run()
    assert len(result.log) > 100_000
    assert kept(tmp_path) == result.log
    assert "logUrl" not in json.loads((tmp_path / "termination-log").read_text())


@pytest.mark.parametrize("scheme", ["local", "file"])
def test_the_log_of_a_bridge_that_was_killed_is_kept_by_its_next_start(
    filled: Store, tmp_path: Path, scheme: str
) -> None:
    config = filled.config(filled.add("spam", queue="golang", conf={"lines": 1_000_000}), "golang", COORDINATORS)
    bridge = Bridge(tmp_path, config, launched=True, pod=stored(tmp_path, scheme)).start()
    assert bridge.process is not None
    assert bridge.launcher is not None
    wait_until(lambda: bridge.log_file.exists() and bridge.log_file.stat().st_size > 1 << 20)
    os.kill(bridge.process.pid, signal.SIGKILL)
    bridge.process.wait()
    bridge.start_again()
    assert message(bridge)["reason"] == "BridgeLost"
    # let go when the log is where it belongs
    bridge.launcher.wait(30)
    bridge.process.terminate()
    assert bridge.process.wait(60) == 0
    numbers = [record["number"] for record in bridge.read_log() if record["event"] == "spam"]
    # the kill may have come in the middle of a line, which then stands alone
    lines = kept_lines(tmp_path)
    found = [json.loads(line) for line in lines if whole(line)]
    assert len(lines) - len(found) <= 1
    # each destination has its lines in order; the kill came between the two
    assert abs(len(numbers) - len([record for record in found if record["event"] == "spam"])) < 5000
    assert [record["number"] for record in found if record["event"] == "spam"][:1000] == list(range(1000))
    assert "container terminated while the task was running" in found[-1]["event"]


def test_airflow_says_itself_where_the_log_of_its_workload_is(filled: Store, tmp_path: Path) -> None:
    config = filled.config(filled.add("success", queue="golang"), "golang", COORDINATORS)
    (tmp_path / "workload.json").write_text(json.dumps({
        "token": config["token"], "ti": {**config["ti"], "queue": "golang"}, "bundle_info": config["bundle_info"],
        "dag_rel_path": "d.py", "log_path": "dag_id=airflows/attempt=7.log",
    }))  # fmt: skip
    pod = {**stored(tmp_path, "local"), "workload_file": str(tmp_path / "workload.json")}
    bridge = Bridge(tmp_path, config, launched=True, pod=pod)
    log = bridge.run().log
    assert kept(tmp_path, "dag_id=airflows/attempt=7.log") == log
    assert message(bridge)["logUrl"] == f"local://{tmp_path}/logs/dag_id=airflows/attempt=7.log"


def test_a_workload_that_is_none_is_said_in_the_kept_log_too(filled: Store, tmp_path: Path) -> None:
    config = filled.config(filled.add("success", queue="golang"), "golang", COORDINATORS)
    pod = {**stored(tmp_path, "local"), "workload_file": str(tmp_path / "none.json")}
    bridge = Bridge(tmp_path, config, launched=True, pod=pod)
    bridge.run()
    assert [record["event"] for record in kept(tmp_path)] == [
        "the workload Secret cannot be read: No such file or directory"
    ]


def test_a_storage_that_does_not_work_fails_no_task_and_is_said(filled: Store, tmp_path: Path) -> None:
    config = filled.config(filled.add("success", queue="golang"), "golang", COORDINATORS)
    bridge = Bridge(tmp_path, config, launched=True, pod=stored(tmp_path, "no-such-scheme", stored_within=2))
    bridge.start()
    assert message(bridge)["state"] == "success"
    # it gives up by itself when the pod's grace period would be over
    assert bridge.process is not None
    assert bridge.process.wait(120) == 0
    assert "the log could not be stored" in (tmp_path / "stderr.txt").read_text()
    assert "no-such-scheme" in (tmp_path / "stderr.txt").read_text()
    # the status has it as well, which the pod's own log does not outlive
    assert message(bridge)["message"].count("its log is not complete at no-such-scheme://") == 1


def test_lines_that_a_volume_does_not_take_are_in_the_outcome(filled: Store, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder")
    config = filled.config(filled.add("success", queue="golang"), "golang", COORDINATORS)
    bridge = Bridge(tmp_path, config, launched=True, pod=stored(tmp_path, "file"))
    bridge.run()
    ended = message(bridge)
    assert ended["state"] == "success"
    expected = (
        rf"its log is not complete at file://{tmp_path}/logs/.*: \d+ lines could not be written: Not a directory$"
    )
    assert re.search(expected, ended["message"])
    assert ended["message"].count("its log is not complete") == 1
