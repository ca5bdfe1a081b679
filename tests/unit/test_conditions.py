"""model/conditions.py: what a status holds."""

from __future__ import annotations

from polypod_crds.taskrun import TaskRunStatus
from polypod_operator.model import conditions
from support.objects import NOW


def test_a_message_is_cut_to_what_a_status_holds() -> None:
    status = TaskRunStatus()
    conditions.put(status, "Routed", "True", "R", "x" * 5000, NOW, 1)
    assert len(status.conditions[0].message) == conditions.MAX_MESSAGE
