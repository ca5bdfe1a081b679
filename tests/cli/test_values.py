"""Values on their way around: argument → task → XCom → argument of the next task, in three languages.

A value comes out as it went in, or there is an error that says which one cannot; it is never changed.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from polypod_cli import manifests
from polypod_cli.local import LocalRun, LogOptions
from polypod_cli.plan import plan
from polypod_core.routing import read_routing
from support.cli import routing, task_run, write
from support.same import same

pytestmark = pytest.mark.needs("conformance")

SEED = 20261126


def values(count: int, *, whole_bits: int) -> list[Any]:
    """Return JSON values of every kind, nested ones too."""
    chance = random.Random(SEED)
    limit = 1 << whole_bits

    def text() -> str:
        kinds = ["abc", "grüße ✓", "😀", "\0", "\n\t\r", '"\\/', "\u2028", "\ufffd", "<&>", "", "eyJ", " "]
        return "".join(chance.choice(kinds) for _ in range(chance.randint(0, 4)))

    def number() -> Any:
        whole = [0, -1, 1, limit - 1, -limit, 1 << 53, -(1 << 53), chance.randrange(-limit, limit)]
        floats = [0.1, -0.5, 1e21, 5e-324, 1.7976931348623157e308, 0.30000000000000004, chance.uniform(-1e9, 1e9)]
        return chance.choice([item for item in whole if -limit <= item < limit] + floats)

    def value(depth: int) -> Any:
        kind = chance.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(chance.randint(0, 3))]
        if kind == 6:
            return {text(): value(depth - 1) for _ in range(chance.randint(0, 3))}
        return [None, chance.random() < 0.5, number(), number(), text()][kind]

    deep: Any = "bottom"
    for level in range(60):
        deep = {"a": deep} if level % 2 else [deep]
    return [deep, "x" * 100_000, [], {}, *(value(3) for _ in range(count))]


class Runs:
    """Runs TaskRuns as `polypod run` does; what they leave is not cut."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._capfd, self._monkeypatch = folder, capfd, monkeypatch

    def __call__(self, *documents: Any, **variables: str) -> tuple[dict[str, Any], dict[str, str | None], str]:
        """Return the values that they have left, the states that they have ended in, and the log."""
        for name, value in variables.items():
            self._monkeypatch.setenv(f"AIRFLOW_VAR_{name.upper()}", value)
        loaded = manifests.load([str(write(self._folder, *documents))])
        read = read_routing(str(routing(self._folder)))
        run = LocalRun(loaded, read, LogOptions(), 2)
        ended = {item.metadata.name: item.status.state for item in run.run(plan(loaded, read)) if item.status}
        left = {name: {key: json.loads(text) for key, text in found.items()} for name, found in run.xcoms.items()}
        return left, ended, self._capfd.readouterr().err


@pytest.fixture
def runs(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, capfd, monkeypatch)


def argument(value: Any) -> dict[str, Any]:
    return {"arguments": [{"name": "value", "value": value}]}


def taken(task_id: str) -> dict[str, Any]:
    return {"arguments": [{"name": "value", "fromXCom": {"taskId": task_id}}]}


@pytest.mark.parametrize(
    ("languages", "bits"),
    [(("golang", "jvm", "golang"), 63), (("jvm", "golang", "jvm"), 63), (("golang", "jvm", "typescript"), 53)],
    ids=["Go, Java, Go", "Java, Go, Java", "Go, Java, TypeScript"],
)
def test_a_value_goes_through_three_tasks_unchanged(runs: Runs, languages: tuple[str, ...], bits: int) -> None:
    given = values(400, whole_bits=bits)
    last = {"dependsOn": [{"taskId": "echo_again"}]} if languages[2] == "typescript" else taken("echo_again")
    left, states, log = runs(
        task_run("echo", languages[0], **argument(given)),
        task_run("echo_again", languages[1], **taken("echo")),
        task_run("echo_last", languages[2], **last),
    )
    assert set(states.values()) == {"success"}, log[-3000:]
    for name, values_left in left.items():
        found = values_left["return_value"]
        assert [
            index for index, pair in enumerate(zip(given, found, strict=True)) if not same(*pair, numbers=True)
        ] == [], name


