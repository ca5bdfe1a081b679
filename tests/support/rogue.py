"""A runtime that misbehaves, for real: a process on the real sockets. What it does is in the variable ROGUE.

It stands in for `node`: the bridge starts it with the path of a TypeScript bundle, --comm and --logs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Any

import msgspec


class Peer:
    """The runtime's side of the protocol, as far as a test needs it."""

    def __init__(self) -> None:
        flags = dict(argument[2:].split("=", 1) for argument in sys.argv if argument.startswith("--"))
        self._addresses = {name: address.rsplit(":", 1) for name, address in flags.items()}
        self._sockets: dict[str, socket.socket] = {}
        self._buffer = b""
        self._next = 0

    def connect(self, *names: str) -> None:
        for name in names:
            host, port = self._addresses[name]
            self._sockets[name] = socket.create_connection((host, int(port)), timeout=60)

    def close(self, name: str) -> None:
        self._sockets.pop(name).close()

    def raw(self, data: bytes) -> None:
        self._sockets["comm"].sendall(data)

    def send(self, value: Any) -> None:
        payload = msgspec.msgpack.encode(value)
        self.raw(len(payload).to_bytes(4, "big") + payload)

    def receive(self) -> Any:
        while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "big"):
            data = self._sockets["comm"].recv(1 << 16)
            if not data:
                raise EOFError
            self._buffer += data
        size = int.from_bytes(self._buffer[:4], "big")
        payload, self._buffer = self._buffer[4 : 4 + size], self._buffer[4 + size :]
        return msgspec.msgpack.decode(payload)

    def request(self, **body: Any) -> Any:
        self._next += 1
        self.send([self._next, body])
        return self.receive()

    def log(self, line: str | bytes) -> None:
        self._sockets["logs"].sendall(line.encode() if isinstance(line, str) else line)

    def end(self, kind: str, **fields: Any) -> None:
        now = datetime.now(UTC).isoformat()
        self.send([0, {"type": kind, "end_date": now, **fields}, None])

    def start(self) -> Any:
        self.connect("comm", "logs")
        return self.receive()[1]


def never_connects(peer: Peer) -> None:
    time.sleep(600)


def connects_once(peer: Peer) -> None:
    peer.connect("logs")
    time.sleep(600)


def connects_thrice(peer: Peer) -> None:
    peer.start()
    host, port = peer._addresses["comm"]
    try:
        socket.create_connection((host, int(port)), timeout=5)
        peer.log('{"level":"error","event":"a third connection was accepted"}\n')
    except OSError:
        peer.log('{"level":"info","event":"the third connection was refused"}\n')
    peer.end("SucceedTask")


def exits_before_connecting(peer: Peer) -> None:
    print("no such library", file=sys.stderr)
    sys.exit(9)


def connects_and_exits(peer: Peer) -> None:
    peer.connect("logs", "comm")
    os._exit(1)


def damaged_end(peer: Peer) -> None:
    """Ask for another try in a text that is not UTF-8."""
    peer.start()
    reason = 'cannot parse row "MXnchen"'
    raw = msgspec.msgpack.encode(
        [0, {"type": "RetryTask", "end_date": datetime.now(UTC).isoformat(), "retry_reason": reason}, None]
    ).replace(b"MXnchen", b"M\xfcnchen")
    peer.raw(len(raw).to_bytes(4, "big") + raw)


def unreadable_end(peer: Peer) -> None:
    """Say how the task ended in a way that means nothing, with a secret in it."""
    peer.start()
    secret = peer.request(type="GetConnection", conn_id="conformance_db")[1]["password"]
    peer.end("TaskEnded", text=secret)


def tells_a_secret(peer: Peer) -> None:
    """Name a password where the status shows it: in the last error, or in the end itself, cut as SDKs cut it."""
    peer.start()
    secret = peer.request(type="GetConnection", conn_id="conformance_db")[1]["password"]
    whole = f"{'x' * int(os.environ.get('ROGUE_FILL', '0'))}no login with {secret}"
    told = whole[:500]
    if os.environ.get("ROGUE_END") == "RetryTask":
        peer.end("RetryTask", retry_reason=told, rendered_map_index=told[-250:])
        return
    peer.log(json.dumps({"level": "error", "event": f"no login with {secret}", "error": whole}) + "\n")
    peer.end("TaskState", state="failed", rendered_map_index=told[-250:])


def closes_comm_early(peer: Peer) -> None:
    peer.start()
    peer.close("comm")
    peer.log('{"level":"info","event":"still here"}\n')
    sys.exit(int(os.environ.get("ROGUE_EXIT", "0")))


def closes_logs_early(peer: Peer) -> None:
    peer.start()
    peer.log('{"level":"info","event":"the last line"}')
    peer.close("logs")
    print("stdout goes on")
    peer.end("SucceedTask")


def not_an_array(peer: Peer) -> None:
    peer.start()
    peer.send({"id": 1})
    time.sleep(600)


def announces_too_much(peer: Peer) -> None:
    peer.start()
    peer.raw(b"\xff\xff\xff\xff")
    time.sleep(600)


