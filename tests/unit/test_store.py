"""decide/store.py: what is known of TaskRuns and pods, by news in any order."""

from __future__ import annotations

from dataclasses import replace

from polypod_crds.taskrun import TaskRunStatus
from polypod_operator.decide.store import Store
from polypod_operator.model.objects import PodEvent
from support.objects import NOW, pod, task_run


def test_the_store_lets_go_of_what_has_finished_and_of_what_belongs_to_it() -> None:
    store = Store()
    run = task_run()
    store.put_run(run)
    assert store.put_pod(pod()) == run.key
    event = PodEvent("FailedMount", "no such Secret")
    store.put_look("uid-of-run-1", NOW, event)
    assert store.observed(run).events == {"uid-of-run-1": event}
    store.forget(run.key)
    # late news of a TaskRun that is let go
    assert store.put_pod(pod(phase="Running")) is None
    assert store.put_pod(pod(phase="Succeeded")) is None
    assert (len(store), store.pods()) == (0, [])
    left = {name for name, value in vars(store).items() if value}
    # of a bounded number the version alone, as the watch still shows our last write
    assert left == {"_let_go"}


def test_the_store_keeps_a_pod_that_comes_before_its_taskrun() -> None:
    store = Store()
    assert store.put_pod(pod()) is None
    store.put_run(task_run())
    assert list(store.observed(task_run()).pods) == ["run-1"]


def test_an_older_version_of_a_taskrun_does_not_replace_a_newer_one() -> None:
    store = Store()
    newer = replace(task_run(status=TaskRunStatus(phase="Running")), resource_version="10")
    store.put_run(newer)
    store.put_run(replace(task_run(), resource_version="9"))
    assert store.run(newer.key) == newer


def test_an_older_state_of_a_pod_does_not_replace_a_newer_one() -> None:
    store = Store()
    run = task_run()
    store.put_run(run)
    store.put_pod(pod(phase="Running", version=5))
    assert store.put_pod(pod(version=4)) == run.key
    assert store.observed(run).pods["run-1"].phase == "Running"
    store.put_pod(pod(phase="Running", version=6, gone=True))
    store.put_pod(pod(phase="Running", version=6))
    assert store.observed(run).pods["run-1"].gone


def test_another_taskrun_of_the_same_name_is_not_the_same() -> None:
    store = Store()
    store.put_run(task_run())
    store.put_pod(pod())
    again = task_run(uid="uid-2")
    store.put_run(again)
    assert store.observed(again).pods == {}


def test_a_pod_that_appears_is_neither_absent_nor_refused() -> None:
    store = Store()
    run = task_run()
    store.put_run(run)
    store.put_absent(run, "run-1")
    assert store.observed(run).absent == {"run-1"}
    store.put_pod(pod())
    assert store.observed(run).absent == frozenset()
