"""The node itself: a run that is killed leaves nothing that the next one does not clear up."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import wait_until

from cluster.conftest import need_own_node
from cluster.node import Node, sweep

pytestmark = pytest.mark.needs("node")

UP = "import os, sys; from cluster.node import Node; Node(sys.argv[1]).up(owner=os.getpid())"


def test_what_a_killed_run_has_left_is_swept_away() -> None:
    need_own_node()
    node = Node(secrets.token_hex(3))
    tests = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", UP, node.name], cwd=tests, start_new_session=True)
    try:
        # killed in the middle, when containerd and the API server are there
        wait_until(lambda: node.services.pid("kube-apiserver") is not None or process.poll() is not None, limit=120)
        assert process.poll() is None
        sweep()
        assert node.folder.exists(), "a cluster whose owner lives was swept away"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        sweep()
        assert not node.folder.exists()
        assert node.services.names() == []
        assert node.namespace not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        assert str(node.folder) not in Path("/proc/mounts").read_text()
    finally:
        node.down()
