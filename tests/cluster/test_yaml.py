"""documents.py beside the real kubectl and API server: what we read is what arrives on the cluster, or is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from polypod_core.documents import load
from polypod_core.errors import UserError
from polypod_crds.taskrun import TaskRunSpec
from pydantic import ValidationError

from cluster.api import Api

pytestmark = pytest.mark.needs("api-server")

ODD = [
    "12:30", "12:30:45", "-190:20:30", "no", "No", "nO", "NO", "on", "y", "Y", "n", "yes", "off", "true", "TRUE", "tRue",
    "~", "null", "Null", "NULL", "nul", "1e3", "1E+3", "1e-3", "1.e3", ".5", "-.5", "+.5", ".5_0", ".5__0", "._5", ".5_", ".5e1_0", ".5_e1", "1_000", "1_000.5",
    "0x1F", "-0x1F", "0X1f", "0o17", "0O17", "017", "-017", "09", "0b101", "-0b101", "0b102", "0x", "+12", "--1", "1-2",
    "1.2.3", "1.", ".", "..", "-", "_1", "1_", "0_7", "00", "-0", "+0", "2026-11-21", "2026-11-21T10:00:00Z", "12e03",
    "2026-11-21 10:00:00", "9223372036854775807", "-9223372036854775808", "!!str no", "!!str 12", "!!float 3", "!!int 7",
    "!!bool yes", "!!null ~", "!!str ~", "'no'", '"1e3"', "abc def", "1 2", "0.1", "1e21", "1e-7", "123456789.125", "=",
    "<<", "1,000", "0.30000000000000004", "5e-324", "1.7976931348623157e308", "é", "😀", "0777", "1e", "e5", "+", "1:2:3.5",
    "0x1p4", "Infinity", "NaN", "nan", ".nan", "inf", "-inf", "1__0", "0b_1", "0x_f", "1e_3", "+0x10", "1.0", "100.00",
]  # fmt: skip
DOCUMENTS = [
    "{on: 1, 2: b, -3: c, 0x10: d, no: e}",
    "{a: &x {b: 1}, c: {<<: *x, d: 2}, e: {<<: [*x, {b: 3, f: 4}], b: 5}}",
    "{a: [1, [2, {b: []}], {}], c: '', d: \"\\u00e9\\t\\x41\"}",
    "\n  text: |\n    two\n     lines\n  folded: >-\n    a\n    b\n\n    c\n  plain: a\n    b",
]


def generated(number: int) -> list[str]:
    """Return random scalars that look a little like numbers, times and words."""
    chance = random.Random(20261126)
    alphabet = "0123456789" * 3 + "+-._:eExob_nNyYtTfF~"
    return ["".join(chance.choice(alphabet) for _ in range(chance.randint(1, 7))) for _ in range(number)]


def test_what_we_read_is_what_kubectl_sends(api: Api, tmp_path: Path) -> None:
    accepted, texts = [], []
    for text in [*ODD, *generated(3000)]:
        try:
            accepted.append(load(f"v: {text}", "file")["v"])
        except UserError:
            continue
        except TypeError:
            # a text that is no mapping with a value, such as one that begins a list
            continue
        texts.append(text)
    assert len(texts) > 2500
    whole = "".join(f"  - {text}\n" for text in texts)
    found = _dry_run(api, tmp_path, f"params:\n  list:\n{whole}")["list"]
    different = [
        (text, ours, theirs)
        for text, ours, theirs in zip(texts, accepted, found, strict=True)
        if not _same(ours, theirs)
    ]
    assert different == []


@pytest.mark.parametrize("text", DOCUMENTS)
def test_structures_are_what_kubectl_sends(api: Api, tmp_path: Path, text: str) -> None:
    ours = load(f"params: {text}", "file")["params"]
    assert _dry_run(api, tmp_path, f"params: {text}") == ours


def test_json_is_what_kubectl_sends(api: Api, tmp_path: Path) -> None:
    params = '{"a":\t"\\ud83d\\ude00", "b": [1, 1.5, -0, 1e3, true, null], "\\u00e9": {"c": ""}}'
    path = tmp_path / "taskrun.json"
    path.write_text(
        '{"apiVersion":"polypod.dev/v1alpha1","kind":"TaskRun","metadata":{"name":"x"},\t"spec":{"queue":"q",'
        f'"dagId":"d","taskId":"t","runId":"r","params":{params}}}}}'
    )
    done = api.kubectl("create", "--dry-run=server", "-o", "json", "-f", str(path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spec"]["params"] == load(path.read_bytes(), "file")["spec"]["params"]


def _dry_run(api: Api, folder: Path, spec: str) -> Any:
    indented = spec.replace("\n", "\n  ")
    path = folder / "taskrun.yaml"
    path.write_text(
        "apiVersion: polypod.dev/v1alpha1\nkind: TaskRun\nmetadata: {name: x}\n"
        f"spec:\n  queue: q\n  dagId: d\n  taskId: t\n  runId: r\n  {indented}\n"
    )
    done = api.kubectl("create", "--dry-run=server", "-o", "json", "-f", str(path))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["spec"]["params"]


def _same(ours: Any, theirs: Any) -> bool:
    # JSON has numbers and no types: 1e3 arrives as 1000
    numbers = isinstance(ours, int | float) and isinstance(theirs, int | float)
    return bool(
        ours == theirs
        and (numbers or type(ours) is type(theirs))
        and isinstance(ours, bool) is isinstance(theirs, bool)
    )


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("dagId", ["sales", "größe-1.2_x", "日本"], ["a/b", ".", "..", "a b", "a\tb"]),
        ("taskId", ["group.task", "a-b"], ["a/b", "..", "a:b"]),
        ("runId", ["manual__2026-01-02T03:04:05+00:00", "scheduled~1", "größe 1"], ["a/b", ".", "..", "a\nb", "a?b"]),
    ],
)
def test_ids_are_airflows_for_the_api_server_as_for_us(api: Api, field: str, good: list[str], bad: list[str]) -> None:
    for value in [*good, *bad]:
        spec = {"queue": "q", "dagId": "d", "taskId": "t", "runId": "r", field: value}
        manifest = {
            "apiVersion": "polypod.dev/v1alpha1",
            "kind": "TaskRun",
            "metadata": {"name": "x"},
            "spec": spec,
        }
        done = api.kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest)
        try:
            TaskRunSpec.model_validate(spec)
            ours = True
        except ValidationError:
            ours = False
        assert (done.returncode == 0, ours) == (value in good, value in good), (value, done.stderr)
