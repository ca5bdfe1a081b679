"""Logging cannot hurt: whatever a record holds, it is written, and so are those before and after it."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.logs.masking import Masker
from polypod_bridge.logs.pipeline import Output, TaskLog, runtime_record
from polypod_bridge.logs.render import Renderer, console, json_line

KEYS = st.sampled_from(
    ["stack", "stack_info", "exc_info", "exception", "event", "level", "logger", "timestamp", "_record", "positional_args",
     "error_detail", "a", ""]
) | st.text(max_size=5)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def written(render: Renderer, events: list[dict[str, Any]]) -> bytes:
    """Return what a log writes into a pipe, which is large enough for it."""
    read, write = os.pipe()
    try:
        masker = Masker()
        masker.add("hidden-value")
        TaskLog(masker, [Output(write, render, "pipe")]).write(events)
        os.close(write)
        write = -1
        return os.read(read, 1 << 16)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


@pytest.mark.parametrize("render", [json_line, console(True), console(False)], ids=["json", "colours", "plain"])
@given(record=st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_record_is_written_and_those_beside_it(render: Renderer, record: dict[str, Any]) -> None:
    lines = [b'{"event":"before"}', msgspec.json.encode(record), b'{"event":"after"}']
    out = written(render, [runtime_record(line) for line in lines])
    before, after = out.find(b"before"), out.rfind(b"after")
    assert 0 <= before < after
    if render is json_line:
        whole = [json.loads(line) for line in out.splitlines()]
        assert [item["event"] for item in (whole[0], whole[-1])] == ["before", "after"]
        assert len(whole) == 3


@pytest.mark.parametrize("render", [json_line, console(False)], ids=["json", "console"])
@pytest.mark.parametrize("key", ["stack", "exc_info", "exception", "_record", "logger", "level", "timestamp"])
@pytest.mark.parametrize("value", [["web", "db"], {"a": 1}, 5, None, True, "text", [["x"]]], ids=str)
def test_keys_that_a_renderer_gives_a_meaning_to_are_data(render: Renderer, key: str, value: Any) -> None:
    line = json.dumps({"event": "deploying", key: value}).encode()
    out = written(render, [runtime_record(line)])
    assert b"deploying" in out
    if value in (["web", "db"], [["x"]]) and key not in ("level", "timestamp"):
        assert b"web" in out or b"x" in out


def test_a_secret_in_a_record_that_cannot_be_rendered_is_hidden_all_the_same() -> None:
    deep: Any = "hidden-value"
    for _ in range(5000):
        deep = [deep]
    event = {"event": "hidden-value is here", "level": "info", "logger": "task", "deep": deep}
    out = written(json_line, [event, {"event": "after", "level": "info", "logger": "task"}])
    assert b"hidden-value" not in out
    assert b"after" in out
