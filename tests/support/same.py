"""Whether two JSON values are the same: more than `==` asks, for which 1 is True and 0.0 is -0.0."""

from __future__ import annotations

import math
from typing import Any


def same(one: Any, other: Any, *, numbers: bool = False) -> bool:
    """Tell whether two values are the same to the type.

    Args:
        numbers: take 1 and 1.0 for the same, as JSON does.
    """
    if numbers and _is_number(one) and _is_number(other):
        return bool(one == other and math.copysign(1, one) == math.copysign(1, other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], numbers=numbers) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(*pair, numbers=numbers) for pair in zip(one, other, strict=True))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
