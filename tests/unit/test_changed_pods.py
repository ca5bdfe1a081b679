"""pods/changed.py and control/creation.py: pods that admission changes or refuses, and how often they are asked for."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from polypod_core.kinds import ATTEMPT_LABEL, UID_LABEL
from polypod_core.reasons import Reason
from polypod_crds.taskrun import Attempt, TaskRunStatus
from polypod_operator.control.cache import Cache
from polypod_operator.control.controller import Controller
from polypod_operator.control.statuses import Statuses
from polypod_operator.decide.store import Store
from polypod_operator.kube.api import ApiError, KubernetesApi
from polypod_operator.kube.writes import Flight
from polypod_operator.pods.changed import by_whom, changes
from polypod_operator.pods.pod import Route
from polypod_operator.serve.metrics import Metrics
from support.cluster_model import Api, Cluster
from support.objects import EXECUTABLE, NOW, ROUTING, SETTINGS, task_run
from support.refusals import ADMISSION, FAULTS, NOBODY, status

Raw = dict[str, Any]


def manifest() -> Raw:
    _, entry = ROUTING.for_queue("q", "test")
    return SETTINGS.build(task_run(), 1, 1, Route("native", entry, ROUTING.pod_templates(entry, "q")))


def task(pod: Raw) -> Raw:
    found: Raw = pod["spec"]["containers"][0]
    return found


def bridge(pod: Raw) -> Raw:
    found: Raw = pod["spec"]["initContainers"][0]
    return found


def path(*steps: str | int, to: Any = None) -> Callable[[Raw], None]:
    """Return what sets a field of a pod, or takes it away."""

    def change(pod: Raw) -> None:
        found: Any = pod
        for step in steps[:-1]:
            found = found[step]
        if to is None:
            del found[steps[-1]]
        else:
            found[steps[-1]] = to

    return change


def append(*steps: str | int, item: Any) -> Callable[[Raw], None]:
    def change(pod: Raw) -> None:
        found: Any = pod
        for step in steps:
            found = found[step]
        found.append(item)

    return change


def both(*changes: Callable[[Raw], None]) -> Callable[[Raw], None]:
    def change(pod: Raw) -> None:
        for one in changes:
            one(pod)

    return change


def add_token(pod: Raw, name: str, **token: Any) -> None:
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607, **token}}
    sources = [source, {"configMap": {"name": "kube-root-ca.crt"}}]
    pod["spec"]["volumes"].append({"name": name, "projected": {"sources": sources}})
    task(pod)["volumeMounts"].append({"name": name, "mountPath": f"/var/run/secrets/{name}", "readOnly": True})


def test_the_token_of_a_service_account_that_was_asked_for_is_no_change() -> None:
    """The admission of service accounts adds it, with a mount in each container."""
    asked = manifest()
    made = copy.deepcopy(asked)
    add_token(made, "kube-api-access-abcde")
    assert changes(asked, made) == ["spec.volumes[kube-api-access-abcde].projected.serviceAccountToken is true"]
    assert changes(asked, made, allow=["serviceAccountToken"]) == []
    for pod in (asked, made):
        pod["spec"]["automountServiceAccountToken"] = True
    assert changes(asked, made) == []


def test_a_token_for_a_cloud_is_no_change() -> None:
    made = copy.deepcopy(manifest())
    add_token(made, "aws-iam-token", audience="sts.amazonaws.com")
    assert changes(manifest(), made) == []
    made["spec"]["volumes"][-1]["projected"]["sources"].append({"serviceAccountToken": {"path": "second"}})
    assert changes(manifest(), made) != []


def test_what_the_coordinator_allows_may_be_added() -> None:
    made = copy.deepcopy(manifest())
    made["spec"]["volumes"].append({"name": "agent", "hostPath": {"path": "/run/agent"}})
    task(made)["volumeMounts"].append({"name": "agent", "mountPath": "/run/agent"})
    assert changes(manifest(), made) != []
    assert changes(manifest(), made, allow=["hostPath"]) == []


@pytest.mark.parametrize("name", ["coordinator", "queue", "log", "image"])
def test_a_pod_of_an_earlier_routing_is_the_attempt_that_it_was(name: str) -> None:
    """It is there already: its task may run, and its annotations are of the routing of its time."""
    made = copy.deepcopy(manifest())
    made["metadata"]["annotations"][f"polypod.dev/{name}"] = "of another time"
    task(made)["command"] = ["/of/another/version"]
    assert changes(manifest(), made, whole=False) == []
    made["metadata"]["labels"][ATTEMPT_LABEL] = "7"
    assert changes(manifest(), made, whole=False) != []


TASK, BRIDGE = ("spec", "containers", 0), ("spec", "initContainers", 0)
TOKEN = {"name": "polypod-token", "mountPath": "/stolen", "readOnly": True}
HARMFUL: list[tuple[Callable[[Raw], None], str]] = [
    (path("metadata", "labels", to={"team": "a"}), f"metadata.labels[{UID_LABEL}] was taken away"),
    (path("metadata", "labels"), UID_LABEL),
    (path("metadata", "labels", ATTEMPT_LABEL, to="7"), f"metadata.labels[{ATTEMPT_LABEL}] was changed"),
    (path("metadata", "annotations", to={}), "metadata.annotations[polypod.dev/queue] was taken away"),
    (path("metadata", "ownerReferences"), "metadata.ownerReferences"),
    (path("metadata", "ownerReferences", 0, "controller", to=False), "metadata.ownerReferences"),
    (path(*TASK, "securityContext", "privileged", to=True), "securityContext.privileged is true"),
    (path(*BRIDGE, "securityContext", "privileged", to=True), "initContainers[bridge].securityContext.privileged"),
    (path(*TASK, "securityContext"), "spec.containers[task].securityContext.allowPrivilegeEscalation was taken away"),
    (path(*TASK, "securityContext", "allowPrivilegeEscalation"), "allowPrivilegeEscalation was taken away"),
    (path(*TASK, "securityContext", "readOnlyRootFilesystem", to=False), "readOnlyRootFilesystem"),
    (path(*TASK, "securityContext", "capabilities", to={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), "capabilities"),
    (path(*TASK, "securityContext", "runAsUser", to=0), "runAsUser is 0"),
    (path("spec", "securityContext", to={}), "spec.securityContext.runAsNonRoot was taken away"),
    (path("spec", "securityContext", "seccompProfile"), "seccompProfile was taken away"),
    (path("spec", "hostNetwork", to=True), "spec.hostNetwork is true"),
    (path("spec", "shareProcessNamespace", to=True), "spec.shareProcessNamespace is true"),
    (path("spec", "automountServiceAccountToken", to=True), "spec.automountServiceAccountToken"),
    (path("spec", "automountServiceAccountToken"), "spec.automountServiceAccountToken was taken away"),
    (path("spec", "serviceAccountName", to="admin"), "spec.serviceAccountName is 'admin'"),
    (path("spec", "restartPolicy", to="Always"), "spec.restartPolicy was changed"),
    (path("spec", "initContainers", to=[]), "spec.initContainers[bridge] was taken away"),
    (path(*BRIDGE, "lifecycle"), "spec.initContainers[bridge].lifecycle was taken away"),
    (path(*TASK, "command", to=["/bin/sh"]), "spec.containers[task].command was changed"),
    (path(*TASK, "env", to=[]), "spec.containers[task].env[POLYPOD_SOCKET] was taken away"),
    (path(*BRIDGE, "env", 0, "value", to="{}"), "spec.initContainers[bridge].env[POLYPOD_CONFIG].value was changed"),
    (append(*BRIDGE, "env", item={"name": "POLYPOD_CONFIG", "value": "{}"}), "env[POLYPOD_CONFIG].value was changed"),
    (path(*TASK, "volumeMounts", to=[]), "spec.containers[task].volumeMounts[/polypod] was taken away"),
    (path(*TASK, "volumeMounts", 0, "readOnly"), "spec.containers[task].volumeMounts[/polypod].readOnly"),
    (append(*TASK, "volumeMounts", item=TOKEN), "volume 'polypod-token' is reserved"),
    (append("spec", "containers", item={"name": "spy", "volumeMounts": [TOKEN]}), "volume 'polypod-token' is reserved"),
    (path("spec", "volumes", 0, to={"name": "polypod-run", "hostPath": {"path": "/"}}), "spec.volumes[polypod-run]"),
    (both(append("spec", "volumes", item={"name": "node", "hostPath": {"path": "/"}}),
          append(*TASK, "volumeMounts", item={"name": "node", "mountPath": "/node"})), "spec.volumes[node].hostPath"),
]  # fmt: skip
SIDECAR = {"name": "mesh", "image": "mesh:1", "securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN"]}},
           "volumeMounts": [{"name": "mesh-token", "mountPath": "/t"}, {"name": "node", "mountPath": "/n"}]}  # fmt: skip
HARMLESS: list[Callable[[Raw], None]] = [
    lambda pod: None,
    path("metadata", "labels", "team", to="a"),
    path("metadata", "annotations", "policy.example/seen", to="yes"),
    append("metadata", "ownerReferences", item={"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}),
    both(append("spec", "containers", item=SIDECAR), append("spec", "initContainers", item={**SIDECAR, "name": "init"}),
         append("spec", "volumes", item={"name": "node", "hostPath": {"path": "/"}}),
         append("spec", "volumes", item={"name": "mesh-token",
                                          "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
    path("spec", "tolerations", to=[{"operator": "Exists"}]),
    path("spec", "nodeSelector", to={"pool": "tasks"}),
    path("spec", "priorityClassName", to="low"),
    path("spec", "imagePullSecrets", to=[{"name": "mirror"}]),
    path("spec", "fieldOfTomorrow", to=True),
    path(*TASK, "image", to="mirror.example/lang@sha256:0"),
    path(*TASK, "resources", to={"limits": {"cpu": "1"}}),
    append(*TASK, "env", item={"name": "JAVA_TOOL_OPTIONS", "value": "-javaagent:/agent.jar"}),
    path(*TASK, "securityContext", "capabilities", to={"drop": ["ALL", "NET_RAW"]}),
    path(*TASK, "securityContext", "runAsUser", to=1000650000),
    path("spec", "securityContext", "fsGroup", to=1000650000),
    path("spec", "volumes", 0, "emptyDir", "sizeLimit", to="16384Ki"),
    path("spec", "hostNetwork", to=False),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), HARMFUL, ids=[said for _, said in HARMFUL])
def test_what_was_taken_away_or_weakened_is_named(change: Callable[[Raw], None], said: str) -> None:
    asked = manifest()
    made = copy.deepcopy(asked)
    change(made)
    assert any(said in found for found in changes(asked, made)), changes(asked, made)


@pytest.mark.parametrize("change", HARMLESS, ids=range(len(HARMLESS)))
def test_what_was_added_is_its_owners_business(change: Callable[[Raw], None]) -> None:
    asked = manifest()
    made = copy.deepcopy(asked)
    change(made)
    assert changes(asked, made) == []


def test_who_has_written_is_named_if_the_api_server_tells() -> None:
    made = manifest()
    managers: list[Raw] = [{"manager": "polypod-operator"}, {"manager": "kubelet", "subresource": "status"}]
    made["metadata"]["managedFields"] = managers
    assert by_whom(made, "polypod-operator") == ""
    managers.append({"manager": "rewriter"})
    assert by_whom(made, "polypod-operator") == "rewriter"


class Counted(Api):
    """An API server that changes or refuses pods, and counts how often it is asked for one."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.posts: list[float] = []
        self.calls, self.room = 0, 1 << 20
        self.events_posted: list[Mapping[str, Any]] = []
        self.change: Callable[[Raw], None] = lambda pod: None
        self.error: ApiError | None = None
        self.trial: ApiError | None = None

    def _check(self, manifest: Mapping[str, Any]) -> None:
        pass

    async def create_pod(self, manifest: Mapping[str, Any], dry_run: bool = False, flight: Flight | None = None) -> Raw:
        if dry_run:
            if self.trial is not None:
                raise self.trial
            return {}
        self.posts.append((self.cluster.now - NOW).total_seconds())
        if self.error is not None:
            raise self.error
        await super().create_pod(manifest)
        pod = self.cluster.pods[manifest["metadata"]["name"]]
        self.change(pod["raw"])
        return copy.deepcopy(cast(Raw, pod["raw"]))

    async def delete_pod(self, namespace: str, name: str, uid: str, force: bool = False) -> None:
        self.calls += 1
        pod = self.cluster.pods[name]
        if not pod["gone"]:
            self.cluster.remove_pod(pod)

    async def post_event(self, event: Mapping[str, Any]) -> None:
        self.events_posted.append(event)

    async def get_pod(self, namespace: str, name: str) -> Raw:
        self.calls += 1
        return await super().get_pod(namespace, name)

    async def patch_status(self, path: str, version: str, status: Mapping[str, Any]) -> Raw:
        self.calls += 1
        if len(json.dumps(status)) > self.room:
            raise ApiError(500, "", "etcdserver: request is too large")
        return await super().patch_status(path, version, status)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when we say so."""

    passed = 0.0

    def time(self) -> float:
        return self.passed


def played(
    seconds: int,
    *,
    change: Callable[[Raw], None] | None = None,
    error: ApiError | None = None,
    trial: ApiError | None = None,
    room: int = 1 << 20,
    **spec: Any,
) -> tuple[Raw, Counted]:
    """Have one TaskRun be worked on for a time; return its status and what the API server was asked."""
    loop, cluster = Clock(), Cluster(NOW)
    api = Counted(cluster)
    api.change, api.error, api.room, api.trial = change or api.change, error, room, trial
    cluster.add_run("run", spec)
    data = {
        "coordinators": {"native": {"classpath": EXECUTABLE, "kwargs": {"executables_root": ["/opt"]}, "image": "x:1"}},
        "queue_to_coordinator": {"q": "native"},
    }
    routing = {"kind": "ConfigMap", "metadata": {"name": "r", "namespace": "s", "uid": "r"}, "data": data}

    def clock() -> Any:
        return cluster.now

    async def turns() -> None:
        await asyncio.sleep(0)
        while controller.queue.ready:
            await controller.turn(await controller.queue.get())

    controller = Controller(cast(KubernetesApi, api), SETTINGS, [], Metrics(), clock, loop.time, api)
    try:
        loop.run_until_complete(controller.routing.saw(routing, "s/r"))
        for watch in controller.watches:
            loop.run_until_complete(watch.list())
        for _ in range(2 * seconds):
            loop.run_until_complete(turns())
            for kind, event, raw in cluster.news:
                if kind == "taskruns":
                    controller.cache.saw_run(raw, event == "DELETED")
                elif UID_LABEL in raw["metadata"].get("labels", {}):
                    # what else the watch selects by
                    controller.cache.saw_pod(raw, event == "DELETED")
            cluster.news.clear()
            loop.passed += 0.5
            cluster.now += timedelta(seconds=0.5)
    finally:
        loop.close()
    return cluster.runs["run"].get("status") or {}, api


def check_pauses(api: Counted) -> None:
    pauses = [after - before for before, after in pairwise(api.posts)]
    # the first pause is as long as the others are at least, and a slow poll is not too slow for a quota
    assert all(later >= 0.9 * earlier for earlier, later in pairwise(pauses)), pauses
    assert min(pauses) >= 4
    assert 20 <= max(pauses) <= 60
    assert len(api.posts) < 25
    assert api.calls < 60, "nothing else is repeated without a pause"


@pytest.mark.parametrize(("change", "said"), HARMFUL, ids=[said for _, said in HARMFUL])
def test_a_changed_pod_does_not_run_and_is_asked_for_with_growing_pauses(
    change: Callable[[Raw], None], said: str
) -> None:
    found, api = played(290, change=change)
    assert (found["phase"], found["reason"]) == ("Pending", Reason.POD_CHANGED)
    assert said in found["message"]
    assert not [name for name, pod in api.cluster.pods.items() if not pod["gone"]]
    check_pauses(api)


ODD = [
    status(409, 'admission webhook "w" denied the request: no', "AlreadyExists"),
    status(409, 'pods "x" already exists', "AlreadyExists"),
]


@pytest.mark.parametrize("error", [*ADMISSION, *ODD], ids=str)
def test_a_refused_pod_is_asked_for_with_growing_pauses(error: ApiError) -> None:
    found, api = played(290, error=error)
    assert found["phase"] == "Pending"
    if error is not ODD[1]:
        assert found["reason"] == Reason.POD_REFUSED
        assert error.message in found["message"]
    check_pauses(api)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_that_a_pod_is_not_valid_is_final_only_under_a_routing_that_was_tried(fault: ApiError) -> None:
    """Else it may be the routing's fault: once that is known, the last valid routing is used again."""
    status, _ = played(60, error=fault)
    assert (status["phase"], status["reason"]) == ("Failed", "InvalidPod")
    status, api = played(60, error=fault, trial=NOBODY[0])
    assert (status["phase"], status["reason"]) == ("Pending", "PodRefused")
    assert "retried, as the routing could not be tried yet" in status["message"]
    assert 2 <= len(api.posts) < 8


