"""Templates against Pod Security admission itself: what we let through, it lets into a `restricted` namespace.

Its program is built from the module `k8s.io/pod-security-admission`, with the pods that it is tested with.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from polypod_core.errors import UserError
from polypod_operator.pods.pod import Route, build
from polypod_operator.pods.template import check_template
from support.objects import ROUTING, SETTINGS, task_run

from cluster import programs

pytestmark = pytest.mark.needs("api-server")

Raw = dict[str, Any]


@pytest.fixture(scope="session")
def admission() -> Any:
    """A function from pods to what admission says of each."""
    program = programs.build((programs.POD_SECURITY,)) / "podsecurity"

    def judge(pods: list[Raw]) -> list[str]:
        lines = "".join(json.dumps(pod) + "\n" for pod in pods)
        done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True, timeout=60)
        answers = done.stdout.splitlines()
        assert len(answers) == len(pods), done.stderr
        return answers

    return judge


def made(template: Raw) -> Raw | None:
    """Return the pod of a TaskRun with this template, None if the template is refused."""
    route = Route("native", ROUTING.coordinators["native"], [])
    try:
        return build(task_run(podTemplate=template), 1, 1, route, SETTINGS)
    except UserError:
        return None


def fixtures(kind: str) -> list[tuple[str, Raw]]:
    """Return the pods that admission is tested with, as templates, of every version of the standard."""
    found = []
    for path in sorted(programs.data_of(programs.POD_SECURITY).glob(f"v*/{kind}/*.yaml")):
        pod = yaml.safe_load(path.read_text())
        # ours are called otherwise; what matters is what they are allowed
        spec = pod["spec"]
        for index, container in enumerate(spec.get("containers", ())):
            container["name"] = "task" if index == 0 else f"other-{index}"
        template = {"spec": spec}
        if "annotations" in pod["metadata"]:
            template["metadata"] = {"annotations": pod["metadata"]["annotations"]}
        found.append((f"{path.parts[-3]}/{path.name}", json.loads(json.dumps(template))))
    return found


def test_what_admission_refuses_we_refuse_or_make_safe(admission: Any) -> None:
    cases = fixtures("fail")
    assert len(cases) > 500
    pods = [(name, made(template)) for name, template in cases]
    through = [(name, pod) for name, pod in pods if pod is not None]
    refused = len(pods) - len(through)
    assert refused > 200, "most of them weaken something"
    answers = admission([pod for _, pod in through])
    assert [(name, answer) for (name, _), answer in zip(through, answers, strict=True) if answer != "allowed"] == []


def test_what_admission_lets_through_is_not_refused_without_need(admission: Any) -> None:
    """A template that is fine in a `restricted` namespace works: except what we keep for ourselves."""
    kept = ("hostprocess", "sysctls", "windows")
    # the newest version alone: the older ones allowed more
    newest = max(int(name.partition("/")[0].removeprefix("v1.")) for name, _ in fixtures("pass"))
    cases = [item for item in fixtures("pass") if item[0].startswith(f"v1.{newest}/")]
    cases = [(name, template) for name, template in cases if not any(word in name for word in kept)]
    assert len(cases) > 15
    refused = []
    for name, template in cases:
        try:
            check_template(template)
        except UserError as error:
            refused.append((name, error.message))
        if made(template) is None:
            refused.append((name, "refused"))
    assert refused == []


TYPES = ["RuntimeDefault", "Localhost", "Unconfined", "", None]
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "runAsNonRoot": st.booleans(),
        "runAsUser": st.sampled_from([0, 1000]),
        "privileged": st.booleans(),
        "allowPrivilegeEscalation": st.booleans(),
        "readOnlyRootFilesystem": st.booleans(),
        "procMount": st.sampled_from(["Default", "Unmasked"]),
        "seccompProfile": st.fixed_dictionaries({"type": st.sampled_from(TYPES)}),
        "appArmorProfile": st.fixed_dictionaries({"type": st.sampled_from(TYPES)}),
        "seLinuxOptions": st.fixed_dictionaries(
            {}, optional={name: st.sampled_from(["", "spc_t", "container_t", "x"]) for name in ("type", "user", "role")}
        ),
        "capabilities": st.fixed_dictionaries(
            {}, optional={"add": st.lists(st.sampled_from(["NET_BIND_SERVICE", "SYS_ADMIN", "ALL"]), max_size=2),
                          "drop": st.lists(st.sampled_from(["ALL", "KILL"]), max_size=2)}
        ),
        "windowsOptions": st.fixed_dictionaries({"hostProcess": st.booleans()}),
        "sysctls": st.just([{"name": "kernel.msgmax", "value": "1"}]),
    },
)  # fmt: skip
PROBE = st.fixed_dictionaries({"httpGet": st.fixed_dictionaries({"port": st.just(80)}, optional={
    "host": st.sampled_from(["", "10.0.0.1"])})})  # fmt: skip
CONTAINERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["task", "other", "copy-artifacts"]), "image": st.just("x:1")},
    optional={
        "securityContext": CONTEXTS,
        "ports": st.just([{"containerPort": 80, "hostPort": 80}]) | st.just([{"containerPort": 80}]),
        "livenessProbe": PROBE,
        "lifecycle": st.fixed_dictionaries({"preStop": PROBE}),
        "restartPolicy": st.sampled_from(["Always", "Never", "OnFailure"]),
    },
)
SOURCES: list[Raw] = [
    {"emptyDir": {}},
    {"hostPath": {"path": "/"}},
    {"nfs": {"server": "a", "path": "/"}},
    {"iscsi": {"targetPortal": "a", "iqn": "b", "lun": 0}},
    {"gitRepo": {"repository": "a"}},
    {"secret": {"secretName": "a"}},
    {"image": {"reference": "a:1"}},
    {"flexVolume": {"driver": "a"}},
    {"futureVolume": {"x": 1}},
]
VOLUMES = st.sampled_from(SOURCES).map(lambda source: {"name": "more", **source})
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "securityContext": CONTEXTS,
        "hostNetwork": st.booleans(),
        "hostPID": st.booleans(),
        "hostIPC": st.booleans(),
        "hostUsers": st.booleans(),
        "shareProcessNamespace": st.booleans(),
        "containers": st.lists(CONTAINERS, max_size=2, unique_by=lambda item: str(item["name"])),
        "initContainers": st.lists(CONTAINERS, max_size=2, unique_by=lambda item: str(item["name"])),
        "volumes": st.lists(VOLUMES, max_size=1),
    },
)


@settings(max_examples=60)
@given(specs=st.lists(SPECS, min_size=25, max_size=25))
def test_whatever_a_template_holds_what_we_make_is_restricted(admission: Any, specs: list[Raw]) -> None:
    pods = [pod for spec in specs if (pod := made({"spec": spec})) is not None]
    answers = admission(pods)
    assert [(pod["spec"], answer) for pod, answer in zip(pods, answers, strict=True) if answer != "allowed"] == []
    for pod in pods:
        for item in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]:
            mounts = [mount for mount in item.get("volumeMounts", ()) if mount["name"] == "polypod-run"]
            assert item["name"] == "bridge" or all(mount.get("readOnly") for mount in mounts)
