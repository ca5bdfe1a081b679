"""logs, wait and top against an API server of the test's own, which is rotated, restarted and asked as little as may be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from polypod_cli import pod_log, show_log
from polypod_cli.cluster import Cluster, Unreachable
from polypod_cli.following import Followed, follow_all
from polypod_core.errors import UserError
from support.fake_cluster import ApiServer, Raw, pod_of, polypod, stamped, task_run
from support.waiting import wait_until


@pytest.mark.parametrize("follow", [(), ("-f",)])
@pytest.mark.parametrize("cuts", [[], [0], [700], [701, 250, 30], [45, 45, 45]])
def test_a_log_is_whole_although_the_connection_breaks(
    fake: ApiServer, follow: tuple[str, ...], cuts: list[int]
) -> None:
    fake.lines, fake.cuts = [stamped(number) for number in range(60)], list(cuts)
    fake.runs, fake.pods = [task_run("x")], {"x-1": pod_of("x-1", 60)}
    done = polypod("logs", "x", *follow, "--log-format=json")
    assert done.stdout.splitlines() == [line for _, line in fake.lines], done.output
    assert done.stderr == ""


def test_a_restart_of_the_api_server_is_waited_for(fake: ApiServer) -> None:
    fake.lines, fake.cuts = [stamped(number) for number in range(60)], [700]
    fake.runs, fake.pods = [task_run("x")], {"x-1": pod_of("x-1", 60)}
    started = threading.Event()

    class Restarts(list[int | None]):
        def pop(self, index: Any = -1) -> int | None:
            if not started.is_set():
                started.set()
                fake.refusals = 5
            return super().pop(index)

    fake.cuts = Restarts(fake.cuts)
    done = polypod("logs", "-f", "x", "--log-format=json")
    assert done.stdout.splitlines() == [line for _, line in fake.lines], done.output


@given(cuts=st.lists(st.integers(0, 600), max_size=6), counts=st.lists(st.integers(1, 4), max_size=12))
def test_a_place_in_a_log_is_found_again(cuts: list[int], counts: list[int]) -> None:
    """Whatever times lines share, and wherever the reading breaks off."""
    lines = [
        f"2026-11-29T10:00:{number // 2:02}.{number % 2}Z {number}.{part}".encode()
        for number, count in enumerate(counts) for part in range(count)
    ]  # fmt: skip
    place, read = pod_log._Place(), []
    for cut in [*cuts, 10_000]:
        kept = [line for line in lines if line[:19].decode() >= place.since[:19]]
        whole = b"".join(line + b"\n" for line in kept)[:cut].split(b"\n")[:-1]
        read += list(place.after(whole))
    assert read == [line.partition(b" ")[2] for line in lines]


def test_what_the_kubelet_has_rotated_away_is_said(fake: ApiServer) -> None:
    fake.runs, fake.pods = [task_run("x")], {"x-1": pod_of("x-1", 60)}
    for kept in (0, 13):
        fake.lines = [stamped(number) for number in range(60 - kept, 60)]
        done = polypod("logs", "x", "--log-format=json")
        assert len(done.stdout.splitlines()) == kept
        assert f"{60 - kept} of 60 lines of attempt 1 are no longer in the pod's log" in done.stderr
    # older bridges do not count
    fake.pods = {"x-1": pod_of("x-1")}
    assert polypod("logs", "x").stderr == ""


def test_a_log_that_is_followed_says_what_it_waits_for(fake: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show_log, "_SILENT", 0.0)
    fake.runs = [task_run("x", "Pending", attempts=0, reason="ImagePullFailed", message="no such image")]

    def ends() -> None:
        wait_until(lambda: len(fake.asked) > 5)
        fake.runs = [task_run("x", "Failed", attempts=0, reason="InvalidPod", message="it is not valid")]

    threading.Thread(target=ends).start()
    done = polypod("logs", "-f", "x")
    assert done.stderr.count("team/x is Pending (ImagePullFailed: no such image)") == 1
    assert done.exit_code != 0
    assert "it is Failed (InvalidPod: it is not valid)" in str(done.exception or done.output) + done.output


@pytest.mark.parametrize(
    ("run", "said", "patches"),
    [
        (task_run("x", "Pending", attempts=0), "team/x is being cancelled", 1),
        (task_run("x", "Running"), "team/x is being cancelled", 1),
        (task_run("x", reason="TaskSucceeded"),
         "team/x has already ended, and stays as it is: Succeeded (TaskSucceeded)", 0),
        (task_run("x", "Failed", reason="TaskFailed", message="no"),
         "team/x has already ended, and stays as it is: Failed (TaskFailed: no)", 0),
    ],
)  # fmt: skip
def test_cancel_changes_nothing_of_what_has_ended(fake: ApiServer, run: Raw, said: str, patches: int) -> None:
    fake.runs = [run]
    done = polypod("cancel", "x")
    assert (done.exit_code, done.output) == (0, said + "\n")
    assert fake.patches == [{"spec": {"cancel": True}}] * patches


@pytest.mark.parametrize(
    ("run", "arguments", "said"),
    [
        (task_run("x", "Failed", attempts=0, reason="InvalidPod"), ("-f",), "it is Failed (InvalidPod)"),
        (task_run("x", "Pending", attempts=0), (), "no attempt has a pod; it is Pending"),
        (task_run("x", "Pending", attempts=0, reason="QueueLimit", message="position 3"), (),
         "it is Pending (QueueLimit: position 3)"),
        (task_run("x", "Pending", attempts=0), ("--attempt=2",), "no attempt has a pod; it is Pending"),
        (task_run("x", attempts=2), ("--attempt=7",), "has no attempt 7; it has 1, 2"),
    ],
)  # fmt: skip
def test_why_there_is_no_log(fake: ApiServer, run: Raw, arguments: tuple[str, ...], said: str) -> None:
    fake.runs = [run]
    done = polypod("logs", "x", *arguments)
    assert done.exit_code != 0
    assert said in str(done.exception or done.output) + done.output


def modified(*runs: Raw) -> list[Raw]:
    return [{"type": "MODIFIED", "object": run} for run in runs]


def test_waiting_asks_once_and_then_watches(fake: ApiServer) -> None:
    fake.runs = [task_run("a", "Running"), task_run("b", "Running"), task_run("other", "Running")]
    fake.changes = [modified(task_run("a"), task_run("other"), task_run("b"))]
    done = polypod("wait", "a", "b")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == ["team/a Running", "team/b Running", "team/a Succeeded", "team/b Succeeded"]
    assert fake.asked == ["taskruns", "watch"]


def test_waiting_goes_on_when_a_watch_breaks_and_what_has_finished_may_go(fake: ApiServer) -> None:
    fake.runs = [task_run("a", "Running"), task_run("b", "Running")]
    too_old = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "metadata": {"name": ""}}}
    gone = {"type": "DELETED", "object": task_run("a", "Failed")}

    class Changes(list[list[Raw]]):
        def pop(self, index: Any = -1) -> list[Raw]:
            fake.refusals = 2 if len(self) == 4 else 0
            return super().pop(index)

    fake.changes = Changes([modified(task_run("a", "Failed")), [gone], [too_old], modified(task_run("b"))])
    done = polypod("wait", "a", "b")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, "team/b Succeeded"), done.output


class Namespaces:
    """Two namespaces: in `quick`, a TaskRun ends and is deleted, by its TTL, while that in `slow` still runs."""

    def __init__(self, namespace: str = "", gone: threading.Event | None = None) -> None:
        self.namespace, self.gone = namespace, gone or threading.Event()

    def of(self, namespace: str) -> Namespaces:
        return Namespaces(namespace, self.gone)

    def by(self, deadline: float | None) -> Namespaces:
        return self

    def snapshot(self, **_: Any) -> tuple[list[Raw], str]:
        return [self.run("Running")], "5"

    def run(self, phase: str) -> Raw:
        return {"metadata": {"name": "x", "namespace": self.namespace}, "status": {"phase": phase}}

    def watch(self, version: str, seconds: float, **_: Any) -> Iterator[Raw]:
        if self.namespace == "quick":
            yield {"type": "MODIFIED", "object": self.run("Succeeded")}
            yield {"type": "DELETED", "object": self.run("Succeeded")}
            self.gone.set()
            threading.Event().wait()
        assert self.gone.wait(60)
        yield {"type": "MODIFIED", "object": self.run("Failed")}
        threading.Event().wait()


def test_several_namespaces_are_followed_at_once_and_no_end_is_missed() -> None:
    phases: dict[tuple[str, str], str] = {}
    for found in follow_all(cast(Cluster, Namespaces()), [("slow", "x"), ("quick", "x")]):
        phases |= {key: run["status"]["phase"] for key, run in found.items()}
        if set(phases.values()) == {"Succeeded", "Failed"}:
            break
    assert phases == {("slow", "x"): "Failed", ("quick", "x"): "Succeeded"}


def test_an_event_that_is_cut_off_is_a_watch_that_broke(fake: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "_lines", lambda *_: iter([b'{"type": "MODIF']))
    with pytest.raises(Unreachable):
        list(Cluster().watch("5", 1))


def test_a_name_that_is_not_there_and_a_time_that_is_over(fake: ApiServer) -> None:
    fake.runs = [task_run("there", "Running")]
    done = polypod("wait", "their")
    assert "did you mean 'there'" in str(done.exception or done.output) + done.output
    done = polypod("wait", "there", "--timeout=0.1")
    assert done.exit_code == 3
    assert "not finished within 0.1 s: team/there" in done.stderr


def test_a_live_table_is_kept_up_to_date_by_one_list_and_a_watch(fake: ApiServer) -> None:
    fake.runs = [task_run("a", "Running")]
    fake.changes = [modified(task_run("a"), task_run("b", "Running"))]
    followed = Followed(Cluster(), everywhere=True)
    wait_until(lambda: {item["metadata"]["name"] for item in followed.now()} == {"a", "b"})
    assert fake.asked[:2] == ["taskruns", "watch"]


def deep(name: str, where: str, **more: Any) -> Raw:
    made = task_run(name, **more)
    inside = {"spec": {"arguments": [{"name": "a", "value": "@DEEP@"}]}, "status": {"xcoms": "@DEEP@"},
              "metadata": {"managedFields": [{"fieldsV1": {"f:spec": "@DEEP@"}}]}}  # fmt: skip
    made[where].update(inside[where])
    return made


@pytest.mark.parametrize("where", ["spec", "status", "metadata"])
@pytest.mark.parametrize("arguments", [
    ("top", "-A", "--all"), ("top", "-A", "--all", "-o", "json"), ("top", "-A", "--all", "-o", "yaml"), ("wait", "good", "deep"),
    ("describe", "deep"), ("describe", "deep", "-o", "json"), ("describe", "deep", "-o", "yaml"), ("logs", "deep"),
])  # fmt: skip
def test_an_object_that_is_too_deep_is_named_and_everything_else_goes_on(
    fake: ApiServer, where: str, arguments: tuple[str, ...]
) -> None:
    fake.runs = [task_run("good"), deep("deep", where)]
    if "logs" in arguments:
        fake.pods["deep-1"] = pod_of("deep-1")
    done = polypod(*arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "team/deep is nested too deep to be shown whole" in done.stderr
    if "-o" in arguments:
        assert yaml.safe_load(done.stdout)["kind"] in ("List", "TaskRun")


def test_a_misspelt_name_is_corrected_beside_an_object_that_is_too_deep(fake: ApiServer) -> None:
    fake.runs = [task_run("good"), deep("deep", "spec")]
    for arguments in (("logs", "godo"), ("wait", "godo", "deep"), ("describe", "godo"), ("cancel", "godo")):
        done = polypod(*arguments)
        assert isinstance(done.exception, UserError), done.exception
        assert "did you mean 'good'?" in str(done.exception)


def test_an_object_that_becomes_too_deep_is_followed(fake: ApiServer) -> None:
    fake.runs = [task_run("a", "Running")]
    fake.changes = [[{"type": "MODIFIED", "object": deep("a", "status")}]]
    done = polypod("wait", "a")
    assert (done.exit_code, "team/a Succeeded" in done.stdout) == (0, True), done.exception


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=3), timedelta(days=-3)])
def test_ages_are_of_the_api_servers_clock(fake: ApiServer, ahead: timedelta) -> None:
    fake.ahead = ahead
    made = task_run("a", "Running")
    began = datetime.now(UTC) + ahead - timedelta(minutes=5, seconds=30)
    made["metadata"]["creationTimestamp"] = f"{began:%Y-%m-%dT%H:%M:%SZ}"
    made["status"]["attempts"][0]["startTime"] = f"{began + timedelta(minutes=2):%Y-%m-%dT%H:%M:%SZ}"
    fake.runs = [made]
    [_, line] = polypod("top").stdout.splitlines()
    assert line.split()[6:8] == ["5m", "3m"]
