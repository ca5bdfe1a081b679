"""logs/: splitting, parsing, masking and rendering."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_bridge.logs.masking import Masker
from polypod_bridge.logs.pipeline import Levels, LineSplitter, Output, TaskLog, runtime_record
from polypod_bridge.logs.pump import LogPump
from polypod_bridge.logs.render import console, json_line


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=8), st.data())
def test_lines_survive_any_fragmentation(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    splitter, got = LineSplitter(Masker()), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += splitter.feed(stream[:size])
        stream = stream[size:]
    assert got + splitter.rest() == [*lines, b"rest"]
    assert splitter.rest() == []


@given(st.integers(0, 60), st.integers(1, 17))
def test_an_endless_line_is_cut_but_never_through_a_secret(before: int, chunk: int) -> None:
    masker = Masker()
    masker.add("correct-horse")
    splitter, got = LineSplitter(masker, max_line=32), []
    stream = b"x" * before + b"correct-horse" + b"y" * 50 + b"\n"
    for start in range(0, len(stream), chunk):
        got += splitter.feed(stream[start : start + chunk])
    text = "".join(masker.text(line.decode()) for line in got)
    assert "correct-horse" not in text
    assert text == "x" * before + "***" + "y" * 50


def test_invalid_utf8_is_kept_across_a_cut() -> None:
    splitter = LineSplitter(Masker(), max_line=8)
    got = splitter.feed(b"\xff" * 20 + b"\n")
    assert b"".join(got) == b"\xff" * 20


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"level":"INFO","event":"e"}', {"level": "info", "event": "e", "logger": "task"}),
        (b'{"level":"warn","event":"e"}', {"level": "warning", "event": "e", "logger": "task"}),
        (b'{"level":"weird","event":1}', {"level": "info", "event": "1", "logger": "task"}),
        (
            b'{"event":"e","exception":[{"a":1}]}',
            {"level": "info", "event": "e", "logger": "task", "error_detail": [{"a": 1}]},
        ),
        (b'{"event":"e","exception":null,"x":[1]}', {"level": "info", "event": "e", "logger": "task", "x": [1]}),
    ],
)
def test_a_runtime_record_is_brought_into_upstreams_shape(line: bytes, expected: dict[str, Any]) -> None:
    assert runtime_record(line) == expected


@given(st.binary(max_size=60))
def test_any_line_becomes_an_event(line: bytes) -> None:
    record = runtime_record(line)
    assert {"level", "event", "logger"} <= set(record)
    json.loads(json_line({"timestamp": datetime.now(UTC), **record}))


def test_the_keys_come_in_upstreams_order() -> None:
    event = {"extra": 1, "logger": "l", "level": "info", "event": "e", "timestamp": datetime(2026, 1, 1, tzinfo=UTC)}
    assert list(json.loads(json_line(event))) == ["timestamp", "level", "event", "logger", "extra"]
    assert json.loads(json_line({**event, "odd": "\ud800"}))["odd"] == "?"


def test_deep_nesting_is_neither_a_crash_nor_a_leak() -> None:
    masker = Masker()
    masker.add("correct-horse")
    deep: Any = "correct-horse"
    for _ in range(100_000):
        deep = [deep]
    assert "correct-horse" not in str(masker.redact({"a": deep}))[:1000]


def test_every_form_of_a_secret_is_masked() -> None:
    masker = Masker()
    masker.add_connection(
        'p"ss w/rd', '{"token": "t0k3n-value", "region": "eu-west", "nested": {"api_key": "k3y-value"}}'
    )
    masker.add("-----BEGIN\nline-one\nline-two")
    for text in ('p"ss w/rd', 'p\\"ss w/rd', "p%22ss%20w%2Frd", "t0k3n-value", "k3y-value", "line-one", "line-two"):
        assert masker.text(f"<{text}>") == "<***>", text
    assert masker.text("eu-west") == "eu-west"
    assert masker.text("eyJhbGciOi.eyJzdWIi.sig-nature x") == "eyJ*** x"


def test_a_longer_secret_wins_over_a_shorter_one_in_it() -> None:
    masker = Masker()
    masker.add("secret")
    masker.add("secret-extended")
    assert masker.text("secret-extended secret") == "*** ***"


def test_a_name_decides_for_variables_and_mask_secret() -> None:
    masker = Masker(["Pin_Code"])
    masker.add("plain value", "my_variable")
    masker.add("hidden value", "DB.PASSWORD")
    masker.add("numeric-pin", "pin_code")
    masker.add("four")
    masker.add("airflow")
    assert (
        masker.text("plain value, hidden value, numeric-pin, four, airflow") == "plain value, ***, ***, four, airflow"
    )


def test_values_under_sensitive_names_are_hidden_at_any_depth() -> None:
    redacted = Masker().redact({"a": [{"Access-Token": {"x": ["y", 1]}}], "passwd": "p", "n": 1})
    assert redacted == {"a": [{"Access-Token": {"x": ["***", 1]}}], "passwd": "***", "n": 1}


def test_a_full_destination_is_reported_once_and_counted(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    full = os.open("/dev/full", os.O_WRONLY)
    good = os.open(kept, os.O_WRONLY | os.O_CREAT)
    log = TaskLog(Masker(), [Output(full, json_line, "full"), Output(good, json_line, "good")])
    for number in range(3):
        log.event("info", "line", number=number)
    os.close(full)
    os.close(good)
    events = [json.loads(line)["event"] for line in kept.read_text().splitlines()]
    assert sorted(events) == ["cannot write the log; the task continues", "line", "line", "line"]
    assert log.lost() == {"full": 3}


def test_the_supervisors_own_level_is_that_of_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    log = TaskLog(Masker(), [Output(fd, json_line, "x")], Levels("warning"))
    log.event("info", "quiet")
    log.event("error", "loud")
    os.close(fd)
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["loud"]


@pytest.mark.parametrize(
    ("level", "namespaces", "expected"),
    [
        ("INFO", "", {"app info", "app.db info", "app.db.pool info", "other info"}),
        ("DEBUG", "", None),
        ("ERROR", "", set()),
        ("error", "app.db=debug", {"app.db debug", "app.db info", "app.db.pool debug", "app.db.pool info"}),
        ("INFO", "app=error, app.db.pool=debug\nother=warning", {"app.db.pool debug", "app.db.pool info"}),
        ("INFO", "app", {"app info", "app.db info", "app.db.pool info", "other info"}),
        ("nonsense", "app=nonsense", {"app info", "app.db info", "app.db.pool info", "other info"}),
    ],
)
def test_a_runtime_that_does_not_filter_its_records_is_filtered(
    tmp_path: Path, level: str, namespaces: str, expected: set[str] | None
) -> None:
    names = [f"{name} {at}" for name in ("app", "app.db", "app.db.pool", "other") for at in ("debug", "info")]
    records = [dict(zip(("logger", "level"), name.split(), strict=True)) | {"event": name} for name in names]
    path, masker = tmp_path / "log", Masker()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    output = Output(fd, json_line, "x")
    pump = LogPump(TaskLog(masker, [output], Levels(level, namespaces)), masker, lambda name: None)
    for stream, data in (("logs", "\n".join(map(json.dumps, records))), ("stdout", "printed\n")):
        read, write = os.pipe()
        os.write(write, data.encode())
        os.close(write)
        pump.add(stream, read)
    assert pump.stop(60)
    os.close(fd)
    found = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    # what a process prints has no level of its own
    assert sorted(found) == sorted(["printed", *(names if expected is None else expected)])
    assert output.written == len(found)


def pumped(
    tmp_path: Path, lines: bytes, masker: Masker, levels: Levels, shown: Levels | None = None, stream: str = "logs"
) -> tuple[str, str]:
    """Return what is in the log after a runtime has sent these lines, and its last error, or last output."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    pump = LogPump(TaskLog(masker, [Output(fd, json_line, "x", shown)], levels), masker, lambda name: None)
    read, write = os.pipe()
    os.write(write, lines)
    os.close(write)
    pump.add(stream, read)
    assert pump.stop(60)
    os.close(fd)
    return path.read_text(), pump.last_error if stream == "logs" else pump.last_output


