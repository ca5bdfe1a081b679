"""sdks/values.json, from which docs/values.md is made, says what both SDKs do; and what the Java SDK binds and refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.needs("conformance")

TABLE = ROOT / "sdks/values.json"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile the Java programs of the tests; return a class path."""
    folder = tmp_path_factory.mktemp("classes")
    path = f"{folder}:{ROOT / 'sdks/java/target/classes'}:{ROOT / 'sdks/conformance/java/target/jars'}/*"
    sources = sorted(map(str, (ROOT / "tests/support/java").glob("*.java")))
    subprocess.run(["javac", "-cp", path, "-d", str(folder), *sources], check=True)
    return path


def java(classes: str, name: str, *arguments: str | Path) -> str:
    command = ["java", "-cp", classes, f"dev.polypod.sdk.internal.{name}", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_java_does_what_the_table_says(classes: str) -> None:
    assert json.loads(java(classes, "ValueTable", TABLE)) == json.loads(TABLE.read_text())["java"]


def test_a_java_error_names_the_place_as_the_table_says(classes: str) -> None:
    found = json.loads(java(classes, "Places", TABLE))
    places = json.loads(TABLE.read_text())["places"]
    assert {text: said.partition(": ")[0] for text, said in found.items()} == places


def test_go_does_what_the_table_says() -> None:
    command = ["go", "test", "-run", "TestTheTableOfValuesIsTrue|TestAnErrorNamesThePlace", "./internal/wire"]
    done = subprocess.run(command, cwd=ROOT / "sdks/go", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


BOUND = """\
OfSetters: uk 3
OfComponents: Components[region=uk, limit=3]
OfHidden: uk
OfPrivate: has nothing that an argument could be bound to
OfFinal: has nothing that an argument could be bound to
OfInner: is an inner class; make it static
OfNeedsArguments: has no constructor without parameters
InnerTask: is an inner class; make it static
RecordTask: has no constructor without parameters
OfComponents: argument limit was not given, and int has no null
OfComponents: argument limit was not given, and int has no null
OfSetters: Airflow sends a mapped stub no arguments
OfSetters: argument row_limit does not fit int: the text "3" does not fit int
sends {value=0.1}
sends {value=[0.1, [0.1]]}
sends has no public field and no getter
sends java.lang.Object has no public field and no getter
"""


def test_a_java_input_is_filled_or_refused_with_what_to_do(classes: str) -> None:
    found = java(classes, "Bindings").splitlines()
    for line, expected in zip(found, BOUND.splitlines(), strict=True):
        subject, _, words = expected.partition(" ")
        assert line.startswith(subject), line
        assert words in line, line


CONVERTED = """\
{"1":1,"-2":2}: {"1":1,"-2":2}
{"01":1,"1":2}: refused: the key "01" would become 1
{"+1":1}: refused: the key "+1" would become 1
{"a":1}: refused: Cannot deserialize Map key
{"0.5":1,"2":1}: {"0.5":1,"2.0":1}
{"1e400":1}: refused: the key "1e400" would become Infinity
{"0.10":1}: refused: the key "0.10" would become 0.1
" A": refused: the text " A" does not fit Letter
" 8f0e4f4e-1f1b-4b1b-9b1b-1b1b1b1b1b1b": refused: the text " 8f0e
" a ": " a "
"2026-11-21": "2026-11-21"
"2026-11-21T10:00:00Z": refused:
"2026-11-21T10:00:00": refused:
"2026-11-21T10:00:00": "2026-11-21T10:00:00"
"2026-11-21T10:00:00Z": refused:
"10:00": "10:00:00"
"2026-11-21T10:00:00": refused: the text "2026-11-21T10:00:00" does not fit LocalTime
"2026": "2026"
2026: refused: 2026 does not fit Year, which takes a text
"2026-11-21T10:00:00.1234567891Z": refused:
sends refused: two keys would be sent as "1"
sends refused: a[0]: two keys would be sent as "1"
sends refused: [1]: JSON has no key of the type
sends refused: a.dev.polypod
sends refused: [B@
sends refused: value.a[1]: NaN is not a number that JSON can represent
sends refused: value[0].b: JSON has no byte[]
sends refused: value[1]: an unpaired surrogate is not valid text
sends refused: [0]: an exception (java.lang.RuntimeException) has no form in JSON
sends {"1":"a"}
sends {"A":[1,null]}
sends {"1970-01-01T00:00:00Z":1}
"""


def test_java_changes_no_key_time_or_text_on_the_way(classes: str) -> None:
    found = java(classes, "Conversions").splitlines()
    for line, expected in zip(found, CONVERTED.splitlines(), strict=True):
        assert line.startswith(expected), (line, expected)
