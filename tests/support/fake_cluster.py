"""An API server with one namespace, as far as `polypod` asks it, and what stands in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from click.testing import CliRunner, Result
from polypod_cli.commands import cli

BEGIN = datetime(2026, 11, 29, 10, 0, 0, tzinfo=UTC)
Raw = dict[str, Any]
DEEP = '"@DEEP@"'
"""In an object: thousands of lists within each other."""


class ApiServer:
    """Answers as the API server and the kubelet do, for one namespace."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.lines: list[tuple[str, str]] = []
        self.cuts: list[int | None] = []
        """After how many bytes each answer with a log breaks; None: it does not."""
        self.refusals = 0
        """How many requests are answered by 503 from now on."""
        self.runs: list[Raw] = []
        self.pods: dict[str, Raw | list[Raw | None]] = {}
        """By name; of several, each answer is the next, and None: it is gone."""
        self.logs_left = 1000
        """How many times a log can be read; afterwards its pod is gone."""
        self.changes: list[list[Raw]] = []
        """The events of each watch."""
        self.asked: list[str] = []
        self.patches: list[Raw] = []
        """What has been sent to change a TaskRun."""
        self.ahead = timedelta(0)
        """By how much its clock is ahead of ours."""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {key: value[0] for key, value in parse_qs(url.query).items()}
                server.asked.append("watch" if "watch" in query else url.path.rpartition("/")[2])
                if server.refusals:
                    server.refusals -= 1
                    return self._answer(503, b"the server is shutting down")
                if url.path.endswith("/log"):
                    return self._log(query)
                if "watch" in query:
                    return self._watch()
                if url.path.endswith("/taskruns"):
                    found = {"items": server.runs, "metadata": {"resourceVersion": "5"}}
                    return self._answer(200, json.dumps(found).encode())
                kind: dict[str, dict[str, Any]] = {
                    "pods": {**server.pods},
                    "taskruns": {item["metadata"]["name"]: item for item in server.runs},
                }
                item: Any = kind[url.path.split("/")[-2]].get(url.path.rpartition("/")[2])
                if isinstance(item, list):
                    item = item.pop(0) if len(item) > 1 else item[0]
                return self._answer(200 if item else 404, json.dumps(item or {"message": "not found"}).encode())

            def do_PATCH(self) -> None:
                server.patches.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                name = urlsplit(self.path).path.rpartition("/")[2]
                [run] = [item for item in server.runs if item["metadata"]["name"] == name]
                self._answer(200, json.dumps(run).encode())

            def _log(self, query: dict[str, str]) -> None:
                if not server.logs_left:
                    self._answer(404, b'{"message": "pods not found"}')
                    return
                server.logs_left -= 1
                since = query.get("sinceTime", "")
                kept = [(when, line) for when, line in server.lines if when[:19] >= since[:19]]
                stamped = query.get("timestamps") == "true"
                body = "".join(f"{when} {line}\n" if stamped else f"{line}\n" for when, line in kept).encode()
                cut = server.cuts.pop(0) if server.cuts else None
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if cut is None else body[:cut])

            def _watch(self) -> None:
                self.send_response(200)
                self.end_headers()
                for event in server.changes.pop(0) if server.changes else []:
                    server.runs = [*(item for item in server.runs if item["metadata"]["name"] != event["object"]["metadata"]["name"]),
                                   *([event["object"]] if event["type"] == "MODIFIED" else [])]  # fmt: skip
                    self.wfile.write(
                        json.dumps(event).encode().replace(DEEP.encode(), b"[" * 5000 + b"]" * 5000) + b"\n"
                    )

            def date_time_string(self, timestamp: float | None = None) -> str:
                return format_datetime(datetime.now(UTC) + server.ahead, usegmt=True)

            def _answer(self, status: int, body: bytes) -> None:
                body = body.replace(DEEP.encode(), b"[" * 5000 + b"]" * 5000)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def polypod(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def task_run(name: str, phase: str = "Succeeded", *, attempts: int = 1, **status: Any) -> Raw:
    made = [{"number": number, "podName": f"{name}-{number}", "state": "x"} for number in range(1, attempts + 1)]
    return {
        "apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun",
        "metadata": {"name": name, "namespace": "team", "creationTimestamp": "2026-11-29T10:00:00Z"},
        "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"},
        "status": {"phase": phase, "attempts": made, **status},
    }  # fmt: skip


def pod_of(name: str, lines: int = 0) -> Raw:
    said = {"state": "success", "reason": "TaskSucceeded", "logLines": lines}
    state = {"terminated": {"exitCode": 0, "message": json.dumps(said)}}
    return {"metadata": {"name": name}, "status": {"phase": "Succeeded", "initContainerStatuses": [
        {"name": "bridge", "image": "i", "imageID": "i", "ready": False, "restartCount": 0, "state": state}]}}  # fmt: skip


def stamped(number: int) -> tuple[str, str]:
    """Return a line of the log: three in a row have one time, as a kubelet's clock is no finer."""
    when = BEGIN + timedelta(milliseconds=300 * (number // 3))
    return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond * 1000:09}Z", f"line {number}"
