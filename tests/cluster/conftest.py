"""One cluster for all tests that need one; a namespace for each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from polypod_crds import crd
from support import marks

from cluster.api import Api
from cluster.control_plane import ControlPlane
from cluster.lab import Lab, Namespace, claim
from cluster.node import Node
from cluster.record import Record


def may_run() -> bool:
    """Tell whether pods can run here; with CI=true they must."""
    return os.geteuid() == 0 or bool(os.environ.get("POLYPOD_TEST_KUBECONFIG")) or os.environ.get("CI") == "true"


def need_own_node() -> None:
    """Skip where no node of our own can be had; under CI it must be."""
    if os.environ.get("CI") == "true":
        assert not os.environ.get("POLYPOD_TEST_KUBECONFIG"), (
            "with CI=true the tests make their own node: unset POLYPOD_TEST_KUBECONFIG"
        )
    elif os.environ.get("POLYPOD_TEST_KUBECONFIG") or os.geteuid() != 0:
        pytest.skip("needs root and a node of our own")


DATABASE = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Show everything with both databases: the largest group has PostgreSQL, the other SQLite."""
    own_node = not os.environ.get("POLYPOD_TEST_KUBECONFIG")
    usual = "postgresql" if marks.shares_of(item) == "tenants" and own_node else "sqlite"
    item.config.stash[DATABASE] = os.environ.get("POLYPOD_TEST_DATABASE", usual)


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A real cluster with Polypod on it."""
    if not may_run():
        pytest.skip("needs root, or a cluster in POLYPOD_TEST_KUBECONFIG: a node runs containers")
    made = Lab(tmp_path_factory.mktemp("lab"), pytestconfig.stash[DATABASE])
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
def node(lab: Lab) -> Node:
    """The node itself, for what reaches behind the API: processes, its disk, its network namespace."""
    need_own_node()
    assert lab.node is not None
    return lab.node


@pytest.fixture
def namespace(lab: Lab) -> Iterator[Namespace]:
    made = Namespace(lab)
    yield made
    made.delete()


@pytest.fixture
def record(lab: Lab, node: Node, namespace: Namespace) -> Iterator[Record]:
    """An outside record that the tasks of a test write into."""
    file, volume = lab.record(namespace.name)
    lab.apply(volume)
    namespace.apply(claim("record", f"record-{namespace.name}", "ReadWriteMany"))
    yield Record(file, namespace)
    lab.delete("persistentvolume", f"record-{namespace.name}")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    plane = ControlPlane(tmp_path_factory.mktemp("api-server"))
    try:
        plane.start()
        made = Api(plane)
        assert made.kubectl("apply", "--server-side", "-f", str(crd.PAGE)).returncode == 0
        made.wait(lambda: made.kubectl("get", "taskruns").returncode == 0)
        yield made
    finally:
        plane.stop()
