"""logs/storage.py and logs/stored.py: what is written arrives, whole and in order, whatever storage and bridge do."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.logs.masking import Masker
from polypod_bridge.logs.pipeline import Output, TaskLog
from polypod_bridge.logs.render import json_line
from polypod_bridge.logs.storage import (
    BEGINS,
    Storage,
    StorageError,
    after,
    joined,
    log_path,
    object_name,
    of_pod,
    open_storage,
    part,
    read,
    read_options,
)
from polypod_bridge.logs.stored import SpooledLog, open_stored_log
from polypod_cli import stored_log
from polypod_core.errors import UserError
from support.processes import may_be_others
from support.waiting import wait_until


def event(text: str, **fields: Any) -> dict[str, Any]:
    return {"timestamp": datetime.now(UTC), "level": "info", "event": text, "logger": "task", **fields}


def begins(pod: str) -> dict[str, Any]:
    return event(BEGINS, pod=pod) | {"logger": "supervisor"}


def spooled(tmp_path: Path, pod: str = "pod", storage: Storage | None = None, **settings: Any) -> SpooledLog:
    """A log in a folder that fsspec writes to, or in `storage`."""
    spool = tmp_path / f"spool-{pod}"
    spool.mkdir(exist_ok=True)
    url = f"local://{tmp_path}/logs/attempt=1.log"
    opens = (lambda: open_storage(url, {})) if storage is None else lambda: (storage, "attempt=1.log")
    return SpooledLog(url, str(spool), opens, begins(pod), **{"every": 0.05, "settled": 0.01, **settings})


def texts(tmp_path: Path, pod: str = "pod") -> list[str]:
    lines = of_pod(read(f"local://{tmp_path}/logs/attempt=1.log", {}), pod)
    return [json.loads(line)["event"] for line in lines]


class Shaky:
    """A storage that fails when it is told to, and keeps what it was given."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fails = False
        self.slow = 0.0
        self.writes = 0

    def names(self) -> list[str]:
        self._work()
        return sorted(self.objects)

    def put(self, name: str, data: bytes) -> None:
        self._work()
        self.writes += 1
        self.objects[name] = data

    def get(self, name: str) -> bytes:
        return self.objects[name]

    def _work(self) -> None:
        time.sleep(self.slow)
        if self.fails:
            raise StorageError("the storage is away")

    def events(self) -> list[str]:
        data = b"".join(self.objects[name] for name in sorted(self.objects))
        return [json.loads(line)["event"] for line in data.splitlines()]


class Stuck(Shaky):
    """A storage that never answers."""

    def _work(self) -> None:
        threading.Event().wait()


@given(*[st.text(min_size=1, max_size=20)] * 3)
def test_no_id_leads_out_of_the_base(dag_id: str, run_id: str, task_id: str) -> None:
    path = log_path(dag_id, run_id, task_id, -1, 1)
    assert path.count("/") == 3
    assert not {"?", "#", "\n", "%00"} & set(path)
    assert joined("s3://bucket/logs/", path) == f"s3://bucket/logs/{path}"


def test_the_layout_is_airflows() -> None:
    run = "manual__2026-01-02T03:04:05.678901+00:00"
    assert log_path("d", run, "g.t", -1, 2) == f"dag_id=d/run_id={run}/task_id=g.t/attempt=2.log"
    assert (
        log_path("täglich", "r 1", "a/b?c#d%", -1, 1)
        == "dag_id=täglich/run_id=r 1/task_id=a%2Fb%3Fc%23d%25/attempt=1.log"
    )
    assert log_path("d", "r", "t", 3, 1) == "dag_id=d/run_id=r/task_id=t/map_index=3/attempt=1.log"
    assert joined("s3://b", "../../other/./x.log") == "s3://b/other/x.log"


@given(st.integers(0, 999_998))
def test_a_log_that_goes_on_is_read_in_order(number: int) -> None:
    names = [object_name("a/attempt=1.log", item) for item in (number, number + 1)]
    assert names == sorted(names)
    assert after("a/attempt=1.log", names) == number + 2


