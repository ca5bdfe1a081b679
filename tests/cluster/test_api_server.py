"""What needs an API server and no pods: the CRD's rules, `kubectl explain`, and which namespaces the operator serves.

These run without root as well.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from polypod_crds import crd
from polypod_operator.kube.api import KubernetesApi
from polypod_operator.kube.raw import Raw
from polypod_operator.kube.watch import Sink, Watch
from support.waiting import until

from cluster.api import Api
from cluster.control_plane import ControlPlane
from cluster.lab import task_run

pytestmark = pytest.mark.needs("api-server")


def broken(**changes: Any) -> dict[str, Any]:
    document = task_run("x", "t")
    document["spec"] = {**document["spec"], **changes}
    document["spec"] = {key: value for key, value in document["spec"].items() if value is not ...}
    return document


NO_QUEUE = broken(queue=...)
NO_DAG = broken(dagId=...)
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no queue", NO_QUEUE, "spec.queue: Required value"),
    ("no dagId", NO_DAG, "spec.dagId: Required value"),
    ("empty taskId", broken(taskId=""), "spec.taskId in body should be at least 1 chars long"),
    ("a runId that is too long", broken(runId="r" * 300), "may not be more than 250 bytes"),
    ("a number for the queue", broken(queue=5), 'spec.queue in body must be of type string: "integer"'),
    ("a misspelt field", broken(argumets=[]), 'unknown field "spec.argumets"'),
    ("a misspelt timeout", broken(timeouts={"execute": "1h"}), 'unknown field "spec.timeouts.execute"'),
    ("a map index below -1", broken(mapIndex=-2), "should be greater than or equal to -1"),
    ("an argument with two sources", broken(arguments=[{"name": "a", "value": 1, "fromXCom": {"taskId": "t"}}]),
     "must validate one and only one schema (oneOf)"),
    ("an argument without a source", broken(arguments=[{"name": "a"}]), "spec.arguments[0].value: Required value"),
    ("an argument twice", broken(arguments=[{"name": "a", "value": 1}, {"name": "a", "value": 2}]), "Duplicate value"),
    ("a duration without a unit", broken(timeouts={"pending": "10"}), "write a duration like 30s, 10m or 1h30m"),
    ("a duration in days", broken(retries={"delay": "1d"}), "write a duration like 30s, 10m or 1h30m"),
    ("retries below zero", broken(retries={"limit": -1}), "should be greater than or equal to 0"),
    ("an unknown backoff", broken(retries={"backoff": "linear"}), 'supported values: "fixed", "exponential"'),
    ("a variable of two sources",
     broken(variablesFrom=[{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]),
     "exactly one of configMapRef and secretRef"),
    ("a variable of no source", broken(variablesFrom=[{}]), "exactly one of configMapRef and secretRef"),
    ("a Secret that cannot be", broken(connectionsFrom=[{"secretRef": {"name": "Not A Name"}}]), "lower-case letters"),
    ("a connection without a Secret", broken(connectionsFrom=[{}]), "secretRef: Required value"),
    ("an interval that ends before it begins",
     broken(dataInterval={"start": "2026-11-21T00:00:00Z", "end": "2026-11-20T00:00:00Z"}), "must not be before"),
    ("a date without a time zone", broken(logicalDate="2026-11-21T00:00:00"), "spec.logicalDate: Invalid value: \"2026-11-21T00:00:00\": write a time with its time zone"),
    ("a URL that is none", broken(executionApi={"url": "airflow:8080"}), "the URL must be http://HOST[:PORT]/PATH"),
    ("two tokens",
     broken(workloadSecretRef={"name": "w", "key": "k"},
            executionApi={"url": "http://a/", "tokenSecretRef": {"name": "t", "key": "k"}}), "not both"),
    ("artifacts from nowhere", broken(artifacts={}), "exactly one of image and persistentVolumeClaim"),
    ("artifacts from two places", broken(artifacts={"image": "a", "persistentVolumeClaim": "b"}),
     "exactly one of image and persistentVolumeClaim"),
    ("a relative mount path", broken(artifacts={"image": "a", "mountPath": "jars"}), "the path must be absolute"),
    ("a negative TTL", broken(ttlSecondsAfterFinished=-1), "should be greater than or equal to 0"),
    ("a cancel that is no boolean", broken(cancel="yes"), 'must be of type boolean: "string"'),
]  # fmt: skip


@pytest.mark.parametrize(("document", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_manifest_is_refused_with_what_would_be_right(api: Api, document: Any, message: str) -> None:
    done = api.create(document)
    assert done.returncode != 0, "it was taken"
    assert message in done.stderr, done.stderr


FROZEN = [
    ({"queue": "other"}, "queue is immutable"),
    ({"taskId": "other"}, "taskId is immutable"),
    ({"retries": {"limit": 5}}, "retries is immutable"),
    ({"workloadSecretRef": {"name": "x", "key": "y"}}, "workloadSecretRef is immutable"),
]


def test_what_has_begun_is_not_changed_but_for_cancel_suspend_and_ttl(api: Api) -> None:
    assert api.create(task_run("frozen", "t")).returncode == 0
    for change, message in FROZEN:
        done = api.kubectl("patch", "taskrun", "frozen", "--type=merge", "-p", json.dumps({"spec": change}))
        assert message in done.stderr, done.stderr
    for change in ({"suspend": True}, {"suspend": False}, {"ttlSecondsAfterFinished": 5}, {"cancel": True}):
        done = api.kubectl("patch", "taskrun", "frozen", "--type=merge", "-p", json.dumps({"spec": change}))
        assert done.returncode == 0, done.stderr


def test_what_is_left_out_gets_its_default_and_anything_may_be_an_argument(api: Api) -> None:
    values = [None, 1, "x", [1, {"a": None}], {"b": [True]}, 1.5]
    arguments = [{"name": f"a{index}", "value": value} for index, value in enumerate(values)]
    document = task_run(
        "free", "t", arguments=arguments, params={"a": {"b": [1, None]}}, podTemplate={"spec": {"x": 1}}
    )
    assert api.create(document).returncode == 0
    spec = json.loads(api.kubectl("get", "ptr", "free", "-o", "json").stdout)["spec"]
    assert spec["arguments"] == arguments
    assert spec["params"] == {"a": {"b": [1, None]}}
    assert (spec["mapIndex"], spec["cancel"], spec["suspend"]) == (-1, False, False)


def test_explain_knows_every_field(api: Api) -> None:
    done = api.kubectl("explain", "taskrun.spec", "--recursive")
    for word in ("podTemplate", "ttlSecondsAfterFinished", "tokenSecretRef", "persistentVolumeClaim"):
        assert word in done.stdout
    assert "Maximum delay before a try" in api.kubectl("explain", "ptr.spec.retries.maxDelay").stdout


def test_the_examples_are_taken(api: Api) -> None:
    done = api.kubectl("apply", "-f", str(Path(crd.PAGE).parents[1] / "examples/sales/taskruns.yaml"))
    assert done.returncode == 0, done.stderr


@pytest.fixture
def serve(api: Api, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start an operator on the API server, with these options."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> None:
        command = [sys.executable, "-m", "polypod_operator.main", "--bridge-image=bridge:1"]
        command += ["--execution-api-url=http://api/execution/", "--routing-namespace=system", *options]
        log = (tmp_path / f"operator-{len(started)}.log").open("wb")
        environ = {"KUBECONFIG": str(api.plane.kubeconfig), "PATH": "/usr/bin:/bin"}
        started.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True))

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


ROUTING = {
    "coordinators": yaml.safe_dump(
        {
            "native": {
                "classpath": "ExecutableCoordinator",
                "kwargs": {"executables_root": ["/opt"]},
                "image": "lang:1",
            }
        }
    ),
    "queue_to_coordinator": "golang: native\n",
}


def test_only_the_given_namespaces_are_served(api: Api, serve: Callable[..., None]) -> None:
    for name in ("system", "a", "b", "c"):
        api.kubectl("create", "namespace", name)
        api.kubectl("-n", name, "create", "serviceaccount", "default")
    metadata = {"name": "polypod-routing", "namespace": "system"}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": ROUTING}, "system")
    serve("--namespace=a", "--namespace=b")
    for name in ("c", "system", "a", "b"):
        assert api.create(task_run("run", "t"), name).returncode == 0
    api.wait(lambda: {item["metadata"]["namespace"] for item in api.items("pods", "-A")} == {"a", "b"})
    # made as the API server's defaults leave it, and owned by its TaskRun
    [pod] = api.items("pods", "-n", "a")
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "TaskRun"
    api.wait(lambda: "status" in api.items("taskruns", "-n", "b")[0])
    for name in ("c", "system"):
        assert "status" not in api.items("taskruns", "-n", name)[0]
        assert api.items("pods", "-n", name) == []


def test_two_operators_share_the_work_by_namespaces(api: Api, serve: Callable[..., None]) -> None:
    names = {"shard-a": ("team-1", "team-2"), "shard-b": ("team-3",)}
    for name in ("shard-a", "shard-b", "team-1", "team-2", "team-3"):
        api.kubectl("create", "namespace", name)
        api.kubectl("-n", name, "create", "serviceaccount", "default")
    for shard, teams in names.items():
        # each has a routing of its own, and so may have another image for the same queue
        metadata = {"name": "polypod-routing", "namespace": shard}
        data = {**ROUTING, "coordinators": ROUTING["coordinators"].replace("lang:1", f"{shard}:1")}
        api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, shard)
        serve(f"--routing-namespace={shard}", *(f"--namespace={team}" for team in teams))
    for teams in names.values():
        for team in teams:
            for number in range(5):
                assert api.create(task_run(f"run-{number}", "t"), team).returncode == 0

    def mine() -> list[Any]:
        return [pod for pod in api.items("pods", "-A") if pod["metadata"]["namespace"].startswith("team-")]

    api.wait(lambda: len(mine()) == 15)
    for pod in mine():
        [image] = [item["image"] for item in pod["spec"]["containers"] if item["name"] == "task"]
        shard = next(shard for shard, teams in names.items() if pod["metadata"]["namespace"] in teams)
        assert image == f"{shard}:1"
    # and none was created by both
    assert len({pod["metadata"]["ownerReferences"][0]["uid"] for pod in mine()}) == 15


def test_an_object_that_cannot_be_read_keeps_nobody_else_from_being_served(
    api: Api, serve: Callable[..., None]
) -> None:
    api.kubectl("create", "namespace", "odd")
    api.kubectl("-n", "odd", "create", "serviceaccount", "default")
    metadata = {"name": "polypod-routing", "namespace": "odd"}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": ROUTING}, "odd")

    def odd(name: str) -> dict[str, Any]:
        labels = {"polypod.dev/taskrun-uid": "nobody", "polypod.dev/attempt": "many"}
        spec = {"containers": [{"name": "task", "image": "x"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}

    # one that is there when the operator starts, and one that comes while it watches
    assert api.create(odd("listed"), "odd").returncode == 0
    serve("--namespace=odd", "--routing-namespace=odd")
    assert api.create(task_run("first", "t"), "odd").returncode == 0
    ours = ["pods", "-n", "odd", "-l", "polypod.dev/taskrun"]
    api.wait(lambda: len(api.items(*ours)) == 1)
    assert api.create(odd("watched"), "odd").returncode == 0
    # that a pod has ended is known by the watch of pods alone
    [pod] = api.items(*ours)
    ended = {"status": {"phase": "Failed", "reason": "Evicted", "message": "by the test"}}
    api.kubectl("-n", "odd", "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge",
                "-p", json.dumps(ended))  # fmt: skip
    api.wait(lambda: api.items("taskruns", "-n", "odd")[0].get("status", {}).get("infrastructureFailures") == 1)


def test_a_hundred_namespaces_are_served_by_one_operator(api: Api, serve: Callable[..., None]) -> None:
    names = [f"many-{number:03d}" for number in range(100)]
    items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
    items += [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
        for name in names[-3:]
    ]
    assert api.kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": items}).returncode == 0
    metadata = {"name": "polypod-routing", "namespace": "many-000"}
    api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": ROUTING}, "many-000")
    serve(*(f"--namespace={name}" for name in names), "--routing-namespace=many-000")
    for name in names[-3:]:
        assert api.create(task_run("run", "t"), name).returncode == 0
        api.wait(lambda name=name: api.items("pods", "-n", name))  # type: ignore[misc]


def test_an_api_server_that_is_busy_is_asked_again_when_it_says_so(api: Api) -> None:
    """With API priority and fairness, which turns this user's POSTs of pods down for a while."""
    name = "busy"
    for document in (
        {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}},
        {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default", "namespace": name}},
        {
            "kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": name}],
        },
        {
            "kind": "PriorityLevelConfiguration", "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "metadata": {"name": name},
            "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"},
                                                    "borrowingLimitPercent": 0}},
        },
        {
            "kind": "FlowSchema", "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": {"name": name},
            "spec": {
                "priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 2,
                "rules": [{
                    "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "default", "namespace": name}}],
                    "resourceRules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["pods"],
                                       "namespaces": [name]}],
                }],
            },
        },
    ):  # fmt: skip
        assert api.kubectl("create", "-f", "-", stdin=document).returncode == 0
    token = api.kubectl("-n", name, "create", "token", "default").stdout.strip()
    codes: list[int] = []

    async def create() -> None:
        admin = api.connection()
        user = kopf.ConnectionInfo(server=admin.server, ca_path=admin.ca_path, token=token)
        kubernetes = KubernetesApi(user, lambda method, path, code: codes.append(code))
        await kubernetes.open()

        async def pod(number: int) -> None:
            spec = {"containers": [{"name": "task", "image": "x"}]}
            await kubernetes.create_pod({"metadata": {"name": f"pod-{number}", "namespace": name}, "spec": spec})

        try:
            number = 0
            # the API server takes a moment to use its new rules: then one at a time is served, and others turned down
            while 429 not in codes:
                await asyncio.gather(*(pod(number + other) for other in range(20)))
                number += 20
        finally:
            await kubernetes.close()
        assert len(await asyncio.to_thread(api.items, "pods", "-n", name)) == number

    asyncio.run(asyncio.wait_for(create(), 120))
    assert codes.count(429) > 0


