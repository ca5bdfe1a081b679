"""A real operator behind a proxy that injects faults into what the API server answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web
from support.ports import free_port

from cluster.api import Api
from cluster.control_plane import Reached
from cluster.lab import task_run

GOLANG = {
    "classpath": "airflow.sdk.coordinators.executable.ExecutableCoordinator",
    "kwargs": {"executables_root": ["/opt/app"]},
    "image": "language:1",
}
ROUTING = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "polypod-routing", "namespace": "polypod-system"},
    "data": {
        "coordinators": yaml.safe_dump({"golang": GOLANG}),
        "queue_to_coordinator": yaml.safe_dump({"golang": "golang"}),
    },
}
"""A routing of one queue, whose pods nobody runs."""

RUNS, PODS = "/taskruns", "/pods"


class Proxy:
    """Forwards calls to the API server and injects faults, most of them into watches of TaskRuns.

    Attributes:
        refuse: the statuses that the next watches are answered with.
        swallow: types of events that are not passed on.
        opened: how many watches have been passed on.
        lists: how many lists of TaskRuns or pods have been.
        lasts: seconds after which every watch, also of pods, is closed; None for as long as the API server wants.
        busy: True to answer every call with 429 and Retry-After.
        refused: how many calls were answered so.
        undiscovered: how many of the next questions for the resources of our group are answered with 429.
        delay: seconds that every call waits for its answer.
        frozen: True to have calls, but for watches, wait until it is False; `held` is how many wait.
    """

    def __init__(self, reached: Reached) -> None:
        self._reached = reached
        self.refuse: list[int] = []
        self.swallow: set[str] = set()
        self.opened = self.lists = self.refused = self.held = self.undiscovered = 0
        self.lasts: float | None = None
        self.delay = 0.0
        self.busy = self.frozen = False
        self._open: set[web.StreamResponse] = set()
        self._pods: set[web.StreamResponse] = set()
        self._stalled: set[web.StreamResponse] = set()
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
        streamed, runs = "watch" in request.query, request.path.endswith(RUNS)
        if streamed and runs and self.refuse:
            status = self.refuse.pop(0)
            return web.json_response({"kind": "Status", "code": status, "message": "spoilt"}, status=status)
        if self.undiscovered and request.path == "/apis/polypod.dev/v1alpha1":
            self.undiscovered -= 1
            return web.json_response({"kind": "Status", "code": 429, "message": "spoilt"}, status=429)
        if self.busy:
            self.refused += 1
            said = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "too many requests"}
            return web.json_response(said, status=429, headers={"Retry-After": "1"})
        await self._wait(streamed)
        self.lists += not streamed and request.method == "GET" and request.path.endswith((RUNS, PODS))
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
            if not streamed:
                await passed.write(await answer.read())
                return passed
            self.opened += runs
            streams = self._open if runs else self._pods
            streams.add(passed)
            try:
                async with asyncio.timeout(self.lasts):
                    await self._stream(answer, passed)
            except TimeoutError:
                pass
            finally:
                streams.discard(passed)
                self._stalled.discard(passed)
            return passed

    async def _wait(self, streamed: bool) -> None:
        """Have a call wait, if the API server is to be slow; a watch shows what is there to do all the same."""
        await asyncio.sleep(self.delay)
        if self.frozen and not streamed:
            self.held += 1
            while self.frozen:
                await asyncio.sleep(0.05)
            self.held -= 1

    async def _stream(self, answer: aiohttp.ClientResponse, passed: web.StreamResponse) -> None:
        """Pass on what a watch shows."""
        rest = b""
        async for chunk in answer.content.iter_any():
            *complete, rest = (rest + chunk).split(b"\n")
            for line in complete:
                kind = line.split(b'"', 4)[3].decode()
                if kind not in self.swallow and passed not in self._stalled:
                    await passed.write(line + b"\n")
        while passed in self._stalled:
            # it is not even closed; who gives up is the operator
            await asyncio.sleep(0.1)

    def heal(self) -> None:
        """End all faults that last."""
        self.lasts, self.delay, self.busy, self.frozen = None, 0.0, False, False

    def stall(self) -> int:
        """Have the watches that are open show nothing any more, without an error; return how many they are."""
        self._stalled |= self._open | self._pods
        return len(self._stalled)

    def write_kubeconfig(self, path: Path) -> None:
        """Write a kubeconfig whose server this is."""
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        user = {"name": "u", "user": {}}
        document = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
        path.write_text(yaml.safe_dump(document))

    def put(self, line: bytes) -> bool:
        """Put a line into the watches that are open; return False if none is."""

        async def write() -> bool:
            written = False
            for passed in list(self._open):
                # one that the operator has just closed is on its way out
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    await passed.write(line + b"\n")
                    written = True
            return written

        return asyncio.run_coroutine_threadsafe(write(), self._loop).result(60)

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
        self.proxy.write_kubeconfig(config)
        self._port = free_port()
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

    def evidence(self) -> dict[str, str]:
        return {f"(exit code {self.process.poll()})": self.log.read_text()}

    def active(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("polypod_taskruns_active{"))

    def restarts(self, why: str) -> float:
        """Return how many watches were opened again for a reason."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith("polypod_watch_restarts_total{") and f'why="{why}"' in line]
        return sum(float(line.split()[-1]) for line in found)

    def reason(self, name: str) -> str:
        # some of these objects are nested too deep for Python's JSON decoder
        return self.api.client.columns("taskrun", name)["Reason"] or ""

    def ends(self, name: str, reason: str) -> None:
        self.api.wait(lambda: self.reason(name) == reason)

    def reopens(self, line: bytes) -> None:
        """Show that the operator opens its watch again after such a line."""
        before = self.proxy.opened
        self.api.wait(lambda: self.proxy.put(line))
        self.api.wait(lambda: self.proxy.opened > before)

    def serves(self, name: str) -> None:
        """Show that a new TaskRun is served, by the same process."""
        assert self.api.create(task_run(name, "t")).returncode == 0
        self.api.wait(lambda: self.reason(name) == "WaitingForRouting")
        assert self.process.poll() is None, self.log.read_text()[-3000:]
