"""The part of RESULTS.md that a benchmark writes."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).with_name("RESULTS.md")


def put(name: str, command: str, text: str) -> None:
    """Write a benchmark's table between its marks."""
    begin, end = f"<!-- begin: {name} (written by `{command}`) -->", f"<!-- end: {name} -->"
    page = PAGE.read_text()
    for mark in (begin, end):
        assert mark in page, f"RESULTS.md has no mark {mark!r}"
    head, _, rest = page.partition(begin)
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{rest.partition(end)[2]}")
    print(text)
