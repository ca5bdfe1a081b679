"""TaskRuns in real pods: every outcome, the user's retries and timeouts, and what keeps a pod from starting."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from support.misbehaviours import MISBEHAVIOURS

from cluster.lab import Lab, Namespace, claim, rogue_env, task_run
from cluster.node import Node

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

SECRETS: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "connections"},
        "stringData": {
            "AIRFLOW_CONN_CONFORMANCE_DB": "postgres://user:s3cr3t-pa55@db.example:5432/sales?token=extra-t0ken-value"
        },
    },
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "variables"},
        "data": {
            "AIRFLOW_VAR_CONFORMANCE_IN": "a variable",
            **{f"AIRFLOW_VAR_CONFORMANCE_{number}": f"value {number}" for number in range(20)},
        },
    },
]
SOURCES: dict[str, Any] = {
    "connectionsFrom": [{"secretRef": {"name": "connections"}}],
    "variablesFrom": [{"configMapRef": {"name": "variables"}}],
}


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}


def test_every_misbehaviour_has_the_outcome_that_it_has_locally(lab: Lab, namespace: Namespace) -> None:
    expected = {}
    documents = []
    namespace.apply(*SECRETS)
    for number, (behaviour, env, state, reason, message) in enumerate(MISBEHAVIOURS):
        name = f"m{number}-{behaviour.replace('_', '-')}"
        # seventeen of them start at once
        timeouts = {"startup": "20s"} if reason == "StartupTimeout" else {}
        documents.append(
            task_run(name, "rogue", "rogue", podTemplate=rogue_env(behaviour, **env), timeouts=timeouts, **SOURCES)
        )
        # the operator knows that there are no retries, and decides
        expected[name] = ("failed" if state == "up_for_retry" else state, reason, message)
    namespace.apply(*documents)
    found = namespace.finish_all(expected)
    for name, (state, reason, message) in expected.items():
        status = found[name]
        assert (status["state"], status["reason"]) == (state, reason), (name, status)
        assert message in status["message"]
        assert status["phase"] == ("Succeeded" if state in ("success", "skipped") else "Failed")
        assert status["tries"] == 1
        # one failure, one Event, which comes after the status
        failures = 0 if status["phase"] == "Succeeded" else 1
        if failures:
            namespace.wait(functools.partial(events_about, namespace, name))
        assert len(events_about(namespace, name)) == failures


def events_about(namespace: Namespace, name: str) -> list[dict[str, Any]]:
    return [item for item in namespace.events() if item["involvedObject"]["name"] == name]


CASES = [
    # queue, task → state, reason
    ("golang", "success", "success", "TaskSucceeded"),
    ("golang", "fail_for_good", "failed", "TaskFailed"),
    ("golang", "skip", "skipped", "TaskSkipped"),
    ("golang", "crash", "failed", "RuntimeExited"),
    ("golang", "no_such_task", "removed", "TaskRemoved"),
    ("golang", "connection", "success", "TaskSucceeded"),
    ("golang", "concurrent", "success", "TaskSucceeded"),
    ("golang", "variables", "success", "TaskSucceeded"),
    ("jvm", "fail_for_good", "failed", "TaskFailed"),
    ("jvm", "skip", "skipped", "TaskSkipped"),
    ("jvm", "exit_zero", "failed", "NoTerminalState"),
    ("jvm", "connection", "success", "TaskSucceeded"),
    ("jvm", "spam", "success", "TaskSucceeded"),
    ("typescript", "connection", "success", "TaskSucceeded"),
    ("typescript", "exit_zero", "failed", "NoTerminalState"),
]


def test_every_language_ends_as_it_does_locally(lab: Lab, namespace: Namespace) -> None:
    namespace.apply(*SECRETS)
    names = {f"{queue}-{task.replace('_', '-')}": (state, reason) for queue, task, state, reason in CASES}
    namespace.apply(
        *(
            task_run(f"{queue}-{task.replace('_', '-')}", task, queue, params={"lines": 2000}, **SOURCES)
            for queue, task, _, _ in CASES
        )
    )
    found = namespace.finish_all(names)
    for name, outcome in names.items():
        assert (found[name]["state"], found[name]["reason"]) == outcome, (name, found[name])
    pod = found["jvm-spam"]["attempts"][0]["podName"]
    numbers = [record["number"] for record in namespace.records(pod) if record["event"] == "spam"]
    assert numbers == list(range(2000))
    for name in ("golang-connection", "jvm-connection", "typescript-connection"):
        pod = found[name]["attempts"][0]["podName"]
        assert "s3cr3t-pa55" not in namespace.logs(pod)


def test_failed_tries_are_tried_again_with_backoff(lab: Lab, namespace: Namespace) -> None:
    retries = {"limit": 2, "delay": "1s", "backoff": "exponential", "maxDelay": "10s"}
    namespace.run("retried", "fail", retries=retries)
    namespace.run("asked", "retry_after", retries={"limit": 1, "delay": "1m"}, params={"seconds": 1})
    found = namespace.finish_all(["retried", "asked"])
    status = found["retried"]
    assert (status["phase"], status["state"], status["failedTries"]) == ("Failed", "failed", 3)
    assert [attempt["state"] for attempt in status["attempts"]] == ["up_for_retry", "up_for_retry", "failed"]
    times = [
        (datetime.fromisoformat(attempt["createTime"]), datetime.fromisoformat(attempt["finishTime"]))
        for attempt in status["attempts"]
    ]
    # creation times are whole seconds
    gaps = [(later[0] - earlier[1]).total_seconds() for earlier, later in pairwise(times)]
    assert gaps[0] >= 0
    assert gaps[1] >= 1
    assert len({attempt["podName"] for attempt in status["attempts"]}) == 3
    reasons = [item["reason"] for item in namespace.events() if item["involvedObject"]["name"] == "retried"]
    assert reasons.count("Retrying") == 2
    # the task itself asked for a delay that is shorter than the minute of its spec
    assert [attempt["state"] for attempt in found["asked"]["attempts"]] == ["up_for_retry", "failed"]


def test_a_task_is_started_again_at_the_time_that_it_asks_for(lab: Lab, namespace: Namespace) -> None:
    """A sensor's way of waiting: each time another pod, and always the first try, which has no retries."""
    for queue in ("golang", "jvm"):
        namespace.run(f"sensor-{queue}", "reschedule", queue, timeouts={"startup": "60s"})
    namespace.apply(
        task_run("wired", "settings", "golang", podTemplate={"spec": {"containers": [
            {"name": "task", "env": [{"name": "AIRFLOW__API__BASE_URL", "value": "https://airflow.example"}]}]}})
    )  # fmt: skip
    found = namespace.finish_all(["sensor-golang", "sensor-jvm", "wired"])
    for queue in ("golang", "jvm"):
        status = found[f"sensor-{queue}"]
        assert (status["phase"], status["state"], status.get("failedTries", 0)) == ("Succeeded", "success", 0), status
        states = [attempt["state"] for attempt in status["attempts"]]
        assert states[-1] == "success"
        assert set(states[:-1]) == {"up_for_reschedule"}
        for first, second in pairwise(status["attempts"]):
            assert moment(second["createTime"]) >= moment(first["finishTime"])
    assert found["wired"]["state"] == "success"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_timeouts(lab: Lab, namespace: Namespace) -> None:
    namespace.run("execution", "wait", timeouts={"execution": "2s"})
    namespace.run("startup", "rogue", "rogue", podTemplate=rogue_env("never_connects"), timeouts={"startup": "2s"})
    found = namespace.finish_all(["execution", "startup"])
    assert (found["execution"]["state"], found["execution"]["reason"]) == ("failed", "ExecutionTimeout")
    assert (found["startup"]["state"], found["startup"]["reason"]) == ("failed", "StartupTimeout")