@pytest.mark.parametrize("error", FAULTS, ids=str)
def test_a_pod_that_is_valid_nowhere_is_asked_for_once(error: ApiError) -> None:
    found, api = played(60, error=error)
    assert (found["phase"], found["reason"]) == ("Failed", Reason.INVALID_POD)
    assert len(api.posts) == 1


def test_a_harmless_change_costs_nothing() -> None:
    for change in HARMLESS:
        found, api = played(20, change=change)
        assert found["reason"] == Reason.POD_STARTING
        assert len(api.posts) == 1


LARGE = {"big": "x" * 1_400_000}


@pytest.mark.parametrize("room", [1 << 20, 900, 700])
def test_a_spec_that_leaves_little_room_has_a_short_status(room: int) -> None:
    found, api = played(30, room=room, params=LARGE)
    assert (found["phase"], found["reason"]) == ("Failed", Reason.INVALID_SPEC)
    assert found["message"].startswith("spec is 14")
    assert [event["reason"] for event in api.events_posted] == [Reason.INVALID_SPEC]


def test_a_spec_that_leaves_no_room_has_an_event_and_is_left_alone() -> None:
    found, api = played(120, room=10, params=LARGE)
    assert found == {}
    assert {event["reason"] for event in api.events_posted} == {Reason.INVALID_SPEC}
    assert any("spec is 14" in event["message"] for event in api.events_posted)
    assert len(api.events_posted) <= 4
    assert api.calls < 10


