"""The commands for a cluster: the real program, as a person and as a script would use it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.cli import POLYPOD, Cli
from cluster.lab import Lab, Namespace, task_run

pytestmark = [pytest.mark.shares("tenants"), pytest.mark.needs("node", "postgresql")]


@pytest.fixture
def cli(lab: Lab, namespace: Namespace) -> Cli:
    return Cli(lab, namespace)


def test_from_submit_to_the_log(cli: Cli, namespace: Namespace, tmp_path: Path) -> None:
    data = {"AIRFLOW_VAR_CONFORMANCE_IN": "value"}
    variables = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "variables"}, "data": data}
    always = {"spec": {"containers": [{"name": "task", "imagePullPolicy": "Always"}]}}
    run = task_run("run", "slow", variablesFrom=[{"configMapRef": {"name": "variables"}}], podTemplate=always)
    file = tmp_path / "run.yaml"
    # what a TaskRun uses may stand below it
    file.write_text(yaml.safe_dump_all([run, variables]))
    assert "run.yaml:1: run: ok" in cli("validate", "-f", str(file), "--server")
    assert namespace.taskruns() == {}
    said = cli("submit", "-f", str(file), "--wait", "--timeout=120").splitlines()
    assert said[0].startswith(f"{namespace.name}/run Pending")
    assert said[-1] == f"{namespace.name}/run Succeeded (TaskSucceeded)"
    # the same file again changes nothing
    assert "run has already ended, and does not run again: Succeeded" in cli("submit", "-f", str(file))
    log = cli("logs", "run")
    assert "[info" in log
    assert "waiting" in log
    assert json.loads(cli("logs", "run", "--log-format=json").splitlines()[0])["event"]
    timeline = cli("describe", "run")
    steps = ["created", "pod made", "scheduled", "container bridge started", "image pulled in", "container task started",
             "task started", "runtime connected",
             "attempt 1: success", "succeeded"]  # fmt: skip
    # the bridge's image may have been pulled for this pod as well
    places = [timeline.rindex(step) if step == "image pulled in" else timeline.index(step) for step in steps]
    assert places == sorted(places), timeline
    assert json.loads(cli("describe", "run", "-o", "json"))["status"]["phase"] == "Succeeded"
    assert yaml.safe_load(cli("describe", "run", "-o", "yaml"))["metadata"]["name"] == "run"
    # and the operator's own log has a line for each step, with the same names on all
    said_of_it = [line for line in map(json.loads, cli.lab.operator_logs().splitlines())
                  if line.get("taskrun") == f"{namespace.name}/run"]  # fmt: skip
    assert [line["message"] for line in said_of_it] == ["pod created", "attempt ended", "TaskRun finished"]
    pod = namespace.status("run")["attempts"][0]["podName"]
    for line in said_of_it:
        assert (line["dag_id"], line["task_id"], line["queue"]) == ("conformance", "slow", "golang")
        assert (line["try_number"], line["pod"], line["run_id"]) == (1, pod, namespace.taskrun("run")["spec"]["runId"])
    assert cli("wait", "run").strip() == f"{namespace.name}/run Succeeded (TaskSucceeded)"


def test_a_log_is_followed_over_all_attempts(cli: Cli, namespace: Namespace) -> None:
    namespace.run("twice", "fail", retries={"limit": 1, "delay": "1s"})
    log = cli("logs", "-f", "twice", "--log-format=json")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    # what the runtime of each attempt has said
    status = namespace.finish("twice")
    assert status["tries"] == 2
    for attempt in status["attempts"]:
        alone = cli("logs", "twice", f"--attempt={attempt['number']}", "--log-format=json")
        assert alone.strip()
        assert alone.splitlines()[0] in log
    assert len(lines) >= 2
    assert cli("wait", "twice", code=1)


def test_what_runs_is_shown_and_cancelled(cli: Cli, namespace: Namespace) -> None:
    namespace.run("long", "wait")
    namespace.running("long")
    follower = cli.start("logs", "-f", "long")
    rows = cli("top").splitlines()
    assert rows[0].split()[:4] == ["NAMESPACE", "NAME", "PHASE", "TASK"]
    assert rows[1].split()[:4] == [namespace.name, "long", "Running", "conformance.wait"]
    assert f"not finished within 1 s: {namespace.name}/long" in cli("wait", "long", "--timeout=1", code=3)
    cli("cancel", "long")
    assert "Failed (Cancelled" in cli("wait", "long", code=1)
    # it ends with the task
    said, _ = follower.communicate(timeout=120)
    assert follower.returncode == 0
    assert "waiting" in said
    assert len(cli("top").splitlines()) == 1
    assert len(cli("top", "--all").splitlines()) == 2


def test_mistakes_are_explained(cli: Cli, namespace: Namespace, tmp_path: Path) -> None:
    namespace.run("there", "success")
    said = cli("describe", "thre", code=2)
    assert "did you mean 'there'" in said
    assert "Traceback" not in said
    namespace.finish("there")
    assert "has no attempt 7" in cli("logs", "there", "--attempt=7", code=2)
    bad = task_run("bad", "success", queue="golang")
    bad["spec"]["timeouts"] = {"execution": "soon"}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
    assert "timeouts.execution" in cli("submit", "-f", str(tmp_path / "bad.yaml"), code=2)
    [pod] = namespace.pods()
    namespace.kubectl("delete", "pod", pod["metadata"]["name"])
    assert "is gone, and its log with it" in cli("logs", "there", code=2)
    nowhere = {**cli.environ, "KUBECONFIG": str(tmp_path / "none")}
    done = subprocess.run([str(POLYPOD), "top"], env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "set KUBECONFIG" in done.stderr


def test_it_is_a_plugin_of_kubectl(cli: Cli, lab: Lab, namespace: Namespace) -> None:
    namespace.run("run", "success")
    kubectl = lab.kubectl_path
    command = [kubectl, "polypod", "wait", "run", "-n", namespace.name]
    done = subprocess.run(command, env=cli.environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Succeeded" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_each_shell(shell: str) -> None:
    said = subprocess.run([str(POLYPOD), "completion", shell], capture_output=True, text=True, check=True).stdout
    assert "_POLYPOD_COMPLETE" in said
    if shell == "bash" and shutil.which("bash"):
        subprocess.run(["bash", "-n"], input=said, text=True, check=True)
