"""What can pass between msgpack and JSON without being changed, and where something cannot. Pure.

A value is exact or refused: msgspec would write NaN as null, bytes as base64 and a key 1 as "1" silently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What decoding may raise; a text that is not UTF-8 is a ValueError."""
DEEPEST = 200
"""How many lists and mappings may be within each other: what msgspec, the SDKs and the Execution API all take."""
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1
_MAP_TYPES = (dict, Mapping)


def json_problem(value: Any) -> str:
    """Return what JSON could not hold of a value that came as msgpack, and where; empty if it is exact."""
    return _problem(value, to_json=True)


def msgpack_problem(value: Any, whole_bits: int = 64) -> str:
    """Return what msgpack could not hold of a value that came as JSON, and where; empty if it is exact.

    Args:
        whole_bits: how many bits of a whole number the reader keeps, its sign aside.
    """
    return _problem(value, to_json=False, whole_bits=whole_bits)


def _problem(value: Any, *, to_json: bool, whole_bits: int = 64) -> str:
    ahead: list[tuple[Any, str, int]] = [(value, "", 0)]
    while ahead:
        found, where, depth = ahead.pop()
        if isinstance(found, msgspec.Struct):
            found = msgspec.structs.asdict(found)
        if depth > DEEPEST:
            return f"{_cut(where)}: more than {DEEPEST} lists and mappings within each other"
        if isinstance(found, list | tuple):
            ahead += [(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(found)]
        elif isinstance(found, _MAP_TYPES):
            for key, item in found.items():
                if not isinstance(key, str):
                    return f"{_cut(where) or 'the value'}: the key {key!r} is {_name(key)}, not a string"
                ahead.append((item, f"{where}.{key}" if where else key, depth + 1))
        else:
            problem = _scalar_problem(found, to_json=to_json, whole_bits=whole_bits)
            if problem:
                return f"{_cut(where) or 'the value'}: {problem}"
    return ""


def _scalar_problem(value: Any, *, to_json: bool, whole_bits: int) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that JSON can represent"
    if isinstance(value, bytes | bytearray | memoryview | msgspec.msgpack.Ext):
        return f"JSON has no {_name(value)}; encode the value as text"
    if not to_json and isinstance(value, int) and not isinstance(value, bool) and not _fits(value, whole_bits):
        return f"{_shown(value)} does not fit into {whole_bits} bits; pass it as text"
    if isinstance(value, str) and not _is_unicode(value):
        return "an unpaired surrogate is not valid text"
    return ""


def _fits(number: int, bits: int) -> bool:
    return _SMALLEST <= number <= _LARGEST if bits == 64 else abs(number) <= 1 << bits


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(number: int) -> str:
    return str(number) if number.bit_length() < 300 else f"a whole number of {number.bit_length()} bits"


def _name(value: Any) -> str:
    if isinstance(value, msgspec.msgpack.Ext):
        return f"msgpack extension {value.code}"
    return {"bytearray": "bytes", "memoryview": "bytes", "NoneType": "null"}.get(
        type(value).__name__, type(value).__name__
    )


def _cut(where: str) -> str:
    return where if len(where) <= 200 else f"{where[:200]}…"