def test_what_is_written_is_there_at_the_end_and_in_the_meantime(tmp_path: Path) -> None:
    log = spooled(tmp_path)
    assert log.write([event("first")]) is None
    wait_until(lambda: (tmp_path / "logs/attempt=1.log").exists() and texts(tmp_path) == ["first"])
    log.write([event("second")])
    assert log.finish(30) == ""
    assert texts(tmp_path) == ["first", "second"]
    assert log.lost == 0


def test_a_long_log_is_many_objects_and_the_spool_stays_small(tmp_path: Path) -> None:
    log = spooled(tmp_path, object_size=1000)
    for number in range(200):
        log.write([event(str(number))])
    assert log.finish(30) == ""
    assert len(list((tmp_path / "logs").iterdir())) > 10
    assert texts(tmp_path) == [str(number) for number in range(200)]
    left = sum(path.stat().st_size for path in (tmp_path / "spool-pod").iterdir())
    assert left < 2000


def test_the_next_pod_of_the_same_log_adds_to_it(tmp_path: Path) -> None:
    for pod in ("first", "second"):
        log = spooled(tmp_path, pod)
        log.write([event(f"of the {pod}")])
        assert log.finish(30) == ""
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["attempt=1.log", "attempt=1.log.000001"]
    assert texts(tmp_path, "first") == ["of the first"]
    assert texts(tmp_path, "second") == ["of the second"]
    assert texts(tmp_path, "third") == []


@pytest.mark.parametrize("object_size", [300, 1 << 20])
def test_a_killed_container_loses_nothing_its_next_start_brings_it(tmp_path: Path, object_size: int) -> None:
    storage = Shaky()
    killed = spooled(tmp_path, storage=Stuck(), every=3600, object_size=object_size)
    for number in range(20):
        killed.write([event(str(number))])
    # this one is never heard of again; the next start finds its spool
    again = spooled(tmp_path, storage=storage, object_size=object_size)
    again.write([event("the container was killed")])
    assert again.finish(30) == ""
    assert storage.events() == [BEGINS, *map(str, range(20)), "the container was killed"]
    # and once more, when all is there: nothing is written over
    third = spooled(tmp_path, storage=storage, object_size=object_size)
    third.write([event("again")])
    assert third.finish(30) == ""
    assert storage.events() == [BEGINS, *map(str, range(20)), "the container was killed", "again"]


def test_a_storage_that_is_away_is_told_once_and_gets_all_when_it_is_back(tmp_path: Path) -> None:
    storage, told = Shaky(), []
    storage.fails = True
    log = spooled(tmp_path, storage=storage)
    log.report_to(lambda level, text, **fields: told.append((level, text, fields.get("error"))))
    log.write([event("said while it is away")])
    wait_until(lambda: told)
    assert told == [("error", "the log cannot be stored; retrying", "the storage is away")]
    storage.fails = False
    wait_until(lambda: len(told) == 2)
    assert told[1][:2] == ("info", "the log is stored again")
    assert log.finish(30) == ""
    assert storage.events() == [BEGINS, "said while it is away"]


def test_the_end_waits_for_a_storage_only_so_long_and_says_what_is_wrong(tmp_path: Path) -> None:
    storage = Shaky()
    storage.fails = True
    log = spooled(tmp_path, storage=storage)
    log.write([event("x")])
    assert log.finish(1.0) == "the storage is away"


def test_a_storage_that_cannot_even_be_opened_is_said_too(tmp_path: Path) -> None:
    def opens() -> tuple[Storage, str]:
        raise RuntimeError("its package is not installed")

    (tmp_path / "spool").mkdir()
    log = SpooledLog("x://y", str(tmp_path / "spool"), opens, begins("pod"), every=0.05, settled=0.01)
    assert log.finish(1.0) == "RuntimeError: its package is not installed"


