"""registry.py: how the attempts of TaskRuns become task instances."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from polypod_core.identity import task_instance_id
from polypod_execution_api import registry
from polypod_execution_api.models import TaskInstance
from sqlalchemy.orm import Session
from support.api import Store

RUN = registry.RunSpec("d", "r")
TASK = registry.TaskSpec("t", retries=1)


def add(
    store: Store, number: int, try_number: int, uid: str = "uid-1", pod: str = "", namespace: str = ""
) -> uuid.UUID:
    """Add an attempt of a TaskRun, as its pod's first call does."""
    attempt = registry.AttemptSpec(
        ti_id=task_instance_id(uid, number),
        try_number=try_number,
        earlier=frozenset(task_instance_id(uid, other) for other in range(1, number)),
        taskrun_uid=uid,
        number=number,
        pod_uid=pod or f"pod-{number}",
    )
    with Session(store.engine) as session, session.begin():
        return registry.add_attempt(session, replace(RUN, namespace=namespace), TASK, attempt).id


def rows(store: Store) -> dict[uuid.UUID, tuple[str | None, int, bool]]:
    with Session(store.engine) as session:
        return {row.id: (row.state, row.try_number, row.archived) for row in session.query(TaskInstance)}


def test_the_same_attempt_is_added_once(store: Store) -> None:
    assert add(store, 1, 1) == add(store, 1, 1)
    assert len(rows(store)) == 1


def test_the_next_try_archives_the_one_before(store: Store) -> None:
    first = add(store, 1, 1)
    store.set_state(first, "up_for_retry")
    second = add(store, 2, 2)
    assert rows(store) == {first: ("up_for_retry", 1, True), second: ("queued", 2, False)}


@pytest.mark.parametrize("state", ["queued", "running", "failed", "up_for_retry"])
def test_a_lost_attempt_makes_room_for_the_same_try(store: Store, state: str) -> None:
    first = add(store, 1, 1)
    store.set_state(first, state)
    second = add(store, 2, 1)
    assert rows(store) == {second: ("queued", 1, False)}


@pytest.mark.parametrize("state", ["success", "skipped", "removed"])
def test_a_task_that_had_ended_well_stays_so(store: Store, state: str) -> None:
    first = add(store, 1, 1)
    store.set_state(first, state)
    second = add(store, 2, 1)
    assert rows(store) == {second: (state, 1, False)}


def test_what_runs_as_part_of_another_taskrun_is_in_the_way(store: Store) -> None:
    first = add(store, 1, 1)
    store.set_state(first, "running")
    with pytest.raises(registry.StillRunning):
        add(store, 1, 1, uid="uid-2")
    store.set_state(first, "success")
    second = add(store, 1, 1, uid="uid-2")
    assert rows(store) == {second: ("queued", 1, False)}


@pytest.mark.parametrize("state", ["queued", "running", "success", "skipped", "failed"])
def test_the_same_names_in_another_namespace_are_another_task(store: Store, state: str) -> None:
    first = add(store, 1, 1, uid="uid-1", namespace="team-a")
    store.set_state(first, state)
    second = add(store, 1, 1, uid="uid-2", namespace="team-b")
    with Session(store.engine) as session, session.begin():
        registry.skip_when_it_comes(session, session.get_one(TaskInstance, second), "t", -1)
        registry.skip_when_it_comes(session, session.get_one(TaskInstance, second), "other", -1)
    states = sorted((state, number) for state, number, _ in rows(store).values())
    assert states == sorted([(state, 1), ("queued", 1), ("skipped", 1)])
    # what team-b's task has skipped there is nothing that team-a's finds
    third = add(store, 1, 1, uid="uid-3", namespace="team-c")
    assert rows(store)[third] == ("queued", 1, False)


@pytest.mark.parametrize(("state", "then"), [("running", "queued"), ("up_for_retry", "queued"), ("success", "success")])
def test_an_attempt_whose_pod_vanished_unseen_starts_anew_unless_it_had_ended_well(
    store: Store, state: str, then: str
) -> None:
    first = add(store, 1, 1, pod="a")
    store.set_state(first, state)
    assert add(store, 1, 1, pod="b") == first
    assert rows(store) == {first: (then, 1, False)}


def test_a_pod_that_comes_back_after_its_replacement_takes_nothing_from_it(store: Store) -> None:
    add(store, 1, 1)
    second = add(store, 2, 1)
    store.set_state(second, "failed")
    with pytest.raises(registry.Replaced):
        add(store, 1, 1)
    assert rows(store) == {second: ("failed", 1, False)}


def test_a_task_that_is_to_be_skipped_is_so_when_it_comes(store: Store) -> None:
    """Its TaskRun waited for the task that skips it, so it had no instance yet."""
    asking = store.add("asks", run_id="r", queue="q")
    with Session(store.engine) as session, session.begin():
        ti = session.get_one(TaskInstance, asking)
        for _ in range(2):
            registry.skip_when_it_comes(session, ti, "t", -1)
    with Session(store.engine) as session:
        run = registry.RunSpec(session.get_one(TaskInstance, asking).dag_id, "r")
    attempt = registry.AttemptSpec(task_instance_id("uid-1", 1), 1, frozenset(), "uid-1", 1, "pod-1")
    with Session(store.engine) as session, session.begin():
        found = registry.add_attempt(session, run, TASK, attempt)
        assert (found.state, found.queue) == ("skipped", "default")
    # applied again it runs: the wish was for this one
    again = registry.AttemptSpec(task_instance_id("uid-2", 1), 1, frozenset(), "uid-2", 1, "pod-2")
    with Session(store.engine) as session, session.begin():
        assert registry.add_attempt(session, run, TASK, again).state == "queued"
