"""routing.py: the routing, as a ConfigMap and as a file."""

from __future__ import annotations

import pytest
from polypod_core.errors import UserError
from polypod_core.routing import load_yaml, parse_routing
from polypod_operator.decide.routing import parse

CONFIG_MAP = """
kind: ConfigMap
data:
  coordinators: |
    a: {classpath: airflow.sdk.coordinators.java.JavaCoordinator, kwargs: {jars_root: [/x]}}
  queue_to_coordinator: '{"q": "a"}'
  default_coordinator: a
"""


def test_a_routing_is_a_config_map_or_plain() -> None:
    routing = parse_routing(load_yaml(CONFIG_MAP, "f"), "f")
    assert routing.for_queue("q", "me")[0] == "a"
    assert routing.for_queue("anything", "me")[0] == "a"
    plain = parse_routing({"coordinators": {"a": {"classpath": "x", "extra": {"pod_template_file": "y"}}}}, "f")
    with pytest.raises(UserError, match="me: queue 'q' is not in queue_to_coordinator"):
        plain.for_queue("q", "me")


def test_the_name_of_an_entry_is_ignored_as_airflow_ignores_it(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"name": "b", "classpath": "x"}
    assert parse_routing({"coordinators": {"a": entry}}, "f") == parse_routing(
        {"coordinators": {"a": {"classpath": "x"}}}, "f"
    )
    assert caplog.messages == ["f: coordinators.a.name is ignored: the key 'a' is the coordinator's name"]
    assert "name" in entry


def test_a_folder_on_a_cluster_has_an_absolute_path_wherever_it_stands() -> None:
    coordinator = "a: {classpath: ExecutableCoordinator, kwargs: {%s}}"
    for kwargs, bundles, said in (
        ("executables_root: [h]", "", "coordinators.a.kwargs.executables_root: 'h' must be an absolute path"),
        ("task_handler_bundle_name: h", "h: {path: h}", "dag_bundles.h.path: 'h' must be an absolute path"),
        ("executables_root: [/x]", "unused: {path: ./x}", "dag_bundles.unused.path: './x' must be an absolute path"),
    ):
        data = {"coordinators": coordinator % kwargs, "queue_to_coordinator": "q: a", "dag_bundles": bundles or "{}"}
        with pytest.raises(UserError) as caught:
            parse({"data": data}, "ns/routing")
        assert said in caught.value.message
    fine = {**data, "dag_bundles": "h: {path: sub, image: artifacts}"}
    assert parse({"data": fine}, "ns/routing")[0].dag_bundles["h"].path == "sub"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a routing is a mapping, not list"),
        ("kind: ConfigMap", "the ConfigMap has no data"),
        ("kind: ConfigMap\ndata: {coordinators: 'a: ['}", "f: data.coordinators, line 2"),
        ("coordinators: {a: {}}", "coordinators.a: .*required field `classpath`"),
        ("coordinators: {a: {classpath: x, kwarg: {}}}", "coordinators.a: .*unknown field `kwarg`"),
        ("queue_to_coordinator: {q: nope}", "names coordinator 'nope', which is not in coordinators"),
        ("default_coordinator: nope", "default_coordinator 'nope'"),
        ("queues: {}", "unknown key 'queues'"),
        ("a: b: c", "f, line 1, column 5: not valid YAML"),
    ],
)
def test_a_wrong_routing_is_explained(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_routing(load_yaml(text, "f"), "f")