def test_a_short_status_keeps_what_the_next_decision_needs() -> None:
    """Or a failed try would not be counted, and the task be tried again for ever."""

    class Little:
        async def patch_status(self, path: str, version: str, status: Mapping[str, Any]) -> Raw:
            if len(json.dumps(status)) > 1300:
                raise ApiError(500, "", "etcdserver: request is too large")
            return dict(status)

    status = TaskRunStatus(
        phase="Pending", state="up_for_retry", reason="Retrying", message="m" * 500, failed_tries=2, tries=3,
        infrastructure_failures=1, next_attempt_time=NOW, start_time=NOW,
        attempts=[Attempt(number=number, state="up_for_retry", pod_name=f"p{number}", message="m" * 500) for number in (1, 2, 3)],
    )  # fmt: skip
    cache = cast(Cache, SimpleNamespace(store=Store()))
    statuses = Statuses(cast(KubernetesApi, Little()), cache, *[cast(Any, None)] * 2)
    written = asyncio.run(statuses._patch(task_run(), status))
    assert (written["failedTries"], written["tries"], written["infrastructureFailures"]) == (2, 3, 1)
    assert written["nextAttemptTime"]
    assert [item["podName"] for item in written["attempts"]] == ["p3"]
    assert len(written["message"]) == 100