SPECIAL: list[tuple[str, str, Any]] = [
    ("golang", "big", "the number 1180591620717411303425 does not fit into 64 bits"),
    ("golang", "fits", [1 << 60]),
    ("golang", "unsigned", [(1 << 64) - 1]),
    ("golang", "nan", "NaN is not a number that JSON can represent"),
    ("golang", "decimal", "12345678901234567.89 does not fit"),
    ("golang", "price", [100]),
    ("golang", "time", ["2026-11-21T10:00:00.123456789+01:00"]),
    ("golang", "text", "not valid UTF-8"),
    ("golang", "nested", "a[0]: +Inf is not a number that JSON can represent"),
    ("golang", "keys", [{"1": "a"}]),
    ("golang", "smallest", [-(1 << 63)]),
    ("golang", "float", [0.1]),
    ("jvm", "decimal", "the number 12345678901234567.89 does not fit"),
    ("jvm", "price", [100]),
    ("jvm", "tenth", [0.1]),
    ("jvm", "big", "the number 1180591620717411303425 does not fit into 64 bits"),
    ("jvm", "fits", [1 << 60]),
    ("jvm", "nan", "NaN is not a number that JSON can represent"),
    ("jvm", "nested", "Infinity is not a number that JSON can represent"),
    ("jvm", "instant", ["2026-11-21T10:00:00.123456789Z"]),
    ("jvm", "in a map", [{"at": "2026-11-21T10:00:00.123456789Z", "price": 9.99}]),
    ("jvm", "date", ["2026-11-21"]),
    ("jvm", "offset", ["2026-11-21T10:00:00+01:00"]),
    ("jvm", "timestamp", ["2026-11-21T10:00:00.123456789Z"]),
    ("jvm", "sql date", ["2026-11-21"]),
    ("jvm", "util date", ["2026-11-21T10:00:00Z"]),
    ("jvm", "optional", [[1, 2]]),
    ("jvm", "nothing", [{"a": None}]),
    ("jvm", "bytes", "JSON has no byte[]; encode the value as text"),
    ("jvm", "text", "an unpaired surrogate is not valid text"),
    ("jvm", "float", [0.5]),
    ("typescript", "nan", "SetXCom: value: nan is not a number that JSON can represent"),
    ("typescript", "infinity", "SetXCom: value[0]: inf is not a number that JSON can represent"),
    ("typescript", "text", "SetXCom"),
    ("typescript", "bytes", "SetXCom: value: JSON has no bytes"),
    ("typescript", "date", ["2026-11-21T10:00:00Z"]),
    ("typescript", "large", [1 << 53]),
    ("typescript", "negative", [-0.5]),
]


@pytest.mark.parametrize("language", ["golang", "jvm", "typescript"])
def test_what_only_one_language_has_is_exact_or_an_error(runs: Runs, language: str) -> None:
    cases = [(name, expected) for queue, name, expected in SPECIAL if queue == language]
    for name, expected in cases:
        document = task_run("special", language, params={"special": name})
        left, states, log = runs(document, special=name)
        if isinstance(expected, str):
            assert (states["special"], left["special"]) == ("failed", {}), (name, left)
            assert expected in log, (name, log[-2000:])
        else:
            assert states["special"] == "success", (name, log[-2000:])
            assert same(left["special"]["return_value"], expected[0], numbers=True), (name, left)


def test_whole_numbers_that_javascript_would_change_are_refused(runs: Runs) -> None:
    left, states, log = runs(
        task_run("echo_again", "golang", **argument([1234567890123456789])),
        task_run("echo_last", "typescript", dependsOn=[{"taskId": "echo_again"}]),
    )
    assert states == {"echo-again": "success", "echo-last": "failed"}
    assert left["echo-again"] == {"return_value": [1234567890123456789]}
    assert "1234567890123456789 does not fit into 53 bits; pass it as text" in log


FITS: list[tuple[str, dict[str, Any], str]] = [
    ("golang", {"integer": 1.5}, "cannot unmarshal number 1.5"),
    ("golang", {"float": 1234567890123456789}, "1234567890123456789 would become 1234567890123456800"),
    ("golang", {"small": 16777217}, "16777217 would become 16777216"),
    ("golang", {"integer": 1234567890123456789, "float": 0.1, "small": 0.1, "text": "t"}, ""),
    ("jvm", {"small": 3.5}, "3.5 does not fit Integer exactly"),
    ("jvm", {"small": 1 << 40}, "1099511627776 does not fit Integer exactly"),
    ("jvm", {"number": 1234567890123456789}, "1234567890123456789 would become 1.234567890123456"),
    ("jvm", {"older": "2026-11-21T10:00:00.123456789Z"}, "it has more than milliseconds"),
    ("jvm", {"stamp": "yesterday"}, "could not be parsed"),
    ("jvm", {"integer": 1234567890123456789, "number": 0.1, "small": 7, "decimal": 0.1,
             "instant": "2026-11-21T10:00:00.123456789Z", "stamp": "2026-11-21T11:00:00.123456789+01:00",
             "date": "2026-11-21", "older": "2026-11-21T10:00:00.123Z", "maybe": "it is", "text": "t"}, ""),
]  # fmt: skip


def test_a_type_that_cannot_hold_a_number_is_an_error(runs: Runs) -> None:
    for language, given, words in FITS:
        left, states, log = runs(task_run("typed", language, **argument(given)))
        if words:
            assert states["typed"] == "failed", (given, left)
            assert words in log, f"{given}: {log[-2000:]}"
            # Jackson names a place in a source that there is not
            assert "[Source" not in log, f"{given}: {log[-2000:]}"
        else:
            assert states["typed"] == "success", log[-2000:]
            found = left["typed"]["return_value"]
            assert same(found.get("integer", found.get("Integer")), 1234567890123456789)
            assert found.get("stamp") in (None, "2026-11-21T10:00:00.123456789Z")


@pytest.mark.parametrize("language", ["golang", "jvm"])
def test_an_xcom_that_is_not_there_is_no_zero(runs: Runs, language: str) -> None:
    documents = task_run("whole", language, **taken("nothing")), task_run("nothing")
    left, states, log = runs(*documents)
    assert (states["whole"], left["whole"]) == ("failed", {})
    assert re.search(r"argument .?value.? (has no value|is null)", log), log[-2000:]
