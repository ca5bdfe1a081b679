"""Language images as people build them: with a STOPSIGNAL of their own, with half a jar, behind a Secret that is missing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.halves import HALVES, make_halves
from support.paths import GO_ROOT

from cluster import images
from cluster.lab import Lab, Namespace

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]

STOP_SIGNALS = ["SIGQUIT", "SIGKILL", "SIGWINCH", "SIGRTMIN+3", "37"]


def stopped_by(signal: str) -> Path:
    """Build the Go conformance image with a STOPSIGNAL."""
    lines = ["FROM scratch", "COPY conformance /opt/app/bin/conformance", "USER 65532:65532", f"STOPSIGNAL {signal}"]
    name = f"stop-{signal.lower().replace('+', '-')}"
    return images.build(name, "\n".join(lines) + "\n", {"conformance": GO_ROOT / "conformance"})


def test_a_task_gets_sigterm_whatever_stopsignal_its_image_has(lab: Lab, namespace: Namespace, tmp_path: Path) -> None:
    pushed = lab.push({f"stop-{index}": stopped_by(signal) for index, signal in enumerate(STOP_SIGNALS)})
    for name, image in pushed.items():
        container = {"name": "task", "image": image}
        namespace.run(name, "wait", retries={"limit": 2}, podTemplate={"spec": {"containers": [container]}})
    pods = {name: namespace.running(name) for name in pushed}
    logs = {}
    for name, pod in pods.items():
        # a cancelled TaskRun takes its pod with it
        command = [lab.kubectl_path, f"--kubeconfig={lab.kubeconfig}", "-n", namespace.name, "logs", "-f", pod, "-c"]
        with (tmp_path / name).open("w") as file:
            logs[name] = subprocess.Popen([*command, "bridge"], stdout=file, stderr=file)
    namespace.wait(lambda: all("waiting" in (tmp_path / name).read_text() for name in pods))
    for name in pods:
        namespace.patch(name, cancel=True)
    found = namespace.finish_all(pods)
    for name, signal in zip(pods, STOP_SIGNALS, strict=True):
        logs[name].wait(60)
        assert (found[name]["state"], found[name]["reason"], found[name]["tries"]) == ("failed", "Cancelled", 1), signal
        assert "stopping; cleaning up" in (tmp_path / name).read_text(), signal


def test_half_a_jar_is_named_in_the_status(lab: Lab, namespace: Namespace, tmp_path: Path) -> None:
    folder = make_halves(tmp_path / "halves")
    pushed = lab.push({"halves": images.build("halves", "FROM scratch\nCOPY halves /halves\n", {"halves": folder})})
    jre = {"spec": {"containers": [{"name": "task", "image": lab.images["jre"]}]}}
    for half in HALVES:
        jars = {"image": pushed["halves"], "path": f"halves/{half}", "mountPath": "/opt/app/jars"}
        namespace.run(half, "success", "jvm", artifacts=jars, podTemplate=jre)
    found = namespace.finish_all(HALVES)
    for half, (_, _, reason, said) in HALVES.items():
        status = found[half]
        assert (status["state"], status["reason"], status["tries"]) == ("failed", reason, 1), status
        assert said in status["message"], status


def test_an_image_pull_secret_that_is_missing_is_named(lab: Lab, namespace: Namespace) -> None:
    secrets = {"imagePullSecrets": [{"name": "no-such-secret"}]}
    # an image that needs none starts all the same
    namespace.run("public", "success", podTemplate={"spec": secrets})
    container = {"name": "task", "image": f"{lab.images['golang'].rpartition('/')[0]}/private/no-such-image:1"}
    namespace.run("private", "success", podTemplate={"spec": {**secrets, "containers": [container]}})
    assert namespace.finish("public")["state"] == "success"
    namespace.until("private", reason="ImagePullFailed")
    namespace.until_said("private", "no-such-secret")
