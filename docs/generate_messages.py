"""Writes docs/messages.schema.json: every message between a runtime and the supervisor, as JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from polypod_bridge.comm import answers, messages

PAGE = Path(__file__).parent / "messages.schema.json"


def rendered() -> str:
    """Return the file: `$defs` of all messages, and which of them go in either direction."""
    to_runtime, to_supervisor = list(_leaves(answers.Answer)), list(_leaves(messages.Message))
    _, definitions = msgspec.json.schema_components([*to_runtime, *to_supervisor], ref_template="#/$defs/{name}")
    document: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages of the comm socket",
        "description": (
            "Bodies of frames, in msgpack. A text that is a time is a msgpack timestamp or RFC 3339. Fields that are "
            "not here may come: ignore them."
        ),
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in ("ToRuntime", "ToSupervisor")],
        "$defs": {
            "ToRuntime": {"oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in to_runtime]},
            "ToSupervisor": {"oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in to_supervisor]},
            **definitions,
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _leaves(base: type) -> Iterator[type]:
    kind: type
    for kind in base.__subclasses__():
        if kind.__subclasses__():
            yield from _leaves(kind)
        else:
            yield kind


if __name__ == "__main__":
    PAGE.write_text(rendered())
