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
            found = [(f"{name} {title}".strip(), text[-LONGEST:]) for title, text in value.evidence().items()]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also what pytest raises; the rest must still be shown
            found = [(name, f"cannot be shown: {error!r}")]
        yield from found
