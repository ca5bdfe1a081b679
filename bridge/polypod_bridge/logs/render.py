"""Rendering: a log event becomes a JSON line, in the shape that Airflow's UI reads, or a line for a person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

Renderer = Callable[[dict[str, Any]], bytes]

_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="string")


def json_line(event: dict[str, Any]) -> bytes:
    """Render an event as one JSON line; `timestamp`, `level`, `event` and `logger` come first, as upstream."""
    ordered = {"timestamp": event["timestamp"], "level": event["level"], "event": event["event"]}
    ordered["logger"] = event["logger"]
    ordered.update(event)
    try:
        return _encoder.encode(ordered) + b"\n"
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError, OverflowError):
        # a lone surrogate, or something that no JSON can hold: keep the line, if less exactly
        return _encoder.encode({key: _plain(value) for key, value in ordered.items()}) + b"\n"


_STRUCTLOGS = frozenset({"stack", "stack_info", "exc_info", "exception", "_record", "_from_structlog"})


def safely(render: Renderer, event: dict[str, Any]) -> bytes:
    """Render an event; should that fail, whatever a task has put into it, keep what can be kept as JSON."""
    try:
        return render(event)
    except Exception as error:
        kept = {key: _plain(event.get(key, "")) for key in ("timestamp", "level", "event", "logger")}
        fields = _plain({key: value for key, value in event.items() if key not in kept})
        return _encoder.encode({**kept, "fields": fields, "render_error": f"{type(error).__name__}: {error}"}) + b"\n"


def _plain(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:
        text = f"<{type(error).__name__}>"
    return text.encode("utf-8", "replace").decode()


def console(colors: bool) -> Renderer:
    """Return a renderer for people, with colour if `colors`."""
    import structlog

    render = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=40, sort_keys=False)

    def line(event: dict[str, Any]) -> bytes:
        # to structlog these are a traceback of its own process; here they are data of a task
        shown = {f"{key}_" if key in _STRUCTLOGS else key: value for key, value in event.items()}
        trace = shown.get("error_detail")
        if isinstance(trace, str):
            # a traceback is to be read: on lines of its own, not as one text of `\n`
            del shown["error_detail"]
        stamp = shown.get("timestamp")
        if isinstance(stamp, datetime):
            shown["timestamp"] = f"{stamp:%H:%M:%S}.{stamp.microsecond // 1000:03d}"
        text = str(render(None, str(shown["level"]), shown)) + "\n"
        if isinstance(trace, str):
            text += "".join(f"    {row}\n" for row in trace.rstrip().splitlines())
        return text.encode("utf-8", "replace")

    return line
