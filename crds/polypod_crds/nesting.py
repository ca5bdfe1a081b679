"""How deep a value of the user's own may be nested. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

DEEPEST = 64
"""Levels of lists and mappings in params, arguments and pod templates: every decoder on a value's way takes as many."""


def depth(value: Any, limit: int) -> int:
    """Return how many levels of lists and mappings a value has; no more than `limit` + 1 are counted."""
    level, here = 0, [value]
    while level <= limit:
        nested = [item for item in here if isinstance(item, (dict, list))]
        if not nested:
            return level
        level += 1
        here = [below for item in nested for below in (item.values() if isinstance(item, dict) else item)]
    return level


def _check(value: Any) -> Any:
    if depth(value, DEEPEST) > DEEPEST:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels; send such a value as text, or in an object store")
    return value


Nested = AfterValidator(_check)
AnyValue = Annotated[Any, Nested]
AnyMapping = Annotated[dict[str, Any], Nested]
