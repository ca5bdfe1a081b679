"""control/log_fields.py: which try a line of the operator's log is about."""

from __future__ import annotations

from typing import Any

import pytest
from polypod_crds.taskrun import TaskRunStatus
from polypod_operator.control.log_fields import about
from support.objects import task_run


def ended(state: str, **status: Any) -> dict[str, Any]:
    return {"attempts": [{"number": 1, "state": state, "podName": "run-1"}], **status}


@pytest.mark.parametrize(
    ("status", "under_way", "number"),
    [
        ({}, False, 1),
        ({}, True, 1),
        (ended("running"), False, 1),
        (ended("success", phase="Succeeded"), False, 1),
        (ended("failed", phase="Failed", failedTries=1, reason="TaskFailed"), False, 1),
        (ended("failed", phase="Failed", failedTries=3, reason="TaskFailed"), False, 3),
        (ended("success", phase="Succeeded", failedTries=2), False, 3),
        (ended("failed", phase="Failed", failedTries=1, reason="Cancelled"), False, 2),
        (ended("up_for_retry", failedTries=1, reason="Retrying"), False, 1),
        # the pod of the next one
        (ended("up_for_retry", failedTries=1, reason="Retrying"), True, 2),
        (ended("up_for_retry", failedTries=1, reason="Replacing"), True, 2),
        (ended("running", failedTries=1), True, 2),
    ],
)
def test_a_line_has_the_try_that_it_is_about(status: dict[str, Any], under_way: bool, number: int) -> None:
    run = task_run(status=TaskRunStatus.model_validate(status))
    assert about(run, under_way=under_way)["try_number"] == number
