"""Objects as they come from the API server, before they are parsed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

Raw = Mapping[str, Any]


class Meta(msgspec.Struct, rename="camel"):
    """The part of an object's metadata that tells whether it is news."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None


def version(text: str) -> int:
    """Return a resource version as a number: comparable by promise since Kubernetes 1.35, and in fact before that."""
    return int(text) if text.isdecimal() else 0
