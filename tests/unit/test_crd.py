"""The CRD and the models that it is generated from."""

from __future__ import annotations

import re
from typing import Any

import pytest
from polypod_core.durations import seconds
from polypod_crds import crd
from polypod_crds.rules import FROZEN, Rule
from polypod_crds.taskrun import TaskRunSpec, TaskRunStatus
from polypod_operator.model import objects
from pydantic import ValidationError


def test_the_crd_is_what_the_models_say() -> None:
    assert crd.PAGE.read_text() == crd.rendered(), "run `make generated`"


def test_every_field_of_the_crd_is_documented() -> None:
    def undocumented(schema: dict[str, Any], path: str) -> list[str]:
        found = [] if schema.get("description") else [path]
        for name, field in schema.get("properties", {}).items():
            found += undocumented(field, f"{path}.{name}")
        if "items" in schema and "properties" in schema["items"]:
            for name, field in schema["items"]["properties"].items():
                found += undocumented(field, f"{path}[].{name}")
        return found

    root = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert undocumented(root["spec"], "spec") == []
    assert undocumented(root["status"], "status") == []


def test_the_rule_for_durations_is_the_same_on_both_sides() -> None:

    pattern = Rule.DURATION.expression.partition("'")[2].rpartition("'")[0]
    for text in ("5s", "1h30m", "1.5s", "100ms", "", "5", "s", "-5s", "5 s", "1d"):
        try:
            seconds(text)
            valid = True
        except ValueError:
            valid = False
        assert bool(re.search(pattern, text)) == valid, text


def test_a_taskrun_that_is_not_valid_is_parsed_with_its_problems() -> None:
    raw = {
        "metadata": {
            "name": "x", "namespace": "n", "uid": "u", "resourceVersion": "1",
            "creationTimestamp": "2026-11-21T12:00:00Z",
        },
        "spec": {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r", "arguments": [{"name": "a"}]},
    }  # fmt: skip
    found = objects.task_run(raw)
    assert found.spec is None
    assert "exactly one of value and fromXCom" in found.problems


def test_a_status_of_a_later_version_can_be_read() -> None:
    raw = {"phase": "Running", "later": 1, "attempts": [{"number": 1, "state": "running", "later": 2}]}
    status = TaskRunStatus.model_validate(raw)
    assert (status.phase, status.attempts[0].number) == ("Running", 1)


TIMES = [
    "2026-10-25T02:30:00Z",
    "2026-10-25t02:30:00z",
    "2026-10-25T02:30:00.123456000+14:00",
    "0001-01-01T00:00:00-00:00",
]


DATE_TIME = Rule.DATE_TIME.expression.partition("'")[2].rpartition("'")[0]


@pytest.mark.parametrize("text", TIMES)
def test_a_time_may_be_written_in_every_way_that_the_format_allows_and_a_task_can_be_given(text: str) -> None:
    assert re.search(DATE_TIME, text)


def test_no_rule_that_runs_at_each_write_parses_what_was_stored() -> None:
    """CEL turns a value with a format into its own type, and where that fails no status can be written any more."""
    spec = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    formats = {name: spec["properties"][name].get("format") for name in FROZEN}
    assert {name: found for name, found in formats.items() if found not in (None, "int64")} == {}


def test_whatever_is_stored_can_be_cancelled() -> None:
    spec = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for rule in spec["x-kubernetes-validations"]:
        at_each_write = "oldSelf" not in rule["rule"]
        assert not at_each_write or rule["rule"].startswith("(has(self.cancel) && self.cancel) || "), rule


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (20261121, "write a time with its time zone"),
        ("20261121", "write a time with its time zone"),
        (1.5, "write a time with its time zone"),
        ("-1", "write a time with its time zone"),
        (True, "write a time with its time zone"),
        ("2026-11-21", "write a time with its time zone"),
        ("2026-11-21T10:00:00", "write a time with its time zone"),
        ("2026-11-21T10:00:00x5Z", "write a time with its time zone"),
        ("2026-11-21T10:00:00.123456789Z", "write a time with its time zone"),
        ("9999-12-31T23:59:59-12:00", "within the years 1 to 9999"),
        ("0001-01-01T00:00:00+14:00", "within the years 1 to 9999"),
        ("2026-11-21T10:00:00.123456000Z", ""),
        ("2026-10-25t02:30:00z", ""),
    ],
)
def test_a_time_is_text_of_one_form_and_one_that_utc_can_hold(value: Any, said: str) -> None:
    """A number would be seconds since 1970."""
    # the API server refuses the same forms; years in UTC, its rule does not know
    assert (re.search(DATE_TIME, str(value)) is not None) == ("write a time" not in said)
    spec: dict[str, Any] = {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r"}
    later = "9999-12-31T00:00:00Z"
    for given in ({"logicalDate": value}, {"dataInterval": {"start": value, "end": later}}):
        if not said:
            assert TaskRunSpec.model_validate({**spec, **given})
            continue
        with pytest.raises(ValidationError, match=said):
            TaskRunSpec.model_validate({**spec, **given})
