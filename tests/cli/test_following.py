"""`logs -f` and `wait` while pods go, sidecars start again, clocks are set back and the API server is away."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import config
from polypod_cli import pod_log, stored_log
from polypod_core.errors import UserError
from support.fake_cluster import ApiServer, Raw, pod_of, polypod, stamped, task_run


def running(name: str, **bridge: Any) -> Raw:
    """Return a pod whose task runs; `bridge`: the state of its sidecar."""
    sidecar = {"name": "bridge", "state": bridge or {"running": {}}}
    return {"metadata": {"name": name}, "spec": {"initContainers": [{"name": "bridge", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "initContainerStatuses": [sidecar],
                       "containerStatuses": [{"name": "task", "state": {"running": {}}}]}}  # fmt: skip


def follow(*more: str) -> Any:
    return polypod("logs", "-f", "x", "--log-format=json", *more)


@pytest.mark.parametrize("more", [(), ("--attempt=1",)])
@pytest.mark.parametrize("end", ["pod", "log"])
def test_a_pod_that_goes_while_it_is_followed_is_said_and_the_end_arrives(
    fake: ApiServer, end: str, more: tuple[str, ...]
) -> None:
    fake.runs = [task_run("x", "Failed")]
    fake.lines = [stamped(number) for number in range(30)]
    if end == "pod":
        fake.pods = {"x-1": [running("x-1"), running("x-1"), None]}
    else:
        fake.pods, fake.logs_left = {"x-1": running("x-1")}, 1
    done = follow(*more)
    assert done.exit_code == 0, done.exception
    assert done.stdout.splitlines() == [f"line {number}" for number in range(30)]
    assert "the pod of attempt 1, x-1, is gone, and what came after line 30 of its log with it" in done.stderr
    assert "the chart's value `logs` has logs kept" in done.stderr


def test_the_rest_of_a_log_whose_pod_went_is_read_where_it_is_kept(
    fake: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(cluster: Any, run: Raw, attempt: Raw, *, skip: int = 0) -> Iterator[bytes]:
        assert attempt["log"] == {"url": "file:///logs/x"}
        yield from (f"line {number}".encode() for number in range(skip, 50))

    monkeypatch.setattr(stored_log, "read", read)
    run = task_run("x")
    run["status"]["attempts"][0]["log"] = {"url": "file:///logs/x"}
    fake.runs, fake.lines = [run], [stamped(number) for number in range(30)]
    fake.pods, fake.logs_left = {"x-1": running("x-1")}, 1
    done = follow()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"line {number}" for number in range(50)]


@pytest.mark.parametrize("state", [{"terminated": {"exitCode": 1}}, {"waiting": {"reason": "CrashLoopBackOff"}}])
def test_a_sidecar_that_is_started_again_is_not_the_end(fake: ApiServer, state: Raw) -> None:
    fake.runs, fake.lines = [task_run("x")], [stamped(number) for number in range(10)]
    again = running("x-1", **state)

    class Pods(list[Raw | None]):
        def pop(self, index: Any = -1) -> Raw | None:
            if len(self) == 2:
                # what it writes after its restart
                fake.lines = [stamped(number) for number in range(40)]
            return super().pop(index)

    fake.pods = {"x-1": Pods([running("x-1"), running("x-1"), again, again, running("x-1"), pod_of("x-1", 40)])}
    done = follow()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"line {number}" for number in range(40)]


def test_lines_that_came_after_a_log_was_printed_are_not_called_rotated(fake: ApiServer) -> None:
    fake.runs, fake.lines = [task_run("x", "Running")], [stamped(number) for number in range(10)]
    # it ends between the log and the question how many lines there are
    fake.pods = {"x-1": [running("x-1"), pod_of("x-1", 12)]}
    done = polypod("logs", "x")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_taskrun_that_is_looked_for_while_the_api_server_is_away_is_waited_for(fake: ApiServer) -> None:
    other = task_run("b", "Running")
    fake.runs = [other]

    class Asked(list[str]):
        def append(self, item: str) -> None:
            super().append(item)
            if len(self) == 1:
                # after the list, which lacks it
                fake.runs = [task_run("a"), other]
            fake.refusals = 2 if len(self) == 2 else fake.refusals

    fake.asked = Asked()
    done = polypod("wait", "a")
    assert (done.exit_code, done.stdout) == (0, "team/a Succeeded\n"), done.exception


@pytest.mark.parametrize("kind", ["refuses", "is silent"])
def test_a_timeout_is_kept_while_the_api_server_is_away(fake: ApiServer, tmp_path: Path, kind: str) -> None:
    fake.runs = [task_run("a", "Running")]
    began = time.monotonic()
    if kind == "refuses":

        class Asked(list[str]):
            def append(self, item: str) -> None:
                super().append(item)
                fake.refusals = 1000 if len(self) > 1 else 0

        fake.asked = Asked()
        done = polypod("wait", "a", "--timeout=1")
        assert (done.exit_code, done.stderr) == (3, "not finished within 1 s: team/a\n"), done.exception
    else:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            path = Path(config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
            document = yaml.safe_load(path.read_text())
            document["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
            path.write_text(yaml.safe_dump(document))
            done = polypod("wait", "a", "--timeout=1")
        assert done.exit_code != 0
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("text", ["a: [", "[]", '""', "clusters: 5", "5", "\0", "contexts: {a: 1}", "users: [1]"])
def test_a_file_that_is_no_kubeconfig_is_said_to_be_none(fake: ApiServer, text: str) -> None:
    path = Path(config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    path.write_text(text)
    done = polypod("top")
    assert isinstance(done.exception, UserError), repr(done.exception)
    assert str(path) in str(done.exception) or "no cluster" in str(done.exception)


@pytest.mark.parametrize("token", ["s3cr3tpw9token\n", "s3cr3tpw9\r\nx: y", "s3cr3tpw9\u20ac", "s3cr3tpw9\0"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(fake: ApiServer, token: str) -> None:
    path = Path(config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    document = yaml.safe_load(path.read_text())
    document["users"] = [{"name": item["name"], "user": {"token": token}} for item in document["users"]]
    path.write_text(yaml.safe_dump(document))
    done = polypod("top")
    assert isinstance(done.exception, UserError), repr(done.exception)
    assert "the user's token has a character that no HTTP header holds" in str(done.exception)
    assert "s3cr3t" not in str(done.exception) + done.output


def stamps(changes: list[int]) -> list[bytes]:
    """Return lines whose times differ by `changes` tenths of a second; a clock that is set back is a negative one.

    No two have the same nanosecond: that happens to neighbours only.
    """
    lines, now = [], 10_000
    for number, change in enumerate(changes):
        now = max(0, now + change)
        time = f"{now // 36000:02}:{now // 600 % 60:02}:{now // 10 % 60:02}.{now % 10}{number:08}"
        lines.append(f"2026-11-29T{time}Z {number}".encode())
    return lines


@given(
    changes=st.lists(st.integers(0, 30) | st.sampled_from([0, 0, -5, -40, -600]), max_size=25),
    cuts=st.lists(st.integers(0, 800), max_size=6),
)
def test_no_line_comes_twice_whatever_a_nodes_clock_does(changes: list[int], cuts: list[int]) -> None:
    lines = stamps(changes)
    place, read = pod_log._Place(), []
    for cut in [*cuts, 100_000]:
        # the kubelet leaves out each line that is older
        kept = [line for line in lines if line[:19].decode() >= place.since[:19]]
        whole = b"".join(line + b"\n" for line in kept)[:cut].split(b"\n")[:-1]
        try:
            for line in place.after(cut_off(whole, cut)):
                read.append(int(line))
        except ConnectionError:
            pass
    assert len(read) == len(set(read)), lines
    assert read == sorted(read)
    back = [number for number, change in enumerate(changes) if change < 0]
    if not back:
        assert read == list(range(len(lines)))


def cut_off(lines: list[bytes], cut: int) -> Iterator[bytes]:
    yield from lines
    if cut < 100_000:
        raise ConnectionError
