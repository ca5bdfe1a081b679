"""An API server with our CRD, and no pods."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from typing import Any

import kopf
from support.waiting import wait_until

from cluster.client import Client, Unreadable
from cluster.control_plane import ControlPlane, Reached


class Api:
    """An API server with our CRD."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def kubectl(self, *arguments: str, stdin: Any = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.plane.bin / "kubectl"), f"--kubeconfig={self.plane.kubeconfig}", *arguments]
        text = None if stdin is None else json.dumps(stdin)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)

    def create(self, document: Any, namespace: str = "default") -> subprocess.CompletedProcess[str]:
        return self.kubectl("-n", namespace, "create", "-f", "-", stdin=document)

    def items(self, *arguments: str) -> list[Any]:
        """Return what `kubectl get` lists."""
        try:
            found: list[Any] = self.client.get(*arguments)["items"]
        except Unreadable:
            found = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)["items"]
        return found

    @functools.cached_property
    def client(self) -> Client:
        return Client(self.plane.kubeconfig)

    def wait(self, ready: Callable[[], Any]) -> Any:
        return wait_until(ready, limit=120, every=0.1)

    def evidence(self) -> dict[str, str]:
        """Return the statuses of all TaskRuns and the last lines of the API server."""
        runs = self.items("taskruns", "-A")
        statuses = {f"{raw['metadata']['namespace']}/{raw['metadata']['name']}": raw.get("status") for raw in runs}
        found = {"TaskRuns": json.dumps(statuses, indent=1)[:4000]}
        return {**found, **self.plane.services.evidence(), "API server": self.plane.services.log_of("kube-apiserver")}

    def connection(self) -> kopf.ConnectionInfo:
        reached = Reached.by(self.plane.kubeconfig)
        return kopf.ConnectionInfo(server=reached.server, ca_path=reached.authority, token=reached.token)
