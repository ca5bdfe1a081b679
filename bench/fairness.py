"""What a flood of requests from one namespace does to the requests of another. Writes results/fairness.json.

A real Execution API process on SQLite, which knows pods by tokens; one connection of namespace `honest` asks twenty
times a second, first alone, then beside CONNECTIONS connections of namespace `hog` that ask as fast as they are
answered.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from page import put
from polypod_core.identity import pod_name
from polypod_core.pod_tokens import AUDIENCE

RUNS, SECONDS, CONNECTIONS, EVERY = 3, 6.0, 64, 0.05
ISSUER = "https://issuer"
SERVER = """
import sys
from pathlib import Path
import uvicorn
from polypod_execution_api.app import create_app
from polypod_execution_api.cluster import ClusterAccess
from polypod_execution_api.database import connect, migrate
from polypod_execution_api.tokens import TokenSigner
url, folder, port, fair = sys.argv[1:]
engine = connect(f"sqlite:///{folder}/a.db")
migrate(engine)
app = create_app(engine, TokenSigner(b"x" * 32), ClusterAccess(url, Path(folder)))
if fair == "no":
    app.user_middleware.clear()
uvicorn.Server(uvicorn.Config(app, port=int(port), lifespan="off", access_log=False, log_level="error")).run()
"""


class Cluster:
    """What the Execution API asks of a cluster: its keys, and for each namespace a pod and its TaskRun."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        page = {**jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True), "kid": "k"}
        self._pages: dict[str, Any] = {
            "/.well-known/openid-configuration": {"issuer": ISSUER},
            "/openid/v1/jwks": {"keys": [page]},
        }
        pages = self._pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(pages[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def token(self, namespace: str) -> str:
        """Make a pod of a TaskRun, and return its token."""
        uid = f"uid-of-{namespace}"
        name = pod_name("run", uid, 1)
        owner = {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "name": "run", "uid": uid, "controller": True}
        metadata = {
            "uid": f"pod-{namespace}",
            "labels": {"polypod.dev/attempt": "1", "polypod.dev/try": "1"},
            "ownerReferences": [owner],
        }
        spec = {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}
        self._pages |= {
            f"/api/v1/namespaces/{namespace}": {"metadata": {"uid": f"ns-{namespace}"}},
            f"/api/v1/namespaces/{namespace}/pods/{name}": {"metadata": metadata},
            f"/apis/polypod.dev/v1alpha1/namespaces/{namespace}/taskruns/run": {"metadata": {"uid": uid}, "spec": spec},
        }
        now = int(time.time())
        bound = {
            "namespace": namespace,
            "serviceaccount": {"name": "a", "uid": "v"},
            "pod": {"name": name, "uid": f"pod-{namespace}"},
        }
        claims = {"iss": ISSUER, "aud": [AUDIENCE], "sub": "s", "iat": now, "exp": now + 3600, "kubernetes.io": bound}
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "k"})

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


async def ask(url: str, token: str, connections: int, pause: float) -> tuple[list[float], int]:
    """Ask for SECONDS; return how long each answer took, in seconds, and how many were errors."""
    took: list[float] = []
    failed = 0
    stop = time.monotonic() + SECONDS

    async def one(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        while time.monotonic() < stop:
            began = time.monotonic()
            async with session.get(f"{url}dag-runs/d/r") as answer:
                await answer.read()
                failed += answer.status != 200
            took.append(time.monotonic() - began)
            await asyncio.sleep(pause)

    headers = {"authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        await asyncio.gather(*(one(session) for _ in range(connections)))
    return took, failed


async def measure(url: str, honest: str, hog: str) -> dict[str, float]:
    # the first request of each looks its TaskRun up
    for token in (honest, hog):
        await ask(url, token, 1, SECONDS)
    alone, _ = await ask(url, honest, 1, EVERY)
    # the flood is a process of its own, so that what it costs to send it delays nobody's clock
    flood = await asyncio.create_subprocess_exec(sys.executable, __file__, url, hog, stdout=subprocess.PIPE)
    await asyncio.sleep(1.5)
    beside, failed = await ask(url, honest, 1, EVERY)
    said, _ = await flood.communicate()
    # but for the first, which opens the connection, unless there was no other
    p99 = [_p99(took[1:] or took) * 1000 for took in (alone, beside)]
    return {
        "alone_p99_ms": p99[0],
        "beside_p99_ms": p99[1],
        "ratio": p99[1] / p99[0],
        "failed": failed,
        "flood_per_s": float(said),
    }


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def run(fair: str, port: int) -> dict[str, float]:
    cluster = Cluster()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "token").write_text("mine")
        command = [sys.executable, "-c", SERVER, cluster.url, folder, str(port), fair]
        process = subprocess.Popen(command)
        try:
            url = f"http://127.0.0.1:{port}/execution/"
            time.sleep(3)
            return asyncio.run(measure(url, cluster.token("honest"), cluster.token("hog")))
        finally:
            process.terminate()
            process.wait()
            cluster.stop()


def main() -> None:
    results = {fair: [run(fair, 9790 + number) for number in range(RUNS)] for fair in ("no", "yes")}
    rows = ["| | as requests come | in turns |", "|---|---|---|"]
    for name, text in (
        ("alone_p99_ms", "p99 of one that asks twenty times a second, alone"),
        ("beside_p99_ms", "the same, beside a flood of another namespace"),
        ("ratio", "ratio"),
        ("failed", "of its requests, answered with an error"),
        ("flood_per_s", "the flood's requests a second"),
    ):
        cells = []
        for found in results.values():
            values = sorted(item[name] for item in found)
            unit = " ms" if name.endswith("_ms") else ""
            cells.append(f"{statistics.median(values):.1f}{unit} ({values[0]:.1f} to {values[-1]:.1f})")
        rows.append(f"| {text} | {' | '.join(cells)} |")
    (Path(__file__).parent / "results" / "fairness.json").write_text(json.dumps(results, indent=1) + "\n")
    put("fairness", "make bench-fairness", "\n".join(rows))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(len(asyncio.run(ask(sys.argv[1], sys.argv[2], CONNECTIONS, 0.0))[0]) / SECONDS)
    else:
        main()
