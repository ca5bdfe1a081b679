"""dependencies.py: the graph's verdicts beside those of a slow oracle that reads the rule word by word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_crds.dependencies import Cycle, Graph, Node, Stops, Upstream, Verdict, Waits, ended, upstreams
from polypod_crds.taskrun import TaskRunSpec
from pydantic import ValidationError

RUN = ("ns", "dag", "run")
STATES = (None, "success", "skipped", "removed", "failed", "upstream_failed")
TASKS = tuple("abcde")


def node(name: str, *upstream: str, task: str = "", state: str | None = None, **fields: Any) -> Node:
    """Return a TaskRun; `b!` is a dependency on any end of b."""
    parsed = tuple(Upstream(item.removesuffix("!"), item.endswith("!")) for item in upstream)
    made = Node(("ns", name), f"uid-{name}", RUN, task or name, -1, 0.0, parsed, state)
    return replace(made, **fields)


def graph(*nodes: Node) -> Graph:
    made = Graph()
    for item in nodes:
        made.put(item)
    return made


def judge(*nodes: Node, name: str = "x", **before: str) -> Verdict | None:
    return graph(*nodes).judge(("ns", name), before)


def test_the_rule_is_all_success() -> None:
    x = node("x", "a", "b")
    assert judge(x, node("a", state="success"), node("b", state="success")) is None
    assert judge(x, node("a", state="success"), node("b", state="removed")) == Stops(
        "upstream_failed", "task 'b' (TaskRun 'b') ended in state removed"
    )
    assert judge(x, node("a", state="success"), node("b")) == Waits(("b",), ())
    assert judge(x, node("a")) == Waits(("a",), ("b",))
    # at once, and a failure counts for more than a skip
    assert judge(x, node("a", state="failed")) == Stops(
        "upstream_failed", "task 'a' (TaskRun 'a') ended in state failed"
    )
    assert judge(x, node("a", state="skipped"), node("b", state="upstream_failed")) == Stops(
        "upstream_failed", "task 'b' (TaskRun 'b') ended in state upstream_failed"
    )
    assert judge(x, node("a", state="skipped")) == Stops("skipped", "task 'a' was skipped")


def test_any_end_is_enough_where_that_is_asked_for() -> None:
    x = node("x", "a!", "b")
    for state in STATES[1:]:
        assert judge(x, node("a", state=state), node("b", state="success")) is None
    assert judge(x, node("a"), node("b", state="success")) == Waits(("a",), ())
    assert judge(x, node("b", state="success"), a="failed") is None


def test_what_ended_before_its_taskrun_was_deleted_counts_if_it_had_succeeded() -> None:
    x = node("x", "a")
    assert judge(x, a="success") is None
    assert judge(x, a="skipped") == Stops("skipped", "task 'a' was skipped")
    assert judge(x, a="failed") == judge(x, a="") == judge(x) == Waits((), ("a",))
    # a TaskRun that is there counts for more than one that was
    assert judge(x, node("a"), a="success") == Waits(("a",), ())


def test_of_a_mapped_task_all_must_have_ended_and_of_several_the_newest_counts() -> None:
    x = node("x", "a")
    first, second = (node(f"a{index}", task="a", map_index=index, state="success") for index in (0, 1))
    assert judge(x, first, second) is None
    assert judge(x, first, replace(second, ended=None)) == Waits(("a",), ())
    again = replace(first, key=("ns", "again"), uid="again", created=5.0, ended=None)
    assert judge(x, first, second, again) == Waits(("a",), ())
    assert judge(x, replace(first, ended="failed"), second, replace(again, ended="success")) is None


def test_a_circle_is_found_by_whom_it_goes_through() -> None:
    nodes = node("x", "a"), node("a", "b"), node("b", "x"), node("out", "x")
    assert judge(*nodes) == Cycle(("x", "a", "b", "x"))
    assert judge(*nodes, name="b") == Cycle(("b", "x", "a", "b"))
    # who only waits for it is no part of it
    assert judge(*nodes, name="out") == Waits(("x",), ())
    assert judge(node("x", "a"), node("a", "b"), node("b", "x", state="failed")) == Waits(("a",), ())


def test_what_has_ended_is_in_no_circle_though_the_rest_of_its_mapped_task_is() -> None:
    done = node("a1", "c", task="a", map_index=1, state="success")
    others = node("a0", "c", task="a", map_index=0), node("c", "a")
    assert judge(done, *others, name="a1") == Waits(("c",), ())
    assert judge(done, *others, name="a0") == Cycle(("a", "c", "a"))


def test_runs_do_not_meet() -> None:
    for run in (("other", "dag", "run"), ("ns", "other", "run"), ("ns", "dag", "other")):
        assert judge(node("x", "a"), node("a", state="success", run=run)) == Waits((), ("a",))


def test_those_that_wait_are_told_of_what_matters_to_them_only() -> None:
    made = graph(node("x", "a"), node("y", "b"))
    a = node("a")
    assert made.put(a) == {("ns", "x")}
    assert made.put(a) == set()
    assert made.put(replace(a, ended="success")) == {("ns", "x")}
    assert made.forget(("ns", "a")) == {("ns", "x")}
    # what has ended waits no more
    made.put(node("x", "a", state="upstream_failed"))
    assert made.put(a) == set()


@given(
    upstream=st.dictionaries(
        st.sampled_from(TASKS), st.dictionaries(st.sampled_from(TASKS), st.booleans(), max_size=3), max_size=5
    ),
    states=st.lists(st.tuples(st.sampled_from(TASKS), st.integers(-1, 1), st.sampled_from(STATES)), max_size=12),
    gone=st.lists(st.integers(0, 11), max_size=6),
)
def test_any_graph_is_judged_as_the_rule_says(
    upstream: dict[str, dict[str, bool]], states: list[tuple[str, int, str | None]], gone: list[int]
) -> None:
    """However it came about: put in any order, put again, and forgotten."""
    made = Graph()
    nodes: dict[str, Node] = {}
    for number, (task, index, state) in enumerate(states):
        needs = tuple(Upstream(name, any_end) for name, any_end in upstream.get(task, {}).items() if name != task)
        item = Node(("ns", f"{task}{index}"), "u", RUN, task, index, float(number), needs, state)
        nodes[item.key[1]] = item
        made.put(item)
    for number in gone:
        if nodes:
            name = sorted(nodes)[number % len(nodes)]
            made.forget(nodes.pop(name).key)
    assert {item.key for item in made.nodes()} == {item.key for item in nodes.values()}
    for item in nodes.values():
        assert made.judge(item.key) == _oracle(item, list(nodes.values()))


def _oracle(item: Node, nodes: list[Node]) -> Verdict | None:
    def of(task_id: str) -> list[Node]:
        return [other for other in nodes if other.task_id == task_id]

    def reaches(start: str, goal: str, seen: frozenset[str]) -> bool:
        needs = {up.task_id for other in of(start) if other.ended is None for up in other.upstream}
        return goal in needs or any(reaches(need, goal, seen | {need}) for need in needs - seen)

    for up in item.upstream:
        bad = [other for other in of(up.task_id) if other.ended in ("failed", "upstream_failed", "removed")]
        if bad and not up.any_end:
            found = min(bad, key=lambda other: (other.map_index, other.key))
            said = f"task {up.task_id!r} (TaskRun {found.key[1]!r}) ended in state {found.ended}"
            return Stops("upstream_failed", said)
    for up in item.upstream:
        states = [other.ended for other in of(up.task_id)]
        if not up.any_end and None not in states and "skipped" in states:
            return Stops("skipped", f"task {up.task_id!r} was skipped")
    unfinished = tuple(up.task_id for up in item.upstream if any(other.ended is None for other in of(up.task_id)))
    missing = tuple(up.task_id for up in item.upstream if not of(up.task_id))
    if not unfinished and not missing:
        return None
    if item.ended is None and reaches(item.task_id, item.task_id, frozenset()):
        # which way round is not the rule's to say
        verdict = graph(*nodes).judge(item.key)
        assert isinstance(verdict, Cycle)
        assert verdict.path[0] == verdict.path[-1] == item.task_id
        return verdict
    return Waits(unfinished, missing)


def spec(**fields: Any) -> TaskRunSpec:
    return TaskRunSpec.model_validate({"queue": "q", "dagId": "d", "taskId": "t", "runId": "r", **fields})


def test_what_a_taskrun_waits_for_is_what_it_takes_and_what_it_names() -> None:
    takes = [{"name": "v", "fromXCom": {"taskId": "a"}}, {"name": "w", "value": 1}]
    named = [{"taskId": "a", "when": "finished"}, {"taskId": "b", "when": "finished"}, {"taskId": "c"}]
    # a value that is taken needs the task's success, whatever else is said
    assert upstreams(spec(arguments=takes, dependsOn=named)) == (Upstream("a"), Upstream("b", True), Upstream("c"))
    # there Airflow knows the order, and hands out the arguments
    own = {"executionApi": {"url": "http://airflow", "tokenSecretRef": {"name": "s", "key": "k"}}}
    assert upstreams(spec(arguments=takes, **own)) == ()
    assert upstreams(spec(arguments=takes, dependsOn=named[2:], **own)) == (Upstream("c"),)


@pytest.mark.parametrize(
    "fields",
    [
        {"dependsOn": [{"taskId": "t"}]},
        {"arguments": [{"name": "v", "fromXCom": {"taskId": "t"}}]},
        {"dependsOn": [{"taskId": "a"}, {"taskId": "a"}]},
        {"dependsOn": [{"taskId": "a", "when": "failed"}]},
        {"dependsOn": ["a"]},
    ],
)
def test_a_dependency_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)


def test_a_task_that_goes_on_elsewhere_has_not_ended() -> None:
    assert ended("Succeeded", "success") == "success"
    assert ended("Succeeded", "deferred") is None
    assert ended("Failed", "up_for_retry") is None
    assert ended("Running", "running") is None
