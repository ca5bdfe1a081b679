"""What somebody can do who may only create TaskRuns and pods in one namespace: tried here, and refused.

The list grows and never shrinks; docs/security.md tells of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from polypod_core.identity import pod_name

from cluster import polypod
from cluster.lab import Lab, Namespace, task_run

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

Raw = dict[str, Any]
HONEST, HOSTILE = 30, 200
RESTRICTED: Raw = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


@pytest.fixture
def other(lab: Lab) -> Iterator[Namespace]:
    """The namespace of the one who means harm."""
    made = Namespace(lab)
    yield made
    made.delete()


def task(**container: Any) -> Raw:
    return {"spec": {"containers": [{"name": "task", **container}]}}


TEMPLATES: list[tuple[Raw, str]] = [
    # shapes that no pod has
    (task(env={"A": "b"}), "InvalidPodTemplate"),
    (task(ports=[8080]), "InvalidPodTemplate"),
    (task(securityContext="restricted"), "InvalidPodTemplate"),
    (task(securityContext={"capabilities": ["ALL"]}), "InvalidPodTemplate"),
    (task(resources={"limits": {"memory": "many"}}), "InvalidPodTemplate"),
    (task(imagePullPolicy=5), "InvalidPodTemplate"),
    ({"metadata": {"labels": ["a"]}}, "InvalidPodTemplate"),
    ({"metadata": {"labels": {"not a label": "x"}}}, "InvalidPodTemplate"),
    ({"metadata": {"name": "mine"}}, "InvalidPodTemplate"),
    ({"spec": {"nodeSelecter": {"disk": "ssd"}}}, "ForbiddenPodTemplate"),
    ({"spec": {"volumes": {"a": 1}}}, "InvalidPodTemplate"),
    ({"spec": None}, "InvalidPodTemplate"),
    ({"kind": "Pod"}, "InvalidPodTemplate"),
    (task(envv=[{"name": "A"}]), "ForbiddenPodTemplate"),
    (task(resources={"limit": {"memory": "1Gi"}}), "InvalidPodTemplate"),
    # more than `restricted` allows
    ({"spec": {"hostNetwork": True}}, "ForbiddenPodTemplate"),
    ({"spec": {"hostPID": True}}, "ForbiddenPodTemplate"),
    ({"spec": {"serviceAccountName": "polypod-operator"}}, "ForbiddenPodTemplate"),
    ({"spec": {"automountServiceAccountToken": True}}, "ForbiddenPodTemplate"),
    ({"spec": {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}}, "ForbiddenPodTemplate"),
    ({"spec": {"volumes": [{"name": "share", "nfs": {"server": "a", "path": "/"}}]}}, "ForbiddenPodTemplate"),
    (
        {"spec": {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}},
        "ForbiddenPodTemplate",
    ),
    ({"spec": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}}, "ForbiddenPodTemplate"),
    ({"spec": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}}, "ForbiddenPodTemplate"),
    (task(securityContext={"privileged": True}), "ForbiddenPodTemplate"),
    (task(command=["/bin/sh"]), "ForbiddenPodTemplate"),
    (task(restartPolicy="Always"), "ForbiddenPodTemplate"),
    (task(volumeMounts=[{"name": "polypod-run", "mountPath": "/mine"}]), "ForbiddenPodTemplate"),
    (task(volumeMounts=[{"name": "polypod-token", "mountPath": "/token", "readOnly": True}]), "ForbiddenPodTemplate"),
    (task(livenessProbe={"httpGet": {"port": 80, "host": "169.254.169.254"}}), "ForbiddenPodTemplate"),
    ({"spec": {"initContainers": [{"name": "bridge", "image": "mine:1"}]}}, "ForbiddenPodTemplate"),
]


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def deep(name: str, levels: int, field: str) -> str:
    """Return a TaskRun with a field that is nested that deep, as JSON: no client would write it."""
    value = {
        "params": f'"params":{nested(levels)}',
        "arguments": f'"arguments":[{{"name":"x","value":{nested(levels)}}}]',
        "podTemplate": f'"podTemplate":{nested(levels)}',
    }[field]
    base = json.dumps(task_run(name, "success"))
    assert base.endswith("}}")
    return f"{base[:-2]},{value}}}}}"


def hostile() -> list[tuple[Raw, set[str]]]:
    """Return TaskRuns, each with the reasons that its status may have in the end."""
    found: list[tuple[Raw, set[str]]] = []
    for round_ in range(HOSTILE // len(TEMPLATES)):
        for index, (template, reason) in enumerate(TEMPLATES):
            run = task_run(f"template-{round_}-{index}", "success", podTemplate=template)
            found.append((run, {reason}))
    odd = {"a\u0000b": "\u0000", "\ufeff": "\u202e", "😀" * 50: 1e308, "big": 2**63 - 1, "": None}
    for index, queue in enumerate(["nowhere", "golang\n", "../golang", "😀", "a" * 250, " ", "*"]):
        found.append((task_run(f"queue-{index}", "success", queue, params=odd), {"InvalidRouting"}))
    large = task_run("large", "success", params={"a": "x" * 1_100_000})
    found.append((large, {"InvalidSpec"}))
    return found


def test_two_hundred_hostile_taskruns_of_one_namespace_hurt_nobody_in_another(
    lab: Lab, namespace: Namespace, other: Namespace
) -> None:
    last_states: list[str] = []

    def operator() -> tuple[str, int]:
        pod = lab.get("-n", polypod.NAMESPACE, "pod", str(lab.operator_pod()))
        container = pod["status"]["containerStatuses"][0]
        last_states.append(json.dumps(container["lastState"]))
        return pod["metadata"]["name"], container["restartCount"]

    def why() -> str:
        log = lab.kubectl("-n", polypod.NAMESPACE, "logs", str(lab.operator_pod()), "--previous", check=False).stdout
        return f"the operator was started again: {last_states[-1]}\n{log[-3000:]}"

    before, memory = operator(), lab.metrics()["process_resident_memory_bytes"]
    path = f"/apis/polypod.dev/v1alpha1/namespaces/{other.name}/taskruns"
    levels = [(65, "params"), (500, "arguments"), (999, "podTemplate"), (2_000, "params"), (9_990, "params"),
              (9_980, "arguments"), (9_990, "podTemplate")]  # fmt: skip
    for number, (depth, field) in enumerate(levels):
        done = lab.kubectl("create", "--raw", path, "-f", "-", stdin=deep(f"deep-{number}", depth, field), check=False)
        assert done.returncode == 0, (depth, field, done.stderr[:500])
    wanted: dict[str, set[str]] = {f"deep-{number}": {"InvalidSpec"} for number in range(len(levels))}
    runs = hostile()
    wanted |= {run["metadata"]["name"]: reasons for run, reasons in runs}
    half = len(runs) // 2
    made = [other.kubectl("create", "-f", "-", stdin=json.dumps(listed(runs[:half])), check=False)]
    honest = [task_run(f"honest-{number:02d}", "success") for number in range(HONEST)]
    namespace.apply(*honest)
    made.append(other.kubectl("create", "-f", "-", stdin=json.dumps(listed(runs[half:])), check=False))
    # what the API server itself refuses is as good
    refused = "".join(done.stderr for done in made)
    wanted = {name: reasons for name, reasons in wanted.items() if f'"{name}" is invalid' not in refused}
    assert len(wanted) > HOSTILE * 0.9, refused[-3000:]

    found = namespace.finish_all([run["metadata"]["name"] for run in honest])
    assert {status["state"] for status in found.values()} == {"success"}

    ended: dict[str, tuple[str, str]] = {}

    def all_have_ended() -> bool:
        # not as JSON: no decoder here could read what they hold
        columns = "NAME:.metadata.name,PHASE:.status.phase,REASON:.status.reason,MESSAGE:.status.message"
        rows = other.kubectl("get", "taskruns", "--no-headers", "-o", f"custom-columns={columns}").stdout.splitlines()
        for name, phase, reason, message in (row.split(None, 3) for row in rows if len(row.split(None, 3)) == 4):
            if phase in ("Failed", "Succeeded"):
                ended[name] = (reason, message)
        return wanted.keys() <= ended.keys()

    other.wait(all_have_ended)
    assert {name: ended[name] for name, reasons in wanted.items() if ended[name][0] not in reasons} == {}
    assert all(ended[name][1] not in ("", "<none>") for name in wanted), "a status says what is wrong"
    assert operator() == before, why()
    assert lab.metrics()["process_resident_memory_bytes"] < memory + (150 << 20)


def listed(runs: list[tuple[Raw, set[str]]]) -> Raw:
    return {"apiVersion": "v1", "kind": "List", "items": [run for run, _ in runs]}


def test_a_pod_that_imitates_an_attempt_decides_nothing_and_holds_no_place(
    lab: Lab, namespace: Namespace, other: Namespace
) -> None:
    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data})
    namespace.run("victim", "slow", params={"seconds": 15}, variablesFrom=[{"configMapRef": {"name": "variables"}}])
    namespace.until("victim", phase="Running")
    victim = namespace.taskrun("victim")
    uid = victim["metadata"]["uid"]
    told = json.dumps({"state": "success", "reason": "TaskSucceeded", "message": "forged"})
    command = ["sh", "-c", f"echo '{told}' > /dev/termination-log"]
    real = victim["status"]["attempts"][0]["podName"]
    image = lab.images["golang"]

    def imitation(name: str, owner: Raw | None, attempt: str) -> Raw:
        container = {"image": image, "command": command, "securityContext": RESTRICTED}
        metadata: Raw = {
            "name": name,
            "labels": {
                "polypod.dev/taskrun": "victim",
                "polypod.dev/taskrun-uid": uid,
                "polypod.dev/attempt": attempt,
                "polypod.dev/try": "1",
            },
            "annotations": {"polypod.dev/queue": "golang"},
            **({"ownerReferences": [owner]} if owner else {}),
        }
        spec = {
            "restartPolicy": "Never",
            "schedulingGates": [{"name": "example.com/held"}],
            "containers": [{"name": "task", **container}, {"name": "bridge", **container}],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    owner = {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "name": "victim", "uid": uid, "controller": True}
    # elsewhere: with the attempt's own name, with the next one's, and with an owner that is none of theirs
    other.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all([
        imitation(real, None, "1"),
        imitation(pod_name("victim", uid, 2), owner, "2"),
        imitation("odd-number", owner, "abc"),
    ]))  # fmt: skip
    # in the same namespace, by labels alone
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(imitation("labels-alone", None, "7")))
    metrics = lab.metrics()
    held = [value for name, value in metrics.items() if name.startswith('polypod_queue_running{queue="golang"')]
    assert held == [1.0], "imitations hold no place"
    status = namespace.finish("victim")
    assert (status["state"], status["tries"], len(status["attempts"])) == ("success", 1, 1)
    assert "forged" not in json.dumps(status)
    assert status["attempts"][0]["podName"] == real


def test_a_name_that_is_taken_is_said_and_never_adopted(lab: Lab, namespace: Namespace) -> None:
    namespace.run("run", "success", suspend=True)
    namespace.until("run", reason="Suspended")
    uid = namespace.taskrun("run")["metadata"]["uid"]
    name = pod_name("run", uid, 1)
    container = {"name": "task", "image": lab.images["golang"], "securityContext": RESTRICTED}
    spec = {"schedulingGates": [{"name": "example.com/held"}], "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    namespace.patch("run", suspend=False)
    status = namespace.until("run", reason="PodNameTaken")
    assert name in status["message"]
    namespace.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    assert namespace.finish("run")["state"] == "success"


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"timeouts": {"pending": "0s"}}, "longer than 0s"),
        ({"timeouts": {"execution": "0h"}}, "longer than 0s"),
        ({"timeouts": {"pending": "999999999h"}}, "8784h"),
        ({"timeouts": {"startup": "8785h"}}, "8784h"),
        ({"retries": {"delay": "99999999h"}}, "8784h"),
        ({"retries": {"maxDelay": "9999999999999999999h"}}, ""),
    ],
    ids=str,
)
def test_a_duration_without_sense_is_refused_by_the_api_server(namespace: Namespace, spec: Raw, word: str) -> None:
    done = namespace.kubectl("create", "-f", "-", stdin=json.dumps(task_run("run", "success", **spec)), check=False)
    assert done.returncode != 0
    assert word in done.stderr


def test_people_with_kubernetes_own_roles_may_do_what_they_expect(lab: Lab, namespace: Namespace) -> None:
    def may(role: str, verb: str) -> bool:
        user = f"{role}-{namespace.name}"
        asked = ["auth", "can-i", verb, "taskruns.polypod.dev", f"--as={user}"]
        return namespace.kubectl(*asked, check=False).stdout.strip() == "yes"

    for role in ("view", "edit", "admin"):
        namespace.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}-{namespace.name}")
    namespace.wait(lambda: may("view", "get"))
    assert may("view", "watch")
    assert not may("view", "create")
    for role in ("edit", "admin"):
        assert all(may(role, verb) for verb in ("get", "create", "patch", "delete"))