def test_what_keeps_a_pod_from_starting_is_seen_at_once_and_ends_with_the_pending_timeout(
    lab: Lab, namespace: Namespace
) -> None:
    timeouts = {"pending": "30s"}
    image = {"spec": {"containers": [{"name": "task", "image": "10.89.0.1:5000/no/such-image:1"}]}}
    nowhere = {"spec": {"nodeSelector": {"no-such": "node"}}}
    key = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "no-such-secret", "key": "x"}}}
    config = {"spec": {"containers": [{"name": "task", "env": [key]}]}}
    namespace.run("no-image", "success", podTemplate=image, timeouts=timeouts)
    namespace.run("no-node", "success", podTemplate=nowhere, timeouts=timeouts)
    namespace.run("no-key", "success", podTemplate=config, timeouts=timeouts)
    secret = [{"secretRef": {"name": "no-such-secret"}}]
    namespace.run("no-secret", "success", connectionsFrom=secret, timeouts=timeouts)
    expected = {
        "no-image": ("ImagePullFailed", "no/such-image"),
        "no-node": ("Unschedulable", "node affinity"),
        "no-key": ("ContainerConfigError", "no-such-secret"),
        "no-secret": ("MountFailed", "no-such-secret"),
    }
    for name, (reason, _) in expected.items():
        namespace.until(name, reason=reason)
    found = namespace.finish_all(expected)
    for name, (reason, message) in expected.items():
        status = found[name]
        assert (status["phase"], status["reason"]) == ("Failed", reason), (name, status)
        assert message in status["message"]
        assert "did not start within 30s" in status["message"]
    namespace.wait(lambda: not namespace.pods())


