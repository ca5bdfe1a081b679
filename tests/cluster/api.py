"""An API server with our CRD, and no pods."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import kopf

from cluster.control_plane import ControlPlane, Reached
from cluster.reader import Reader, Unreadable


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
            found: list[Any] = self._reader.get(*arguments)["items"]
        except Unreadable:
            found = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)["items"]
        return found

    @functools.cached_property
    def _reader(self) -> Reader:
        return Reader(self.plane.kubeconfig)

    def wait(self, ready: Callable[[], Any]) -> Any:
        give_up = time.monotonic() + 120
        while not (found := ready()):
            assert time.monotonic() < give_up
            time.sleep(0.1)
        return found

    def connection(self) -> kopf.ConnectionInfo:
        reached = Reached.by(self.plane.kubeconfig)
        return kopf.ConnectionInfo(server=reached.server, ca_path=reached.authority, token=reached.token)
