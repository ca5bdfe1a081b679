"""The commands for a cluster, as a person or a script would use them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cluster.lab import Lab, Namespace

POLYPOD = Path(sys.executable).with_name("polypod")


class Cli:
    """`polypod`, or `kubectl polypod`, in one namespace."""

    def __init__(self, lab: Lab, namespace: Namespace) -> None:
        self.lab, self.namespace = lab, namespace
        kubeconfig = lab.kubeconfig
        self.environ = {**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": f"{POLYPOD.parent}:{os.environ['PATH']}"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [str(POLYPOD), *arguments, "-n", self.namespace.name]
        return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        said, problem = process.communicate(timeout=200)
        assert process.returncode == code, (arguments, said, problem)
        return said if code == 0 else said + problem
