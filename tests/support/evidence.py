"""What a test that failed shows: which processes there were, what they logged last, and what the objects' statuses said.

Whatever a test uses may have a method `evidence`, which returns texts by title. When the test fails, they are added to
its report, so that a failure is understood from its own output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import pytest

from support.bridge import Bridge
from support.waiting import slowness

LONGEST = 6000


@runtime_checkable
class Shows(Protocol):
    """Something that a test uses and that can show its state."""

    def evidence(self) -> dict[str, str]:
        """Return texts by title; the ends of long ones are kept."""
        ...


def of(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Return titles and texts of all that a test has used."""
    yield "machine", f"{slowness():.1f} times slower than an idle one"
    seen: list[Any] = []
    for name, value in [*getattr(item, "funcargs", {}).items(), ("bridge", Bridge)]:
        if not isinstance(value, Shows) or any(value is other for other in seen):
            continue
        seen.append(value)
        try:
            found = value.evidence()
        except Exception as error:  # whatever is broken is what the test has failed of; the rest must still be shown
            found = {"": f"cannot be shown: {error!r}"}
        for title, text in found.items():
            yield f"{name} {title}".strip(), text[-LONGEST:]
