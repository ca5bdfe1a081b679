"""kopf's watch of TaskRuns: a real operator and a real API server, with a proxy between them that injects faults."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.api import Api
from cluster.lab import task_run
from cluster.spoilt import Operator

pytestmark = pytest.mark.needs("api-server")


@pytest.fixture
def operator(api: Api, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(api, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        api.kubectl("delete", "taskruns", "--all", "--wait=true")


def deep(name: str, levels: int) -> Any:
    base = json.dumps(task_run(name, "t"))
    assert base.endswith("}}")
    return f'{base[:-2]},"params":{{"a":{"[" * levels}{"]" * levels}}}}}}}'


def create_raw(api: Api, text: str) -> None:
    path = "/apis/polypod.dev/v1alpha1/namespaces/default/taskruns"
    command = [
        str(api.plane.bin / "kubectl"),
        f"--kubeconfig={api.plane.kubeconfig}",
        "create",
        "--raw",
        path,
        "-f",
        "-",
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[:500]


def test_what_is_created_changed_and_deleted_comes_through_and_kopf_writes_nothing(operator: Operator) -> None:
    api = operator.api
    operator.serves("first")
    api.wait(lambda: operator.active() == 1)
    api.kubectl("patch", "taskrun", "first", "--type=merge", "-p", '{"spec": {"cancel": true}}')
    operator.ends("first", "Cancelled")
    metadata = api.items("taskruns")[0]["metadata"]
    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    operator.serves("second")
    api.wait(lambda: operator.active() == 1)
    api.kubectl("delete", "taskrun", "second")
    api.wait(lambda: operator.active() == 0)


@pytest.mark.parametrize("code", [500, 403, 504, 0])
def test_an_error_event_of_any_code_does_not_end_the_operator(operator: Operator, code: int) -> None:
    operator.serves("before")
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "spoilt", "code": code}
    for _ in range(3):
        operator.reopens(json.dumps({"type": "ERROR", "object": status}).encode())
    operator.serves("after")


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"type":"ADDED"}', b'{"type":"ADDED","object":{}}', b"\xff\xfe"])
def test_a_line_that_is_no_event_does_not_end_the_operator(operator: Operator, line: bytes) -> None:
    operator.serves("before")
    if line:
        operator.reopens(line)
    else:
        operator.api.wait(lambda: operator.proxy.put(line))
    operator.serves("after")


def test_a_watch_that_is_refused_for_a_while_is_sat_out(operator: Operator) -> None:
    operator.serves("before")
    operator.proxy.refuse = [500, 503, 404, 403, 401, 429, 410, 504, 500]
    operator.api.wait(lambda: operator.proxy.put(b'{"type":"ERROR","object":{"code":410,"message":"too old"}}'))
    opened = operator.proxy.opened
    operator.api.wait(lambda: not operator.proxy.refuse and operator.proxy.opened > opened)
    operator.serves("after")


def test_what_kopf_asks_before_it_watches_is_asked_again(operator: Operator) -> None:
    operator.serves("before")
    operator.process.terminate()
    operator.process.wait(60)
    # one more than kopf itself would try
    operator.proxy.undiscovered = 10
    operator.start()
    operator.api.wait(lambda: operator.proxy.undiscovered == 0)
    operator.serves("after")


def test_what_was_deleted_while_the_watch_was_broken_is_noticed_by_the_next_list(operator: Operator) -> None:
    operator.serves("gone")
    operator.serves("stays")
    operator.api.wait(lambda: operator.active() == 2)
    operator.proxy.swallow = {"DELETED"}
    operator.api.kubectl("delete", "taskrun", "gone")
    operator.serves("another")
    assert operator.active() == 3, "it cannot know yet"
    operator.api.wait(lambda: operator.proxy.put(b'{"type":"ERROR","object":{"code":410,"message":"too old"}}'))
    operator.api.wait(lambda: operator.active() == 2)


def test_what_is_nested_too_deep_harms_nobody_by_watch_or_by_list(operator: Operator) -> None:
    api = operator.api
    operator.serves("before")
    for levels in (900, 990, 1_100, 9_980):
        create_raw(api, deep(f"deep-{levels}", levels))
        operator.ends(f"deep-{levels}", "InvalidSpec")
    operator.serves("after")
    operator.process.terminate()
    operator.process.wait(60)
    for levels in (950, 9_970):
        create_raw(api, deep(f"deep-{levels}", levels))
    operator.start()
    for levels in (950, 9_970):
        operator.ends(f"deep-{levels}", "InvalidSpec")
    operator.serves("at-last")


def memory(operator: Operator) -> int:
    """Return the largest resident set of the operator so far, in bytes."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def test_large_ones_that_stay_take_no_room(operator: Operator) -> None:
    api = operator.api
    operator.serves("before")
    before = memory(operator)
    # a million bytes of JSON that are many times as much in memory
    params: dict[str, Any] = {"a": [{}] * 300_000}
    for number in range(5):
        text = json.dumps(task_run(f"large-{number}", "t", suspend=True, params=params), separators=(",", ":"))
        create_raw(api, text)
    for number in (0, 2, 4):
        operator.ends(f"large-{number}", "Suspended")
    operator.serves("after")
    assert memory(operator) < before + (100 << 20)
    # what is read by a list is bounded as well
    operator.process.terminate()
    operator.process.wait(60)
    operator.start()
    operator.serves("listed")
    assert memory(operator) < before + (150 << 20)


def test_an_operator_that_stands_by_reads_no_taskruns_and_ends_when_told(api: Api, tmp_path: Path) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "kopf"}}
    assert api.create(lease).returncode == 0
    folders = [tmp_path / name for name in ("one", "two")]
    made = []
    try:
        for folder in folders:
            folder.mkdir()
            other = Operator(api, folder)
            other._command.append("--lease=default/kopf")
            made.append(other)
        made[0].start()
        api.wait(lambda: made[0].proxy.opened)
        made[1].start()
        api.wait(lambda: "the operator is standby" in made[1].log.read_text())
        assert made[1].proxy.opened == 0
    finally:
        for other in reversed(made):
            other.stop()
    assert [other.process.returncode for other in made] == [0, 0]
    assert "Traceback" not in made[1].log.read_text()
