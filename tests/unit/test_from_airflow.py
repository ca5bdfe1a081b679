"""`polypod routing from-airflow`: Airflow's own expansions, and a sentence with the key for whatever else stands there."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from polypod_cli.from_airflow import read, routing_of
from polypod_core.errors import UserError
from polypod_core.routing import parse_routing

JAVA = "airflow.sdk.coordinators.java.JavaCoordinator"
SETTINGS: dict[str, Any] = {
    "AIRFLOW__SDK__COORDINATORS": {
        "java": {"classpath": JAVA, "kwargs": {"jars_root": ["/a"], "task_startup_timeout": 10}, "extra": {"x": "y"}},
        "named": {"classpath": JAVA, "kwargs": {"task_handler_bundle_name": "handlers"}},
        "own": {"classpath": JAVA, "name": "own"},
    },
    "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": {"jvm": "java"},
    "AIRFLOW__SDK__DAG_BUNDLE_TO_COORDINATOR": {"handlers": "java"},
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": [
        {"name": "handlers", "classpath": "x.LocalDagBundle", "kwargs": {"path": "/h"}},
        {"name": "stored", "classpath": "x.S3DagBundle", "kwargs": {}},
    ],
}


def routing(settings: dict[str, Any]) -> str:
    return routing_of(read(None, {name: json.dumps(value) for name, value in settings.items()}))


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["\ud800", "a\nb: c", JAVA]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4) | st.just("a\n- b"), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(at=st.sampled_from([place for place in places(SETTINGS) if place]), value=VALUES)
def test_any_value_at_any_place_is_carried_over_or_explained(at: tuple[Any, ...], value: Any) -> None:
    settings = copy.deepcopy(SETTINGS)
    inner: Any = settings
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    explained: list[str] = []
    try:
        text = routing(settings)
    except UserError as error:
        explained.append(error.message)
    if explained:
        assert at[0] in explained[0] or "coordinator" in explained[0]
        return
    text.encode()
    document = yaml.safe_load(text)
    # nothing has got out of a comment
    assert set(document) <= {"coordinators", "queue_to_coordinator", "dag_bundle_to_coordinator", "dag_bundles"}


@pytest.mark.parametrize(("place", "value", "said"), [
    (("AIRFLOW__SDK__COORDINATORS", "java", "kwargs"), [1], "AIRFLOW__SDK__COORDINATORS: java: Expected `object | null`, got `array` - at `$.kwargs`"),
    (("AIRFLOW__SDK__COORDINATORS", "java", "extra"), "x", "java: Expected `object | null`, got `str` - at `$.extra`"),
    (("AIRFLOW__SDK__COORDINATORS", "java", "classpath"), ["x"], "java: Expected `str`, got `array` - at `$.classpath`"),
    (("AIRFLOW__SDK__COORDINATORS", "java"), "x", "java: Expected `object`, got `str`"),
    (("AIRFLOW__SDK__COORDINATORS", "java", "kwargs", "jars_root"), {"a": 1}, "coordinator 'java': kwargs: Expected `array`, got `object`"),
    (("AIRFLOW__SDK__COORDINATORS", "named", "kwargs", "task_handler_bundle_name"), ["x"], "coordinator 'named': kwargs: Expected `str | null`"),
    (("AIRFLOW__SDK__QUEUE_TO_COORDINATOR", "jvm"), ["java"], "QUEUE_TO_COORDINATOR: jvm: it is list; it must be the name of a coordinator"),
    (("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", 1, "name"), {}, "item 1: Expected `str`, got `object` - at `$.name`"),
    (("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", 0, "kwargs", "path"), 5, "item 0: Expected `str | null`, got `int` - at `$.kwargs.path`"),
])  # fmt: skip
def test_a_wrong_type_is_said_with_its_key(place: tuple[Any, ...], value: Any, said: str) -> None:
    settings = copy.deepcopy(SETTINGS)
    inner: Any = settings
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(UserError) as caught:
        routing(settings)
    assert said in caught.value.message


def of_file(folder: Path, text: str, **environ: str) -> Any:
    (folder / "airflow.cfg").write_text(text, encoding="utf-8-sig")
    return yaml.safe_load(routing_of(read(folder / "airflow.cfg", environ)))["coordinators"]["a"]["kwargs"]


def coordinator(root: str) -> str:
    return json.dumps({"a": {"classpath": JAVA, "kwargs": {"jars_root": [root]}}})


@pytest.mark.parametrize(("root", "expected"), [
    ("/jars%%p", "/jars%p"), ("$BASE_DIR/jars", "/base/jars"), ("${BASE_DIR}/jars", "/base/jars"), ("$NESTED/x", "/base/n/x"),
    ("$UNKNOWN/x", "$UNKNOWN/x"), ("%(folder)s/x", "/folder/x"), ("~/x", "~/x"), ("a$", "a$"), ("${}", "${}"),
])  # fmt: skip
def test_a_file_is_expanded_as_airflow_expands_it(tmp_path: Path, root: str, expected: str) -> None:
    text = f"[sdk]\nfolder = /folder\ncoordinators = {coordinator(root)}\n"
    assert of_file(tmp_path, text, BASE_DIR="/base", NESTED="$BASE_DIR/n") == {"jars_root": [expected]}


def test_a_variable_is_expanded_and_not_interpolated() -> None:
    environ = {"AIRFLOW__SDK__COORDINATORS": coordinator("$BASE_DIR/%%p"), "BASE_DIR": "/base"}
    assert read(None, environ).coordinators["a"].kwargs == {"jars_root": ["/base/%%p"]}


@pytest.mark.parametrize(("root", "said"), [
    ("/jars%p", r"\[sdk\] coordinators: a '%' in it is part of no %\(name\)s; write %% for a percent sign"),
    ("%(gone)s", "write %% for a percent sign"), ("$LOOP", "its variables contain each other without an end"),
])  # fmt: skip
def test_what_airflow_could_not_expand_either_is_said(tmp_path: Path, root: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        of_file(tmp_path, f"[sdk]\ncoordinators = {coordinator(root)}\n", LOOP="x$LOOP$LOOP")


def test_what_is_made_is_a_routing() -> None:
    document = yaml.safe_load(routing(SETTINGS))
    document["dag_bundles"]["stored"] = {"image": "i"}
    assert set(parse_routing(document, "f").coordinators) == {"java", "named", "own"}
