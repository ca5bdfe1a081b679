"""Manifests, and what becomes of them in `polypod run`: which object is meant by a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from polypod_cli import manifests
from polypod_cli.local_backend import _write_secrets
from polypod_cli.plan import plan
from polypod_cli.report import as_table, shown_names
from polypod_core.errors import UserError
from polypod_core.routing import parse_routing
from support.artifacts import bundle, make_jar
from support.paths import EXECUTABLE_CLASSPATH, JAVA_CLASSPATH

NAMESPACES = (None, "team-a", "team-b")


def document(kind: str, namespace: str | None, **more: Any) -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    api = "polypod.dev/v1alpha1" if kind == "TaskRun" else "v1"
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x", **where}, **more}


def task_run(namespace: str | None, **spec: Any) -> dict[str, Any]:
    return document("TaskRun", namespace, spec={"queue": "q", "dagId": "d", "taskId": "t", "runId": "r", **spec})


def write(folder: Path, *documents: dict[str, Any]) -> list[str]:
    path = folder / "taskruns.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return [str(path)]


USES: list[dict[str, Any]] = [
    {"connectionsFrom": [{"secretRef": {"name": "x"}}]},
    {"variablesFrom": [{"secretRef": {"name": "x"}}]},
    {"variablesFrom": [{"configMapRef": {"name": "x"}}]},
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_taskrun_gets_what_its_own_namespace_has(tmp_path: Path, use: dict[str, Any], reverse: bool) -> None:
    kind, data = ("ConfigMap", "data") if "configMapRef" in str(use) else ("Secret", "stringData")
    documents = [
        made
        for namespace in NAMESPACES
        for made in (task_run(namespace, **use), document(kind, namespace, **{data: {"AIRFLOW_VAR_X": str(namespace)}}))
    ]
    loaded = manifests.load(write(tmp_path, *documents[:: -1 if reverse else 1]), all_tasks=True)
    for index, item in enumerate(loaded.task_runs):
        namespace = item.task_run.metadata.namespace
        folder = tmp_path / str(index)
        _write_secrets(folder, namespace or "", item.task_run.spec, loaded)
        assert (folder / "AIRFLOW_VAR_X").read_text() == str(namespace)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("mine", NAMESPACES)
def test_what_another_namespace_has_is_not_there(tmp_path: Path, use: dict[str, Any], mine: str | None) -> None:
    kind = "ConfigMap" if "configMapRef" in str(use) else "Secret"
    others = [document(kind, other) for other in NAMESPACES if other != mine]
    with pytest.raises(UserError) as caught:
        manifests.load(write(tmp_path, task_run(mine, **use), *others), all_tasks=True)
    assert f"{kind} 'x' is not in these files" in caught.value.message
    assert (f"namespace '{mine}' has none" if mine else "the TaskRun has no namespace") in caught.value.message


def test_a_task_that_the_artifact_does_not_name_is_refused_before_anything_runs(tmp_path: Path) -> None:
    roots = {"executables_root": [str(bundle(tmp_path / "bin" / "b", "d").parent)]}
    coordinators = {"native": {"classpath": EXECUTABLE_CLASSPATH, "kwargs": roots}}
    routing = parse_routing({"coordinators": coordinators, "queue_to_coordinator": {"q": "native"}}, "test")
    [planned] = plan(manifests.load(write(tmp_path, task_run(None))), routing)
    assert planned.command.listed == {"d": ["t"]}
    with pytest.raises(UserError, match=r"taskruns\.yaml:\d+: TaskRun 'x': .*/b has no task 'T' in Dag 'd'; known: t$"):
        plan(manifests.load(write(tmp_path, task_run(None, taskId="T"))), routing)


@pytest.mark.parametrize(
    ("listed", "spec", "said"),
    [
        ('{"d":["t","u"]}', {}, None),
        (None, {"taskId": "T"}, None),
        ('{"d":["t","u"]}', {"taskId": "T"}, "m.jar has no task 'T' in Dag 'd'; known: t, u"),
        ('{"d":["t","u"]}', {"dagId": "D"}, "m.jar has no task 't' in Dag 'D'; its Dags are: d"),
        ("{}", {}, "m.jar has no task 't' in Dag 'd'"),
    ],
)
def test_a_task_that_a_jar_does_not_list_is_refused_before_anything_runs(
    tmp_path: Path, listed: str | None, spec: dict[str, Any], said: str | None
) -> None:
    make_jar(tmp_path / "jars" / "m.jar", "Main", "2026-10-30", tasks=listed)
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'version \"17\"'\n")
    java.chmod(0o755)
    kwargs = {"jars_root": str(tmp_path / "jars"), "java_executable": str(java)}
    coordinators = {"jvm": {"classpath": JAVA_CLASSPATH, "kwargs": kwargs}}
    routing = parse_routing({"coordinators": coordinators, "queue_to_coordinator": {"q": "jvm"}}, "test")
    loaded = manifests.load(write(tmp_path, task_run(None, **spec)))
    if said is None:
        plan(loaded, routing)
        return
    with pytest.raises(UserError) as caught:
        plan(loaded, routing)
    assert caught.value.message.endswith(said)


def test_a_task_waits_for_one_of_its_own_namespace(tmp_path: Path) -> None:
    waits = task_run("team-b", taskId="later", dependsOn=[{"taskId": "t"}])
    with pytest.raises(UserError, match="waits for task 't' of run 'r', which is not in these files"):
        manifests.load(write(tmp_path, task_run("team-a"), waits), all_tasks=True)


def test_taskruns_of_several_namespaces_are_shown_with_them(tmp_path: Path) -> None:
    loaded = manifests.load(write(tmp_path, *(task_run(namespace) for namespace in NAMESPACES)))
    runs = [item.task_run for item in loaded.task_runs]
    assert shown_names([run.metadata for run in runs]) == ["-/x", "team-a/x", "team-b/x"]
    assert shown_names([runs[1].metadata]) == ["x"]
    assert [line.split()[0] for line in as_table(runs).splitlines()[1:]] == ["-/x", "team-a/x", "team-b/x"]


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_two_objects_of_one_name_in_a_namespace_are_refused(tmp_path: Path, kind: str, namespace: str | None) -> None:
    twice = [document(kind, namespace, data={}) for _ in range(2)]
    with pytest.raises(UserError, match=f"{kind} .*x is there twice"):
        manifests.load(write(tmp_path, task_run(namespace), *twice))
    elsewhere = [document(kind, name, data={}) for name in NAMESPACES]
    assert manifests.load(write(tmp_path, task_run(namespace), *elsewhere)).documents


@pytest.mark.parametrize(
    "wrong",
    [{"data": {"AIRFLOW_VAR_PASSWORD": 7397397397}}, {"data": {"s3cr3t pw9/x": "a"}}, {"data": "s3cr3tpw9"},
     {"data": {"s3cr3t pw9": 7397397397}}, {"immutable": "s3cr3tpw9"}, {"s3cr3t pw9": "data"}],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
def test_what_is_wrong_with_an_object_is_told_without_its_content(
    tmp_path: Path, kind: str, wrong: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"data|immutable|unknown field") as caught:
        manifests.load(write(tmp_path, task_run(None), document(kind, None, **wrong)))
    assert not any(part in str(caught.value) for part in ("s3cr3t", "739739"))
