"""pod.py, merge.py and security.py: from a TaskRun and its route to a pod, and what a template may not do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from polypod_bridge.config import BridgeConfig, Refusal
from polypod_core.errors import UserError
from polypod_core.identity import pod_name
from polypod_core.routing import parse_routing
from polypod_operator import main
from polypod_operator.model.objects import pod as parse_pod
from polypod_operator.pods import security
from polypod_operator.pods.log_storage import LogSettings
from polypod_operator.pods.merge import merge
from polypod_operator.pods.pod import Route, Settings, build, refusal
from support.objects import EXECUTABLE, NOW, ROUTING, SETTINGS, routing, task_run


def make(
    entry: dict[str, Any] | None = None, settings: Settings = SETTINGS, queue: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    made = routing(**(entry or {}))
    templates = [template for template in ((entry or {}).get("pod_template"), queue) if template]
    return build(task_run(**spec), 1, 1, Route("native", made.coordinators["native"], templates), settings)


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    spec = pod["spec"]
    [found] = [item for item in [*spec["initContainers"], *spec["containers"]] if item["name"] == name]
    return dict(found)


def config(pod: dict[str, Any]) -> BridgeConfig:
    # as the kubelet gives it to the container
    text = container(pod, "bridge")["env"][0]["value"].replace("$$(", "$(")
    return msgspec.json.decode(text, type=BridgeConfig)


def test_the_same_input_gives_the_same_pod() -> None:
    assert make() == make()


def test_the_language_container_is_the_image_as_it_is_with_the_launcher_as_its_command() -> None:
    task = container(make(), "task")
    assert (task["image"], task["command"]) == ("lang:1", ["/polypod/launcher"])
    assert {mount["mountPath"]: mount.get("readOnly", False) for mount in task["volumeMounts"]} == {
        "/polypod": True,
        "/tmp": False,
    }


def test_the_bridge_is_a_native_sidecar_that_installs_the_launcher_before_the_task_starts() -> None:
    bridge = container(make(), "bridge")
    assert (bridge["image"], bridge["restartPolicy"]) == ("bridge:1", "Always")
    assert bridge["lifecycle"]["postStart"]["exec"]["command"][1:] == ["install", "/polypod/launcher"]


def test_every_container_meets_the_restricted_standard() -> None:
    pod = make(podTemplate={"spec": {"containers": [{"name": "extra", "image": "x"}]}})
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["spec"]["automountServiceAccountToken"] is False
    for name in ("task", "bridge", "extra"):
        assert container(pod, name)["securityContext"] == security.CONTAINER_CONTEXT


def test_the_pod_is_its_taskruns_own() -> None:
    metadata = make()["metadata"]
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("TaskRun", "uid-1", True)
    assert metadata["labels"]["polypod.dev/attempt"] == "1"
    assert metadata["annotations"]["polypod.dev/dag-id"] == "d"


def test_the_token_is_in_the_bridges_reach_alone() -> None:
    pod = make()
    [volume] = [item for item in pod["spec"]["volumes"] if item["name"] == "polypod-token"]
    [source] = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "polypod"
    assert "polypod-token" in [mount["name"] for mount in container(pod, "bridge")["volumeMounts"]]
    assert "polypod-token" not in [mount["name"] for mount in container(pod, "task")["volumeMounts"]]
    assert config(pod).token_file == "/var/run/polypod/token/token"


def test_a_token_or_workload_of_the_users_own() -> None:
    reference = {"name": "mine", "key": "t"}
    pod = make(executionApi={"url": "https://airflow.example/execution/", "tokenSecretRef": reference})
    [volume] = [item for item in pod["spec"]["volumes"] if item["name"] == "polypod-token"]
    assert volume["secret"] == {"secretName": "mine", "items": [{"key": "t", "path": "token"}]}
    found = config(pod)
    assert found.execution_api.url == "https://airflow.example/execution/"
    assert found.pod is not None
    assert found.pod.token_names_task is True
    found = config(make(workloadSecretRef=reference))
    assert found.pod is not None
    assert (found.pod.workload_file, found.token_file) == ("/var/run/polypod/workload/workload.json", None)


@pytest.mark.parametrize("whose", ["ours", "a token of the user's own", "a workload"])
def test_the_outcome_is_sent_with_the_pods_own_token_whatever_the_execution_api_is_shown(whose: str) -> None:
    reference = {"name": "mine", "key": "t"}
    specs: dict[str, dict[str, Any]] = {
        "ours": {},
        "a token of the user's own": {"executionApi": {"url": "https://a/", "tokenSecretRef": reference}},
        "a workload": {"workloadSecretRef": reference},
    }
    pod = make(settings=replace(SETTINGS, outcome_url="http://operator/outcomes"), **specs[whose])
    found = config(pod).pod
    assert found is not None
    assert found.outcome_url == "http://operator/outcomes"
    folder, _, file = found.pod_token_file.rpartition("/")
    [mount] = [item for item in container(pod, "bridge")["volumeMounts"] if item["mountPath"] == folder]
    [volume] = [item for item in pod["spec"]["volumes"] if item["name"] == mount["name"]]
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["path"] == file
    assert mount["name"] not in [item["name"] for item in container(pod, "task")["volumeMounts"]]


def test_connections_and_variables_are_mounted_into_the_bridge_alone() -> None:
    pod = make(
        connectionsFrom=[{"secretRef": {"name": "c"}}],
        variablesFrom=[{"configMapRef": {"name": "v"}}, {"secretRef": {"name": "s"}}],
    )
    names = {item["name"]: item for item in pod["spec"]["volumes"]}
    assert names["polypod-connections-0"]["secret"] == {"secretName": "c"}
    assert names["polypod-variables-0"]["configMap"] == {"name": "v"}
    assert names["polypod-variables-1"]["secret"] == {"secretName": "s"}
    assert config(pod).secrets_dirs == [
        f"/var/run/polypod/{n}" for n in ("connections-0", "variables-0", "variables-1")
    ]
    assert {mount["name"] for mount in container(pod, "task")["volumeMounts"]} == {"polypod-run", "tmp"}


def test_the_configuration_holds_what_the_sidecar_needs_and_no_secret() -> None:
    found = config(make(timeouts={"execution": "1h", "startup": "30s"}, mapIndex=3))
    assert (found.ti.dag_id, found.ti.task_id, found.ti.run_id, found.ti.map_index) == ("d", "t", "r", 3)
    assert (found.timeouts.execution, found.timeouts.startup) == (3600, 30)
    assert found.coordinator.kwargs == {"executables_root": ["/opt"]}
    assert (found.token, found.coordinator.image) == ("", None)


def test_a_keyword_that_looks_like_a_variable_of_the_kubelets_stays_as_it_is() -> None:
    entry = {"kwargs": {"executables_root": ["/opt/$(HOME)"]}}
    assert "$$(HOME)" in container(make(entry), "bridge")["env"][0]["value"]
    assert config(make(entry)).coordinator.kwargs == {"executables_root": ["/opt/$(HOME)"]}


def test_the_kubelet_ends_what_outlives_every_timeout() -> None:
    assert "activeDeadlineSeconds" not in make()["spec"]
    pod = make(timeouts={"pending": "1m", "startup": "10s", "execution": "1h"})
    assert pod["spec"]["activeDeadlineSeconds"] == 2 * (60 + 10) + 3600 + 120
    year = 366 * 86400
    assert make(timeouts={"execution": "8784h"})["spec"]["activeDeadlineSeconds"] == year + 2 * 600 + 120


def test_the_launcher_waits_for_the_bridge_as_long_as_the_pod_may_take_to_start() -> None:
    def wait(**timeouts: str) -> str:
        env = {item["name"]: item["value"] for item in container(make(timeouts=timeouts), "task")["env"]}
        return str(env["POLYPOD_BRIDGE_WAIT"])

    assert wait() == "600"
    assert wait(pending="1m", startup="10s") == "70"
    assert wait(pending="8784h") == str(366 * 86400)


def test_the_task_gets_sigterm_before_the_images_own_stop_signal() -> None:
    hook = container(make(), "task")["lifecycle"]
    assert hook == {"preStop": {"exec": {"command": ["/polypod/launcher", "stop"]}}}


def test_templates_are_merged_by_name_the_taskruns_last() -> None:
    entry = {
        "resources": {"limits": {"memory": "1Gi"}},
        "image_pull_secrets": ["registry"],
        "pod_template": {
            "metadata": {"labels": {"team": "a", "tier": "1"}},
            "spec": {
                "tolerations": [{"key": "a"}],
                "containers": [{"name": "task", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]}],
            },
        },
    }
    queue = {"metadata": {"labels": {"tier": "2"}}}
    user = {
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "priorityClassName": "high",
            "tolerations": [{"key": "b"}],
            "containers": [{"name": "task", "env": [{"name": "B", "value": "2"}]}, {"name": "side", "image": "s"}],
            "initContainers": [{"name": "bridge", "resources": {"limits": {"memory": "1Gi"}}}],
            "volumes": [{"name": "tmp", "emptyDir": None, "ephemeral": {}}],
        }
    }
    pod = make(entry, queue=queue, podTemplate=user)
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"]["tier"] == "2"
    spec = pod["spec"]
    assert spec["tolerations"] == [{"key": "a"}, {"key": "b"}]
    assert (spec["nodeSelector"], spec["priorityClassName"]) == ({"disk": "ssd"}, "high")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    env = {item["name"]: item["value"] for item in container(pod, "task")["env"]}
    assert env == {"POLYPOD_SOCKET": "/polypod/bridge.sock", "POLYPOD_BRIDGE_WAIT": "600", "A": "1", "B": "2"}
    assert container(pod, "task")["resources"] == {"limits": {"memory": "1Gi"}}
    assert container(pod, "bridge")["resources"]["limits"] == {"memory": "1Gi"}
    assert {"name": "tmp", "ephemeral": {}} in spec["volumes"]
    assert [item["name"] for item in spec["containers"]] == ["task", "side"]


@pytest.mark.parametrize(
    ("languages", "template", "expected"),
    [
        ([], [], ["ours", "mirror"]),
        (["registry"], [], ["registry", "ours", "mirror"]),
        (["ours"], [], ["ours", "mirror"]),
        (["registry"], ["users", "ours"], ["registry", "ours", "mirror", "users"]),
    ],
)
def test_the_bridges_pull_secrets_are_in_every_pod(
    languages: list[str], template: list[str], expected: list[str]
) -> None:
    settings = replace(SETTINGS, bridge_pull_secrets=("ours", "mirror"), log=LogSettings("s3://b"))
    overlay = {"spec": {"imagePullSecrets": [{"name": name} for name in template]}} if template else {}
    run = task_run(podTemplate=overlay)
    entry = msgspec.structs.replace(ROUTING.coordinators["native"], image_pull_secrets=languages)
    pod = build(run, 1, 1, Route("native", entry, []), settings)
    assert [item["name"] for item in pod["spec"]["imagePullSecrets"]] == expected
    # the pod that reads the stored log pulls the same image
    assert json.loads(pod["metadata"]["annotations"]["polypod.dev/log"])["imagePullSecrets"] == expected
    refused = refusal(run, 1, 1, Refusal(reason="NoImage", message="x"), settings)
    assert [item["name"] for item in refused["spec"]["imagePullSecrets"]] == ["ours", "mirror"]


def test_no_template_changes_who_the_pod_belongs_to() -> None:
    labels = {"polypod.dev/taskrun-uid": "another", "polypod.dev/attempt": "9", "mine": "x"}
    metadata = make(podTemplate={"metadata": {"labels": labels}})["metadata"]
    assert metadata["labels"]["polypod.dev/taskrun-uid"] == "uid-1"
    assert metadata["labels"]["polypod.dev/attempt"] == "1"
    assert metadata["labels"]["mine"] == "x"


TASK = {"name": "task"}
WEAK: list[tuple[dict[str, Any], str]] = [
    ({"hostNetwork": True}, "hostNetwork"),
    ({"hostPID": True}, "hostPID"),
    ({"hostIPC": True}, "hostIPC"),
    ({"shareProcessNamespace": True}, "shareProcessNamespace"),
    ({"serviceAccountName": "admin"}, "serviceAccountName"),
    ({"serviceAccount": "admin"}, "serviceAccountName"),
    ({"automountServiceAccountToken": True}, "serviceAccountToken"),
    ({"securityContext": {"runAsNonRoot": False}}, "runAsRoot"),
    ({"securityContext": {"runAsUser": 0}}, "runAsRoot"),
    ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
    ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "hostPath"),
    ({"volumes": [{"name": "x", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
     "serviceAccountToken"),
    ({"containers": [{**TASK, "securityContext": {"privileged": True}}]}, "privileged"),
    ({"containers": [{**TASK, "securityContext": {"allowPrivilegeEscalation": True}}]}, "allowPrivilegeEscalation"),
    ({"containers": [{**TASK, "securityContext": {"readOnlyRootFilesystem": False}}]}, "writableRootFilesystem"),
    ({"containers": [{**TASK, "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]}, "capabilities"),
    ({"containers": [{**TASK, "securityContext": {"capabilities": {"drop": []}}}]}, "capabilities"),
    ({"containers": [{**TASK, "securityContext": {"procMount": "Unmasked"}}]}, "procMount"),
    ({"containers": [{**TASK, "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "hostPort"),
    ({"initContainers": [{"name": "i", "image": "i", "securityContext": {"runAsUser": 0}}]}, "runAsRoot"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "allowance"), WEAK, ids=[json.dumps(spec)[:60] for spec, _ in WEAK])
def test_what_weakens_the_pod_is_refused_unless_the_routing_allows_it(spec: dict[str, Any], allowance: str) -> None:
    template = {"spec": spec}
    with pytest.raises(UserError) as refused:
        make(podTemplate=template)
    assert refused.value.reason == "ForbiddenPodTemplate"
    assert repr(allowance) in refused.value.message
    others = [item for item in security.ALLOWANCES if item != allowance]
    with pytest.raises(UserError):
        make({"allow": others}, podTemplate=template)
    assert make({"allow": [allowance]}, podTemplate=template)
    # the routing's own template is no exception: it says what it allows
    with pytest.raises(UserError):
        make({"pod_template": template})


NEVER: list[tuple[dict[str, Any], str]] = [
    ({"spec": {"restartPolicy": "Always"}}, "restartPolicy"),
    ({"spec": {"containers": None}}, "spec.containers is null"),
    ({"spec": {"containers": [{"image": "x"}]}}, "without a name"),
    ({"spec": []}, "spec is []; it must be a mapping"),
    ({"spec": None}, "spec is null"),
    ({"metadata": {"labels": ["a"]}}, "metadata.labels is ['a']; it must be a mapping of strings"),
    ({"metadata": {"labels": {"a": 1}}}, "quote numbers"),
    ({"spec": {"containers": [{"name": "task", "env": {"A": "b"}}]}}, "spec.containers[0].env is a mapping with 'A'"),
    ({"spec": {"containers": [{"name": "task", "ports": [8080]}]}}, "spec.containers[0].ports is [8080]"),
    ({"spec": {"containers": [{"name": "task", "securityContext": "restricted"}]}}, "securityContext is 'restricted'"),
    (
        {"spec": {"containers": [{"name": "task", "securityContext": {"capabilities": ["ALL"]}}]}},
        "capabilities is ['ALL']; it must be a mapping",
    ),
    ({"spec": {"containers": [{"name": "task", "securityContext": {"capabilities": {"drop": "ALL"}}}]}}, "list of strings"),
    ({"spec": {"volumes": ["a"]}}, "spec.volumes is ['a']"),
    ({"spec": {"nodeSelector": {"disk": True}}}, "spec.nodeSelector"),
    ({"spec": {"tolerations": {"key": "a"}}}, "spec.tolerations"),
    ({"spec": {"containers": [{"name": 5}]}}, "without a name"),
    ({"spec": "x"}, "spec is 'x'"),
    ({"spec": {"containers": [{"name": "task", "restartPolicy": "Always"}]}}, "restartPolicy"),
    (
        {"spec": {"containers": [{"name": "task", "volumeMounts": [
            {"name": "polypod-run", "mountPath": "/polypod", "readOnly": False}]}]}},
        "read-only",
    ),
    (
        {"spec": {"containers": [{"name": "task", "volumeMounts": [{"name": "polypod-run", "mountPath": "/mine"}]}]}},
        "read-only",
    ),
    ({"metadata": {"name": "x"}}, "metadata.name"),
    ({"kind": "Pod"}, "kind"),
    ({"spec": {"containers": [{**TASK, "command": ["sh"]}]}}, "launcher"),
    ({"spec": {"containers": [{**TASK, "volumeMounts": None}]}}, "/polypod"),
    ({"spec": {"containers": [{**TASK, "volumeMounts": [{"name": "tmp", "mountPath": "/polypod"}]}]}}, "/polypod"),
    ({"spec": {"containers": [{**TASK, "env": [{"name": "POLYPOD_SOCKET", "value": "x"}]}]}}, "POLYPOD_SOCKET"),
    ({"spec": {"containers": [{**TASK, "volumeMounts": [{"name": "polypod-token", "mountPath": "/t"}]}]}}, "reserved"),
    ({"spec": {"containers": [{"name": "spy", "image": "x",
                               "volumeMounts": [{"name": "polypod-run", "mountPath": "/p"}]}]}}, "reserved"),
    ({"spec": {"initContainers": [{"name": "bridge", "image": "mine"}]}}, "the bridge"),
    ({"spec": {"volumes": [{"name": "polypod-run", "emptyDir": {}}]}}, "reserved"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "word"), NEVER, ids=[json.dumps(template)[:60] for template, _ in NEVER])
def test_what_no_routing_can_allow(template: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError) as refused:
        make({"allow": list(security.ALLOWANCES)}, podTemplate=template)
    assert word in refused.value.message


def test_artifacts_by_image_volume_by_copy_and_by_claim() -> None:
    source = {"image": "jars:1", "path": "/jars/", "mountPath": "/opt/jars", "imagePullPolicy": "Always"}
    java = {"classpath": "JavaCoordinator", "kwargs": {"jars_root": ["/opt/jars"]}}
    pod = make(java, artifacts=source)
    volume = {"name": "polypod-artifacts", "image": {"reference": "jars:1", "pullPolicy": "Always"}}
    assert volume in pod["spec"]["volumes"]
    mount = {"name": "polypod-artifacts", "mountPath": "/opt/jars", "readOnly": True, "subPath": "jars"}
    assert mount in container(pod, "task")["volumeMounts"]
    # where the cluster has no image volumes, and for native bundles always: those may be mounted noexec
    old = Settings("bridge:1", "http://api/", image_volumes=False)
    assert make(java, old, artifacts=source)["spec"]["volumes"] == make(artifacts=source)["spec"]["volumes"]
    pod = make(artifacts=source)
    copy = container(pod, "copy-artifacts")
    assert copy["command"] == ["/polypod/launcher", "copy", "/jars", "/polypod-artifacts"]
    assert [item["name"] for item in pod["spec"]["initContainers"]] == ["bridge", "copy-artifacts"]
    pod = make({"artifacts": {"persistent_volume_claim": "jars"}})
    assert {
        "name": "polypod-artifacts",
        "persistentVolumeClaim": {"claimName": "jars", "readOnly": True},
    } in pod["spec"]["volumes"]


def test_no_image_says_what_to_set() -> None:
    with pytest.raises(UserError, match=r"set coordinators\.native\.image or queue_to_image\.q"):
        make({"image": None})
    assert container(make({"image": None}, podTemplate={"spec": {"containers": [{**TASK, "image": "x"}]}}), "task")


@pytest.mark.parametrize("name", ["short", "a" * 253, "with.dots.in-it", "ends-" + "x" * 48 + "-" + "y" * 30])
def test_a_pods_name_is_a_host_name_and_differs_by_attempt_and_by_taskrun(name: str) -> None:
    names = {pod_name(name, uid, attempt) for uid in ("1", "2") for attempt in (1, 2, 1000)}
    assert len(names) == 6
    for made in names:
        assert len(made) <= 63
        assert made.replace("-", "").isalnum()
        assert not made.startswith("-")


def test_a_queue_overrides_its_coordinators_entry() -> None:
    document = {
        "coordinators": {
            "native": {
                "classpath": EXECUTABLE,
                "kwargs": {"executables_root": ["/a"], "task_startup_timeout": 5},
                "image": "a:1",
                "resources": {"limits": {"memory": "1Gi"}},
            }
        },
        "queue_to_coordinator": {"q": "native", "eu": "native"},
        "queue_to_image": {"eu": "eu:1"},
        "queue_overrides": {
            "eu": {"image": "loses:1", "kwargs": {"executables_root": ["/b"]}, "pod_template": {"spec": {"x": 1}}}
        },
    }
    made = parse_routing(document, "test")
    name, entry = made.for_queue("eu", "who")
    assert (name, entry.image, entry.resources) == ("native", "eu:1", {"limits": {"memory": "1Gi"}})
    assert entry.kwargs == {"executables_root": ["/b"], "task_startup_timeout": 5}
    assert made.pod_templates(entry, "eu") == [{"spec": {"x": 1}}]
    assert made.for_queue("q", "who")[1].image == "a:1"


def test_merge_changes_neither_side() -> None:
    base = {"a": {"b": [1]}, "containers": [{"name": "x", "env": [{"name": "E", "value": "1"}]}]}
    over = {"a": {"c": 2}, "containers": [{"name": "x", "env": [{"name": "F", "value": "2"}]}, {"name": "y"}]}
    before = json.dumps([base, over])
    merged = merge(base, over)
    assert merged == {
        "a": {"b": [1], "c": 2},
        "containers": [
            {"name": "x", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
            {"name": "y"},
        ],
    }
    assert json.dumps([base, over]) == before
    assert merge({"a": 1}, {"a": None}) == {}


@pytest.mark.parametrize(
    ("log", "base"),
    [
        (LogSettings("s3://bucket/{namespace}/logs/", "keys"), "s3://bucket/ns/logs"),
        (LogSettings(claim="volume"), "file:///var/log/polypod"),
    ],
)
def test_where_the_log_is_kept_only_the_bridge_sees(log: LogSettings, base: str) -> None:
    template = {"spec": {"serviceAccountName": "writer", "imagePullSecrets": [{"name": "pull"}]}}
    pod = make({"allow": ["serviceAccountName"]}, replace(SETTINGS, log=log), podTemplate=template)
    given = config(pod).pod
    assert given is not None
    assert given.log is not None
    assert given.log.pod == pod["metadata"]["name"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(pod, "bridge")["volumeMounts"]}
    assert mounts["polypod-log"] == given.log.spool_dir
    assert not [mount for mount in container(pod, "task")["volumeMounts"] if "log" in mount["name"]]
    # what the status will say of it comes from the pod itself
    seen = parse_pod({**pod, "metadata": {**pod["metadata"], "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}})
    assert seen.log is not None
    assert seen.log.url == f"{base}/{given.log.path}"
    assert (seen.log.secret_name, seen.log.persistent_volume_claim) == (log.secret, log.claim)
    assert (seen.log.service_account_name, seen.log.image_pull_secrets) == ("writer", ["pull"])
    if log.secret:
        assert mounts["polypod-log-options"] == given.log.options_dir
    else:
        assert base.endswith(mounts["polypod-log-volume"])


@pytest.mark.parametrize(
    ("log", "template", "group"),
    [
        # the group of Airflow's image, so that each may write into the folders that the other has made
        (LogSettings(claim="volume"), {}, 0),
        (LogSettings("file:///var/log/polypod/{namespace}", claim="volume"), {}, 0),
        (LogSettings(claim="volume"), {"spec": {"securityContext": {"runAsUser": 1000}}}, 0),
        # a group that the template names stays
        (LogSettings(claim="volume"), {"spec": {"securityContext": {"runAsGroup": 1000}}}, None),
        (LogSettings("s3://bucket/logs", "keys"), {}, None),
        (None, {}, None),
    ],
)  # fmt: skip
def test_on_a_shared_volume_the_bridge_and_nobody_else_writes_with_the_group_of_airflows_image(
    log: LogSettings | None, template: dict[str, Any], group: int | None
) -> None:
    pod = make({}, replace(SETTINGS, log=log), podTemplate=template)
    assert container(pod, "bridge")["securityContext"].get("runAsGroup") == group
    assert "runAsGroup" not in container(pod, "task")["securityContext"]
    assert pod["spec"]["securityContext"]["runAsGroup"] != 0
    assert pod["spec"]["securityContext"]["fsGroup"] == security.USER


def test_no_template_says_where_a_log_is_kept() -> None:
    pod = make(podTemplate={"metadata": {"annotations": {"polypod.dev/log": '{"url": "x", "readerImage": "evil"}'}}})
    assert "polypod.dev/log" not in pod["metadata"]["annotations"]
    assert "polypod-log" not in json.dumps(pod["spec"])


def test_airflows_settings_are_in_the_language_container_and_its_template_may_change_them() -> None:
    found = {"AIRFLOW__API__BASE_URL": "/", "AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS": "$(HOME)"}
    template = {"spec": {"containers": [{"name": "task", "env": [{"name": "AIRFLOW__API__BASE_URL", "value": "/a"}]}]}}
    entry = {"image": "i", "pod_template": template}
    pod = make(entry, settings=replace(SETTINGS, airflow=found))
    env = {item["name"]: item["value"] for item in container(pod, "task")["env"]}
    assert env["AIRFLOW__API__BASE_URL"] == "/a"
    assert env["AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS"] == "$$(HOME)"


BUNDLES: dict[str, Any] = {
    "folder": {"path": "/opt/app/bin"},
    "other": {"path": "/opt/other"},
    "image": {"image": "registry/handlers:1", "path": "go"},
    "claim": {"persistent_volume_claim": "handlers", "mount_path": "/mnt/handlers"},
}


@pytest.mark.parametrize(
    ("bundle", "folder", "mounted"),
    [("folder", "/opt/app/bin", ""), ("image", "/artifacts", "image"), ("claim", "/mnt/handlers", "claim")],
)
def test_a_dag_bundle_is_where_the_routing_says(bundle: str, folder: str, mounted: str) -> None:
    entry = {"classpath": "JavaCoordinator", "kwargs": {"task_handler_bundle_name": bundle}, "image": "i"}
    document = {"coordinators": {"jvm": entry}, "queue_to_coordinator": {"q": "jvm"}, "dag_bundles": BUNDLES}
    made = parse_routing(document, "test")
    _, spec = made.for_queue("q", "a task")
    route = Route("jvm", spec, [], made.bundle_folders(spec))
    pod = build(task_run(), 1, 1, route, SETTINGS)
    given = config(pod)
    assert given.dag_bundles == {"folder": "/opt/app/bin", "other": "/opt/other"} | {bundle: folder}
    assert given.coordinator.kwargs == {"task_handler_bundle_name": bundle}
    volumes = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "polypod-artifacts"]
    assert [next(key for key in volume if key != "name") for volume in volumes] == (
        [{"image": "image", "claim": "persistentVolumeClaim"}[mounted]] if mounted else []
    )


def test_artifacts_alone_say_where_they_are() -> None:
    entry = {"classpath": "JavaCoordinator", "image": "i", "artifacts": {"image": "a", "mount_path": "/jars"}}
    made = parse_routing({"coordinators": {"jvm": entry}, "queue_to_coordinator": {"q": "jvm"}}, "test")
    assert made.for_queue("q", "a task")[1].kwargs == {"jars_root": ["/jars"]}


BAD_BUNDLES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"task_handler_bundle_name": "fodler"}, {}, "did you mean 'folder'?"),
    ({"task_handler_bundle_name": 3}, {}, "names Dag bundle 3"),
    ({"task_handler_bundle_name": "folder", "jars_root": ["/x"]}, {}, "and jars_root are both set"),
    ({"task_handler_bundle_name": "image"}, {"artifacts": {"image": "x"}}, "say in dag_bundles.image"),
]


@pytest.mark.parametrize(("kwargs", "more", "words"), BAD_BUNDLES)
def test_a_bundle_that_cannot_be_meant_is_refused(kwargs: dict[str, Any], more: dict[str, Any], words: str) -> None:
    entry = {"classpath": "JavaCoordinator", "kwargs": kwargs, **more}
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        parse_routing({"coordinators": {"jvm": entry}, "dag_bundles": BUNDLES}, "test")
    assert "coordinators.jvm.kwargs.task_handler_bundle_name" in caught.value.message


@pytest.mark.parametrize("bundle", [{}, {"image": "i", "persistent_volume_claim": "c"}, {"paht": "/x"}, {"path": 3}])
def test_a_bundle_is_a_folder_an_image_or_a_claim(bundle: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="dag_bundles"):
        parse_routing({"dag_bundles": {"b": bundle}}, "test")


def test_a_queue_that_says_where_takes_the_place_of_what_its_coordinator_says() -> None:
    document = {
        "coordinators": {"jvm": {"classpath": "JavaCoordinator", "kwargs": {"task_handler_bundle_name": "folder"}}},
        "queue_to_coordinator": {"q": "jvm", "r": "jvm"},
        "dag_bundles": BUNDLES,
        "queue_overrides": {
            "q": {"kwargs": {"jars_root": ["/own"]}},
            "r": {"kwargs": {"task_handler_bundle_name": "other", "jvm_args": ["-Xmx1g"]}},
        },
    }
    made = parse_routing(document, "test")
    assert made.for_queue("q", "a task")[1].kwargs == {"jars_root": ["/own"]}
    kwargs = made.for_queue("r", "a task")[1].kwargs
    assert kwargs == {"task_handler_bundle_name": "other", "jvm_args": ["-Xmx1g"]}


def test_a_refusal_has_the_workload_and_nothing_else() -> None:
    run = task_run(workloadSecretRef={"name": "w", "key": "workload.json"}, podTemplate={"spec": {"hostNetwork": True}})
    made = SETTINGS.refuse(run, 1, 1, "InvalidRouting", "queue $(HOME) is not mapped")
    [bridge] = made["spec"]["containers"]
    assert bridge["name"] == "bridge"
    refusing = msgspec.json.decode(bridge["env"][0]["value"].replace("$$(", "$("), type=BridgeConfig)
    assert refusing.refusal == Refusal(reason="InvalidRouting", message="queue $(HOME) is not mapped")
    assert security.violations(made["spec"], []) == []
    assert [item["name"] for item in bridge["volumeMounts"]] == ["polypod-state", "polypod-workload"]
    parsed = parse_pod({**made, "metadata": {**made["metadata"], "uid": "u", "creationTimestamp": NOW.isoformat()}})
    assert (parsed.owner, parsed.attempt, parsed.coordinator) == (run.uid, 1, None)


def test_ports_are_known_by_number_and_protocol() -> None:
    base = {
        "ports": [{"containerPort": 53, "name": "dns"}, {"containerPort": 53, "protocol": "UDP", "name": "dns-udp"}]
    }
    over = {"ports": [{"containerPort": 53, "protocol": "TCP", "name": "changed"}, {"containerPort": 80}]}
    assert [(item["containerPort"], item.get("protocol"), item.get("name")) for item in merge(base, over)["ports"]] == [
        (53, "TCP", "changed"), (53, "UDP", "dns-udp"), (80, None, None),
    ]  # fmt: skip


def test_the_bridge_has_the_resources_that_the_operator_was_given() -> None:
    given = ["--bridge-image=b", "--execution-api-url=http://a/", '--bridge-resources={"limits": {"cpu": 1}}']
    options = main._parse(given)
    pod = make(settings=replace(SETTINGS, bridge_resources=options.bridge_resources))
    [bridge] = pod["spec"]["initContainers"]
    assert bridge["resources"] == {"limits": {"cpu": 1}}


@pytest.mark.parametrize("text", ["{", "[]", '{"limits": 5}', '{"limits": {"cpu": {}}}'])
def test_resources_that_are_none_are_refused_at_the_start(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main._parse(["--bridge-image=b", "--execution-api-url=http://a/", f"--bridge-resources={text}"])
    assert "is not a container's resources as JSON" in capsys.readouterr().err
