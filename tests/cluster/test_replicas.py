"""Two operators: one leads, and when it is killed the other takes over. Nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cluster.lab import Lab, Namespace
from cluster.node import Node
from cluster.record import Record

pytestmark = [pytest.mark.shares("disturbed"), pytest.mark.needs("node", "postgresql")]

LEASE = ("-n", "polypod-system", "lease", "polypod-operator")


@pytest.fixture
def two(lab: Lab) -> Iterator[None]:
    """Two replicas; afterwards one, as it was."""
    lab.helm.install({**lab.values, "operator": {**lab.values["operator"], "replicas": 2}})
    yield
    lab.helm.install(lab.values)


def leader(lab: Lab) -> str:
    return str(lab.get(*LEASE)["spec"].get("holderIdentity", ""))


def test_the_leader_is_killed_and_the_other_takes_over(
    lab: Lab, node: Node, namespace: Namespace, record: Record, two: None
) -> None:
    names = [f"run-{number}" for number in range(8)]
    namespace.apply(*(record.task_run(name, 12.0) for name in names[:6]))
    namespace.wait(lambda: len(record.begun()) == 6)
    first = leader(lab)
    assert lab.pod_ready(first)
    [pid] = node.pids_of(first, "polypod-system", "operator")
    # what is applied while nobody leads is not lost either
    node.kill(pid)
    lab.kubectl("-n", "polypod-system", "delete", "pod", first, "--force", "--grace-period=0")
    killed = time.monotonic()
    namespace.apply(*(record.task_run(name, 1.0) for name in names[6:]))
    namespace.wait(lambda: leader(lab) not in ("", first))
    assert time.monotonic() - killed < 15
    found = namespace.finish_all(names)
    assert {(status["state"], status["tries"]) for status in found.values()} == {("success", 1)}
    assert sorted(name for _, what, name, _ in record.lines() if what == "begin") == names, "an attempt ran twice"


def test_an_upgrade_hands_over_at_once(lab: Lab, namespace: Namespace, two: None) -> None:
    first = leader(lab)
    began = time.monotonic()
    lab.kubectl("-n", "polypod-system", "delete", "pod", first, "--wait=false")
    namespace.wait(lambda: leader(lab) not in ("", first))
    assert time.monotonic() - began < 10, "it was waited for until the lease was over"
    assert namespace.finish(namespace.run("after", "success"))["tries"] == 1
