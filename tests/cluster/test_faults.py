"""What fails around TaskRuns, on a real cluster: nothing is lost, nothing is stuck, nothing runs twice."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sizes import SIZES

from cluster.lab import Lab, Namespace, task_run
from cluster.node import NODE_NAME, Node
from cluster.record import Record

pytestmark = [pytest.mark.shares("disturbed"), pytest.mark.needs("node")]


@pytest.fixture
def routing(lab: Lab) -> Iterator[None]:
    """The routing may be edited; it is as it was afterwards."""
    yield
    lab.put_routing(lab.routing)


@pytest.fixture
def kubelet(node: Node) -> Iterator[None]:
    """The kubelet may be stopped; it runs again afterwards."""
    yield
    if node.services.pid("kubelet") is None:
        node.start_kubelet()


def kill_operator(lab: Lab, node: Node) -> bool:
    """Kill the operator's process, and its pod so that no backoff delays the next; False if none runs."""
    pod = lab.operator_pod()
    pids = node.pids_of(pod, "polypod-system", "operator") if pod is not None else []
    for pid in pids:
        node.kill(pid)
    if pids:
        assert pod is not None
        lab.kubectl("-n", "polypod-system", "delete", "pod", pod, "--force", "--grace-period=0", check=False)
        # we know that it is dead; the next one need not wait until that is certain
        free = json.dumps({"spec": {"holderIdentity": ""}})
        lab.kubectl(
            "-n", "polypod-system", "patch", "lease", "polypod-operator", "--type=merge", "-p", free, check=False
        )
    return bool(pids)


def limit_rogue(lab: Lab, namespace: Namespace, limit: int) -> None:
    """Limit the rogue queue; return when the operator has read that."""

    def loaded() -> float:
        return lab.metrics().get('polypod_routing_reloads_total{result="loaded"}', 0)

    # the routing that was there before, if the operator has only just started
    before = namespace.wait(loaded)
    lab.put_routing({**lab.routing, "queue_limits": {"rogue": limit}})
    namespace.wait(lambda: loaded() > before)