def test_out_of_memory_is_told_apart(lab: Lab, namespace: Namespace) -> None:
    template = rogue_env("eats_memory")
    template["spec"]["containers"][0]["resources"] = {"limits": {"memory": "64Mi"}}
    namespace.run("greedy", "rogue", "rogue", podTemplate=template)
    status = namespace.finish("greedy")
    assert (status["state"], status["reason"]) == ("failed", "OOMKilled"), status
    assert "memory limit" in status["message"]


def test_cancel_at_any_moment(lab: Lab, namespace: Namespace) -> None:
    namespace.run("pending", "success", podTemplate={"spec": {"nodeSelector": {"no-such": "node"}}})
    namespace.run("starting", "rogue", "rogue", podTemplate=rogue_env("never_connects"))
    namespace.run("running", "wait")
    namespace.run("retrying", "fail", retries={"limit": 3, "delay": "10m"})
    namespace.until("pending", reason="Unschedulable")
    namespace.until("starting", phase="Running")
    namespace.until("retrying", reason="Retrying")
    running = namespace.running("running")
    names = ["pending", "starting", "running", "retrying"]
    for name in names:
        namespace.patch(name, cancel=True)
    found = namespace.finish_all(names)
    for name in names:
        assert (found[name]["phase"], found[name]["reason"]) == ("Failed", "Cancelled"), found[name]
        assert found[name]["tries"] == 1
    namespace.wait(lambda: running not in [item["metadata"]["name"] for item in namespace.pods()])
    refused = namespace.kubectl(
        "patch", "taskrun", "running", "--type=merge", "-p", '{"spec":{"cancel":false}}', check=False
    )
    assert "cancel cannot be undone" in refused.stderr


def test_suspend_and_resume(lab: Lab, namespace: Namespace) -> None:
    namespace.run("paused", "success", suspend=True)
    namespace.run("stopped", "wait")
    namespace.until("paused", reason="Suspended")
    namespace.running("stopped")
    assert namespace.status("paused")["tries"] == 0
    namespace.patch("stopped", suspend=True)
    status = namespace.until("stopped", phase="Pending", reason="Suspended", state="up_for_retry")
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Suspended"]
    namespace.wait(lambda: not namespace.pods())
    namespace.patch("paused", suspend=False)
    namespace.patch("stopped", suspend=False)
    assert namespace.finish("paused")["state"] == "success"
    status = namespace.until("stopped", phase="Running", tries=2)
    assert status["failedTries"] == 0
    namespace.patch("stopped", cancel=True)
    namespace.finish("stopped")


def test_ttl_and_deletion_leave_nothing(lab: Lab, namespace: Namespace) -> None:
    namespace.run("short", "success", ttlSecondsAfterFinished=1)
    namespace.run("deleted", "wait")
    namespace.run("waiting", "success", podTemplate={"spec": {"nodeSelector": {"no-such": "node"}}})
    namespace.running("deleted")
    namespace.until("waiting", reason="Unschedulable")
    namespace.kubectl("delete", "taskrun", "deleted", "waiting")
    namespace.wait(lambda: not namespace.taskruns() and not namespace.pods())


def replaced(namespace: Namespace, name: str) -> dict[str, Any]:
    """Wait until a lost attempt was replaced; end that one, and return the lost one."""
    status = namespace.until(name, phase="Running", tries=2)
    assert (status["failedTries"], status["infrastructureFailures"]) == (0, 1)
    first, second = status["attempts"]
    assert second["state"] == "running"
    namespace.patch(name, cancel=True)
    assert namespace.finish(name)["reason"] == "Cancelled"
    return dict(first)


def test_a_pod_deleted_by_hand_is_made_good(lab: Lab, namespace: Namespace) -> None:
    namespace.run("hit", "wait")
    pod = namespace.running("hit")
    namespace.kubectl("delete", "pod", pod)
    lost = replaced(namespace, "hit")
    assert (lost["state"], lost["reason"]) == ("up_for_retry", "PodDeleted"), lost
    assert "Replacing" in [item["reason"] for item in namespace.events()]


