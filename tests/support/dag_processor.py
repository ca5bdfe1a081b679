"""The Dag processor's side of the protocol: it starts an artifact and asks it what it holds."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import msgspec

from support.paths import GO_ROOT, JAVA_ROOT


def ask_as_dag_processor(queue: str, question: str) -> dict[str, Any]:
    """Ask an SDK's conformance program, take its answer, and see that it then ends by itself with 0."""
    command = {
        "golang": [str(GO_ROOT / "conformance")],
        "jvm": ["java", "-cp", ":".join(map(str, JAVA_ROOT.glob("*.jar"))), "conformance.Main"],
    }[queue]
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    flags = [
        f"--{name}=127.0.0.1:{item.getsockname()[1]}" for name, item in zip(("comm", "logs"), listeners, strict=True)
    ]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        for listener in listeners:
            listener.settimeout(60)
        comm, logs = listeners[0].accept()[0], listeners[1].accept()[0]
        request = {"type": question, "file": "/the/artifact", "bundle_path": "/the", "bundle_name": "artifacts"}
        _send(comm, [0, request, None])
        number, body = _receive(comm)[:2]
        _send(comm, [number, None, None])
        assert process.wait(60) == 0
        comm.close()
        logs.close()
        answer: dict[str, Any] = body
        return answer
    finally:
        for listener in listeners:
            listener.close()
        if process.poll() is None:
            process.kill()
        process.communicate()


def _send(comm: socket.socket, frame: Any) -> None:
    payload = msgspec.msgpack.encode(frame)
    comm.sendall(len(payload).to_bytes(4, "big") + payload)


def _receive(comm: socket.socket) -> Any:
    file = comm.makefile("rb")
    return msgspec.msgpack.decode(file.read(int.from_bytes(file.read(4), "big")))