class Seen:
    """What a watch has shown."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.lists: list[set[str]] = []
        self.restarts: list[str] = []

    def saw(self, raw: Raw, deleted: bool) -> None:
        self.names[raw["metadata"]["name"]] = "" if deleted else raw["metadata"]["uid"]

    async def listed(self, uids: set[str], namespace: str) -> None:
        self.lists.append(uids)


def test_a_watch_goes_on_after_any_break_and_what_was_deleted_meanwhile_is_told(api: Api) -> None:
    api.kubectl("create", "namespace", "watched")
    assert api.create(task_run("before", "t"), "watched").returncode == 0
    seen = Seen()

    async def follow() -> None:
        kubernetes = KubernetesApi(api.connection())
        await kubernetes.open()
        sink = Sink(lambda meta: False, seen.saw, seen.listed)
        watch = Watch(kubernetes, "/apis/polypod.dev/v1alpha1", "taskruns", sink, "watched",
                      restarted=lambda plural, why: seen.restarts.append(why))  # fmt: skip
        await watch.list()
        uid = seen.names["before"]
        # while nobody watched: one has gone, one has come, and what we have seen is too old to go on from
        await asyncio.to_thread(api.kubectl, "-n", "watched", "delete", "taskrun", "before")
        await asyncio.to_thread(api.create, task_run("meanwhile", "t"), "watched")
        watch._version = "1"
        task = asyncio.create_task(watch.run())
        await until(lambda: len(seen.lists) == 2)
        assert "meanwhile" in seen.names
        assert seen.restarts == ["expired"]
        assert uid in seen.lists[0]
        assert uid not in seen.lists[1]
        # the API server goes and comes back: no new list, and nothing is missed
        await asyncio.to_thread(api.plane.services.stop, "kube-apiserver", signal.SIGKILL)
        await until(lambda: "failed" in seen.restarts)
        await asyncio.to_thread(api.plane.start_api_server)
        await asyncio.to_thread(api.create, task_run("after", "t"), "watched")
        await until(lambda: "after" in seen.names)
        await asyncio.to_thread(api.kubectl, "-n", "watched", "delete", "taskrun", "after")
        await until(lambda: seen.names["after"] == "")
        assert not task.done()
        task.cancel()
        await kubernetes.close()

    asyncio.run(follow())


def test_an_operator_without_the_crd_waits_for_it_and_says_so(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    plane = ControlPlane(tmp_path_factory.mktemp("bare"))
    log = tmp_path / "operator.log"
    try:
        plane.start()
        made = Api(plane)
        command = [sys.executable, "-m", "polypod_operator.main", "--bridge-image=b", "--execution-api-url=http://a/"]
        environ = {"KUBECONFIG": str(plane.kubeconfig), "PATH": "/usr/bin:/bin"}
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)
        try:
            made.wait(lambda: "apply crds/taskruns.yaml first" in log.read_text())
            assert made.kubectl("apply", "--server-side", "-f", str(crd.PAGE)).returncode == 0
            made.wait(lambda: made.kubectl("get", "taskruns").returncode == 0)
            assert made.create(task_run("x", "t")).returncode == 0
            made.wait(lambda: made.items("taskruns")[0].get("status", {}).get("reason") == "WaitingForRouting")
        finally:
            process.terminate()
            process.wait(60)
    finally:
        plane.stop()


def test_a_cluster_that_is_too_old_is_refused(tmp_path: Path) -> None:
    """There is no such API server to be had here, so its one answer that counts is given by a server of ours."""

    class Old(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"major": "1", "minor": "28+"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Old)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    document = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "x",
    }
    config.write_text(json.dumps(document))
    command = [sys.executable, "-m", "polypod_operator.main", "--bridge-image=b", "--execution-api-url=http://a/"]
    environ = {"KUBECONFIG": str(config), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 2, done.stderr
    assert "Kubernetes 1.28; native sidecars need 1.29 or later" in done.stderr


def test_an_operator_without_a_cluster_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polypod_operator.main", "--bridge-image=b", "--execution-api-url=http://a/"]
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "neither a service account nor a kubeconfig" in done.stderr


def test_what_is_deleted_is_the_very_object_that_was_meant(api: Api) -> None:
    """Of a namesake that was made meanwhile, only the uid tells."""
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "namesake"}}
    assert api.create(made).returncode == 0
    uid = api.client.get("configmap", "namesake")["metadata"]["uid"]

    async def delete() -> None:
        kubernetes = KubernetesApi(api.connection())
        await kubernetes.open()
        path = "/api/v1/namespaces/default/configmaps/namesake"
        try:
            await kubernetes.delete(path, "00000000-0000-0000-0000-000000000000")
            assert api.client.has("configmap", "namesake")
            await kubernetes.delete(path, uid)
            assert not api.client.has("configmap", "namesake")
            # one that is gone is no error
            await kubernetes.delete(path, uid)
        finally:
            await kubernetes.close()

    asyncio.run(delete())
