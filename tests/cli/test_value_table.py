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
