"""The SDKs' client calls with a supervisor that answers oddly: both languages end alike, and say what was wrong."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from support.paths import GO_ROOT, JAVA_ROOT

pytestmark = pytest.mark.needs("conformance")

COMMANDS = {
    "golang": [str(GO_ROOT / "conformance")],
    "jvm": ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{JAVA_ROOT}/*", "conformance.Main"],
}
Body = dict[str, Any]
Answers = Callable[[Body], tuple[Any, Any]]
RUN: dict[str, Any] = {"dag_id": "conformance", "run_id": "r", "run_type": "manual", "logical_date": None, "conf": {}}
TI = {
    "id": "8f0e4f4e-1f1b-4b1b-9b1b-1b1b1b1b1b1b",
    "dag_id": "conformance",
    "run_id": "r",
    "try_number": 1,
    "map_index": -1,
}
CONNECTION = {"type": "ConnectionResult", "conn_id": "c", "conn_type": "t", "host": "h", "schema": "s", "login": "l",
              "password": "p", "port": 5, "extra": "{}"}  # fmt: skip


class Supervisor:
    """Starts a task of the conformance program and answers what it asks for."""

    def __init__(self, sdk: str, task_id: str) -> None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        flags = [f"--{name}=127.0.0.1:{one.getsockname()[1]}" for name, one in zip(("comm", "logs"), listeners, strict=True)]  # fmt: skip
        self.process = subprocess.Popen([*COMMANDS[sdk], *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for listener in listeners:
            listener.settimeout(60)
        self.logs, self.comm = listeners[1].accept()[0], listeners[0].accept()[0]
        self.comm.settimeout(60)
        for listener in listeners:
            listener.close()
        context = {"dag_run": RUN, "should_retry": True, "multi_team": False, "arg_bindings": None}
        details = {"type": "StartupDetails", "ti": {**TI, "task_id": task_id}, "ti_context": context}
        self.send(0, details, None)
        self._file = self.comm.makefile("rb")

    def send(self, number: int, body: Any, error: Any) -> None:
        payload = msgspec.msgpack.encode([number, body, error])
        self.comm.sendall(len(payload).to_bytes(4, "big") + payload)

    def requests(self) -> Iterator[tuple[int, Body]]:
        while header := self._file.read(4):
            number, body, *_ = msgspec.msgpack.decode(self._file.read(int.from_bytes(header, "big")))
            yield number, body

    def end(self, answers: Answers) -> Body:
        """Answer each request; return the terminal message."""
        for number, body in self.requests():
            if number == 0:
                return body
            self.send(number, *answers(body))
        raise AssertionError("the runtime closed the comm socket")

    def close(self) -> int:
        self.comm.close()
        self.logs.close()
        self._file.close()
        return self.process.wait(60)


@pytest.fixture
def start() -> Iterator[Callable[[str, str], Supervisor]]:
    started: list[Supervisor] = []

    def make(sdk: str, task_id: str) -> Supervisor:
        started.append(Supervisor(sdk, task_id))
        return started[-1]

    yield make
    for one in started:
        one.process.kill()
        one.process.wait(60)


def error(kind: Any, message: str = "") -> tuple[Any, Any]:
    return None, {"type": "ErrorResponse", "error": kind, "detail": {"message": message} if message else None}


ODD: list[tuple[str, tuple[Any, Any], str]] = [
    ("variables", ({"type": "VariableResult", "key": "k", "value": 5}, None), "value is not a text"),
    ("variables", ({"type": "VariableResult", "key": "k", "value": {"a": 1}}, None), "value is not a text"),
    ("variables", ({"type": "VariableResult"}, None), "has no value"),
    ("variables", (CONNECTION, None), "has no value"),
    ("variables", ({}, None), "has no value"),
    ("variables", (None, None), "has no value"),
    ("variables", ([1], None), "has no value"),
    ("variables", error("API_SERVER_ERROR", "it is away"), "API_SERVER_ERROR: it is away"),
    ("variables", error("PERMISSION_DENIED"), ""),
    ("variables", error(5), ""),
    ("connection", ({**CONNECTION, "host": 5}, None), "host is not a text"),
    ("connection", ({**CONNECTION, "password": [1]}, None), "password is not a text"),
    ("connection", ({**CONNECTION, "port": 9999999999999999999}, None), "port"),
    ("connection", ({**CONNECTION, "port": "5"}, None), "port"),
    ("connection", ({**CONNECTION, "port": 1.5}, None), "port"),
    ("connection", ({"type": "VariableResult", "value": "x"}, None), "has no conn_id"),
    ("connection", (None, None), "has no conn_id"),
    ("xcom", ({"type": "XComResult", "key": "k"}, None), "has no value"),
    ("xcom", (None, None), "has no value"),
    ("task_state", ({"type": "TaskStateStoreResult"}, None), "has no value"),
]  # fmt: skip


@pytest.mark.parametrize("sdk", COMMANDS)
def test_an_odd_answer_fails_the_task_and_is_named(start: Callable[[str, str], Supervisor], sdk: str) -> None:
    for task_id, answer, said in ODD:
        supervisor = start(sdk, task_id)
        end = supervisor.end(lambda _, answer=answer: answer)  # type: ignore[misc]
        assert (end["type"], supervisor.close()) == ("RetryTask", 0), (task_id, answer, end)
        assert said in end["retry_reason"], (task_id, answer, end)
        assert "ClassCast" not in end["retry_reason"], (task_id, answer, end)
        assert "NullPointer" not in end["retry_reason"], (task_id, answer, end)


@pytest.mark.parametrize("sdk", COMMANDS)
def test_what_is_not_found_is_no_failure(start: Callable[[str, str], Supervisor], sdk: str) -> None:
    def answers(body: Body) -> tuple[Any, Any]:
        return error("CONNECTION_NOT_FOUND") if body["type"] == "GetConnection" else (None, None)

    supervisor = start(sdk, "missing_connection")
    assert supervisor.end(answers)["type"] == "SucceedTask"
    # as the body, too
    supervisor = start(sdk, "missing_connection")
    swapped = supervisor.end(lambda body: answers(body)[::-1] if body["type"] == "GetConnection" else (None, None))
    assert swapped["type"] == "SucceedTask"


@pytest.mark.parametrize("sdk", COMMANDS)
def test_calls_at_once_are_answered_in_any_order(start: Callable[[str, str], Supervisor], sdk: str) -> None:
    """Large answers, in the wrong order, some of them twice, and between answers that nobody waits for."""
    supervisor = start(sdk, "concurrent")
    requests = supervisor.requests()
    asked = [next(requests) for _ in range(20)]
    for number, body in reversed(asked):
        value = body["key"].rpartition("_")[2] * (1 << 20)
        for copy in (number, 10_000, number):
            supervisor.send(copy, {"type": "VariableResult", "key": body["key"], "value": value}, None)
    number, pushed = next(requests)
    found = [text[: len(text) >> 20] for text in pushed["value"]]
    assert found == [str(index) for index in range(20)]
    supervisor.send(number, None, None)
    assert next(requests)[1]["type"] == "SucceedTask"


@pytest.mark.parametrize("sdk", COMMANDS)
def test_a_socket_that_is_closed_during_a_call_ends_the_runtime(start: Callable[[str, str], Supervisor], sdk: str) -> None:  # fmt: skip
    supervisor = start(sdk, "variables")
    next(supervisor.requests())
    began = time.monotonic()
    assert supervisor.close() == 1
    assert time.monotonic() - began < 30
