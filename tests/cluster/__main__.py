"""`python -m cluster up | down | build`: a real one-node Kubernetes for this checkout."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

from cluster import polypod, programs
from cluster.lab import conformance_images
from cluster.node import Node, check_machine
from cluster.services import NotReady


def name_of_checkout() -> str:
    """Return the name of this checkout's own cluster: two checkouts never meet."""
    return hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:6]


def build() -> None:
    """Build all that takes time, outside of any test: the node's programs and the images, as far as they can be used."""
    programs.build((*programs.CONTROL_PLANE, programs.POD_SECURITY))
    if os.geteuid() != 0:
        print("not root: a node cannot run here, so its programs and images are not built", file=sys.stderr)
        return
    check_machine()
    programs.build(programs.NODE)
    polypod.own_images()
    polypod.sales_images()
    polypod.s3_image()
    with tempfile.TemporaryDirectory(prefix="polypod-images-") as folder:
        conformance_images(Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    parser.add_argument("action", choices=["up", "down", "build"])
    parser.add_argument("--name", default=name_of_checkout(), help="of the cluster; by default this checkout's")
    options = parser.parse_args()
    node = Node(options.name)
    try:
        if options.action == "build":
            build()
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
