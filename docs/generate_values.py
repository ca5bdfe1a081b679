"""Writes docs/values.md from sdks/values.json, which the tests of both SDKs compare with what really happens."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "sdks/values.json"
PAGE = ROOT / "docs/values.md"
NONE = "-"

HEAD = """# What a value becomes

A value is an argument, an XCom, or what a task returns. In each type of Go and Java it is kept, converted as the table
says, or refused: the task fails with an error that names the place in the value, such as `lines[2].count`. The tables
cover both directions: the value was read into the type, and the type was sent back. The same holds one, two and three
levels deep, in lists and in maps. `make generated` writes this page from `sdks/values.json`; tests compare that file
with the SDKs.

- A number is kept if it is the same number: `7.0` fits `int`. A float of 32 bits keeps `0.1` as `0.1`.
- null fits only what has a null. A *missing* key leaves a field as its class or struct makes it; a Java record has no
  such value, so a missing component of a primitive type is an error.
- A key without a field is ignored. A class or struct without anything that can be filled, or sent, is refused.
- A map's key is text: one of a whole number must be as the type writes it (`1`, not `01`), and two keys that would
  become one are refused.
- Go: as in `encoding/json`, a key fills a field whose name differs in case only; two keys for one field are refused. Of
  a key that occurs twice in JSON text of the task's own (`json.RawMessage`), the last one counts.
- Go: where the target is `any`, a number is a `float64`, or a `json.Number` if a `float64` cannot hold it.
- Java: where the target is `Object`, a number is a `Long`, a `BigInteger` or a `Double`. A time of day does not fit a
  `LocalDate`, an offset does not fit a `LocalDateTime`; an exception is refused: send its text.
"""


def rendered() -> str:
    """Return the page."""
    table = json.loads(TABLE.read_text())
    parts = [HEAD]
    for language, title in (("go", "Go"), ("java", "Java")):
        parts.append(f"## {title}\n")
        parts.append("| type | kept | converted | refused |\n|---|---|---|---|")
        parts.extend(_row(name, outcomes, table["values"]) for name, outcomes in table[language].items())
        parts.append("")
    return "\n".join(parts)


def _row(name: str, outcomes: dict[str, str], values: list[str]) -> str:
    kept = [f"`{value}`" for value in values if outcomes[value] == "kept"]
    refused = [f"`{value}`" for value in values if outcomes[value] == "refused"]
    converted = [
        f"`{value}` {_said(outcomes[value])}" for value in values if outcomes[value] not in ("kept", "refused")
    ]
    label = name if "`" in name or (" " in name.replace(", ", "") and "{" not in name) else f"`{name}`"
    return f"| {label} | {', '.join(kept) or NONE} | {'; '.join(converted) or NONE} | {_short(refused, values)} |"


def _said(outcome: str) -> str:
    verb, _, rest = outcome.partition(" ")
    return (
        f"{verb} `{rest}`" if verb == "becomes" else outcome.replace("sent back:", "is read; sent back it is refused:")
    )


def _short(refused: list[str], values: list[str]) -> str:
    if len(refused) > len(values) // 2:
        return "all others"
    return ", ".join(refused) or NONE


if __name__ == "__main__":
    PAGE.write_text(rendered())
