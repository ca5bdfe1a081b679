"""Durations as Kubernetes users write them: `5s`, `10m`, `1h30m`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from polypod_crds.rules import Rule, rules

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: it is not a duration.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write it like 30s, 10m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


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
