"""PostgreSQL as the store of the Execution API, with two replicas; it restarts while tasks run.

The other tests of a cluster run on it too, in one of the processes of `make test`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cluster import polypod
from cluster.lab import Lab, Namespace, task_run
from cluster.node import Node
from cluster.postgres import Postgres

pytestmark = [pytest.mark.shares("disturbed"), pytest.mark.needs("node", "postgresql")]


@pytest.fixture
def stored(lab: Lab, node: Node) -> Iterator[Postgres]:
    """Polypod with that store and two replicas of the Execution API; afterwards as it was."""
    made = Postgres(node)
    made.make()
    made.start()
    lab.helm.install({**lab.values, "executionApi": lab.on(made)})
    yield made
    lab.helm.install(lab.values)
    made.stop()


def test_a_restart_of_the_database_loses_nothing(lab: Lab, namespace: Namespace, stored: Postgres) -> None:
    names = [namespace.run(queue, "success", queue) for queue in ("golang", "jvm", "typescript")]
    assert {status["state"] for status in namespace.finish_all(names).values()} == {"success"}

    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    variables = [{"configMapRef": {"name": "variables"}}]
    # some end while there is no database, and have their XCom to write then
    runs = {f"run-{number}": 4 + 2 * number for number in range(8)}
    namespace.apply(
        *(task_run(name, "slow", params={"seconds": wait}, variablesFrom=variables) for name, wait in runs.items())
    )
    namespace.wait(
        lambda: sum(raw.get("status", {}).get("phase") == "Running" for raw in namespace.taskruns().values()) == 8
    )
    stored.stop()
    # what starts meanwhile waits for it
    namespace.run("meanwhile", "success")
    time.sleep(8)
    assert all(raw["status"].get("phase") != "Failed" for raw in namespace.taskruns().values() if "status" in raw)
    stored.start()
    found = namespace.finish_all([*runs, "meanwhile"])
    assert {(status["state"], status["tries"]) for status in found.values()} == {("success", 1)}
    for name in [*names, *runs]:
        run = namespace.taskrun(name)["spec"]
        said = lab.kubectl("-n", polypod.NAMESPACE, "exec", "deployment/polypod-api", "--", "python3", "-m",
                           "polypod_execution_api.main", "xcoms", f"--namespace={namespace.name}",
                           "--dag-id=conformance", f"--run-id={run['runId']}").stdout  # fmt: skip
        assert "return_value" in said, name
    everything = lab.kubectl("-n", polypod.NAMESPACE, "logs", "-l", "app.kubernetes.io/name=polypod-api", "--tail=-1")
    assert stored.password not in everything.stdout
