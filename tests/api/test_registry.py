"""registry.py: how the attempts of TaskRuns become task instances."""

from __future__ import annotations

import uuid

import pytest
from polypod_crds.identity import task_instance_id
from polypod_execution_api import registry
from polypod_execution_api.models import TaskInstance
from sqlalchemy.orm import Session
from support.api import Store

RUN = registry.RunSpec("d", "r")
TASK = registry.TaskSpec("t", retries=1)


def add(store: Store, number: int, try_number: int, uid: str = "uid-1") -> uuid.UUID:
    """Add an attempt of a TaskRun, as its pod's first call does."""
    ti_id = task_instance_id(uid, number)
    earlier = {task_instance_id(uid, other) for other in range(1, number)}
    with Session(store.engine) as session, session.begin():
        return registry.add_attempt(session, RUN, TASK, ti_id, try_number, earlier).id


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
