"""`airflow polypod check` in real Airflows: whatever is missing of what docs/airflow.md lists, it names that."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import AIRFLOWS, ROOT, airflow_venv

pytestmark = pytest.mark.needs("airflow")

EXECUTOR = "polypod_airflow.executor.PolypodExecutor"
ANSWERED = "the Execution API answered {} to the start of the task: {{'message': 'Task Instance not found'}}"
COMPLETE: dict[str, Any] = {
    "environ": {
        "AIRFLOW__CORE__EXECUTOR": f"LocalExecutor,polypod:{EXECUTOR}",
        "AIRFLOW__POLYPOD__NAMESPACE": "airflow-tasks",
        "AIRFLOW__POLYPOD__PENDING_TIMEOUT": "",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "600",
    },
    "policy": True,
    "namespace": True,
    "crd": True,
    "denied": (),
    "routing": "{jvm: java}",
    "answer": ANSWERED.format(404),
    "polls": 0,
    "log": {"url": "s3://logs/attempt=1.log"},
}
"""All that must be there."""


class Kubernetes(http.server.BaseHTTPRequestHandler):
    """An API server with Polypod, of which `has` says what is there."""

    has: dict[str, Any]

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _missing(self, what: str) -> None:
        self._answer(404, {"reason": "NotFound", "message": f"{what} not found"})

    def do_GET(self) -> None:
        if "/configmaps/" in self.path:
            if self.has["routing"] is None:
                return self._missing("configmaps")
            return self._answer(200, {"data": {"queue_to_coordinator": self.has["routing"]}})
        if "/taskruns/" in self.path:
            last = {"reason": "ApiRefused", "log": self.has["log"]}
            if self.has["polls"]:
                self.has["polls"] -= 1
                return self._answer(200, {"metadata": {"name": "af-1"}, "status": {"phase": "Pending"}})
            status = {"phase": "Failed", "reason": "ApiRefused", "message": self.has["answer"], "attempts": [last]}
            return self._answer(200, {"metadata": {"name": self.path.rpartition("/")[2]}, "status": status})
        if "/taskruns" in self.path and not self.has["crd"]:
            return self._answer(404, {"reason": "NotFound", "message": "404 page not found"})
        return self._answer(200, {"items": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "selfsubjectaccessreviews" in self.path:
            asked = body["spec"]["resourceAttributes"]
            resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            allowed = f"{asked['verb']} {resource}" not in self.has["denied"]
            return self._answer(201, {"status": {"allowed": allowed}})
        if not self.has["namespace"]:
            return self._missing('namespaces "airflow-tasks"')
        return self._answer(201, body)

    def do_DELETE(self) -> None:
        self._answer(200, {})

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(params=AIRFLOWS)
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    has: dict[str, Any] = {}
    handler = type("Handler", (Kubernetes,), {"has": has})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    # as pip installs it
    installed = tmp_path / "installed"
    info = installed / "polypod_airflow-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polypod-airflow\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[airflow.policy]\npolypod = polypod_airflow.policy\n")
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "KUBE"))},
        "PYTHONPATH": f"{ROOT / 'executor'}:{installed}",
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of a test, long enough to be one",
        "AIRFLOW__POLYPOD__KUBECONFIG": str(tmp_path / "kubeconfig"),
    }
    command = [str(airflow_venv(request.param) / "bin/python"), str(ROOT / "tests/airflow_env/drive_check.py")]
    log = (tmp_path / "check.log").open("wb")
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
    )

    def checked(**changes: Any) -> dict[str, Any]:
        has.clear()
        has.update(COMPLETE | changes)
        given = {**COMPLETE["environ"], **has["environ"]}
        without = [] if has["policy"] else [str(installed)]
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({"environ": given, "without": without}), file=process.stdin, flush=True)
        line = process.stdout.readline()
        assert line, (tmp_path / "check.log").read_text()[-3000:]
        found: dict[str, Any] = json.loads(line)
        return found

    yield checked
    process.kill()
    process.wait(60)
    log.close()
    server.shutdown()
    server.server_close()


CORE = "AIRFLOW__CORE__EXECUTOR"
TAKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is missing: the change, the line that fails, and what it says
    "the package": ({"policy": False}, "the task policy is installed", "install the package with pip"),
    "the executor": ({"environ": {CORE: "LocalExecutor"}}, "[core] executor LocalExecutor", "add polypod:polypod_airflow"),
    "the executor before it": ({"environ": {CORE: f"polypod:{EXECUTOR}"}}, "[core] executor", "name another one before it"),
    "the namespace": ({"namespace": False}, "namespace airflow-tasks", "kubectl create namespace airflow-tasks"),
    "Polypod": ({"crd": False}, "TaskRuns in namespace airflow-tasks", "install Polypod's chart"),
    **{
        f"the right to {right}": ({"denied": (right,)}, f"may {right}", "the chart's airflow.serviceAccounts")
        for right in ("create taskruns", "get taskruns", "list taskruns", "watch taskruns", "delete taskruns",
                      "create secrets", "patch secrets", "list secrets", "delete secrets", "get pods/log")
    },
    "the routing": ({"routing": None}, "routing polypod-system/polypod-routing", "set [polypod] routing"),
    "its queues": ({"routing": "{}"}, "routing polypod-system/polypod-routing", "add queue_to_coordinator"),
    "this Airflow's Execution API": ({"answer": ANSWERED.format(403)}, "a pod of queue 'jvm' reaches", "another Airflow's"),
    "an Execution API at all": ({"answer": "the Execution API answered 404 to the start of the task: Not Found"},
                                "a pod of queue 'jvm' reaches", "no Execution API is there"),
    "an image that starts": ({"answer": "image x: not found"}, "a pod of queue 'jvm' reaches", "image x: not found"),
    "a timeout that pods can meet": ({"environ": {"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "3"}, "polls": 2},
                                     "a pod starts within", "raise it"),
    "a pending timeout below it": ({"environ": {"AIRFLOW__POLYPOD__PENDING_TIMEOUT": "20m"}},
                                   "[polypod] pending_timeout 20m", "less than [scheduler] task_queued_timeout"),
    "the logs' storage": ({"log": None}, "the pod's log is kept where Airflow reads it", "logs.persistentVolumeClaim"),
    "a storage that takes lines": ({"answer": f"{ANSWERED.format(404)}; its log is not complete: disk full"},
                                   "the pod's log is kept where Airflow reads it", "disk full"),
}  # fmt: skip


def test_each_thing_that_is_missing_is_named_and_nothing_else_is(check: Callable[..., dict[str, Any]]) -> None:
    complete = check()
    assert complete["failed"] == 0, complete
    assert len(complete["lines"]) == 19, complete
    assert all(line.startswith("ok  ") for line in complete["lines"]), complete
    for missing, (change, line, said) in TAKEN.items():
        found = check(**change)
        failed = [each for each in found["lines"] if each.startswith("FAIL")]
        assert found["failed"] == 1, (missing, found)
        assert len(failed) == 1, (missing, failed)
        assert failed[0].removeprefix("FAIL ").startswith(line), (missing, failed)
        assert said in failed[0], (missing, failed)


def test_the_page_lists_every_line_of_the_check_and_makes_what_its_values_name() -> None:
    page = (ROOT / "docs/airflow.md").read_text()
    listed = page.partition("## What must be set")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \d \|.*$", listed, re.MULTILINE)
    assert len(rows) == 9
    for _, line, _ in TAKEN.values():
        told = re.sub(r" (LocalExecutor|20m|airflow-tasks|polypod-system/polypod-routing)$", "", line)
        told = "may …" if told.startswith("may ") else told.replace(" of queue 'jvm'", "")
        assert any(f"`{told}" in row for row in rows), told
    for namespace in re.findall(r"^ +(?:namespace: |namespace = )(\S+)$", page, re.MULTILINE):
        assert f"kubectl create namespace {namespace}\n" in page
    for claim in re.findall(r"persistentVolumeClaim: (\S+)", page):
        assert f"metadata: {{name: {claim}, namespace: airflow-tasks}}" in page