@pytest.mark.parametrize("who", ["bridge", "launcher"])
def test_a_killed_part_of_the_pod_is_made_good(lab: Lab, node: Node, namespace: Namespace, who: str) -> None:
    namespace.run("hit", "wait")
    pod = namespace.running("hit")
    [pid] = node.pids_of(pod, namespace.name, "bridge" if who == "bridge" else "task")
    node.kill(pid)
    lost = replaced(namespace, "hit")
    assert lost["reason"] == ("BridgeLost" if who == "bridge" else "ExitStatusLost"), lost


def test_containers_of_others_neither_hang_a_run_nor_decide_it(lab: Lab, namespace: Namespace) -> None:
    """A mesh's proxy that never ends, one that fails, and an init container that a webhook might add."""
    python = {"image": lab.images["rogue"], "command": ["/usr/bin/python3", "-c"]}
    mesh = {"name": "mesh", **python, "args": ["import time; time.sleep(3600)"]}
    failing = {"name": "failing", **python, "args": ["raise SystemExit(3)"]}
    init = {"name": "init", **python, "args": ["import time; time.sleep(1)"]}
    never_ready = {"exec": {"command": ["/usr/bin/python3", "-c", "raise SystemExit(1)"]}, "periodSeconds": 1}
    proxy = {**mesh, "name": "proxy", "restartPolicy": "Always", "readinessProbe": never_ready}
    broken = {"name": "broken", **python, "args": ["raise SystemExit('no network')"]}
    namespace.run("meshed", "success", podTemplate={"spec": {"containers": [mesh]}})
    namespace.run("meshed-failed", "fail_for_good", podTemplate={"spec": {"containers": [mesh]}})
    namespace.run("beside", "success", podTemplate={"spec": {"containers": [failing]}})
    namespace.run("after", "success", podTemplate={"spec": {"initContainers": [init]}})
    namespace.run("proxied", "success", podTemplate={"spec": {"initContainers": [proxy]}})
    namespace.run("never", "success", podTemplate={"spec": {"initContainers": [broken]}})
    found = namespace.finish_all(["meshed", "meshed-failed", "beside", "after", "proxied", "never"])
    assert {name: (status["state"], status["reason"]) for name, status in found.items()} == {
        "meshed": ("success", "TaskSucceeded"),
        "meshed-failed": ("failed", "TaskFailed"),
        "beside": ("success", "TaskSucceeded"),
        "after": ("success", "TaskSucceeded"),
        "proxied": ("success", "TaskSucceeded"),
        "never": ("failed", "InitContainerFailed"),
    }
    assert {status["tries"] for status in found.values()} == {1}
    kept = {"beside", "after", "proxied", "never"}
    namespace.wait(lambda: {item["metadata"]["labels"]["polypod.dev/taskrun"] for item in namespace.pods()} == kept)


