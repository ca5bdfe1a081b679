"""Logs that outlive their pod: in a real S3-compatible store and on a volume, also those of pods that were killed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import polypod
from cluster.cli import Cli
from cluster.conftest import need_own_node
from cluster.lab import Lab, Namespace, Raw, claim, task_run
from cluster.node import Node

pytestmark = [pytest.mark.shares("installed"), pytest.mark.needs("node")]

STORE = "storage"
KEYS = {"aws_access_key_id": "polypod-test", "aws_secret_access_key": "not-a-secret-elsewhere", "aws_region": "us-east-1",
        "aws_endpoint": f"http://s3.{STORE}.svc:7070"}  # fmt: skip


def secret(keys: dict[str, str]) -> Raw:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "log-storage"}, "stringData": keys}


@dataclass
class Storage:
    """An S3 server on the cluster, over a folder of the node's disk that outlives its pod."""

    lab: Lab
    image: str
    folder: Path

    def start(self) -> None:
        arguments = ["--quiet", "--port", ":7070", "--access", KEYS["aws_access_key_id"], "--secret",
                     KEYS["aws_secret_access_key"], "posix", "--nometa", "/data"]  # fmt: skip
        container = {
            "name": "s3", "image": self.image, "command": ["versitygw", *arguments],
            "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
        }  # fmt: skip
        volumes = [{"name": "data", "hostPath": {"path": str(self.folder)}}, {"name": "tmp", "emptyDir": {}}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s3", "labels": {"app": "s3"}},
               "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}}  # fmt: skip
        self.lab.kubectl("-n", STORE, "create", "-f", "-", stdin=json.dumps(pod))
        self.lab.kubectl("-n", STORE, "wait", "pod/s3", "--for=condition=Ready", "--timeout=120s")

    def stop(self) -> None:
        self.lab.kubectl("-n", STORE, "delete", "pod", "s3", "--wait")

    def objects(self, namespace: str) -> list[str]:
        """Return the paths of the objects below a namespace's part."""
        base = self.folder / "logs" / namespace
        return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def storing(lab: Lab) -> Iterator[Lab]:
    need_own_node()
    yield lab
    lab.helm.install(lab.values)


@pytest.fixture(scope="module")
def storage(storing: Lab) -> Storage:
    assert storing.node is not None
    folder = storing.node.folder / "s3"
    # a bucket is a folder
    for path in (folder, folder / "logs"):
        path.mkdir()
        path.chmod(0o777)
    storing.kubectl("create", "namespace", STORE)
    ports = [{"port": 7070}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s3"},
               "spec": {"selector": {"app": "s3"}, "ports": ports}}  # fmt: skip
    storing.kubectl("-n", STORE, "create", "-f", "-", stdin=json.dumps(service))
    made = Storage(storing, storing.push({"versitygw": polypod.s3_image()})["versitygw"], folder)
    made.start()
    return made


@pytest.fixture(scope="module", params=["s3", "volume"])
def kind(request: pytest.FixtureRequest, storing: Lab) -> str:
    """Where logs are kept: in the store or on a volume."""
    if request.param == "s3":
        request.getfixturevalue("storage")
        logs = {"url": "s3://logs/{namespace}", "existingSecret": "log-storage"}
    else:
        logs = {"persistentVolumeClaim": "task-logs"}
    storing.helm.install({**storing.values, "logs": logs})
    return str(request.param)


@pytest.fixture
def namespace(storing: Lab, kind: str) -> Iterator[Namespace]:
    made = Namespace(storing)
    if kind == "s3":
        made.apply(secret(KEYS))
    else:
        volume = storing.disk(f"logs-{made.name}")
        volume["spec"]["accessModes"] = ["ReadWriteMany"]
        storing.kubectl("apply", "-f", "-", stdin=json.dumps(volume))
        made.apply(claim("task-logs", volume["metadata"]["name"], "ReadWriteMany"))
    yield made
    made.delete()


@pytest.fixture
def node(storing: Lab) -> Node:
    assert storing.node is not None
    return storing.node


def remove_pods(namespace: Namespace) -> None:
    namespace.kubectl("delete", "pods", "--all", "--wait")
    assert namespace.pods() == []


def log(cli: Cli, name: str, *options: str) -> list[str]:
    return cli("logs", name, "--log-format=json", *options).splitlines()


def ended(namespace: Namespace, pod: str) -> bool:
    found = [item for item in namespace.pods() if item["metadata"]["name"] == pod]
    return not found or found[0]["status"]["phase"] in ("Succeeded", "Failed")


def test_a_log_is_whole_when_its_pod_is_gone(storing: Lab, namespace: Namespace) -> None:
    cli = Cli(storing, namespace)
    names = [namespace.run(queue, "success", queue) for queue in ("golang", "jvm", "typescript")]
    names.append(namespace.run("spam", "spam", params={"lines": 100_000}))
    found = namespace.finish_all(names)
    assert {status["state"] for status in found.values()} == {"success"}
    # the kubelet has the rest of a long one in files that were rotated away: what is kept is more than what it had
    live = {name: log(cli, name) for name in names if name != "spam"}
    namespace.wait(lambda: all(item["status"]["phase"] == "Succeeded" for item in namespace.pods()))
    remove_pods(namespace)
    for name, lines in live.items():
        assert len(lines) > 3
        assert log(cli, name) == lines
    records = [json.loads(line) for line in log(cli, "spam")]
    assert [record["number"] for record in records if record["event"] == "spam"] == list(range(100_000))
    assert records[-1]["event"] == "task finished"
    run = namespace.taskrun("golang")
    path = f"dag_id=conformance/run_id={run['spec']['runId']}/task_id=success/attempt=1.log"
    assert run["status"]["attempts"][0]["log"]["url"].endswith(f"/{path}")
    # what has read them is gone
    namespace.wait(lambda: namespace.pods() == [])


@pytest.mark.parametrize(
    ("kind", "how"),
    [("s3", "by force"), ("s3", "bridge"), ("s3", "all containers"), ("volume", "all containers")],
    indirect=["kind"],
)
def test_the_log_of_a_pod_that_was_killed_is_kept(
    storing: Lab, namespace: Namespace, node: Node, kind: str, how: str
) -> None:
    cli = Cli(storing, namespace)
    namespace.run("killed", "wait", params={"who": how})
    pod = namespace.running("killed")
    # what the runtime has sent by now, and a person may have seen
    seen = namespace.logs(pod).splitlines()
    assert any('"waiting"' in line for line in seen)
    if (kind, how) == ("s3", "all containers"):
        # only a kill of all at once takes something along: what came in the last few seconds
        time.sleep(6)
    if how == "by force":
        namespace.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    else:
        containers = ["bridge"] if how == "bridge" else ["bridge", "task"]
        for pid in [pid for container in containers for pid in node.pids_of(pod, namespace.name, container)]:
            node.kill(pid)
    namespace.wait(lambda: ended(namespace, pod))
    namespace.patch("killed", cancel=True)
    namespace.finish("killed")
    remove_pods(namespace)
    assert log(cli, "killed", "--attempt=1")[: len(seen)] == seen


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
def test_followed_over_attempts_whose_pods_are_gone(storing: Lab, namespace: Namespace) -> None:
    cli = Cli(storing, namespace)
    namespace.run("twice", "fail", retries={"limit": 1, "delay": "1s"})
    assert namespace.finish("twice")["tries"] == 2
    namespace.wait(lambda: all(ended(namespace, item["metadata"]["name"]) for item in namespace.pods()))
    alone = [log(cli, "twice", f"--attempt={number}") for number in (1, 2)]
    remove_pods(namespace)
    assert log(cli, "twice", "-f") == [*alone[0], *alone[1]]


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
def test_a_task_applied_anew_adds_to_its_log_and_each_shows_its_own(storing: Lab, namespace: Namespace) -> None:
    cli = Cli(storing, namespace)
    document = task_run("again", "success")
    shown: list[list[str]] = []
    for _ in range(2):
        namespace.apply(document)
        namespace.finish("again")
        namespace.wait(lambda: all(ended(namespace, item["metadata"]["name"]) for item in namespace.pods()))
        remove_pods(namespace)
        shown.append(log(cli, "again"))
        if len(shown) == 1:
            namespace.kubectl("delete", "taskrun", "again", "--wait")
    assert len(shown[0]) > 3
    assert not set(shown[0]) & set(shown[1])


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
def test_a_store_that_is_away_when_a_task_ends_gets_its_log_when_it_is_back(
    storing: Lab, namespace: Namespace, storage: Storage
) -> None:
    cli = Cli(storing, namespace)
    storage.stop()
    try:
        namespace.run("away", "success")
        # the end of a task waits for no store
        assert namespace.finish("away")["state"] == "success"
    finally:
        storage.start()
    namespace.wait(lambda: all(item["status"]["phase"] == "Succeeded" for item in namespace.pods()))
    live = log(cli, "away")
    remove_pods(namespace)
    assert log(cli, "away") == live
    assert storage.objects(namespace.name)


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
def test_what_is_wrong_with_the_storage_is_said(storing: Lab, namespace: Namespace, storage: Storage) -> None:
    cli = Cli(storing, namespace)
    namespace.apply(secret({**KEYS, "aws_secret_access_key": "of-somebody-else"}))
    namespace.run("refused", "slow", params={"seconds": 8}, variablesFrom=variables(namespace))
    pod = namespace.running("refused")
    namespace.wait(lambda: "the log cannot be stored" in namespace.logs(pod))
    assert namespace.finish("refused")["state"] == "success"
    namespace.wait(lambda: "the log could not be stored at s3://logs/" in namespace.logs(pod))
    assert "of-somebody-else" not in namespace.logs(pod)
    remove_pods(namespace)
    said = cli("logs", "refused", code=2)
    assert "the stored log of attempt 1, s3://logs/" in said
    assert "Traceback" not in said
    # and a Secret that is not there is the user's to make: the pod waits for it
    namespace.kubectl("delete", "secret", "log-storage")
    namespace.run("waits", "success")
    status: Any = namespace.wait(lambda: (found := namespace.status("waits")).get("reason") == "MountFailed" and found)
    assert 'secret "log-storage" not found' in status["message"]
    namespace.apply(secret(KEYS))
    assert namespace.finish("waits")["state"] == "success"


def variables(namespace: Namespace) -> list[Raw]:
    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    return [{"configMapRef": {"name": "variables"}}]


@pytest.mark.parametrize("kind", ["s3"], indirect=True)
def test_the_task_sees_nothing_of_its_logs_storage(storing: Lab, namespace: Namespace) -> None:
    namespace.run("run", "success")
    namespace.finish("run")
    [pod] = namespace.pods()
    [task] = pod["spec"]["containers"]
    assert not [mount for mount in task["volumeMounts"] if "log" in mount["name"]]
    assert KEYS["aws_secret_access_key"] not in json.dumps(pod)
