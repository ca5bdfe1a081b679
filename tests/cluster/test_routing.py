"""The routing ConfigMap on a real cluster: hot reload, bad edits, and what a pod template may not do."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.artifacts import FORMS, language
from support.bridge import PATIENT

from cluster.lab import Lab, Namespace

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]


@pytest.fixture
def routing(lab: Lab) -> Iterator[dict[str, Any]]:
    """A routing to change; the lab's own is put back."""
    yield copy.deepcopy(lab.routing)
    lab.put_routing(lab.routing)


def test_an_unmapped_queue_fails_cleanly_and_a_mended_map_runs_at_once(
    lab: Lab, namespace: Namespace, routing: dict[str, Any]
) -> None:
    namespace.run("lost", "success", "nowhere")
    status = namespace.finish("lost")
    assert (status["phase"], status["reason"]) == ("Failed", "InvalidRouting")
    for word in ("'conformance'", "'success'", "'nowhere'", namespace.taskrun("lost")["spec"]["runId"]):
        assert word in status["message"]
    assert not namespace.pods()
    routing["queue_to_coordinator"]["nowhere"] = "golang"
    lab.put_routing(routing)
    edited = time.monotonic()
    number = 0
    while True:
        # each a new TaskRun: what has failed stays so
        name = namespace.run(f"found-{(number := number + 1)}", "success", "nowhere")
        if namespace.finish(name)["state"] == "success":
            break
        assert time.monotonic() - edited < 60


def refusal(lab: Lab, namespace: Namespace, routing: dict[str, Any]) -> str:
    """Put a routing that is refused; return the message of its Event."""

    def events() -> list[str]:
        items = lab.get("-n", "polypod-system", "events")["items"]
        return [item["message"] for item in items if item["reason"] == "RoutingInvalid"]

    before = events()
    lab.put_routing(routing)
    [message] = namespace.wait(lambda: [message for message in events() if message not in before])
    return str(message)


def test_a_bad_edit_keeps_the_last_good_routing_and_says_why(
    lab: Lab, namespace: Namespace, routing: dict[str, Any]
) -> None:
    routing["coordinators"]["golang"]["kwargs"] = {"executable_root": ["/opt"]}
    message = refusal(lab, namespace, routing)
    assert "'executable_root'" in message
    assert "did you mean 'executables_root'" in message
    namespace.run("still", "success")
    assert namespace.finish("still")["state"] == "success"
    lab.put_routing(lab.routing)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"spec": {"containers": [{"name": "task", "env": [{"name": "A", "value": 5}]}]}}, "env"),
        ({"spec": {"containers": [{"name": "task", "resources": {"limits": {"memory": "many"}}}]}}, "quantities must"),
        ({"spec": {"nodeSelector": {"a b": "c"}}}, 'spec.nodeSelector: Invalid value: "a b"'),
        ({"spec": {"tolerations": [{"operator": "Perhaps"}]}}, "spec.tolerations[0].operator"),
        ({"spec": {"hostNetwork": True}}, "hostNetwork"),
    ],
    ids=str,
)
def test_a_template_that_makes_no_pod_is_refused_with_the_routing(
    lab: Lab, namespace: Namespace, routing: dict[str, Any], template: dict[str, Any], said: str
) -> None:
    routing["queue_to_coordinator"]["eu"] = "golang"
    routing["queue_overrides"] = {"eu": {"pod_template": template}}
    message = refusal(lab, namespace, routing)
    assert "queue 'eu': " in message
    assert said in message
    # the last good one stays in use
    namespace.run("still", "success")
    assert namespace.finish("still")["state"] == "success"
    assert not [
        item for item in lab.get("-n", "polypod-system", "pods")["items"] if "trial" in item["metadata"]["name"]
    ]


def test_per_queue_overrides_and_a_coordinator_of_ones_own(
    lab: Lab, namespace: Namespace, routing: dict[str, Any]
) -> None:
    routing["queue_to_coordinator"]["eu"] = "golang"
    routing["queue_to_image"] = {"eu": lab.images["jvm"]}
    routing["queue_overrides"] = {"eu": {"pod_template": {"metadata": {"labels": {"region": "eu"}}}}}
    lab.put_routing(routing)
    namespace.wait(lambda: "routing loaded" in lab.operator_logs())
    namespace.wait(lambda: _image_of(namespace, "eu") == lab.images["jvm"])
    # the queue leads to the image of a JVM, where no bundle is; a coordinator named in the TaskRun finds the jars
    name = namespace.run("own", "skip", "eu", coordinator="jvm")
    assert namespace.finish(name)["state"] == "skipped"
    [pod] = [item for item in namespace.pods() if item["metadata"]["labels"]["polypod.dev/taskrun"] == "own"]
    assert pod["metadata"]["labels"]["region"] == "eu"


