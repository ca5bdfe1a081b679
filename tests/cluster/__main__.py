"""`python -m cluster up | down | push`: a real one-node Kubernetes for this checkout."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from cluster.node import Node
from cluster.services import NotReady


def name_of_checkout() -> str:
    """Return the name of this checkout's own cluster: two checkouts never meet."""
    return hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:6]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "build"])
    parser.add_argument("--name", default=name_of_checkout(), help="of the cluster; by default this checkout's")
    options = parser.parse_args()
    node = Node(options.name)
    try:
        if options.action == "build":
            from cluster import programs

            programs.build(programs.CONTROL_PLANE + programs.NODE)
        elif options.action == "down":
            node.down()
            print(f"cluster {options.name} is gone")
        elif node.services.pid("kubelet") is not None:
            print(f"cluster {options.name} is up")
        else:
            started = time.monotonic()
            node.down()
            node.up()
            print(f"cluster {options.name} is up after {time.monotonic() - started:.0f} s")
            print(f"  export KUBECONFIG={node.kubeconfig} PATH={node.bin}:$PATH")
    except (RuntimeError, NotReady) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
