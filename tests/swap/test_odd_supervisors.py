"""Our SDKs with a supervisor that is broken, gone, or has only an error to tell: they end soon, and say why."""

from __future__ import annotations

import os
import socket
import subprocess
from typing import Any

import msgspec
import pytest
from support.paths import GO_ROOT, JAVA_ROOT

pytestmark = [pytest.mark.shares("airflow"), pytest.mark.needs("airflow", "conformance", "launcher")]

COMMANDS = {
    "go": [str(GO_ROOT / "conformance")],
    "java": ["java", "-cp", ":".join(map(str, sorted(JAVA_ROOT.glob("*.jar")))), "conformance.Main"],
}
REFUSAL = {"type": "ErrorResponse", "error": "GENERIC_ERROR", "detail": {"message": "the task was taken away"}}


def supervise(sdk: str, first: bytes) -> tuple[int, str]:
    """Run an SDK's program with these bytes on the comm socket; return its exit code and all that it said."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [listener.getsockname()[1] for listener in listeners]
    flags = [f"--comm=127.0.0.1:{ports[0]}", f"--logs=127.0.0.1:{ports[1]}"]
    process = subprocess.Popen([*COMMANDS[sdk], *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for listener in listeners:
            listener.settimeout(60)
        logs, comm = listeners[1].accept()[0], listeners[0].accept()[0]
        comm.sendall(first)
        code = process.wait(60)
        said = b""
        while data := logs.recv(1 << 16):
            said += data
        assert process.stdout is not None
        return code, (said + process.stdout.read()).decode()
    finally:
        for listener in listeners:
            listener.close()
        if process.poll() is None:
            process.kill()
        process.communicate()


def frame(body: Any) -> bytes:
    payload = msgspec.msgpack.encode(body)
    return len(payload).to_bytes(4, "big") + payload


@pytest.mark.parametrize("sdk", COMMANDS)
@pytest.mark.parametrize(
    "first",
    [b"\0\0\0\1\xc1", b"\0\0\0\1\x05", frame([]), frame({"a": 1}), frame([0]), frame(["x", {}, None]), b"\xff" * 8],
    ids=["no msgpack", "a number", "empty", "a map", "too short", "no id", "too long"],
)
def test_bytes_that_are_no_frame_end_the_runtime(sdk: str, first: bytes) -> None:
    code, said = supervise(sdk, first)
    assert code != 0
    assert said.strip()


@pytest.mark.parametrize("sdk", COMMANDS)
@pytest.mark.parametrize("where", ["third element", "body"])
def test_an_error_in_place_of_startup_details_is_told_with_its_detail(sdk: str, where: str) -> None:
    code, said = supervise(sdk, frame([0, None, REFUSAL] if where == "third element" else [0, REFUSAL, None]))
    assert code != 0
    assert "the task was taken away" in said
    assert "in place of StartupDetails" in said


@pytest.mark.parametrize("sdk", COMMANDS)
@pytest.mark.parametrize("level", ["DEBUG", "ERROR", "CRITICAL"])
def test_no_supervisor_at_all_is_said_whatever_the_level(sdk: str, level: str) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    flags = [f"--comm=127.0.0.1:{port}", f"--logs=127.0.0.1:{port}"]
    env = {**os.environ, "AIRFLOW__LOGGING__LOGGING_LEVEL": level}
    done = subprocess.run([*COMMANDS[sdk], *flags], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode != 0
    assert f"127.0.0.1:{port}" in done.stderr