def test_every_form_of_artifact_from_the_dag_bundle_that_airflow_names(
    lab: Lab, namespace: Namespace, routing: dict[str, Any]
) -> None:
    """A configuration of Airflow 3.4 with images added: each Dag bundle is mounted, or copied for a native program."""
    images = {"golang": lab.images["empty"], "jvm": lab.images["jre"], "typescript": lab.images["typescript"]}
    for form in FORMS:
        own = lab.routing["coordinators"][language(form)]
        routing["coordinators"][form] = {
            "classpath": own["classpath"],
            "kwargs": {"task_handler_bundle_name": form, **PATIENT},
            "image": images[language(form)],
        }
        routing["queue_to_coordinator"][form] = form
    routing["dag_bundles"] = {form: {"image": lab.images["forms"], "path": f"forms/{form}"} for form in FORMS}
    lab.put_routing(routing)
    namespace.wait(lambda: _reason_of(namespace, FORMS[-1]) != "InvalidRouting")
    for form in FORMS:
        namespace.run(form, "skip" if language(form) != "typescript" else "success", form)
    found = namespace.finish_all(FORMS)
    assert {form: found[form]["state"] for form in FORMS} == {
        form: "skipped" if language(form) != "typescript" else "success" for form in FORMS
    }, found


def test_a_dag_bundle_that_is_not_known_is_named(lab: Lab, namespace: Namespace, routing: dict[str, Any]) -> None:
    routing["coordinators"]["golang"]["kwargs"] = {"task_handler_bundle_name": "go-tasks"}
    routing["dag_bundles"] = {"go-task": {"path": "/opt/app/bin"}}
    lab.put_routing(routing)

    def told() -> list[str]:
        items = lab.get("-n", "polypod-system", "events")["items"]
        return [item["message"] for item in items if "go-tasks" in item["message"]]

    [message, *_] = namespace.wait(told)
    assert "coordinators.golang.kwargs.task_handler_bundle_name names Dag bundle 'go-tasks'" in message
    assert "did you mean 'go-task'?" in message
    assert "add dag_bundles.go-tasks with the path, image or persistent_volume_claim" in message


def _reason_of(namespace: Namespace, queue: str) -> str:
    name = namespace.run(f"probe-{time.monotonic_ns()}", "skip", queue)
    return str(namespace.finish(name)["reason"])


def _image_of(namespace: Namespace, queue: str) -> str:
    name = namespace.run(f"probe-{time.monotonic_ns()}", "skip", queue)
    status = namespace.finish(name)
    return str(status["attempts"][-1]["image"]) if status.get("attempts") else ""


FORBIDDEN = {
    "host-network": ({"spec": {"hostNetwork": True}}, "hostNetwork"),
    "host-path": ({"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/etc"}}]}}, "hostPath"),
    "privileged": (
        {"spec": {"containers": [{"name": "task", "securityContext": {"privileged": True}}]}},
        "privileged",
    ),
    "account": ({"spec": {"serviceAccountName": "admin"}}, "serviceAccountName"),
    "command": ({"spec": {"containers": [{"name": "task", "command": ["sh"]}]}}, "launcher"),
    "token": (
        {"spec": {"containers": [{"name": "task", "volumeMounts": [{"name": "polypod-token", "mountPath": "/t"}]}]}},
        "is reserved",
    ),
}


def test_a_template_that_weakens_the_pod_is_refused_with_a_message(lab: Lab, namespace: Namespace) -> None:
    for name, (template, _) in FORBIDDEN.items():
        namespace.run(name, "success", podTemplate=template)
    found = namespace.finish_all(FORBIDDEN)
    for name, (_, word) in FORBIDDEN.items():
        assert (found[name]["phase"], found[name]["reason"]) == ("Failed", "ForbiddenPodTemplate"), found[name]
        assert word in found[name]["message"]
    assert not namespace.pods()


def test_what_the_api_server_finds_invalid_is_the_users_to_know(lab: Lab, namespace: Namespace) -> None:
    template = {"spec": {"containers": [{"name": "task", "resources": {"limits": {"memory": "much"}}}]}}
    namespace.run("invalid", "success", podTemplate=template)
    status = namespace.finish("invalid")
    assert status["reason"] == "InvalidPodTemplate"
    assert "quantities must match" in status["message"]


def test_a_pod_that_admission_refuses_waits_and_says_why(lab: Lab, namespace: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    namespace.apply(quota)
    namespace.wait(lambda: lab.get("-n", namespace.name, "resourcequota", "none").get("status", {}).get("hard"))
    namespace.run("refused", "success")
    status = namespace.until("refused", phase="Pending", reason="PodRefused")
    assert "exceeded quota" in status["message"]
    namespace.kubectl("delete", "resourcequota", "none")
    assert namespace.finish("refused")["state"] == "success"
