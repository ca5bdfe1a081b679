"""The command ends as it should whoever stops listening, whatever signal comes when, and however full the disk is."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polypod_core.errors import UserError
from polypod_core.files import read_file
from support.cli import POLYPOD, write
from support.processes import children
from support.rogue_runtime import rogue_coordinator
from support.waiting import wait_until

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options of a run of two tasks, whose runtime is `rogue.py`."""
    folder = tmp_path_factory.mktemp("run")
    coordinator = rogue_coordinator(folder)
    node = Path(coordinator["kwargs"]["node_executable"])
    node.write_text(node.read_text().replace("exec", '[ "$1" = --version ] && echo v22.0.0 && exit\nexec'))
    runs = [
        {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "metadata": {"name": name},
         "spec": {"queue": "q", "dagId": "conformance", "taskId": "rogue", "runId": name}}
        for name in ("one", "two")
    ]  # fmt: skip
    routing: dict[str, Any] = {"coordinators": {"ts": coordinator}, "queue_to_coordinator": {"q": "ts"}}
    where = write(folder, routing).rename(folder / "routing.yaml")
    return ["-f", str(write(folder, *runs)), "--routing", str(where)]


def start(*arguments: str, rogue: str = "waits", **kwargs: Any) -> subprocess.Popen[bytes]:
    env = {**os.environ, "ROGUE": rogue, **kwargs.pop("env", {})}
    return subprocess.Popen([POLYPOD, *arguments], env=env, **kwargs)


def wait_for_handlers(process: subprocess.Popen[bytes]) -> None:
    """Wait until the command catches SIGTERM: before that, the interpreter itself is starting."""
    mask = 1 << (signal.SIGTERM - 1)

    def caught() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(line.split()[1], 16) & mask)

    wait_until(caught, "the command to catch signals", every=0.005)


@pytest.mark.parametrize(
    "closed", ["2>&1 | head -1", "2>&1 | true", ">&- 2>&-", "2>/dev/full", "2>&1 >/dev/full | true"]
)
def test_a_run_of_several_tasks_ends_well_whoever_listens(files: list[str], closed: str) -> None:
    command = f"{POLYPOD} run {' '.join(files)} {closed}; exit ${{PIPESTATUS[0]}}"
    env = {**os.environ, "ROGUE": "late_success", "ROGUE_SECONDS": "0.2"}
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, timeout=240, env=env)
    assert done.returncode == (2 if ">/dev/full |" in closed else 0), done.stderr


def test_a_run_whose_reader_goes_away_can_be_interrupted_and_leaves_nothing(files: list[str]) -> None:
    process = start("run", *files, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if b"waiting" in line:
            break
    process.stderr.close()
    bridges = children(process.pid)
    assert bridges
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not any(Path(f"/proc/{bridge}").exists() for bridge in bridges)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.floats(0, 3) | st.floats(0, 0.3), number=st.sampled_from(NUMBERS))
@pytest.mark.generated
def test_a_signal_at_any_moment_ends_a_run(files: list[str], after: float, number: signal.Signals) -> None:
    process = start("run", *files, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_handlers(process)
    time.sleep(after)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err.decode()
    assert b"Traceback" not in err
    assert b"Aborted" not in err


REMOTE = [("logs", "-f", "x"), ("wait", "x", "y"), ("top",), ("describe", "x"), ("submit", "-f", "FILE", "--wait")]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(REMOTE), after=st.floats(0, 1.5), number=st.sampled_from(NUMBERS))
@pytest.mark.generated
def test_a_signal_at_any_moment_ends_a_command_that_waits_for_the_cluster(
    files: list[str], tmp_path: Path, command: tuple[str, ...], after: float, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {
            "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{silent.getsockname()[1]}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }  # fmt: skip
        env = {"KUBECONFIG": str(write(tmp_path, config))}
        arguments = [files[1] if item == "FILE" else item for item in command]
        process = start(*arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for_handlers(process)
        time.sleep(after)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, b"")


def test_what_must_be_removed_is_removed_when_a_signal_comes(tmp_path: Path) -> None:
    program = """
import sys, time
from polypod_cli import interrupts
interrupts.install()
try:
    with interrupts.unwinding():
        try:
            print("there", flush=True)
            time.sleep(60)
        finally:
            print("removed", flush=True)
except interrupts.Interrupted as error:
    sys.exit(error.exit_code)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "removed\n"
    assert process.returncode == 143


@pytest.mark.parametrize("kib", [16, 100, 168, 180])
def test_a_full_disk_is_said_in_a_sentence(files: list[str], kib: int) -> None:
    process = start("run", *files, rogue="late_success", env={"ROGUE_SECONDS": "0.1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10)))  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode in (0, 2), err.decode()
    assert not [word for word in (b"Traceback", b"sqlalche", b"INSERT", b"SELECT") if word in err], err.decode()
    if process.returncode:
        assert b"cannot be used" in err


def test_warnings_that_are_errors_are_for_the_users_own_programs(files: list[str]) -> None:
    done = subprocess.run([POLYPOD, "validate", *files], env={**os.environ, "PYTHONWARNINGS": "error"}, capture_output=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


ODD: dict[str, Callable[[Path], object]] = {
    "a FIFO": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a socket": a_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
COMMANDS = [
    "bundle inspect ODD", "bundle inspect --source ODD", "bundle verify ODD", "bundle pack ODD --manifest F -o OUT",
    "bundle pack F --manifest ODD -o OUT", "bundle pack F --manifest F --source ODD -o OUT", "bundle pack F --manifest F -o ODD",
    "run -f ODD --routing F", "run -f FILE --routing ODD", "validate -f ODD", "submit -f ODD",
    "routing from-airflow ODD", "run --workload ODD --execution-api-url http://127.0.0.1:1/ --routing F",
    "run --workload F --execution-api-url http://127.0.0.1:1/ --routing F --log-file ODD", "top",
]  # fmt: skip


CASES = [(kind, command) for kind in ODD for command in COMMANDS if kind != "a folder" or "-f ODD" not in command]
"""Manifests may be in a folder."""


@pytest.mark.parametrize(("kind", "command"), CASES)
def test_what_is_no_file_is_refused_at_once(files: list[str], tmp_path: Path, kind: str, command: str) -> None:
    from support.cli import polypod

    ODD[kind](tmp_path / "odd")
    (tmp_path / "f").write_text("{}")
    names: dict[str, str | Path] = {
        "ODD": tmp_path / "odd",
        "F": tmp_path / "f",
        "OUT": tmp_path / "out",
        "FILE": files[1],
    }
    arguments: list[str | Path] = [names.get(item, item) for item in command.split()]
    done = polypod(*arguments, env={"KUBECONFIG": str(tmp_path / "odd")})
    assert done.returncode == 2, done.stderr
    assert "odd" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "odd").exists()


def test_what_another_program_writes_is_read(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as file:
        file.write(b"x")
        file.flush()
        file.close()
        assert read_file(f"/dev/fd/{reader}") == b"x"
    os.mkfifo(tmp_path / "fifo")
    began = time.monotonic()
    with pytest.raises(UserError, match="is a FIFO, not a file"):
        read_file(str(tmp_path / "fifo"))
    assert time.monotonic() - began < 5
