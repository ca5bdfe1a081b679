"""The types of durations in a spec: `5s`, `10m`, `1h30m`."""

from __future__ import annotations

from typing import Annotated

from polypod_core.durations import seconds
from pydantic import AfterValidator, Field, StringConstraints

from polypod_crds.rules import Rule, rules


def _check(text: str) -> str:
    if seconds(text) > LONGEST:
        raise ValueError(Rule.DURATION_BOUND.message)
    return text


def _check_timeout(text: str) -> str:
    if seconds(_check(text)) <= 0:
        raise ValueError(Rule.TIMEOUT.message)
    return text


LONGEST = 366 * 86400.0
"""Seconds: a year. What is longer is a mistake, and no calendar has to reach that far."""

Duration = Annotated[
    str,
    StringConstraints(max_length=32),
    AfterValidator(_check),
    Field(json_schema_extra=rules(Rule.DURATION, Rule.DURATION_BOUND)),
]
Timeout = Annotated[
    str,
    StringConstraints(max_length=32),
    AfterValidator(_check_timeout),
    Field(json_schema_extra=rules(Rule.DURATION, Rule.DURATION_BOUND, Rule.TIMEOUT)),
]