@pytest.mark.parametrize("level", ["WARNING", "ERROR", "CRITICAL"])
@pytest.mark.parametrize(
    "line",
    [
        b"panic: not json",
        b'{"event":"it burns","level":"50"}',
        b'{"event":"it burns","level":"catastrophe"}',
        b'["list"]',
    ],
)
def test_a_line_whose_level_nobody_knows_is_never_left_out(tmp_path: Path, level: str, line: bytes) -> None:
    kept, _ = pumped(tmp_path, line + b"\n", Masker(), Levels(level))
    assert any(word in kept for word in ("panic", "burns", "list"))


def test_levels_of_other_languages_are_understood(tmp_path: Path) -> None:
    lines = [
        json.dumps({"event": name, "level": name.upper()}) for name in ("severe", "err", "panic", "fine", "notice")
    ]
    kept, last = pumped(tmp_path, "\n".join(lines).encode(), Masker(), Levels("error"))
    assert [json.loads(line)["event"] for line in kept.splitlines()] == ["severe", "err", "panic"]
    assert last == "panic"


def test_the_console_shows_what_a_namespaces_level_asks_for(tmp_path: Path) -> None:
    levels = Levels("warning", "mylog=debug")
    lines = b"".join(b'{"event":"x","level":"debug","logger":"%s"}\n' % name for name in (b"mylog.a", b"other"))
    kept, _ = pumped(tmp_path, lines, Masker(), levels, levels)
    assert [json.loads(line)["logger"] for line in kept.splitlines()] == ["mylog.a"]