def test_a_slow_storage_slows_the_task_and_loses_nothing(tmp_path: Path) -> None:
    storage = Shaky()
    storage.slow = 0.01
    log = spooled(tmp_path, storage=storage, object_size=500, spool_size=2000)
    for number in range(100):
        log.write([event(str(number))])
    assert log.finish(60) == ""
    assert log.lost == 0
    assert storage.events() == [BEGINS, *map(str, range(100))]


def test_a_storage_that_stays_away_holds_up_no_task_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    storage = Shaky()
    storage.fails = True
    log = spooled(tmp_path, storage=storage, object_size=500, spool_size=2000)
    failures = [failure for number in range(100) if (failure := log.write([event(str(number))])) is not None]
    assert len(failures) == 1
    assert "the storage is away" in str(failures[0])
    assert 0 < log.lost < 100
    storage.fails = False
    assert log.finish(60) == log.loss
    assert log.loss.startswith(f"{log.lost} lines could not be written: too much of the log is waiting")
    assert storage.events() == [BEGINS, *map(str, range(100 - log.lost))]


def test_the_task_log_goes_to_the_storage_masked_from_many_threads(tmp_path: Path) -> None:
    masker = Masker()
    masker.add("correct-horse")
    stored = spooled(tmp_path, object_size=4000)
    with open(tmp_path / "stderr", "wb", buffering=0) as file:
        log = TaskLog(masker, [Output(file.fileno(), json_line, "stderr"), stored])
        stored.report_to(log.event)
        threads = [threading.Thread(target=log.write, args=([event("correct-horse")] * 100,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stored.finish(30) == ""
    assert texts(tmp_path) == ["***"] * 400


def test_a_file_is_written_at_once_and_by_each_pod_in_its_turn(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/logs/dag_id=d/attempt=1.log"
    for pod in ("first", "second"):
        (tmp_path / pod).mkdir()
        log = open_stored_log(url, str(tmp_path / pod), "", pod)
        log.write([event(f"of the {pod}")])
        # a second start of the same container
        log = open_stored_log(url, str(tmp_path / pod), "", pod)
        log.write([event("again")])
        assert [json.loads(line)["event"] for line in of_pod(read(url, {}), pod)] == [f"of the {pod}", "again"]
        assert log.finish(1) == ""


def _has_lines(url: str, number: int) -> bool:
    try:
        return len([*read(url, {})]) == number
    except StorageError:
        return False


@pytest.mark.parametrize("scheme", ["local", "file"])
def test_an_attempt_that_is_queued_again_keeps_the_lines_of_both_pods_also_if_the_first_has_not_ended_yet(
    tmp_path: Path, scheme: str
) -> None:
    """Airflow queues a stuck task again under the same try number, so both write one log."""
    logs, url = {}, f"{scheme}://{tmp_path}/logs/dag_id=d/attempt=1.log"
    for pod in ("first", "second"):
        (tmp_path / pod).mkdir()
        logs[pod] = open_stored_log(url, str(tmp_path / pod), "", pod)
        wait_until(lambda: _has_lines(url, len(logs)), "that it has begun")
    for number in range(10):
        for pod, log in logs.items():
            log.write([event(f"{number} of the {pod}")])
    assert [log.finish(30) for log in logs.values()] == ["", ""]
    lines = [json.loads(line) for line in read(url, {})]
    assert [line["pod"] for line in lines if line["event"] == BEGINS] == ["first", "second"]
    wanted = [f"{number} of the {pod}" for pod in logs for number in range(10)]
    assert sorted(line["event"] for line in lines if line["event"] != BEGINS) == sorted(wanted)


@pytest.mark.parametrize("scheme", ["local", "file"])
def test_half_a_line_of_a_container_that_was_killed_spoils_no_other(tmp_path: Path, scheme: str) -> None:
    url, spool = f"{scheme}://{tmp_path}/logs/attempt=1.log", tmp_path / "spool"
    spool.mkdir()
    log = open_stored_log(url, str(spool), "", "pod")
    log.write([event("whole")])
    assert log.finish(30) == ""
    torn = tmp_path / "logs/attempt=1.log" if scheme == "file" else spool / "0"
    with torn.open("ab") as file:
        file.write(b'{"event": "to')
    log = open_stored_log(url, str(spool), "", "pod")
    log.write([event("of the next start")])
    assert log.finish(30) == ""
    lines = list(of_pod(read(url, {}), "pod"))
    assert lines[1] == b'{"event": "to'
    assert [json.loads(line)["event"] for line in (lines[0], lines[2])] == ["whole", "of the next start"]


def test_pods_of_other_users_may_write_beside(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    open_stored_log(f"file://{tmp_path}/dag_id=d/run_id=r/attempt=1.log", str(tmp_path / "spool"), "", "pod")
    for path, mode in (("dag_id=d", 0o775), ("dag_id=d/run_id=r", 0o775), ("dag_id=d/run_id=r/attempt=1.log", 0o664)):
        assert (tmp_path / path).stat().st_mode & 0o777 == mode


def test_a_file_that_cannot_be_opened_is_said_and_the_task_goes_on(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder")
    log = open_stored_log(f"file://{tmp_path}/logs/attempt=1.log", str(tmp_path), "", "pod")
    assert isinstance(log.write([event("x")]), OSError)
    assert log.write([event("x")]) is None
    assert log.lost == 2
    assert log.finish(1) == log.loss == "2 lines could not be written: Not a directory"


AIRFLOW, BRIDGE, OF_PODS = 50000, 65532, 65532
"""The users of Airflow's official image, whose group is 0, and of the bridge; and the group of our pods' volumes."""


def as_user(user: int, groups: list[int], work: Callable[[], None]) -> None:
    """Do something as another user of group 0, in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups(groups)
            os.setgid(0)
            os.setuid(user)
            os.umask(0o002)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, f"user {user} cannot write"


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that other users reach."""
    with tempfile.TemporaryDirectory(prefix="polypod-volume-", dir="/tmp") as name:
        Path(name).chmod(0o777)
        (Path(name) / "logs").mkdir()
        yield Path(name) / "logs"


@pytest.mark.skipif(not may_be_others(), reason="only root can start processes of other users")
@pytest.mark.parametrize("first", ["airflow", "bridge"])
@pytest.mark.parametrize("group", [0, OF_PODS])
def test_airflows_image_and_the_bridge_write_into_each_others_folders(volume: Path, first: str, group: int) -> None:
    """`group` of pods: that of a volume which the kubelet gives to fsGroup, with the bit by which folders inherit it."""
    os.chown(volume, AIRFLOW, group)
    volume.chmod(0o2775 if group else 0o775)

    def bridge(path: str) -> Callable[[], None]:
        def write() -> None:
            with tempfile.TemporaryDirectory(dir=volume.parent) as spool:
                log = open_stored_log(f"file://{volume}/{path}", spool, "", "pod")
                log.write([event("of a stub")])
                assert log.finish(1) == ""

        return write

    def airflow(path: str) -> Callable[[], None]:
        def write() -> None:
            # as Airflow's FileTaskHandler does
            file = volume / path
            for folder in reversed([parent for parent in file.parents if not parent.exists()]):
                folder.mkdir(0o775)
                folder.chmod(0o775)
            with file.open("a") as log:
                log.write("of a Python task\n")
            file.chmod(0o664)

        return write

    ways = {"airflow": (AIRFLOW, [], airflow), "bridge": (BRIDGE, [OF_PODS], bridge)}
    order = [first, *(ways.keys() - {first})]
    for number in range(3):
        for who in order:
            user, groups, way = ways[who]
            # in the run's folder, in a Dag's folder that the other has made, and in a task's that both write to
            for path in (
                f"dag_id=d/run_id=r/task_id={who}{number}/attempt=1.log",
                f"dag_id={who}/run_id={number}/x.log",
            ):
                as_user(user, list(groups), way(path))
            both = f"dag_id=d/run_id=r{number}/task_id=t/attempt={1 + order.index(who)}.log"
            as_user(user, list(groups), way(both))
        order.reverse()


def test_options_are_a_secrets_files(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "AWS_REGION").write_text("eu-central-1\n")
    assert read_options(str(tmp_path)) == {"AWS_REGION": "eu-central-1"}
    assert read_options("") == {}
    with pytest.raises(StorageError, match="cannot be read"):
        read_options(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("s3://bucket/x.log", {"no_such_option": "1"}, "no_such_option"),
        ("nonsense://bucket/x.log", {}, "nonsense"),
        ("local:///no/such/folder/x.log", {}, "there is no log at"),
    ],
)
def test_what_is_wrong_with_a_storage_is_said(url: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(StorageError, match=message):
        list(read(url, options))


def test_an_error_holds_no_secret() -> None:
    options = {"azure_storage_account_name": "acct", "azure_storage_sas_key": "sv=1&sig=very-secret-signature",
               "azure_storage_endpoint": "http://127.0.0.1:1"}  # fmt: skip
    with pytest.raises(StorageError) as failure:
        list(read("az://container/x.log", options))
    assert "very-secret-signature" not in str(failure.value)
    assert "Connection refused" in str(failure.value)


class Kubelet:
    """Gives what a pod prints, and cuts it off where it is told: as a log does that is rotated under its reader."""

    def __init__(self, lines: list[bytes], most: int, cuts: list[int | None]) -> None:
        self.lines, self.most, self.cuts = lines, most, cuts
        self.skip = 0
        self.made = 0

    def create_pod(self, manifest: dict[str, Any]) -> dict[str, Any]:
        arguments = manifest["spec"]["containers"][0]["args"]
        self.skip = int(arguments[arguments.index("--skip-lines") + 1]) if "--skip-lines" in arguments else 0
        self.made += 1
        return {"metadata": {"name": "reader"}}

    def pod(self, name: str) -> dict[str, Any]:
        return {"status": {"phase": "Succeeded"}}

    def delete_pod(self, name: str) -> None:
        pass

    def log(self, name: str, container: str, *, follow: bool) -> Iterator[bytes]:
        printed = list(part(self.lines, self.skip, self.most))
        yield from printed[: self.cuts.pop(0) if self.cuts else None]


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda data: b"{" + data.replace(b"\n", b"") + b"}"), max_size=30),
    most=st.integers(0, 500),
    cuts=st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=5),
)
def test_a_stored_log_is_read_whole_in_parts_wherever_the_kubelet_cuts_them_off(
    lines: list[bytes], most: int, cuts: list[int | None]
) -> None:
    kubelet = Kubelet(lines, most, cuts)
    attempt = {"number": 1, "podName": "p", "log": {"url": "file:///x", "readerImage": "i"}}
    run = {"metadata": {"name": "r", "uid": "u"}}
    assert list(stored_log.read(cast(Any, kubelet), run, attempt)) == lines


def test_a_stored_log_of_which_nothing_comes_is_an_error_and_not_an_empty_log() -> None:
    kubelet = Kubelet([b"{}"], 100, [0] * 10)
    attempt = {"number": 1, "podName": "p", "log": {"url": "file:///x", "readerImage": "i"}}
    with pytest.raises(UserError, match="printed nothing"):
        list(stored_log.read(cast(Any, kubelet), {"metadata": {"name": "r", "uid": "u"}}, attempt))


def test_lines_that_are_lost_in_the_middle_are_an_error() -> None:
    class Loses(Kubelet):
        def log(self, name: str, container: str, *, follow: bool) -> Iterator[bytes]:
            first, _, *rest = super().log(name, container, follow=follow)
            yield from (first, *rest)

    attempt = {"number": 1, "podName": "p", "log": {"url": "file:///x", "readerImage": "i"}}
    kubelet = Loses([b"{1}", b"{2}", b"{3}"], 1000, [])
    with pytest.raises(UserError, match="of 3 lines after line 0 the kubelet gave 2; its containerLogMaxSize"):
        list(stored_log.read(cast(Any, kubelet), {"metadata": {"name": "r", "uid": "u"}}, attempt))
