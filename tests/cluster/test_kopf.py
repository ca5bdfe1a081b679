"""kopf's watch of TaskRuns: a real operator and a real API server, with a proxy between them that injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from cluster.api import Api
from cluster.control_plane import Reached
from cluster.lab import task_run

RUNS = "/apis/polypod.dev/v1alpha1/taskruns"


class Proxy:
    """Forwards calls to the API server and injects faults into watches of TaskRuns.

    Attributes:
        refuse: the statuses that the next watches are answered with.
        swallow: types of events that are not passed on.
        opened: how many watches have been passed on.
    """

    def __init__(self, reached: Reached) -> None:
        self._reached = reached
        self.refuse: list[int] = []
        self.swallow: set[str] = set()
        self.opened = 0
        self._open: set[web.StreamResponse] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())

    async def _serve(self) -> None:
        trust = ssl.create_default_context(cafile=self._reached.authority)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, limit=0), auto_decompress=False)
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        self._ready.set()

    async def _end(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        watched = request.path == RUNS and "watch" in request.query
        if watched and self.refuse:
            status = self.refuse.pop(0)
            return web.json_response({"kind": "Status", "code": status, "message": "spoilt"}, status=status)
        passed_on = ("Accept", "Accept-Encoding", "Content-Type")
        kept = {name: request.headers[name] for name in passed_on if name in request.headers}
        headers = {"Authorization": f"Bearer {self._reached.token}", **kept}
        call = self._session.request(
            request.method, self._reached.server + request.path_qs, data=await request.read() or None, headers=headers,
            timeout=aiohttp.ClientTimeout(total=None), skip_auto_headers=["Accept-Encoding"],
        )  # fmt: skip
        async with call as answer:
            coded = {name: answer.headers[name] for name in ("Content-Encoding",) if name in answer.headers}
            passed = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json", **coded})
            await passed.prepare(request)
            if not watched:
                await passed.write(await answer.read())
                return passed
            self.opened += 1
            self._open.add(passed)
            rest = b""
            try:
                async for chunk in answer.content.iter_any():
                    *complete, rest = (rest + chunk).split(b"\n")
                    for line in complete:
                        kind = line.split(b'"', 4)[3].decode()
                        if kind not in self.swallow:
                            await passed.write(line + b"\n")
            finally:
                self._open.discard(passed)
            return passed

    def put(self, line: bytes) -> None:
        """Put a line into the watches that are open."""

        async def write() -> None:
            for passed in list(self._open):
                # one that the operator has just closed is on its way out
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    await passed.write(line + b"\n")

        asyncio.run_coroutine_threadsafe(write(), self._loop).result(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)


class Operator:
    """A real operator behind the proxy."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.proxy = Proxy(Reached.by(api.plane.kubeconfig))
        self.log = folder / "operator.log"
        config = folder / "kubeconfig"
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.proxy.port}"}}
        user = {"name": "u", "user": {}}
        document = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
        config.write_text(yaml.safe_dump(document))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._command = [
            sys.executable, "-m", "polypod_operator.main", "--bridge-image=b", "--execution-api-url=http://a/",
            f"--metrics-address=127.0.0.1:{self._port}",
        ]  # fmt: skip
        self._environ = {**os.environ, "KUBECONFIG": str(config)}
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self._command, env=self._environ, stdout=output, stderr=output)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.proxy.stop()

    def active(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("polypod_taskruns_active{"))

    def reason(self, name: str) -> str:
        done = self.api.kubectl("get", "taskrun", name, "-o", "jsonpath={.status.reason}")
        return done.stdout

    def ends(self, name: str, reason: str) -> None:
        self.api.wait(lambda: self.reason(name) == reason)

    def reopens(self, line: bytes) -> None:
        """Show that a watch which brings such a line is begun anew."""
        before = self.proxy.opened
        self.proxy.put(line)
        self.api.wait(lambda: self.proxy.opened > before)

    def serves(self, name: str) -> None:
        """Show that a new TaskRun is served, by the same process."""
        assert self.api.create(task_run(name, "t")).returncode == 0
        self.api.wait(lambda: self.reason(name) == "WaitingForRouting")
        assert self.process.poll() is None, self.log.read_text()[-3000:]


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
        operator.proxy.put(line)
    operator.serves("after")


def test_a_watch_that_is_refused_for_a_while_is_sat_out(operator: Operator) -> None:
    operator.serves("before")
    operator.proxy.refuse = [500, 503, 404, 403, 401, 429, 410, 504, 500]
    operator.proxy.put(b'{"type":"ERROR","object":{"code":410,"message":"too old"}}')
    opened = operator.proxy.opened
    operator.api.wait(lambda: not operator.proxy.refuse and operator.proxy.opened > opened)
    operator.serves("after")


def test_what_was_deleted_while_the_watch_was_broken_is_noticed_by_the_next_list(operator: Operator) -> None:
    operator.serves("gone")
    operator.serves("stays")
    operator.api.wait(lambda: operator.active() == 2)
    operator.proxy.swallow = {"DELETED"}
    operator.api.kubectl("delete", "taskrun", "gone")
    operator.serves("another")
    assert operator.active() == 3, "it cannot know yet"
    operator.proxy.put(b'{"type":"ERROR","object":{"code":410,"message":"too old"}}')
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


def test_forty_large_ones_that_stay_take_no_room(operator: Operator) -> None:
    api = operator.api
    operator.serves("before")
    before = memory(operator)
    # a million bytes of JSON that are many times as much in memory
    params: dict[str, Any] = {"a": [{}] * 300_000}
    for number in range(40):
        text = json.dumps(task_run(f"large-{number}", "t", suspend=True, params=params), separators=(",", ":"))
        create_raw(api, text)
    for number in (0, 20, 39):
        operator.ends(f"large-{number}", "Suspended")
    operator.serves("after")
    assert memory(operator) < before + (150 << 20)
    # what is read by a list is bounded as well
    operator.process.terminate()
    operator.process.wait(60)
    operator.start()
    operator.serves("listed")
    assert memory(operator) < before + (250 << 20)


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
        api.wait(lambda: "another operator leads" in made[1].log.read_text())
        assert made[1].proxy.opened == 0
    finally:
        for other in reversed(made):
            other.stop()
    assert [other.process.returncode for other in made] == [0, 0]
    assert "Traceback" not in made[1].log.read_text()
