"""The forms in which a secret can appear in a log: a regular expression that finds it in every usual encoding. Pure.

A JSON encoder of one language writes `&` as `\\u0026`, another one leaves it; a URL has `%26`, a shell `\\&`, a
template `&amp;`. So each character that encoders treat differently is looked for in all its forms. Letters and digits
are left as they are by all of them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from urllib.parse import quote

import msgspec

MIN_LENGTH = 5
"""Shorter secrets are not looked for: hiding them would blank the log."""
_LONGEST_BY_CHARACTER = 4096
"""Longer ones are looked for as a whole: as they are, and as JSON and URLs have them."""
_MIN_BASE64 = 8
_ESCAPES = {"\n": "n", "\t": "t", "\r": "r", "\b": "b", "\f": "f", "\v": "v", "\a": "a", "\0": "0"}
_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
# text within text is escaped again and again
_BACKSLASHES = r"\\{1,8}"


def pattern(secret: str) -> str:
    """Return the expression that finds a secret, empty if it is too short to be looked for."""
    forms = list(dict.fromkeys(_forms(secret)))
    return "|".join(forms)


def _forms(secret: str) -> Iterator[str]:
    for text in (secret, secret.strip(), *secret.splitlines()):
        if len(text) < MIN_LENGTH:
            continue
        if len(text) > _LONGEST_BY_CHARACTER:
            escaped = msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()[1:-1]
            yield from map(re.escape, (text, escaped, quote(text, safe="", errors="replace")))
            continue
        yield "".join(map(_character, text))
    yield from _base64(secret)


def _character(character: str) -> str:
    """Return the expression for one character in all its forms."""
    if character.isascii() and character.isalnum():
        return character
    code = ord(character)
    raw = character.encode("utf-8", "replace")
    percent = "".join(f"%{_hex(f'{byte:02x}')}" for byte in raw)
    units = character.encode("utf-16-be", "surrogatepass")
    pairs = [units[index : index + 2].hex() for index in range(0, len(units), 2)]
    forms = [
        percent,
        "".join(f"{_BACKSLASHES}u{_hex(pair)}" for pair in pairs),
        rf"{_BACKSLASHES}(?:u\{{0*{_hex(f'{code:x}')}\}}|U{_hex(f'{code:08x}')})",
        f"&#(?:0*{code}|[xX]0*{_hex(f'{code:x}')});",
        "".join(rf"{_BACKSLASHES}x{_hex(f'{byte:02x}')}" for byte in raw),
    ]
    if code < 256:
        forms.append(rf"{_BACKSLASHES}x{_hex(f'{code:02x}')}")
        forms.append(rf"{_BACKSLASHES}{code:03o}")
    if character == " ":
        forms.append(r"\+")
    if character in _ESCAPES:
        forms.append(f"{_BACKSLASHES}{_ESCAPES[character]}")
    if character in _ENTITIES:
        forms.append(f"&{_ENTITIES[character]};")
    # as it is comes last: `%` is the beginning of `%25`, too
    forms.append(_BACKSLASHES if character == "\\" else rf"\\{{0,8}}{re.escape(character)}")
    return f"(?:{'|'.join(dict.fromkeys(forms))})"


def _hex(digits: str) -> str:
    """Return an expression for hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _base64(secret: str) -> Iterator[str]:
    """Yield what base64 makes of a secret wherever it begins in the text that is encoded."""
    raw = secret.encode("utf-8", "replace")
    for before in range(3):
        encoded = b64encode(bytes(before) + raw).decode()
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        inner = encoded[first:last]
        if len(inner) >= _MIN_BASE64:
            yield "".join({"+": "[+-]", "/": "[/_]"}.get(letter, letter) for letter in inner)


def longest(secret: str) -> int:
    """Return how many characters a secret can take in any of its forms, roughly and at most."""
    return 24 * min(len(secret), _LONGEST_BY_CHARACTER) + 6 * max(0, len(secret) - _LONGEST_BY_CHARACTER)