def test_whatever_a_pod_waits_for_the_status_says_it(lab: Lab, namespace: Namespace) -> None:
    python = {"image": lab.images["rogue"], "command": ["/usr/bin/python3", "-c"]}
    hangs = {"name": "hangs", **python, "args": ["import time; time.sleep(3600)"]}
    probe = {"exec": {"command": ["/usr/bin/python3", "-c", "raise SystemExit(1)"]}, "failureThreshold": 1000}
    unready = {**hangs, "name": "unready", "restartPolicy": "Always", "startupProbe": probe}
    crashes = {
        "name": "crashes",
        **python,
        "args": ["import sys; print('reading', file=sys.stderr); raise SystemExit('no network')"],
    }
    volume = {"name": "v", "secret": {"secretName": "nowhere"}}
    mounting = {"name": "task", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    waiting: dict[str, tuple[dict[str, Any], str, str]] = {
        "gated": (
            {"schedulingGates": [{"name": "a.dev/held"}]},
            "SchedulingGated",
            "scheduling gates hold the pod: a.dev/held; their owner has to remove them",
        ),
        "nobodys": (
            {"schedulerName": "nobody"},
            "PodStarting",
            "scheduler 'nobody' has not processed the pod yet; check that it is running",
        ),
        "hanging": ({"initContainers": [hangs]}, "PodStarting", "init container 'hangs' is running"),
        "unready": (
            {"initContainers": [unready]},
            "PodStarting",
            "sidecar 'unready' is running but has not passed its startup",
        ),
        "unmounted": ({"volumes": [volume], "containers": [mounting]}, "MountFailed", 'secret "nowhere" not found'),
    }
    for name, (spec, _, _) in waiting.items():
        namespace.run(name, "success", podTemplate={"spec": spec})
    for name, (_, reason, said) in waiting.items():
        status = namespace.until(name, reason=reason)
        namespace.until_said(name, said)
        started = next(item for item in status["conditions"] if item["type"] == "Started")
        assert (started["status"], started["reason"]) == ("False", reason)
    # the same in the Event of what needs somebody
    said_in_events = {item["reason"]: item["message"] for item in namespace.events()}
    assert said_in_events["SchedulingGated"] == waiting["gated"][2]
    assert waiting["unmounted"][2] in said_in_events["MountFailed"]
    namespace.run("crashing", "success", podTemplate={"spec": {"initContainers": [crashes]}})
    status = namespace.finish("crashing")
    assert (status["reason"], status["message"]) == (
        "InitContainerFailed",
        "init container 'crashes' exited with code 1: no network",
    )


def test_the_same_task_of_the_same_run_runs_once_at_a_time(lab: Lab, namespace: Namespace) -> None:
    same = {"runId": f"run-of-{namespace.name}"}
    namespace.run("first", "wait", **same)
    namespace.running("first")
    namespace.run("second", "wait", **same)
    status = namespace.finish("second")
    assert (status["phase"], status["reason"]) == ("Failed", "AlreadyRunning"), status
    namespace.patch("first", cancel=True)
    namespace.finish("first")
    namespace.run("third", "wait", **same)
    namespace.running("third")
    namespace.patch("third", cancel=True)
    assert namespace.finish("third")["reason"] == "Cancelled"


def test_artifacts_from_another_image(lab: Lab, namespace: Namespace) -> None:
    """Jars and bundles can be swapped without touching the language image: mounted, or copied where that cannot be."""
    bundles = {"image": lab.images["bundles"], "path": "bundles", "mountPath": "/opt/app/bin"}
    jars = {"image": lab.images["jars"], "path": "jars", "mountPath": "/opt/app/jars"}
    empty = {"spec": {"containers": [{"name": "task", "image": lab.images["empty"]}]}}
    jre = {"spec": {"containers": [{"name": "task", "image": lab.images["jre"]}]}}
    namespace.run("mounted", "skip", "jvm", artifacts=jars, podTemplate=jre)
    namespace.run("copied", "success", artifacts=bundles, podTemplate=empty)
    namespace.run("not-copied", "success", artifacts={**bundles, "path": "no/such/folder"}, podTemplate=empty)
    namespace.run("missing", "success", podTemplate=empty)
    found = namespace.finish_all(["mounted", "copied", "not-copied", "missing"])
    assert found["mounted"]["state"] == "skipped", found["mounted"]
    assert found["copied"]["state"] == "success", found["copied"]
    assert found["not-copied"]["reason"] == "ArtifactCopyFailed", found["not-copied"]
    assert "/no/such/folder cannot be copied" in found["not-copied"]["message"]
    assert (found["missing"]["reason"], found["missing"]["tries"]) == ("InvalidArtifactRoot", 1)
    lab.set_operator_option("--image-volumes=no")
    try:
        namespace.run("copied-jars", "skip", "jvm", artifacts=jars, podTemplate=jre)
        assert namespace.finish("copied-jars")["state"] == "skipped"
    finally:
        lab.set_operator_option("--image-volumes=auto")
    [pod] = [item for item in namespace.pods() if item["metadata"]["labels"]["polypod.dev/taskrun"] == "copied-jars"]
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["bridge", "copy-artifacts"]


def test_artifacts_from_a_volume_claim(lab: Lab, node: Node, namespace: Namespace) -> None:
    node.kubectl("apply", "-f", "-", stdin=json.dumps(lab.volume(namespace.name)))
    namespace.apply(claim("bundles", namespace.name, "ReadOnlyMany"))
    source = {"persistentVolumeClaim": "bundles", "mountPath": "/opt/app/bin"}
    template = {"spec": {"containers": [{"name": "task", "image": lab.images["empty"]}]}}
    namespace.run("claimed", "success", artifacts=source, podTemplate=template)
    try:
        assert namespace.finish("claimed")["state"] == "success"
    finally:
        lab.kubectl("delete", "persistentvolume", namespace.name, "--wait=false")
