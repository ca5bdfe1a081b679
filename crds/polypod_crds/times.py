"""Times that somebody else has written: text of one form, within the years that a calendar in UTC has."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from polypod_crds.rules import WRITTEN_TIME, Rule, rules

_WRITTEN = re.compile(WRITTEN_TIME)


def _written(value: Any) -> Any:
    """Refuse what pydantic would take for a time as well: a number is seconds or milliseconds since 1970 to it."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and _WRITTEN.fullmatch(value)):
        raise ValueError(Rule.DATE_TIME.message)
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        value.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time must be within the years 1 to 9999 in UTC") from None
    return value


def _as_text(schema: dict[str, Any]) -> None:
    """Have a time be text to the API server, which checks it by a rule."""
    del schema["format"]
    schema["maxLength"] = 64
    schema.update(rules(Rule.DATE_TIME))


ExactTime = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_utc)]
Time = Annotated[ExactTime, Field(json_schema_extra=_as_text)]
"""A time in the CRD."""
