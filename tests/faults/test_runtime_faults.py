"""Runtimes that misbehave: each attempt ends in bounded time, in the right state, with its log kept."""

from __future__ import annotations

import os
import select
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.api import Store
from support.bridge import COORDINATORS, Bridge, Result
from support.misbehaviours import MISBEHAVIOURS
from support.processes import alive, children
from support.rogue_runtime import rogue_coordinator
from support.waiting import Patience, wait_until

pytestmark = pytest.mark.needs("conformance", "launcher")

Rogue = Callable[..., Bridge]


@pytest.fixture(params=["child", "launched"])
def rogue(filled: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Rogue:
    """Start a bridge whose runtime misbehaves in a given way: a child of the bridge's, or of a launcher's."""
    coordinator = rogue_coordinator(tmp_path)

    def make(behaviour: str, retries: int = 0, timeouts: dict[str, Any] | None = None, **env: str) -> Bridge:
        ti_id = filled.add("rogue", queue="rogue", retries=retries)
        config = filled.config(ti_id, "rogue", {"rogue": coordinator})
        config["timeouts"] = {"kill_grace": 1, **(timeouts or {})}
        return Bridge(tmp_path, config, {"ROGUE": behaviour, **env}, launched=request.param == "launched")

    return make


def state_of(store: Store, bridge: Bridge) -> str | None:
    return store.ti(uuid.UUID(bridge.config["ti"]["id"])).state


def wait_for_event(bridge: Bridge, event: str) -> None:
    wait_until(
        lambda: any(record["event"] == event for record in bridge.read_log()),
        f"the event {event!r}",
        seen=bridge.read_log,
    )


@pytest.mark.parametrize(("behaviour", "env", "state", "reason", "message"), MISBEHAVIOURS)
def test_every_misbehaviour_has_its_outcome(
    filled: Store, rogue: Rogue, behaviour: str, env: dict[str, str], state: str, reason: str, message: str
) -> None:
    # short only where nothing else can happen: a busy machine may take its time to start a runtime
    startup = 5 if reason == "StartupTimeout" else 60
    bridge = rogue(behaviour, timeouts={"startup": startup}, **env)
    result: Result = bridge.run()
    assert (result.outcome["state"], result.outcome["reason"]) == (state, reason), (result.outcome, result.log)
    assert message in result.outcome.get("message", "")
    assert state_of(filled, bridge) == state
    assert result.outcome["reported"] is True


def test_exit_with_retries_left_is_up_for_retry(filled: Store, rogue: Rogue) -> None:
    bridge = rogue("exits_before_connecting", retries=1)
    result = bridge.run()
    assert result.outcome["state"] == "up_for_retry"
    assert state_of(filled, bridge) == "up_for_retry"
    assert "no such library" in result.events("task.stderr")


def test_an_end_that_cannot_be_understood_retries_and_its_bytes_are_logged_masked(rogue: Rogue) -> None:
    bridge = rogue("unreadable_end", retries=1)
    result = bridge.run()
    assert (result.outcome["state"], result.outcome["reason"]) == ("up_for_retry", "ProtocolError")
    shown = next(record for record in result.log if "raw" in record)
    assert "TaskEnded" in shown["raw"]
    assert "s3cr3t" not in bridge.log_file.read_text()


@pytest.mark.parametrize("fill", ["0", "480"], ids=["whole", "cut"])
@pytest.mark.parametrize(("kind", "state"), [("RetryTask", "up_for_retry"), ("TaskState", "failed")])
def test_what_a_status_shows_of_an_error_is_masked(
    filled: Store, rogue: Rogue, kind: str, state: str, fill: str
) -> None:
    bridge = rogue("tells_a_secret", retries=1, ROGUE_END=kind, ROGUE_FILL=fill)
    result = bridge.run()
    assert result.outcome["state"] == state
    assert "***" in result.outcome["message"], result.outcome
    kept = filled.ti(uuid.UUID(bridge.config["ti"]["id"]))
    assert "***" in (kept.rendered_map_index or "")
    assert "***" in (kept.retry_reason or "") or kind != "RetryTask"
    shown = str(result.outcome) + result.stderr + bridge.log_file.read_text()
    assert "s3cr3" not in f"{shown} {kept.rendered_map_index} {kept.retry_reason}"


def test_only_one_connection_a_listener(rogue: Rogue) -> None:
    assert "the third connection was refused" in rogue("connects_thrice").run().events("task")


def test_what_was_logged_before_an_early_close_is_kept(rogue: Rogue) -> None:
    result = rogue("closes_logs_early").run()
    assert "the last line" in result.events("task")
    assert "stdout goes on" in result.events("task.stdout")


def test_every_request_is_answered_even_one_that_is_no_message(rogue: Rogue) -> None:
    result = rogue("undecodable_body").run()
    answers = next(record for record in result.log if record["event"] == "answers")
    assert answers["errors"] == ["GENERIC_ERROR"] * 4


def test_malformed_lines_are_reported_and_kept(rogue: Rogue) -> None:
    log = rogue("malformed_logs").run().log
    bad = [record["line"] for record in log if record["event"] == "malformed log line from the runtime"]
    assert bad == ["this is not JSON", '["nor", "an object"]', "��"]
    levels = {record["event"]: record["level"] for record in log}
    assert levels["no level"] == "info"
    assert levels[""] == "critical"
    odd = next(record for record in log if record["event"] == "ok")
    assert (odd["timestamp"], odd["error_detail"]) == ("not a time", "boom")


def test_secrets_are_masked_across_reads_and_at_any_depth(rogue: Rogue) -> None:
    bridge = rogue("split_secret")
    result = bridge.run()
    assert result.outcome["state"] == "success", str(result.log)[:4000]
    assert "before *** after" in result.events("task.stdout")
    nested = next(record for record in result.log if record["event"] == "x")
    assert nested["nested"] == {"list": ["***", "plain"]}
    assert nested["password"] == "***"
    assert "s3cr3t" not in bridge.log_file.read_text()


def test_sigterm_reaches_the_runtime_and_its_last_words_are_kept(filled: Store, tmp_path: Path) -> None:
    for language in ("golang", "jvm", "typescript"):
        ti_id = filled.add("wait", run_id=language, queue=language)
        bridge = Bridge(tmp_path, filled.config(ti_id, language, COORDINATORS), log_name=f"{language}.log").start()
        wait_for_event(bridge, "waiting")
        assert bridge.process is not None
        bridge.process.send_signal(signal.SIGTERM)
        result = bridge.finish()
        assert result.outcome["state"] == "failed", (language, result.outcome)
        assert result.outcome["reason"] == "Terminated"
        assert filled.ti(ti_id).state == "failed"
        assert any("ended early" in str(record) for record in result.log), (language, result.log)


@pytest.mark.parametrize("language", ["golang", "jvm"])
def test_a_task_that_finishes_its_work_after_sigterm_succeeds(filled: Store, tmp_path: Path, language: str) -> None:
    ti_id = filled.add("finish_late", queue=language)
    bridge = Bridge(tmp_path, filled.config(ti_id, language, COORDINATORS)).start()
    wait_for_event(bridge, "waiting")
    assert bridge.process is not None
    bridge.process.send_signal(signal.SIGTERM)
    result = bridge.finish()
    assert (result.outcome["state"], filled.ti(ti_id).state) == ("success", "success"), (result.outcome, result.log)


@pytest.mark.parametrize(("task", "delay"), [("half_an_emoji", 1.5), ("broken_exception", None)])
def test_a_java_exception_of_any_kind_keeps_its_retry(
    filled: Store, tmp_path: Path, task: str, delay: float | None
) -> None:
    ti_id = filled.add(task, queue="jvm", retries=1)
    result = Bridge(tmp_path, filled.config(ti_id, "jvm", COORDINATORS)).run()
    assert (result.outcome["state"], result.outcome["reason"]) == ("up_for_retry", "RetryRequested"), result.log
    assert result.outcome.get("retryDelaySeconds") == delay


def test_a_runtime_that_ignores_sigterm_is_killed(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("ignore_signals", queue="golang")
    config = filled.config(ti_id, "golang", COORDINATORS)
    bridge = Bridge(tmp_path, {**config, "timeouts": {"stop_grace": 1}}).start()
    wait_for_event(bridge, "waiting")
    assert bridge.process is not None
    bridge.process.send_signal(signal.SIGTERM)
    result = bridge.finish()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "Terminated")
    assert result.outcome["signal"] == signal.SIGKILL


def test_the_execution_timeout_ends_the_task(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("wait", queue="golang")
    config = filled.config(ti_id, "golang", COORDINATORS)
    result = Bridge(tmp_path, {**config, "timeouts": {"execution": 1}}).run()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "ExecutionTimeout")
    assert "stopping; cleaning up" in result.events("task")


def test_a_runtime_that_stays_after_its_task_is_ended(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("success", queue="golang")
    config = filled.config(ti_id, "golang", COORDINATORS)
    timeouts = {"task_success_overtime": 1, "kill_grace": 1}
    result = Bridge(tmp_path, {**config, "timeouts": timeouts}, {"CONFORMANCE_AFTER": "linger"}).run()
    assert result.outcome["state"] == "success"
    assert filled.ti(ti_id).state == "success"


def test_a_crash_after_success_does_not_undo_it(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("success", queue="golang")
    config = filled.config(ti_id, "golang", COORDINATORS)
    result = Bridge(tmp_path, config, {"CONFORMANCE_AFTER": "crash"}).run()
    assert (result.outcome["state"], result.outcome["exitCode"]) == ("success", 7)
    assert "which stands" in result.outcome["message"]
    assert filled.ti(ti_id).state == "success"


def test_a_grandchild_that_holds_everything_open_does_not_hold_the_end(rogue: Rogue) -> None:
    started = time.monotonic()
    result = rogue("holds_sockets").run()
    assert result.outcome["state"] == "success"
    assert "left a grandchild" in result.events("task")
    assert time.monotonic() - started < 60


def test_processes_that_the_task_left_are_ended(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("leave_child", queue="golang")
    result = Bridge(tmp_path, filled.config(ti_id, "golang", COORDINATORS)).run()
    assert result.outcome["state"] == "success"
    assert not alive(filled.xcoms("leave_child")["return_value"])


def test_no_runtime_outlives_a_killed_supervisor(rogue: Rogue) -> None:
    bridge = rogue("waits").start()
    wait_for_event(bridge, "waiting")
    assert bridge.process is not None
    parent = bridge.launcher if bridge.launcher is not None else bridge.process
    [runtime] = children(parent.pid)
    os.kill(bridge.process.pid, signal.SIGKILL)
    bridge.process.wait()
    wait_until(lambda: not alive(runtime), "the end of the runtime", limit=30)
    if bridge.launcher is not None:
        # it holds the pod for the next start of its bridge, and lets go when it is told to
        assert bridge.launcher.poll() is None
        bridge.launcher.terminate()
        assert bridge.launcher.wait(30) == 128 + signal.SIGTERM


def test_fifty_thousand_lines_as_fast_as_possible_none_lost(filled: Store, tmp_path: Path) -> None:
    for language in ("golang", "jvm"):
        ti_id = filled.add("spam", run_id=language, queue=language, conf={"lines": 50_000})
        bridge = Bridge(tmp_path, filled.config(ti_id, language, COORDINATORS), log_name=f"{language}.log")
        result = bridge.run()
        numbers = [record["number"] for record in result.log if record["event"] == "spam"]
        assert numbers == list(range(50_000))


def test_a_line_of_ten_megabytes(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("long_line", queue="golang")
    result = Bridge(tmp_path, filled.config(ti_id, "golang", COORDINATORS)).run()
    assert result.outcome["state"] == "success"
    assert max(len(event) for event in result.events("task")) == 10 << 20


def test_an_xcom_of_64_mebibytes(filled: Store, tmp_path: Path) -> None:
    size = 64 << 20
    ti_id = filled.add("big_xcom", queue="golang", conf={"bytes": size})
    config = filled.config(ti_id, "golang", COORDINATORS)
    config["execution_api"]["timeout"] = 60
    result = Bridge(tmp_path, config).run()
    assert result.outcome["state"] == "success", str(result.log)[:4000]
    assert filled.xcoms("big_xcom")["return_value"] == size


def test_a_full_disk_does_not_end_the_task(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("success", queue="golang")
    config = {**filled.config(ti_id, "golang", COORDINATORS), "log_format": "json"}
    result = Bridge(tmp_path, config, log_name="../../../../../../../../dev/full").run()
    assert result.outcome["state"] == "success", result.stderr
    assert "cannot write the log; the task continues" in result.stderr
    assert "an info line" in result.stderr
    assert "log lines could not be written" in result.stderr


def test_a_blocked_log_holds_the_runtime_instead_of_filling_memory(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("spam", queue="golang", conf={"lines": 200_000})
    bridge = Bridge(tmp_path, {**filled.config(ti_id, "golang", COORDINATORS), "log_format": "json", "log_file": None})
    reader, writer = os.pipe()
    bridge.stderr_fd = writer
    bridge.start()
    os.close(writer)
    assert bridge.process is not None
    # nobody reads: after a while nothing moves any more, and nothing grows
    sizes: list[int] = []
    patience = Patience(60)
    while len(sizes) < 20 or sizes[-1] != sizes[-20]:
        patience.check("that the bridge's memory stays the same", sizes[-1:])
        pages = int(Path(f"/proc/{bridge.process.pid}/statm").read_text().split()[1])
        sizes.append(pages * os.sysconf("SC_PAGE_SIZE"))
        time.sleep(0.1)
    assert max(sizes) < 128 << 20
    with os.fdopen(reader, "rb") as stream:
        lines = stream.read().splitlines()
    bridge.finish()
    assert sum(b'"event":"spam"' in line for line in lines) == 200_000


def test_a_log_that_is_blocked_for_ever_does_not_hold_the_end(filled: Store, tmp_path: Path) -> None:
    ti_id = filled.add("spam", queue="golang", conf={"lines": 200_000})
    config = {**filled.config(ti_id, "golang", COORDINATORS), "log_format": "json", "log_file": None}
    bridge = Bridge(tmp_path, {**config, "timeouts": {"stop_grace": 1, "socket_cleanup": 2}})
    reader, writer = os.pipe()
    bridge.stderr_fd = writer
    bridge.start()
    os.close(writer)
    assert bridge.process is not None
    wait_until(lambda: select.select([reader], [], [], 0)[0], "a line of the log")
    time.sleep(1)
    bridge.process.send_signal(signal.SIGTERM)
    result = bridge.finish(timeout=60)
    os.close(reader)
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "Terminated")
    assert filled.ti(ti_id).state == "failed"


def test_a_runtime_of_an_older_schema_is_told_that_it_gets_no_arguments(filled: Store, tmp_path: Path) -> None:
    from support.paths import EXECUTABLE_CLASSPATH, GO_ROOT_33, JAVA_CLASSPATH, JAVA_ROOT_33

    older = {
        "golang": {"classpath": EXECUTABLE_CLASSPATH, "kwargs": {"executables_root": [str(GO_ROOT_33)]}},
        "jvm": {"classpath": JAVA_CLASSPATH, "kwargs": {"jars_root": [str(JAVA_ROOT_33)]}},
    }
    bindings = [{"kind": "literal", "name": "x", "value": 1, "from_default": False}]
    for queue in older:
        ti_id = filled.add("bind_by_name", run_id=queue, queue=queue, arg_bindings=bindings)
        result = Bridge(tmp_path, filled.config(ti_id, queue, older), log_name=f"{queue}.log").run()
        assert result.outcome["state"] == "failed"
        notice = next(record for record in result.log if "has no arguments" in record["event"])
        assert (notice["arguments"], notice["schema_version"]) == (1, "2026-06-16")
        assert "2026-06-16, which has no arguments" in str(result.log)


def test_tls_with_an_authority_of_ones_own(filled: Store, tmp_path: Path) -> None:
    import subprocess
    import threading

    import uvicorn
    from polypod_execution_api.app import create_app
    from support.ports import free_port

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    port = free_port()
    app = create_app(filled.engine, filled.signer)
    options = {"ssl_certfile": str(cert), "ssl_keyfile": str(key), "lifespan": "off", "log_level": "error"}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, **options))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for ca_file, state in ((str(cert), "success"), (None, "failed")):
            ti_id = filled.add("success", run_id=f"tls-{state}", queue="golang")
            config = filled.config(ti_id, "golang", COORDINATORS)
            api = {"url": f"https://127.0.0.1:{port}/execution/", "ca_file": ca_file, "retry_wait_min": 0.1}
            result = Bridge(tmp_path, {**config, "execution_api": api}).run()
            assert result.outcome["state"] == state, result.log
        assert "certificate" in result.outcome["message"].lower()
        config["execution_api"]["url"] = "https://127.0.0.1"
        config["execution_api"]["ca_file"] = str(tmp_path / "none.pem")
        result = Bridge(tmp_path, config).run()
        assert "none.pem" in result.outcome["message"]
        assert result.returncode == 2
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("delay", [0.0, 0.04, 0.08, 0.12])
def test_told_to_end_before_anything_has_begun_there_is_an_outcome(filled: Store, rogue: Rogue, delay: float) -> None:
    bridge = rogue("waits", timeouts={"stop_grace": 1}).start()
    assert bridge.process is not None
    status = Path(f"/proc/{bridge.process.pid}/status")

    def handles_sigterm() -> bool:
        caught = int(next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))[8:], 16)
        return bool(caught & (1 << (signal.SIGTERM - 1)))

    wait_until(handles_sigterm, limit=30, every=0.001)
    time.sleep(delay)
    bridge.process.send_signal(signal.SIGTERM)
    result = bridge.finish()
    assert (result.outcome["state"], result.outcome["reason"]) == ("failed", "Terminated"), str(result.log)
    # told before the launcher was there, nothing had begun that could be reported
    assert state_of(filled, bridge) in (("failed", "queued") if bridge.launched else ("failed",))


@pytest.mark.parametrize("launched", [False, True], ids=["child", "launched"])
def test_a_jvm_that_is_told_twice_runs_its_shutdown_hooks(filled: Store, tmp_path: Path, launched: bool) -> None:
    ti_id = filled.add("stubborn", queue="jvm")
    config = filled.config(ti_id, "jvm", COORDINATORS)
    config["timeouts"] = {"stop_grace": 10}
    bridge = Bridge(tmp_path, config, launched=launched)
    bridge.start()
    wait_for_event(bridge, "waiting")
    assert bridge.process is not None
    bridge.process.terminate()
    result = bridge.finish()
    assert "the shutdown hook ran" in result.events("task.stdout")
    assert (result.outcome["reason"], result.outcome["exitCode"]) == ("Terminated", 143), result.outcome