def undecodable_body(peer: Peer) -> None:
    peer.start()
    answers = [
        peer.request(type="NoSuchMessage"),
        peer.request(type="GetVariable"),
        peer.request(no_type=1),
        peer.request(type="ResendLoggingFD"),
    ]
    peer.log(
        json.dumps({"level": "info", "event": "answers", "errors": [answer[2]["error"] for answer in answers]}) + "\n"
    )
    peer.end("SucceedTask")


def skipped_then_crash(peer: Peer) -> None:
    peer.start()
    peer.end("TaskState", state="skipped")
    sys.exit(7)


def removed(peer: Peer) -> None:
    peer.start()
    peer.end("TaskState", state="removed")


def two_terminal_messages(peer: Peer) -> None:
    peer.start()
    peer.end("SucceedTask")
    peer.end("TaskState", state="failed")


def malformed_logs(peer: Peer) -> None:
    peer.start()
    peer.log(
        b'this is not JSON\n["nor", "an object"]\n\xff\xfe\n{"event": "no level"}\n{"level":"fatal","event":null}\n'
    )
    peer.log(b'{"level":"info","event":"ok","timestamp":"not a time","exception":"boom"}\n')
    peer.end("SucceedTask")


def split_secret(peer: Peer) -> None:
    peer.start()
    secret = peer.request(type="GetConnection", conn_id="conformance_db")[1]["password"]
    for part in ("before ", secret[:4], secret[4:], " after\n"):
        os.write(1, part.encode())
        peer.log(part if part != " after\n" else "")
        time.sleep(0.2)
    peer.log("\n")
    peer.request(type="MaskSecret", value=[{"password": ["masked-value-1"]}], name=None)
    peer.log('{"level":"info","event":"x","nested":{"list":["masked-value-1","plain"]},"password":"short"}\n')
    peer.end("SucceedTask")


def many_in_flight(peer: Peer) -> None:
    peer.start()
    for number in range(200):
        peer.send([1000 + number, {"type": "GetVariable", "key": f"conformance_{number % 20}"}])
    answers = {answer[0]: answer[1] for answer in (peer.receive() for _ in range(200))}
    good = all(answers[1000 + n]["value"] == f"value {n % 20}" for n in range(200))
    peer.end("SucceedTask") if good else peer.end("TaskState", state="failed")


def traced(peer: Peer) -> None:
    peer.start()
    carrier = {"traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", "authorization": "stolen"}
    peer.send([5, {"type": "GetVariable", "key": "conformance_in"}, carrier])
    peer.end("SucceedTask") if peer.receive()[1]["value"] == "a variable" else sys.exit(1)


def holds_sockets(peer: Peer) -> None:
    """A grandchild in a session of its own keeps every socket and pipe open."""
    peer.start()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            # longer than the test waits; nobody ends it where the launcher is not PID 1
            time.sleep(90)
        os._exit(0)
    peer.log(json.dumps({"level": "info", "event": "left a grandchild"}) + "\n")
    peer.end("SucceedTask")


def asks(peer: Peer) -> None:
    """Send the messages of a file one after the other, and write down what is answered."""
    details = peer.start()
    with open(os.environ["ROGUE_MESSAGES"]) as file:
        text = file.read().replace("TI_ID", details["ti"]["id"]).replace("RUN_ID", details["ti"]["run_id"])
    answers = [peer.request(**message)[1:] for message in json.loads(text)]
    with open(os.environ["ROGUE_ANSWERS"], "w") as file:
        json.dump({"details": details, "answers": answers}, file, default=str)
    peer.end("SucceedTask", task_outlets=[], outlet_events=[])


def kills_itself(peer: Peer) -> None:
    peer.start()
    os.kill(os.getpid(), int(os.environ["ROGUE_SIGNAL"]))
    time.sleep(600)


def waits(peer: Peer) -> None:
    peer.start()
    peer.log('{"level":"info","event":"waiting"}\n')
    time.sleep(600)


def eats_memory(peer: Peer) -> None:
    peer.start()
    kept = []
    while True:
        kept.append(b"x" * (4 << 20))


def late_success(peer: Peer) -> None:
    peer.start()
    peer.log('{"level":"info","event":"waiting"}\n')
    time.sleep(float(os.environ.get("ROGUE_SECONDS", "1")))
    peer.end("SucceedTask")


def recorded(peer: Peer) -> None:
    """Write into an outside record that this run has begun, and that it has ended."""
    name, run = os.environ["ROGUE_NAME"], os.urandom(4).hex()

    def note(what: str) -> None:
        with open(os.environ["ROGUE_RECORD"], "a") as record:
            record.write(f"{time.time():.3f} {what} {name} {run}\n")

    peer.start()
    note("begin")
    peer.log('{"level":"info","event":"waiting"}\n')
    time.sleep(float(os.environ.get("ROGUE_SECONDS", "1")))
    note("end")
    peer.end("SucceedTask")


if __name__ == "__main__":
    globals()[os.environ["ROGUE"]](Peer())
