"""The node itself: a run that is killed leaves nothing that the next one does not clear up."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster.conftest import need_own_node
from cluster.node import Node, sweep

UP = "import os, sys; from cluster.node import Node; Node(sys.argv[1]).up(owner=os.getpid())"


def test_what_a_killed_run_has_left_is_swept_away() -> None:
    need_own_node()
    node = Node(secrets.token_hex(3))
    tests = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", UP, node.name], cwd=tests, start_new_session=True)
    give_up = time.monotonic() + 120
    try:
        # killed in the middle, when containerd and the API server are there
        while node.services.pid("kube-apiserver") is None:
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.05)
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
