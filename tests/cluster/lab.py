"""Polypod on a real cluster, as the tests use it: apply, look, wait for conditions. Every wait has a generous limit."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from support.artifacts import make_forms
from support.bridge import PATIENT, QUICK_JVM
from support.paths import GO_ROOT, JAVA_ROOT, NODE, ROOT, TYPESCRIPT_ROOT
from support.rogue_runtime import MANIFEST
from support.waiting import wait_until

from cluster import images, polypod, programs
from cluster.client import Client, Unreadable
from cluster.node import Node, sweep
from cluster.postgres import Postgres

WAIT = 180.0
Raw = dict[str, Any]


def conformance_images(folder: Path) -> dict[str, Path]:
    """Build the language images of the conformance programs, and one whose runtime misbehaves."""
    python = ROOT / f"build/image/{polypod.ARCH}/bridge"
    node, bundle = folder / "node", folder / "bundle.mjs"
    node.write_text(f"#!/usr/bin/python3 -P\n{(ROOT / 'tests/support/rogue.py').read_text()}")
    node.chmod(0o755)
    bundle.write_text(f"//# airflowMetadata={base64.b64encode(MANIFEST.encode()).decode()}\n")
    rogue_file = (
        "COPY node /usr/local/bin/node\nCOPY bundle.mjs /opt/app/bundle.mjs\n"
        "COPY python /opt/polypod\nENV PATH=/usr/local/bin:/usr/bin\n"
    )
    return {
        "golang": polypod.language_image("conformance-go", {"opt/app/bin/conformance": GO_ROOT / "conformance"}),
        "jvm": polypod.language_image(
            "conformance-jvm", {**polypod.tree(polypod.jre()), "opt/app/jars": JAVA_ROOT}, "/opt/java/bin"
        ),
        "typescript": polypod.language_image(
            "conformance-typescript",
            {**polypod.tree(polypod.node_root(NODE)), "opt/app/bundles/bundle.mjs": TYPESCRIPT_ROOT / "bundle.mjs"},
            "/usr/bin",
        ),
        "rogue": polypod.on_our_base("rogue", rogue_file, {"node": node, "bundle.mjs": bundle, "python": python}),
        # artifacts alone, and language images without any: a JRE, and for Go nothing at all
        "bundles": images.build(
            "bundles", "FROM scratch\nCOPY conformance /bundles/conformance\n", {"conformance": GO_ROOT / "conformance"}
        ),
        "jars": images.build("jars", "FROM scratch\nCOPY jars /jars\n", {"jars": JAVA_ROOT}),
        # the forms that artifacts have, a folder each
        "forms": images.build("forms", "FROM scratch\nCOPY forms /forms\n", {"forms": make_forms(folder / "forms")}),
        "jre": polypod.language_image("jre", polypod.tree(polypod.jre()), "/opt/java/bin"),
        "empty": images.build(
            "empty", "FROM scratch\nCOPY nothing /nothing\nUSER 65532:65532\n", {"nothing": _empty(folder)}
        ),
    }


def _empty(folder: Path) -> Path:
    made = folder / "nothing"
    made.write_text("")
    return made


POLYPOD_NAMESPACE: Raw = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": polypod.NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
COORDINATORS: dict[str, tuple[str, Raw]] = {
    "golang": ("executable.ExecutableCoordinator", {"executables_root": ["/opt/app/bin"]}),
    "jvm": ("java.JavaCoordinator", {"jars_root": ["/opt/app/jars"], "jvm_args": QUICK_JVM}),
    "typescript": ("node.NodeCoordinator", {"bundles_root": ["/opt/app/bundles"]}),
    "rogue": ("node.NodeCoordinator", {"bundles_root": ["/opt/app"]}),
}


class Lab:
    """A cluster with Polypod on it: our own node, or the cluster of `POLYPOD_TEST_KUBECONFIG`."""

    def __init__(self, folder: Path, database: str = "sqlite") -> None:
        """Prepare; `database` is what the Execution API stores in: sqlite or postgresql."""
        self.folder, self.database = folder, database
        self.node: Node | None = None
        given = os.environ.get("POLYPOD_TEST_KUBECONFIG")
        if given:
            self._kubectl = [
                shutil.which("kubectl") or str(programs.CACHE / "bin" / "kubectl"),
                f"--kubeconfig={given}",
            ]
            self.helm = polypod.Helm(Path(given))
        else:
            self.node = Node(secrets.token_hex(3))

    def start(self) -> None:
        """Bring the cluster up, without Polypod, and push all images."""
        built = {**polypod.own_images(), **conformance_images(self.folder)}
        if self.node is not None:
            sweep()
            self.node.up(owner=os.getpid())
            self._kubectl = [str(self.node.bin / "kubectl"), f"--kubeconfig={self.node.kubeconfig}"]
            self.helm = polypod.Helm(self.node.kubeconfig)
        self.images = self.push(built)

    def up(self) -> None:
        self.start()
        self.kubectl("apply", "-f", "-", stdin=json.dumps(POLYPOD_NAMESPACE))
        self.values = {
            **polypod.image_values(self.images),
            # the routing is ours, and there is nobody here who makes volumes
            "routing": {"create": False},
        }
        self.values["executionApi"] |= {"persistence": {"enabled": False}}
        if self.database == "postgresql":
            assert self.node is not None
            store = Postgres(self.node)
            store.make()
            store.start()
            self.values["executionApi"] = self.on(store)
        self.helm.install(self.values)
        self.routing = self.make_routing()
        self.put_routing(self.routing)

    def on(self, store: Postgres) -> Raw:
        """Return the chart's values for the Execution API that have it keep all in PostgreSQL, with two replicas."""
        target = ("-n", polypod.NAMESPACE)
        self.kubectl(*target, "create", "secret", "generic", store.name, f"--from-literal=url={store.url}")
        return {**self.values["executionApi"], "replicas": 2, "postgresql": {"existingSecret": store.name}}

    def push(self, layouts: Mapping[str, Path]) -> dict[str, str]:
        """Push images to where the cluster pulls from; return their names there."""
        if self.node is not None:
            return polypod.push(self.node, layouts)
        return polypod.push_to(os.environ.get("POLYPOD_TEST_REGISTRY", ""), layouts)

    def down(self) -> None:
        if self.node is not None:
            self.node.down()

    def make_routing(self) -> Raw:
        """Return a routing with a coordinator and a queue for each conformance program."""
        entries: dict[str, Raw] = {}
        for name, (classpath, kwargs) in COORDINATORS.items():
            entries[name] = {
                "classpath": f"airflow.sdk.coordinators.{classpath}",
                "kwargs": {**kwargs, **PATIENT},
                "image": self.images[name],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            }
        return {"coordinators": entries, "queue_to_coordinator": {name: name for name in entries}}

    def put_routing(self, routing: Mapping[str, Any]) -> None:
        """Write the routing ConfigMap."""
        data = {key: yaml.safe_dump(value) if not isinstance(value, str) else value for key, value in routing.items()}
        metadata = {"name": "polypod-routing", "namespace": "polypod-system"}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        # replaced and not merged: a key that is left out must go
        done = self.kubectl("replace", "-f", "-", stdin=json.dumps(document), check=False)
        if done.returncode != 0:
            self.kubectl("create", "-f", "-", stdin=json.dumps(document))

    # kubectl.

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        command = [*self._kubectl, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0 or not check, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done

    def get(self, *arguments: str) -> Raw:
        """Return what `kubectl get` returns; on our own node without a process."""
        if self.node is not None:
            with contextlib.suppress(Unreadable):
                return self._client.get(*arguments)
        found: Raw = json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)
        return found

    def apply(self, *documents: Raw, namespace: str = "") -> None:
        """Apply objects, as one `kubectl apply` does; new ones on our own node without a process."""
        left = list(documents)
        if self.node is not None:
            left = [document for document in documents if not self._client.create(_as_applied(document), namespace)]
        if left:
            target = ("-n", namespace) if namespace else ()
            self.kubectl(*target, "apply", "-f", "-", stdin=yaml.safe_dump_all(left))

    def merge(self, kind: str, namespace: str, name: str, change: Raw) -> None:
        """Change an object by a merge patch."""
        if self.node is not None:
            self._client.merge(kind, namespace, name, change)
        else:
            self.kubectl("-n", namespace, "patch", kind, name, "--type=merge", "-p", json.dumps(change))

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object, and wait for nothing."""
        if self.node is not None:
            self._client.delete(kind, name, namespace)
        else:
            self.kubectl(*(("-n", namespace) if namespace else ()), "delete", kind, name, "--wait=false")

    def logs(self, namespace: str, pod: str, container: str) -> str:
        """Return a container's log; empty if it has none."""
        if self.node is not None:
            return self._client.logs(namespace, pod, container)
        return self.kubectl("-n", namespace, "logs", pod, "-c", container, check=False).stdout

    def has(self, *arguments: str) -> bool:
        """Tell whether there is such an object."""
        if self.node is not None:
            return self._client.has(*arguments)
        return self.kubectl("get", *arguments, check=False).returncode == 0

    @property
    def _client(self) -> Client:
        assert self.node is not None
        return self.node.client

    def set_operator_option(self, option: str) -> None:
        """Restart the operator with another value of an option."""
        name = option.partition("=")[0]
        raw = self.get("-n", "polypod-system", "deployment", "polypod-operator")
        [container] = raw["spec"]["template"]["spec"]["containers"]
        arguments = [item for item in container["args"] if not item.startswith(f"{name}=")] + [option]
        change = [{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]
        target = ("-n", "polypod-system")
        self.kubectl(*target, "patch", "deployment", "polypod-operator", "--type=json", "-p", json.dumps(change))
        self.kubectl(*target, "rollout", "status", "deployment/polypod-operator", "--timeout=180s")

    def volume(self, name: str) -> Raw:
        """Return a volume on the node's disk that holds a bundle, for the claim of a test."""
        assert self.node is not None
        folder = self.node.folder / f"volume-{name}"
        folder.mkdir(mode=0o755)
        shutil.copy2(GO_ROOT / "conformance", folder / "conformance")
        return _volume(name, folder, "ReadOnlyMany")

    def disk(self, name: str) -> Raw:
        """Return an empty volume on the node's disk, for whoever claims one first."""
        assert self.node is not None
        folder = self.node.folder / f"disk-{name}"
        folder.mkdir()
        folder.chmod(0o777)
        return _volume(name, folder, "ReadWriteOnce")

    def record(self, name: str) -> tuple[Path, Raw]:
        """Return a file on the node's disk that tasks write into, and the volume that it is in."""
        assert self.node is not None
        folder = self.node.folder / f"record-{name}"
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        return folder / "runs", _volume(f"record-{name}", folder, "ReadWriteMany")

    @property
    def kubectl_path(self) -> str:
        return self._kubectl[0]

    @property
    def kubeconfig(self) -> Path:
        return Path(self._kubectl[1].partition("=")[2])

    def pod_ready(self, name: str) -> bool:
        """Tell whether one of Polypod's own pods is ready."""
        conditions = self.get("-n", polypod.NAMESPACE, "pod", name)["status"]["conditions"]
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def operator_pod(self) -> str | None:
        """Return the name of the operator's pod that runs, None if none does."""
        raw = self.get("-n", "polypod-system", "pods", "-l", "app.kubernetes.io/name=polypod-operator")
        names = [item["metadata"]["name"] for item in raw["items"] if "deletionTimestamp" not in item["metadata"]]
        return names[0] if names else None

    def metrics(self, component: str = "operator") -> dict[str, float]:
        """Return what the operator or the api counts: the series, labels included, and its value."""
        path = f"/api/v1/namespaces/polypod-system/services/polypod-{component}:metrics/proxy/metrics"
        text = self._client.text(path) if self.node is not None else self.kubectl("get", "--raw", path).stdout
        lines = text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def operator_logs(self) -> str:
        return self.kubectl("-n", "polypod-system", "logs", "deployment/polypod-operator", "--tail=-1").stdout

    def evidence(self) -> dict[str, str]:
        """Return the last lines of Polypod's own pods, also of containers that have ended, and of the node's services."""
        found = {} if self.node is None else self.node.services.evidence()
        for pod in self.get("-n", polypod.NAMESPACE, "pods")["items"]:
            name = pod["metadata"]["name"]
            for status in pod["status"].get("containerStatuses", ()):
                target = ("-n", polypod.NAMESPACE, "logs", name, "-c", status["name"], "--tail=30")
                title = f"{name}: {status['state']}, {status['restartCount']} restarts"
                found[title] = self.kubectl(*target, check=False).stdout
                if status["restartCount"]:
                    found[f"{name} before its restart: {status.get('lastState')}"] = self.kubectl(
                        *target, "--previous", check=False
                    ).stdout
        return found


def _as_applied(document: Raw) -> Raw:
    """Return an object with the annotation by which a later `kubectl apply` knows which fields were left out since."""
    text = json.dumps(document)
    metadata = document["metadata"]
    notes = {**metadata.get("annotations", {}), "kubectl.kubernetes.io/last-applied-configuration": text}
    return {**document, "metadata": {**metadata, "annotations": notes}} if len(text) < 200_000 else document


def _volume(name: str, folder: Path, mode: str) -> Raw:
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": [mode],
        "hostPath": {"path": str(folder)},
        "storageClassName": "",
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def claim(name: str, volume: str, mode: str) -> Raw:
    """Return the claim of a volume."""
    spec = {
        "accessModes": [mode],
        "storageClassName": "",
        "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


class Namespace:
    """A namespace of one test, which enforces the `restricted` Pod Security standard."""

    def __init__(self, lab: Lab, name: str = "") -> None:
        self.lab = lab
        self.name = name or f"test-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        lab.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels}})
        self.wait(lambda: lab.has("-n", self.name, "serviceaccount", "default"))

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        return self.lab.kubectl("-n", self.name, *arguments, stdin=stdin, check=check, timeout=timeout)

    def apply(self, *documents: Raw) -> None:
        """Apply objects, as one `kubectl apply` does."""
        self.lab.apply(*documents, namespace=self.name)

    def run(self, name: str, task_id: str, queue: str = "golang", **spec: Any) -> str:
        """Apply a TaskRun of the conformance Dag; return its name."""
        self.apply(task_run(name, task_id, queue, **spec))
        return name

    def patch(self, name: str, **spec: Any) -> None:
        self.lab.merge("taskrun", self.name, name, {"spec": spec})

    def taskrun(self, name: str) -> Raw:
        return self.lab.get("-n", self.name, "taskrun", name)

    def taskruns(self) -> dict[str, Raw]:
        return {item["metadata"]["name"]: item for item in self.lab.get("-n", self.name, "taskruns")["items"]}

    def status(self, name: str) -> Raw:
        found: Raw = self.taskrun(name).get("status", {})
        return found

    def finish(self, name: str, timeout: float = WAIT) -> Raw:
        """Wait for the end of a TaskRun; return its status."""
        self.finish_all([name], timeout)
        return self.status(name)

    def finish_all(self, names: Iterable[str], timeout: float = WAIT) -> dict[str, Raw]:
        """Wait for the end of TaskRuns; return their statuses."""
        wanted = set(names)

        def all_have_ended() -> dict[str, Raw]:
            found = {name: raw.get("status", {}) for name, raw in self.taskruns().items()}
            return found if all(_complete(found.get(name, {})) for name in wanted) else {}

        # not more often, as each look lists all TaskRuns of the namespace
        found: dict[str, Raw] = wait_until(all_have_ended, limit=timeout, seen=self.describe, every=0.7)
        return found

    def wait(self, ready: Callable[[], Any], timeout: float = WAIT) -> Any:
        """Wait until something is true; return it."""
        return wait_until(ready, limit=timeout, seen=self.describe, every=0.2)

    def until(self, name: str, **wanted: Any) -> Raw:
        """Wait until a TaskRun's status has these values; return it."""

        def matches() -> Raw | None:
            status = self.status(name)
            return status if all(status.get(key) == value for key, value in wanted.items()) else None

        found: Raw = self.wait(matches)
        return found

    def until_said(self, name: str, text: str) -> None:
        """Wait until a TaskRun's status has a message with that text."""
        self.wait(lambda: text in self.status(name).get("message", ""))

    def running(self, name: str) -> str:
        """Wait until a TaskRun's task says that it waits; return its pod's name."""
        pod: str = self.until(name, phase="Running")["attempts"][-1]["podName"]
        self.wait(lambda: '"waiting"' in self.logs(pod) or '"event":"waiting' in self.logs(pod))
        return pod

    def logs(self, pod: str, container: str = "bridge") -> str:
        return self.lab.logs(self.name, pod, container)

    def records(self, pod: str) -> list[Raw]:
        """Return the task's log as records."""
        return [json.loads(line) for line in self.logs(pod).splitlines() if line.startswith("{")]

    def pods(self) -> list[Raw]:
        found: list[Raw] = self.lab.get("-n", self.name, "pods")["items"]
        return found

    def events(self, kind: str = "TaskRun") -> list[Raw]:
        items = self.lab.get("-n", self.name, "events")["items"]
        return [item for item in items if item["involvedObject"]["kind"] == kind]

    def describe(self) -> str:
        """Return the status of each TaskRun, those that have ended well last."""
        statuses = {name: raw.get("status", {}) for name, raw in self.taskruns().items()}
        bad_first = sorted(statuses, key=lambda name: statuses[name].get("phase") == "Succeeded")
        return json.dumps({name: statuses[name] for name in bad_first}, indent=1)[:4000]

    def evidence(self) -> dict[str, str]:
        """Return the statuses of TaskRuns and pods, the Events, and the last lines of pods that did not succeed."""
        pods = self.pods()
        events = [
            f"{item['reason']} {item['involvedObject']['name']}: {item['message']}"
            for item in self.events("Pod") + self.events()
        ]
        found = {
            "TaskRuns": self.describe(),
            "pods": "\n".join(f"{pod['metadata']['name']}: {json.dumps(pod['status'])}" for pod in pods)[:4000],
            "Events": "\n".join(events),
        }
        for pod in [pod for pod in pods if pod["status"].get("phase") != "Succeeded"][:5]:
            name = pod["metadata"]["name"]
            found[f"log of {name}"] = self.logs(name)[-2000:]
        return found

    def delete(self) -> None:
        self.lab.delete("namespace", self.name)


def _complete(status: Raw) -> bool:
    return any((item["type"], item["status"]) == ("Complete", "True") for item in status.get("conditions", ()))


def task_run(name: str, task_id: str, queue: str = "golang", **spec: Any) -> Raw:
    """Return a TaskRun of the conformance Dag."""
    common = {"queue": queue, "dagId": "conformance", "taskId": task_id, "runId": f"run-{secrets.token_hex(6)}"}
    return {
        "apiVersion": "polypod.dev/v1alpha1",
        "kind": "TaskRun",
        "metadata": {"name": name},
        "spec": {**common, **spec},
    }


def rogue_env(behaviour: str, **env: str) -> Raw:
    """Return the pod template that has the rogue runtime misbehave in a given way."""
    values = [{"name": "ROGUE", "value": behaviour}, *({"name": key, "value": value} for key, value in env.items())]
    return {"spec": {"containers": [{"name": "task", "env": values}]}}


AIRFLOW_USER = 50000
"""The user of Airflow's official image; its group is 0."""


def share_folder(lab: Lab, namespace: Namespace, folder: Path) -> str:
    """Let pods write into Airflow's folder of logs, by the claim `airflow-logs`; return the volume's name."""
    name = f"airflow-{namespace.name}"
    folder.mkdir(exist_ok=True)
    for path in folder.parents[:4]:
        path.chmod(path.stat().st_mode | 0o011)
    # as in Airflow's official image
    os.chown(folder, AIRFLOW_USER, 0)
    folder.chmod(0o775)
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                 "hostPath": {"path": str(folder)}},
    }  # fmt: skip
    lab.apply(volume)
    namespace.apply(claim("airflow-logs", name, "ReadWriteMany"))
    return name