@pytest.mark.generated
def test_an_operator_killed_again_and_again_loses_nothing_and_keeps_the_queues_limit(
    lab: Lab, node: Node, namespace: Namespace, record: Record, routing: None
) -> None:
    seed = int(os.environ.get("POLYPOD_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"replay with POLYPOD_SEED={seed}")
    chance = random.Random(seed)
    limit_rogue(lab, namespace, 0)
    names = [f"run-{number:02d}" for number in range(30)]
    # all wait before the first may start: the last to be applied has the highest priority
    namespace.apply(*(record.task_run(name, 2.0, priority=int(name[-2:])) for name in names))

    def all_wait() -> list[Any]:
        found = [raw.get("status", {}) for raw in namespace.taskruns().values()]
        return found if [status.get("reason") for status in found] == ["QueueLimit"] * len(names) else []

    for status in namespace.wait(all_wait):
        assert status["message"].startswith("queue 'rogue' is at its limit of 0; position "), status
    lab.put_routing({**lab.routing, "queue_limits": {"rogue": 5}})
    kills = 0
    while kills < SIZES.operator_kills:
        time.sleep(chance.uniform(0.0, 2.5))
        kills += kill_operator(lab, node)
    found = namespace.finish_all(names, timeout=240)
    assert {(status["state"], status["tries"]) for status in found.values()} == {("success", 1)}
    lines = record.lines()
    assert sorted(name for _, what, name, _ in lines if what == "begin") == names, "an attempt ran twice"
    assert sorted(name for _, what, name, _ in lines if what == "end") == names
    assert record.most_at_once() <= 5
    first = [name for _, what, name, _ in sorted(lines) if what == "begin"]
    assert first.index("run-29") < first.index("run-05"), first
    namespace.wait(lambda: all(item["status"]["phase"] == "Succeeded" for item in namespace.pods()))
    assert len(namespace.pods()) == 30


@pytest.mark.generated
@pytest.mark.timeout(2000)
def test_a_random_graph_keeps_its_order_while_the_operator_is_killed(
    lab: Lab, node: Node, namespace: Namespace, record: Record, routing: None
) -> None:
    seed = int(os.environ.get("POLYPOD_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"replay with POLYPOD_SEED={seed}")
    chance = random.Random(seed)
    names = [f"run-{number:03d}" for number in range(SIZES.graph_tasks)]
    layer = len(names) // 5
    # as many as two busy cores can start in time
    limit_rogue(lab, namespace, 8)
    # in five layers: each task depends on some of those before its own
    upstream = {
        name: chance.sample(names[: number // layer * layer], min(number // layer * layer, chance.randint(1, 3)))
        for number, name in enumerate(names)
    }
    documents = [
        record.task_run(
            name,
            0.0,
            taskId=name,
            runId="graph",
            timeouts={"startup": "10m", "pending": "20m"},
            dependsOn=[{"taskId": other} for other in upstream[name]],
        )
        for name in names
    ]
    chance.shuffle(documents)
    namespace.apply(*documents)
    done = threading.Event()

    def kill() -> None:
        while not done.wait(chance.uniform(10.0, 30.0)):
            kill_operator(lab, node)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = namespace.finish_all(names, timeout=1500)
    finally:
        done.set()
        killer.join()
    ends = {(status["state"], status["tries"], status["reason"]) for status in found.values()}
    assert ends == {("success", 1, "TaskSucceeded")}, [s["message"] for s in found.values() if s["message"]][:5]
    lines = record.lines()
    assert sorted(name for _, what, name, _ in lines if what == "begin") == names, "a task ran twice, or not at all"
    begin = {name: when for when, what, name, _ in lines if what == "begin"}
    end = {name: when for when, what, name, _ in lines if what == "end"}
    early = [(name, other) for name in names for other in upstream[name] if begin[name] < end[other]]
    assert not early, "these began before what they depend on had ended"


def test_outages_around_running_tasks_are_sat_out(
    lab: Lab, node: Node, namespace: Namespace, record: Record, kubelet: None
) -> None:
    """API server restarted, etcd paused for 10 s, kubelet away, Execution API away for 30 s: all while tasks run."""
    names = [f"run-{number}" for number in range(4)]
    namespace.apply(*(record.task_run(name, 60.0) for name in names))
    namespace.wait(lambda: record.begun() == {*names})
    started = time.monotonic()
    restarts = operator_restarts(lab)
    namespace.apply(record.task_run("ends-unseen", 6.0))
    namespace.wait(lambda: "ends-unseen" in record.begun())
    node.services.stop("kubelet")
    # that this one has ended is known from its bridge alone
    unseen = namespace.until("ends-unseen", phase="Succeeded")
    assert node.services.pid("kubelet") is None
    assert unseen["tries"] == 1
    node.start_kubelet()
    reach_execution_api(lab, "nothing")
    away = time.monotonic()
    node.services.stop("kube-apiserver", signal.SIGKILL)
    node.api.start_api_server()
    node.services.wait("kube-apiserver", node.api.ready)
    etcd = node.services.pid("etcd")
    assert etcd is not None
    os.kill(etcd, signal.SIGSTOP)
    time.sleep(10)
    os.kill(etcd, signal.SIGCONT)
    node.services.wait("kube-apiserver", node.api.ready)
    time.sleep(max(0.0, 30 - (time.monotonic() - away)))
    reach_execution_api(lab, "polypod-api")
    assert time.monotonic() - started < 60, "the outages have outlived the tasks; nothing was shown"
    found = namespace.finish_all([*names, "ends-unseen"])
    assert {(status["state"], status["reason"], status["tries"]) for status in found.values()} == {
        ("success", "TaskSucceeded", 1)
    }
    assert len(record.lines()) == 2 * 5, "a task ran twice"
    # what is applied now runs as before
    assert namespace.finish(namespace.run("after", "success"))["tries"] == 1
    assert operator_restarts(lab) == restarts, "the operator sits an outage out, too"


def operator_restarts(lab: Lab) -> int:
    pod = lab.get("-n", "polypod-system", "pod", str(lab.operator_pod()))
    restarts: int = pod["status"]["containerStatuses"][0]["restartCount"]
    return restarts


def active_task_runs(lab: Lab) -> float:
    series = lab.metrics().items()
    return sum(value for name, value in series if name.startswith("polypod_taskruns_active{"))


def reach_execution_api(lab: Lab, name: str) -> None:
    """Have the Execution API's Service lead to the pods of that name."""
    change = {"spec": {"selector": {"app.kubernetes.io/name": name}}}
    lab.kubectl("-n", "polypod-system", "patch", "service", "polypod-api", "-p", json.dumps(change))


def test_a_routing_broken_and_mended_during_a_burst(lab: Lab, namespace: Namespace, routing: None) -> None:
    names = [f"run-{number}" for number in range(12)]
    broken = {**lab.routing, "coordinators": {"golang": {"classpath": "no.such.Coordinator"}}}

    def edit() -> None:
        for _ in range(3):
            lab.put_routing(broken)
            time.sleep(0.5)
            lab.put_routing(lab.routing)

    editor = threading.Thread(target=edit)
    editor.start()
    namespace.apply(*(task_run(name, "success") for name in names))
    editor.join()
    found = namespace.finish_all(names)
    assert {(status["state"], status["tries"]) for status in found.values()} == {("success", 1)}


def test_a_namespace_that_is_deleted_takes_its_tasks_along(lab: Lab, node: Node) -> None:
    doomed = Namespace(lab)
    doomed.run("runs", "wait")
    doomed.run("retries", "fail", retries={"limit": 5, "delay": "1s"})
    doomed.run("held", "wait", podTemplate={"spec": {"nodeSelector": {"no": "such"}}})
    pod = doomed.running("runs")
    [pid] = node.pids_of(pod, doomed.name, "bridge")
    active = active_task_runs(lab)
    lab.kubectl("delete", "namespace", doomed.name, "--timeout=180s")
    assert not Path(f"/proc/{pid}").exists()
    doomed.wait(lambda: active_task_runs(lab) <= active - 3)


def test_an_outcome_is_taken_from_its_own_pod_only_and_either_way_is_enough(
    lab: Lab, node: Node, namespace: Namespace
) -> None:
    namespace.run("first", "wait")
    pod = namespace.running("first")
    address = lab.get("-n", "polypod-system", "service", "polypod-operator")["spec"]["clusterIP"]
    outcome = b'{"state":"success","reason":"TaskSucceeded"}'
    account = lab.kubectl("-n", namespace.name, "create", "token", "default", "--audience=polypod").stdout
    bound = lab.kubectl("-n", namespace.name, "create", "token", "default", "--audience=another",
                        "--bound-object-kind=Pod", f"--bound-object-name={pod}").stdout  # fmt: skip
    mine = lab.kubectl("-n", namespace.name, "create", "token", "default", "--audience=polypod",
                       "--bound-object-kind=Pod", f"--bound-object-name={pod}").stdout  # fmt: skip

    def post(token: str, body: bytes = outcome) -> int:
        script = (
            "import ssl, sys, urllib.request, urllib.error\n"
            "r = urllib.request.Request(sys.argv[1], sys.stdin.buffer.read(), {'Authorization': 'Bearer ' + sys.argv[2]})\n"
            "try: print(urllib.request.urlopen(r, timeout=20, context=ssl._create_unverified_context()).status)\n"
            "except urllib.error.HTTPError as e: print(e.code)"
        )
        command = [*node.enter, sys.executable, "-c", script, f"https://{address}:8080/outcomes", token.strip()]
        done = subprocess.run(command, input=body, capture_output=True, timeout=60, check=True)
        return int(done.stdout)

    assert (post("nonsense"), post(account), post(bound)) == (403, 403, 403)
    assert post(mine, b"[]") == 400
    assert namespace.status("first")["phase"] == "Running"
    before = lab.metrics().get('polypod_outcomes_received_total{result="taken"}', 0)
    namespace.patch("first", cancel=True)
    assert namespace.finish("first")["reason"] == "Cancelled"
    assert namespace.finish(namespace.run("told", "success"))["state"] == "success"
    assert lab.metrics()['polypod_outcomes_received_total{result="taken"}'] > before
    # without being told, the kubelet's word is enough; the same is known either way
    told = namespace.status("told")["attempts"][0]
    lab.set_operator_option("--outcome-url=")
    try:
        seen = namespace.finish(namespace.run("seen", "success"))["attempts"][0]
    finally:
        lab.set_operator_option("--outcome-url=https://polypod-operator.polypod-system.svc:8080/outcomes")
    same = ("state", "reason", "message", "exitCode", "coordinator", "image", "nodeName")
    assert {key: told.get(key) for key in same} == {key: seen.get(key) for key in same}
    assert told.keys() == seen.keys()


def test_a_quick_task_costs_one_pod_and_two_status_writes(lab: Lab, namespace: Namespace) -> None:
    def written() -> float:
        return sum(
            value
            for series, value in lab.metrics().items()
            if re.match(r'polypod_api_requests_total{.*resource="(pods|taskruns/status|events)"', series)
            and 'verb="get"' not in series
        )

    namespace.finish(namespace.run("warm", "success"))
    before = written()
    names = [namespace.run(f"run-{number}", "success") for number in range(5)]
    namespace.finish_all(names)
    assert 2 * len(names) <= written() - before <= 4 * len(names), lab.metrics()


def test_a_node_that_is_removed_gives_its_tasks_back(
    lab: Lab, node: Node, namespace: Namespace, record: Record, kubelet: None
) -> None:
    """The last one here: everything that runs on the node goes with it, our own programs included."""
    namespace.apply(*(record.task_run(f"run-{number}", 15.0, retries={"limit": 0}) for number in range(2)))
    namespace.wait(lambda: len(record.begun()) == 2)
    raw = lab.get("node", NODE_NAME)
    lab.kubectl("delete", "node", NODE_NAME)
    node.services.stop("kubelet")
    # a node that is gone for good ends what it ran
    for number in range(2):
        for pod in namespace.pods():
            if pod["metadata"]["labels"]["polypod.dev/taskrun"] == f"run-{number}":
                for container in ("task", "bridge"):
                    for pid in node.pids_of(pod["metadata"]["name"], namespace.name, container):
                        node.kill(pid)
    namespace.wait(lambda: not [p for p in namespace.pods() if p["spec"].get("nodeName") == raw["metadata"]["name"]])
    node.start_kubelet()
    found = namespace.finish_all(["run-0", "run-1"], timeout=240)
    for status in found.values():
        first = status["attempts"][0]
        assert (status["state"], status["infrastructureFailures"], status["failedTries"]) == ("success", 1, 0), status
        assert first["reason"] in ("Evicted", "PodDeleted", "PodLost"), first
    lab.kubectl("-n", "polypod-system", "rollout", "status", "deployment/polypod-api", "--timeout=180s")
    assert sorted(what for _, what, _, _ in record.lines()) == ["begin"] * 4 + ["end"] * 2
