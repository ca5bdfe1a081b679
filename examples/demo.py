"""`make demo`: the sales example, locally and then on a cluster. Each command that is run is printed, to be copied."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import yaml
from cluster import polypod, programs
from cluster.__main__ import name_of_checkout
from cluster.node import Node
from cluster.services import NotReady

ROOT = Path(__file__).resolve().parents[1]


class Cluster:
    """The cluster of this checkout, brought up while something else goes on; or the one of KUBECONFIG."""

    def __init__(self) -> None:
        self.given = os.environ.get("KUBECONFIG", "")
        self.node = Node(name_of_checkout())
        self.problem: Exception | None = None
        self._thread = threading.Thread(target=self._prepare)

    def begin(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()
        if self.problem is not None:
            raise self.problem

    def _prepare(self) -> None:
        try:
            if not self.given and self.node.services.pid("kubelet") is None:
                self.node.down()
                self.node.up()
            polypod.own_images()
            polypod.sales_images()
        except (RuntimeError, NotReady, OSError, subprocess.SubprocessError) as error:
            self.problem = error

    def kubectl(self, *arguments: str) -> None:
        self.run("kubectl", *arguments)

    def run(self, *command: str) -> None:
        """Run kubectl or helm, print the command, and show what it says.

        Raises:
            RuntimeError: it failed.
        """
        shown = shlex.join(command)
        print(f"\n$ {shown}", flush=True)
        environ = {**os.environ, "KUBECONFIG": self.given or str(self.node.kubeconfig)}
        folders = [str(ROOT / ".venv/bin"), *([] if self.given else [str(programs.CACHE / "bin")])]
        environ["PATH"] = os.pathsep.join([*folders, environ["PATH"]])
        done = subprocess.run(command, env=environ, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{shown} failed with exit code {done.returncode}")

    def push(self) -> dict[str, str]:
        layouts = {**polypod.own_images(), **polypod.sales_images()}
        if self.given:
            return polypod.push_to(os.environ.get("POLYPOD_REGISTRY", ""), layouts)
        return polypod.push(self.node, layouts)


def local() -> int:
    print("== On this machine: no cluster, the same TaskRuns ==\n")
    command = ["polypod", "run", "-f", "examples/sales/taskruns.yaml", "--routing", "examples/sales/routing.yaml"]
    print(f"$ .venv/bin/{shlex.join([*command, '--show-xcoms'])}\n", flush=True)
    return subprocess.run([f".venv/bin/{command[0]}", *command[1:], "--show-xcoms"], cwd=ROOT, check=False).returncode


def on_cluster(cluster: Cluster) -> None:
    names = cluster.push()
    print("\n== On Kubernetes: Polypod, and an image for each language that holds nothing else ==", flush=True)
    work = ROOT / "build" / "demo"
    work.mkdir(parents=True, exist_ok=True)
    routing = yaml.safe_load((polypod.SALES / "cluster-routing.yaml").read_text())
    values = {**polypod.image_values(names), "routing": {
        key: yaml.safe_load(re.sub(r"(sales-[a-z]+):1\.0", lambda found: names[found[1]], text))
        for key, text in routing["data"].items()
    }}  # fmt: skip
    if not cluster.given:
        # nobody makes volumes there
        values["executionApi"]["persistence"] = {"enabled": False}
    (work / "values.yaml").write_text(yaml.safe_dump(values))
    cluster.run("helm", "upgrade", "--install", "polypod", "charts/polypod", "--namespace", polypod.NAMESPACE,
                "--create-namespace", "--wait", "--values", "build/demo/values.yaml")  # fmt: skip
    namespace = "sales"
    (work / "namespace.yaml").write_text(
        f"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n"
        "  labels: {pod-security.kubernetes.io/enforce: restricted}\n"
    )
    cluster.kubectl("apply", "-f", "build/demo/namespace.yaml")
    cluster.kubectl("-n", namespace, "delete", "taskruns", "--all", "--ignore-not-found")
    cluster.kubectl("-n", namespace, "apply", "-f", "examples/sales/taskruns.yaml")
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Succeeded", "taskrun/report", "--timeout=180s")
    cluster.kubectl("-n", namespace, "get", "taskruns")
    cluster.kubectl("-n", namespace, "logs", "-l", "polypod.dev/taskrun=extract", "-c", "bridge")
    cluster.kubectl("-n", namespace, "logs", "-l", "polypod.dev/taskrun=report", "-c", "task")
    show = (
        "python3",
        "-m",
        "polypod_execution_api.main",
        "xcoms",
        f"--namespace={namespace}",
        "--dag-id",
        "sales",
        "--run-id",
        "manual-2026-11-21",
    )
    cluster.kubectl("-n", "polypod-system", "exec", "deployment/polypod-api", "--", *show)


def main() -> int:
    os.chdir(ROOT)
    cluster = Cluster()
    if cluster.given and not os.environ.get("POLYPOD_REGISTRY"):
        print("demo: KUBECONFIG is set; set POLYPOD_REGISTRY too, to a registry that this cluster pulls from (or unset "
              "KUBECONFIG to have a cluster made here)", file=sys.stderr)  # fmt: skip
        return 2
    started = time.monotonic()
    print(
        "bringing up a real one-node Kubernetes meanwhile; its programs are built the first time (minutes)", flush=True
    )
    cluster.begin()
    code = local()
    try:
        cluster.wait()
        if code != 0:
            return code
        on_cluster(cluster)
    except (RuntimeError, NotReady) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"\nThat took {time.monotonic() - started:.0f} s.", end=" ")
    if cluster.given:
        print("To remove it: helm -n polypod-system uninstall polypod; kubectl delete namespace sales polypod-system;")
        print("  kubectl delete crd taskruns.polypod.dev")
        return 0
    print("The cluster stays up. Look around:")
    print(f"  export KUBECONFIG={cluster.node.kubeconfig} PATH={cluster.node.bin}:{ROOT}/.venv/bin:$PATH")
    print("  kubectl -n sales describe taskrun report")
    print("  kubectl explain taskrun.spec")
    print("and when you are done: make cluster-down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
