"""Which ends the executor requests callbacks for, once each, however often it sees them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from polypod_airflow import callbacks
from polypod_airflow.verdicts import TaskRun
from support.waiting import wait_until


def ended(name: str, state: str = "failed", **attempt: Any) -> TaskRun:
    status = {"phase": "Failed", "state": state, "attempts": [{"reported": True, **attempt}]}
    return msgspec.convert({"metadata": {"name": name}, "status": status}, TaskRun)


class Bag:
    """In place of Airflow's, which is not here."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The TaskRuns whose callbacks were requested; of one with `away` in its name, the first two tries fail."""
    found: list[str] = []

    def request(run: TaskRun, dags: Any) -> list[str]:
        found.append(run.name)
        if "away" in run.name and found.count(run.name) < 3:
            raise OSError("the database is away")
        return []

    monkeypatch.setattr(callbacks, "request", request)
    monkeypatch.setattr(callbacks, "_dags", Bag)
    monkeypatch.setattr(callbacks, "_PAUSE", 0.01)
    return found


def test_each_end_is_asked_for_once_and_again_only_if_the_database_was_away(asked: list[str]) -> None:
    thread = callbacks.Callbacks()
    thread.start()
    for _ in range(3):
        for name in ("af-1", "af-away", "af-2"):
            thread.saw(ended(name))
    thread.saw(ended("af-told-by-the-scheduler", reported=False))
    thread.saw(ended("af-success", "success"))
    # one that nobody has seen to end before it was deleted
    thread.gone(ended("af-deleted"))
    thread.gone(ended("af-1"))
    wait_until(lambda: asked.count("af-away") == 3, "that the last is asked for")
    assert sorted(asked) == ["af-1", "af-2", "af-away", "af-away", "af-away", "af-deleted"]
    thread.close()
    thread.join(10)
    assert not thread.is_alive()


def test_one_that_cannot_be_asked_for_holds_up_no_other(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_PAUSE", 3600.0)
    thread = callbacks.Callbacks()
    thread.start()
    thread.saw(ended("af-away"))
    wait_until(lambda: asked == ["af-away"], "that it is asked for")
    thread.saw(ended("af-1"))
    wait_until(lambda: asked == ["af-away", "af-1"], "that the other is")
    thread.close()
    thread.join(10)
    assert not thread.is_alive()


def test_what_is_not_listed_any_more_is_forgotten(asked: list[str]) -> None:
    thread = callbacks.Callbacks()
    for number in range(100):
        thread.saw(ended(f"af-{number}"))
    thread.listed({"af-1", "af-2"})
    assert thread._seen == {"af-1", "af-2"}
    thread.gone(ended("af-1"))
    assert thread._seen == {"af-2"}
