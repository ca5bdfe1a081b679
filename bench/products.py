"""What is compared: Polypod, Argo Workflows and Tekton, each as a controller process and an object that runs one pod.

The peers' controllers are built from their Go modules (tests/cluster/go); their CRDs come from the same modules. Their
admission webhooks are not installed, so the objects carry the defaults that these would set. The driver's kubelet
writes no WorkflowTaskResult, which an Argo pod itself would write: one write a workflow in Argo's favour.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from bare import Bare, task_run
from cluster import programs

Raw = dict[str, Any]
TEKTON_NAMESPACE, ARGO_NAMESPACE = "tekton-pipelines", "argo"


@dataclass(frozen=True)
class Product:
    """A controller, with settings.

    Attributes:
        objects: the path of the collection of its objects.
        make: returns an object by its name.
        ended: tells whether an object has ended well; fails if it has ended otherwise.
        object_of: returns the name of the object that has a pod, by the pod's name.
        start: starts the controller.
    """

    name: str
    settings: str
    objects: str
    make: Callable[[str], Raw]
    ended: Callable[[Raw], bool]
    object_of: Callable[[str], str]
    start: Callable[[Bare], subprocess.Popen[bytes]] = field(repr=False)


def install(bare: Bare) -> None:
    """Install the CRDs and the settings of the peers."""
    argo, tekton = programs.data_of(programs.ARGO), programs.data_of(programs.TEKTON)
    pages = [*sorted(argo.glob("argoproj.io_*.yaml")), *sorted((tekton / "300-crds").glob("*.yaml"))]
    for page in pages:
        bare.kubectl("apply", "--server-side", "-f", str(page))
    for namespace in (ARGO_NAMESPACE, TEKTON_NAMESPACE):
        bare.kubectl("create", "namespace", namespace)
    config_map: Raw = {"apiVersion": "v1", "kind": "ConfigMap"}
    argo_config = {**config_map, "metadata": {"name": "workflow-controller-configmap", "namespace": ARGO_NAMESPACE}}
    documents = [argo_config]
    for page in sorted(tekton.glob("config-*.yaml")):
        documents += [item for item in yaml.safe_load_all(page.read_text()) if item and item["kind"] == "ConfigMap"]
    bare.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))


def _polypod_ended(item: Raw) -> bool:
    phase = (item.get("status") or {}).get("phase")
    assert phase != "Failed", item["status"]
    return bool(phase == "Succeeded")


POLYPOD = Product(
    "Polypod", "default settings", "/apis/polypod.dev/v1alpha1/namespaces/default/taskruns", task_run, _polypod_ended,
    lambda pod: pod.rsplit("-", 2)[0], Bare.start_operator,
)  # fmt: skip


def _workflow(name: str) -> Raw:
    return {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {
            "entrypoint": "main", "serviceAccountName": "default",
            "templates": [{
                "name": "main", "nodeSelector": {"type": "kwok"},
                "container": {"image": "registry.example/sales-go:1", "command": ["/opt/app/bin/sales"]},
            }],
        },
    }  # fmt: skip


def _workflow_ended(item: Raw) -> bool:
    phase = (item.get("status") or {}).get("phase")
    assert phase not in ("Failed", "Error"), item["status"]
    return bool(phase == "Succeeded")


def argo(settings: str, *arguments: str) -> Product:
    """Return Argo Workflows with these arguments."""

    def start(bare: Bare) -> subprocess.Popen[bytes]:
        program = programs.build((programs.ARGO,)) / "workflow-controller"
        command = [str(program), f"--kubeconfig={bare.plane.kubeconfig}", f"--namespace={ARGO_NAMESPACE}",
                   "--executor-image=registry.example/argoexec:1", "--loglevel=warn", *arguments]  # fmt: skip
        return bare.start("workflow-controller", command, {"LEADER_ELECTION_DISABLE": "true"})

    path = "/apis/argoproj.io/v1alpha1/namespaces/default/workflows"
    return Product("Argo Workflows", settings, path, _workflow, _workflow_ended, lambda pod: pod, start)


def _tekton_task_run(name: str) -> Raw:
    step = {"name": "main", "image": "registry.example/sales-go:1", "command": ["/opt/app/bin/sales"],
            "computeResources": {}}  # fmt: skip
    return {
        "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": name},
        "spec": {"serviceAccountName": "default", "timeout": "1h0m0s", "taskSpec": {"steps": [step]}},
    }  # fmt: skip


def _tekton_ended(item: Raw) -> bool:
    for condition in (item.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Succeeded":
            assert condition["status"] != "False", condition
            return bool(condition["status"] == "True")
    return False


def tekton(settings: str, *arguments: str) -> Product:
    """Return Tekton with these arguments."""

    def start(bare: Bare) -> subprocess.Popen[bytes]:
        program = programs.build((programs.TEKTON,)) / "controller"
        images = ["entrypoint", "nop", "sidecarlogresults", "workingdirinit", "shell"]
        flags = [f"-{image}-image=registry.example/{image}:1" for image in images]
        command = [str(program), f"-kubeconfig={bare.plane.kubeconfig}", *flags,
                   "-shell-image-win=registry.example/shell:1", "-disable-ha", *arguments]  # fmt: skip
        return bare.start("tekton-controller", command, TEKTON_ENVIRONMENT)

    path = "/apis/tekton.dev/v1/namespaces/default/taskruns"
    return Product(
        "Tekton", settings, path, _tekton_task_run, _tekton_ended, lambda pod: pod.removesuffix("-pod"), start
    )


TEKTON_ENVIRONMENT: Mapping[str, str] = {
    "SYSTEM_NAMESPACE": TEKTON_NAMESPACE,
    "CONFIG_DEFAULTS_NAME": "config-defaults",
    "CONFIG_LOGGING_NAME": "config-logging",
    "CONFIG_OBSERVABILITY_NAME": "config-observability",
    "CONFIG_FEATURE_FLAGS_NAME": "feature-flags",
    "CONFIG_LEADERELECTION_NAME": "config-leader-election-controller",
    "CONFIG_SPIRE": "config-spire",
    "METRICS_DOMAIN": "tekton.dev/pipeline",
    "KUBERNETES_MIN_VERSION": "v1.28.0",
    "PROBES_PORT": "0",
}