def test_what_a_name_makes_secret_is_secret_in_the_last_error(tmp_path: Path) -> None:
    line = json.dumps({"event": "failed", "level": "error", "error": {"password": "hunter2hunter2", "host": "db"}})
    kept, last = pumped(tmp_path, line.encode(), Masker(), Levels("info"))
    assert "hunter2" not in kept + last
    assert "db" in last


@pytest.mark.parametrize("before", [0, 360, 450, 499, 500])
def test_the_last_error_is_masked_before_it_is_cut(tmp_path: Path, before: int) -> None:
    secret, masker = "s3cr3t-" * 20, Masker()
    masker.add(secret)
    line = json.dumps({"event": "failed", "level": "error", "error": "x" * before + secret})
    _, last = pumped(tmp_path, line.encode(), masker, Levels("info"))
    assert "s3cr3t" not in last
    assert len(last) <= 500


JVM = b"""Picked up JAVA_TOOL_OPTIONS: -Xmx1g
Exception in thread "main" java.lang.NoClassDefFoundError: a/B
\tat a.Main.main(Main.java:39)
Caused by: java.lang.ClassNotFoundException: a.B
\t... 1 more
"""
NODE = b"""file:///b.mjs:1
throw new Error("x")
^

Error: x
    at file:///b.mjs:1:7

Node.js v22.1.0
"""
GO = b"""panic: a is nil

goroutine 1 [running]:
main.main()
\t/src/main.go:3 +0x1d
exit status 2
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (JVM, "Caused by: java.lang.ClassNotFoundException: a.B"),
        (NODE, "Error: x"),
        (GO, "panic: a is nil"),
        (b"p: error while loading shared libraries: libx.so", "p: error while loading shared libraries: libx.so"),
        (b"Traceback (most recent call last):\n  File x\nValueError: 1", "ValueError: 1"),
        (b"reading 3 files\n", ""),
        (b"error: s3cr3t", "error: ***"),
    ],
)
def test_the_last_output_that_looks_like_an_error_is_known(tmp_path: Path, output: bytes, said: str) -> None:
    masker = Masker()
    masker.add("s3cr3t")
    _, last = pumped(tmp_path, output, masker, Levels("info"), stream="stderr")
    assert last == said


def test_the_console_form_has_colour_only_if_asked() -> None:
    event = {
        "timestamp": datetime(2026, 1, 1, 12, 30, tzinfo=UTC),
        "level": "info",
        "event": "e",
        "logger": "l",
        "x": 1,
    }
    assert console(False)(event).decode().split() == ["12:30:00.000", "[info", "]", "e", "[l]", "x=1"]
    assert b"\x1b[" in console(True)(event)


HALVES = [rb"\ud83d", rb"\ude00", b"\xed\xa0\xbd", b"\xf0\x9f", b"\xff"]


@pytest.mark.parametrize("half", HALVES, ids=repr)
@pytest.mark.parametrize("place", [b"%s", b"a %s", b"%s b", rb"\\%s", rb"\ud83d\ude00%s", rb"%s\ud83d\ude00"], ids=repr)
def test_half_a_character_costs_nothing_else(half: bytes, place: bytes) -> None:
    text = place % half
    record = runtime_record(b'{"event":"%s","level":"error","logger":"app.orders","%s":1}' % (text, text))
    assert (record["level"], record["logger"]) == ("error", "app.orders")
    assert "\ufffd" in record["event"]
    # what is whole stays
    assert ("\U0001f600" in record["event"]) == (rb"\ud83d\ude00" in place)


def test_an_escaped_backslash_before_a_surrogate_is_text() -> None:
    record = runtime_record(rb'{"event":"\\ud83d and \ud83d"}')
    assert record["event"] == "\\ud83d and \ufffd"
