"""Validation rules for the API server (CEL), each with a message that says what is valid."""

from __future__ import annotations

from enum import Enum
from typing import Any

FROZEN = {
    "queue": True,
    "dagId": True,
    "taskId": True,
    "runId": True,
    "mapIndex": True,
    "retries": False,
    "coordinator": False,
    "logicalDate": False,
    "executionApi": False,
    "workloadSecretRef": False,
    "dependsOn": False,
}
"""Immutable fields. True: always set."""


WRITTEN_TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6}0*)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
"""A time as RFC 3339 writes it. A task is given microseconds, so more than these would be lost."""
_CANCELLED = "(has(self.cancel) && self.cancel)"
"""What an older CRD has admitted can be cancelled, too."""


class Rule(Enum):
    """A rule and its message."""

    OBJECT_NAME = (
        "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
        "must consist of lower-case letters, digits, '-' and '.', and start and end with a letter or digit",
    )
    AIRFLOW_ID = (
        r"self.matches(r'^[\p{L}\p{M}\p{N}_.-]+$') && self != '.' && self != '..'",
        "the id of a Dag or a task has letters, digits, '_', '.' and '-' only, as in Airflow",
    )
    RUN_ID = (
        r"self.matches(r'^[\p{L}\p{M}\p{N}_.~:+@ -]+$') && self != '.' && self != '..'",
        "a runId has letters, digits, spaces and _ . ~ : + @ - only, and is not '.' or '..'",
    )
    DURATION = (
        "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "write a duration like 30s, 10m or 1h30m",
    )
    DURATION_BOUND = (
        "!self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') || duration(self) <= duration('8784h')",
        "a duration is at most 8784h, a year",
    )
    TIMEOUT = (
        "!self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') || duration(self) > duration('0s')",
        "a timeout must be longer than 0s; leave it out for the default",
    )
    URL = (
        "self.matches('^https?://[^/]+')",
        "the URL must be http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH, such as https://airflow.example/execution/",
    )
    ABSOLUTE = (
        "self.startsWith('/') && !self.contains(':')",
        "the path must be absolute, such as /artifacts, and hold no ':'",
    )
    VARIABLE_SOURCE = (
        "has(self.configMapRef) != has(self.secretRef)",
        "an entry of variablesFrom needs exactly one of configMapRef and secretRef",
    )
    ARTIFACT_SOURCE = (
        "has(self.image) != has(self.persistentVolumeClaim)",
        "artifacts needs exactly one of image and persistentVolumeClaim",
    )
    INTERVAL_ORDER = (
        "self.end >= self.start",
        "dataInterval.end must not be before dataInterval.start",
    )
    DATE_TIME = (
        # whatever the format date-time admits: as a format, CEL would have to parse it, and fails at lower-case letters
        f"self.matches('^{WRITTEN_TIME}$')",
        "write a time with its time zone, such as 2026-10-25T02:30:00Z, and at most microseconds",
    )
    ONE_API = (
        f"{_CANCELLED} || !(has(self.workloadSecretRef) && has(self.executionApi) && "
        "has(self.executionApi.tokenSecretRef))",
        "set either workloadSecretRef, whose workload holds the token, or executionApi.tokenSecretRef, not both",
    )
    CANCEL_STAYS = (
        "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
        "cancel cannot be undone; create a new TaskRun to run the task again",
    )

    NOT_ITSELF = (
        f"{_CANCELLED} || (!has(self.dependsOn) || self.dependsOn.all(other, other.taskId != self.taskId)) && "
        "(!has(self.arguments) || self.arguments.all(argument, "
        "!has(argument.fromXCom) || argument.fromXCom.taskId != self.taskId))",
        "a task cannot wait for itself: dependsOn and fromXCom name other tasks",
    )

    @property
    def expression(self) -> str:
        return self.value[0]

    @property
    def message(self) -> str:
        return self.value[1]

    @classmethod
    def of_spec(cls) -> list[Rule]:
        return [cls.ONE_API, cls.CANCEL_STAYS, cls.NOT_ITSELF]


def rules(*given: Rule) -> dict[str, Any]:
    """Return the extension of a schema that has the API server check the rules."""
    return {"x-kubernetes-validations": [{"rule": rule.expression, "message": rule.message} for rule in given]}


def frozen() -> list[dict[str, str]]:
    """Return the rules that keep fields as they are."""
    found = []
    for name, always in FROZEN.items():
        same = f"self.{name} == oldSelf.{name}"
        if not always:
            same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"
        message = f"{name} is immutable; delete and re-create the TaskRun, or use another name"
        found.append({"rule": same, "message": message})
    return found
