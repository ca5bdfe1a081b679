"""model/recorded.py, and the controller beside somebody who writes to statuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polypod_crds.crd import definition
from polypod_operator.control.corrections import Corrections
from polypod_operator.model import recorded
from support.cluster_model import Raw
from support.histories import History

DONE = ("success", "TaskSucceeded")


def history() -> History:
    """Return a cluster with one TaskRun and an operator."""
    made = History()
    made.begin(limit=None, runs=1)
    return made


def waits() -> History:
    made = history()
    made.quota_changes(refusing=True)
    settle(made)
    made.quota_changes(refusing=False)
    return made


def runs() -> History:
    made = history()
    settle(made)
    made.pod_starts(0)
    settle(made)
    return made


def retries() -> History:
    made = runs()
    made.pod_ends(0, ("up_for_retry", "RuntimeExited"), tells=False, seen=True)
    settle(made)
    return made


def finished() -> History:
    made = runs()
    made.pod_ends(0, DONE, tells=False, seen=True)
    settle(made)
    return made


def finished_long_ago() -> History:
    """Its pod is gone, and the operator was started since."""
    made = finished()
    made.finished_pods_are_removed()
    made.starts()
    settle(made)
    return made


def settle(made: History) -> None:
    for _ in range(3):
        made.watch_shows(len(made.cluster.news))
        made.work(made.PLENTY)


def cleared(status: Raw) -> Raw:
    return {}


def last(**changes: Any) -> Callable[[Raw], Raw]:
    def edit(status: Raw) -> Raw:
        *before, attempt = status.get("attempts") or [{"number": 1, "state": "queued"}]
        return {**status, "attempts": [*before, {**attempt, **changes}]}

    return edit


def unfinished(status: Raw) -> Raw:
    kept = {key: value for key, value in status.items() if key not in ("finishTime", "conditions", "attempts")}
    return {**kept, "phase": "Pending", "state": "queued"}


def set_to(**changes: Any) -> Callable[[Raw], Raw]:
    return lambda status: {**status, **changes}


EDITS = {
    "cleared": cleared,
    "unfinished": unfinished,
    "no attempts": set_to(attempts=[]),
    "no conditions": set_to(conditions=[]),
    **{name: set_to(phase=name) for name in ("Pending", "Running", "Succeeded", "Failed")},
    "runs": last(state="running"),
    "failed": last(state="failed"),
    "number too low": last(number=-3),
    "number too high": last(number=10**15),
    "another number": last(number=7),
    "another pod": last(podName="other"),
    "another uid": last(podUid="other"),
    "no zone": last(createTime="2026-10-25T02:30:00"),
    "far future": last(createTime="9999-12-31T23:59:59Z"),
    "negative": set_to(failedTries=-7),
    "huge": set_to(infrastructureFailures=2**62),
    "year 1": set_to(nextAttemptTime="0001-01-01T00:00:00Z"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("begin", [waits, runs, retries, finished, finished_long_ago])
def test_an_edited_status_is_restored_within_seconds_and_starts_nothing(
    begin: Callable[[], History], edit: Callable[[Raw], Raw]
) -> None:
    made = begin()
    [(name, raw)] = made.cluster.runs.items()
    before, pods = copy.deepcopy(raw["status"]), dict(made.cluster.created)
    made.cluster.edit_status(name, edit(copy.deepcopy(before)))
    for _ in range(3):
        settle(made)
        made.pass_time(1)
    after = made.cluster.runs[name]["status"]
    if begin is finished_long_ago:
        assert (after["phase"], after["state"]) == (before["phase"], before["state"])
    else:
        assert same(after) == same(before)
    assert made.cluster.created == pods or begin is waits
    made.everything_ends()


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("begin", [waits, runs, retries, finished])
def test_a_status_that_is_edited_while_no_operator_runs_never_has_two_pods_run_at_once(
    begin: Callable[[], History], edit: Callable[[Raw], Raw]
) -> None:
    """What is known then are the pods; the model of the cluster refuses a second one, and a pod of what has ended."""
    made = begin()
    [(name, raw)] = made.cluster.runs.items()
    made.cluster.edit_status(name, edit(copy.deepcopy(raw["status"])))
    made.starts()
    settle(made)
    made.everything_ends()


@pytest.mark.parametrize(("manager", "stays"), [("polypod-operator", True), ("kubectl-edit", False)])
def test_the_last_word_of_an_operator_that_led_before_is_no_edit(manager: str, stays: bool) -> None:
    """Its write was under way when the next one read everything; the pod may be gone, and must not be replaced."""
    made = runs()
    [(name, raw)] = made.cluster.runs.items()
    made.starts()
    raw["metadata"]["managedFields"] = [{"manager": manager, "subresource": "status"}]
    [attempt] = raw["status"]["attempts"]
    ended = {**attempt, "state": "success", "reason": "TaskSucceeded"}
    made.cluster.edit_status(name, {**raw["status"], "phase": "Succeeded", "state": "success", "attempts": [ended]})
    settle(made)
    assert (made.cluster.runs[name]["status"]["phase"] == "Succeeded") is stays
    made.everything_ends()


def same(status: Raw) -> Raw:
    """Return a status without what changes by itself."""
    return {key: value for key, value in status.items() if key not in ("observedGeneration", "message")}


def of(schema: Raw) -> st.SearchStrategy[Any]:
    """Return whatever a schema of the CRD admits."""
    match schema.get("type"):
        case "object":
            fields = {name: of(field) for name, field in schema["properties"].items()}
            required = set(schema.get("required", ()))
            return st.fixed_dictionaries(
                {name: fields[name] for name in required},
                optional={name: field for name, field in fields.items() if name not in required},
            )
        case "array":
            return st.lists(of(schema["items"]), max_size=3)
        case "integer":
            return st.sampled_from([-(2**63), -1, 0, 1, 2, 2**63 - 1])
        case "number":
            return st.sampled_from([-1, 0, 0.5, 1e308, 2**64])
        case "boolean":
            return st.booleans()
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("format") == "date-time":
        return st.sampled_from([
            "2026-11-21T12:00:00Z", "2026-11-21t12:00:00z", "2026-11-21T12:00:00", "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z", "2026-02-31T00:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21T23:59:60Z",
        ])  # fmt: skip
    return st.sampled_from(["", "x", "running", "queued", "success", "Complete", "True", "\x00", "é" * 2000])


STATUS = of(definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"])


@settings(deadline=None)
@given(STATUS)
def test_whatever_the_crd_admits_as_a_status_can_be_decided_from(status: Raw) -> None:
    found, altered = recorded.read({"status": status})
    again, still = recorded.read({"status": found.model_dump(mode="json", by_alias=True, exclude_none=True)})
    assert (again, still) == (found, False), "what is read is sound"
    assert altered or found == again


@settings(deadline=None, max_examples=30)
@given(STATUS, st.sampled_from([waits, runs, finished]), st.booleans())
def test_no_status_breaks_the_operator(status: Raw, begin: Callable[[], History], restarts: bool) -> None:
    made = begin()
    [name] = made.cluster.runs
    made.cluster.edit_status(name, status)
    if restarts:
        made.starts()
    settle(made)
    made.pass_time(5)
    made.everything_ends()


def test_what_had_ended_is_found_by_its_pod_although_the_tries_were_edited() -> None:
    """Else its pod would be deleted as another try's, and the task run again."""
    made = finished()
    [name] = made.cluster.runs
    pods = dict(made.cluster.created)
    made.cluster.edit_status(name, {"phase": "Pending", "failedTries": 1})
    made.starts()
    settle(made)
    made.everything_ends()
    assert made.cluster.runs[name]["status"]["phase"] == "Succeeded"
    assert made.cluster.created == pods


def test_somebody_who_edits_it_again_and_again_is_answered_ever_more_seldom() -> None:
    now = 0.0
    corrections = Corrections(lambda: now)
    made = 0
    for _ in range(3600):
        made += corrections.pause("uid") == 0
        now += 1
    assert 60 <= made <= 70
    now += 700
    assert corrections.pause("uid") == 0
    now += 1
    assert corrections.pause("uid") == 0, "that is forgotten in the end"
