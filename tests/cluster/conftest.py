"""One cluster for all tests that need one; a namespace for each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cluster.lab import Lab, Namespace
from cluster.node import Node


def may_run() -> bool:
    """Tell whether pods can run here; with CI=true they must."""
    return os.geteuid() == 0 or bool(os.environ.get("POLYPOD_TEST_KUBECONFIG")) or os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A real cluster with Polypod on it."""
    if not may_run():
        pytest.skip("needs root, or a cluster in POLYPOD_TEST_KUBECONFIG: a node runs containers")
    made = Lab(tmp_path_factory.mktemp("lab"))
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def node(lab: Lab) -> Node:
    """The node itself, for what reaches behind the API: processes, its disk, its network namespace."""
    if lab.node is None:
        assert os.environ.get("CI") != "true", (
            "with CI=true the tests make their own node: unset POLYPOD_TEST_KUBECONFIG"
        )
        pytest.skip("needs a node of our own; POLYPOD_TEST_KUBECONFIG names another cluster")
    return lab.node


@pytest.fixture
def namespace(lab: Lab) -> Iterator[Namespace]:
    made = Namespace(lab)
    yield made
    made.delete()
