"""Manifests are given as kubectl takes them: in Lists of every kind, in folders, through standard input."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from polypod_cli import manifests, report
from polypod_core.errors import UserError

MADE = {"apiVersion": "polypod.dev/v1alpha1", "kind": "TaskRun", "metadata": {"name": "x"},
        "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}}  # fmt: skip


def task_run(name: str, **spec: Any) -> dict[str, Any]:
    return {**MADE, "metadata": {"name": name}, "spec": {**MADE["spec"], "taskId": name, **spec}}  # type: ignore[dict-item]


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {}}


def without_kind(made: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key not in ("apiVersion", "kind")}


def a_list(kind: str, items: Any, version: str = "v1") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": ""}, "items": items}


def names(*given: str, **options: Any) -> list[str]:
    return [str(document.value["metadata"]["name"]) for document in manifests.load(given, **options).documents]


LISTS = [
    a_list("List", [task_run("a"), config_map("b")]),
    a_list("List", [a_list("List", [task_run("a")]), a_list("ConfigMapList", [config_map("b")])]),
    a_list("List", [a_list("TaskRunList", [task_run("a")], "polypod.dev/v1alpha1"), config_map("b"), a_list("List", [])]),
    a_list("List", [a_list("TaskRunList", [without_kind(task_run("a"))], "polypod.dev/v1alpha1"),
                    a_list("ConfigMapList", [without_kind(config_map("b"))])]),
]  # fmt: skip


@pytest.mark.parametrize("made", LISTS, ids=range(len(LISTS)))
@pytest.mark.parametrize("form", [json.dumps, yaml.safe_dump])
def test_the_items_of_a_list_are_manifests(tmp_path: Path, made: Any, form: Any) -> None:
    (tmp_path / "list").write_text(form(made))
    assert names(str(tmp_path / "list")) == ["a", "b"]


def test_a_mistake_in_a_list_has_its_own_line(tmp_path: Path) -> None:
    text = yaml.safe_dump(a_list("List", [task_run("a"), task_run("b", nonsense=1)]), sort_keys=False)
    line = 1 + next(index for index, item in enumerate(text.splitlines()) if "nonsense" in item)
    (tmp_path / "list").write_text("---\n" + text)
    with pytest.raises(UserError, match=f"list:{line + 1}: unknown field spec.nonsense"):
        names(str(tmp_path / "list"))


@pytest.mark.parametrize(("items", "said"), [
    (None, "items is missing; it must be a list"), ({}, "items is dict; it must be a list"),
    (["x"], "a manifest is a mapping, not str"), ([without_kind(task_run("a"))], "kind None is unknown"), ([], "no TaskRun"),
])  # fmt: skip
def test_a_list_that_is_none_is_refused(tmp_path: Path, items: Any, said: str) -> None:
    (tmp_path / "list").write_text(json.dumps(a_list("List", items)))
    with pytest.raises(UserError, match=said):
        names(str(tmp_path / "list"))


def test_folders_and_standard_input_are_read_as_kubectl_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for path in ("b.yaml", "a.yml", "c.json", "readme.md", "in/d.yaml"):
        (tmp_path / path).write_text(json.dumps(task_run(Path(path).stem)))
    (tmp_path / "routing.yaml").write_text("coordinators: {}")
    given = {"besides": str(tmp_path / "routing.yaml")}
    assert names(str(tmp_path), **given) == ["a", "b", "c"]
    assert sorted(names(str(tmp_path), recursive=True, **given)) == ["a", "b", "c", "d"]
    stdin = SimpleNamespace(buffer=io.BytesIO(json.dumps(task_run("z")).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    assert names("-", str(tmp_path / "b.yaml")) == ["z", "b"]


@pytest.mark.parametrize(("name", "said"), [
    ("https://example.org/a.yaml", "https://example.org/a.yaml is a URL, from which nothing is read; download it"),
    ("s3://bucket/a.yaml", "is a URL"), ("empty", "empty contains no file such as .*; -R reads"),
    ("gone.yaml", "gone.yaml cannot be read: No such file"),
])  # fmt: skip
def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        names(name)


def test_a_fifo_in_a_folder_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="it is a FIFO, not a file"):
        names(str(tmp_path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(value=VALUES, params=st.dictionaries(st.text(max_size=4), VALUES, max_size=3))
def test_what_a_run_prints_can_be_run_again(tmp_path_factory: pytest.TempPathFactory, value: Any, params: Any) -> None:
    path = tmp_path_factory.mktemp("run") / "out.json"
    path.write_text(json.dumps(task_run("a", arguments=[{"name": "v", "value": value}], params=params)))
    first = [item.task_run for item in manifests.load([str(path)]).task_runs]
    path.write_text(report.as_list(first))
    [again] = [item.task_run for item in manifests.load([str(path)]).task_runs]
    assert again.spec == first[0].spec
    assert again.spec.arguments[0].value == value
