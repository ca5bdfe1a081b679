"""documents.py: files as kubectl reads them, or refused. What kubectl makes of them is asked in tests/cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from polypod_core.documents import DEEPEST, LARGEST, SMALLEST, load, load_all
from polypod_core.errors import UserError
from support.same import same

READ: list[tuple[str, Any]] = [
    ("12:30", "12:30"),
    ("12:30:45", "12:30:45"),
    ("2026-11-21", "2026-11-21"),
    ("2026-11-21T00:00:00Z", "2026-11-21T00:00:00Z"),
    ("no", False),
    ("y", True),
    ("'no'", "no"),
    ("!!str no", "no"),
    ("1e3", 1000.0),
    ("1_000", 1000),
    ("0x1F", 31),
    ("010", 8),
    ("0o10", 8),
    ("09", 9.0),
    ("0b101", 5),
    ("+12", 12),
    (".5", 0.5),
    (".5_0", 0.5),
    (".5__0", ".5__0"),
    ("1.2.3", "1.2.3"),
    ("~", None),
    ("", None),
    ("!!float 3", 3.0),
    ("- [1, {a: b}]", [[1, {"a": "b"}]]),
    ("on: 1", {"true": 1}),
    ("2: x", {"2": "x"}),
    ("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: {<<: [*x, {b: 3, f: 4}], b: 5}",
     {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": {"b": 5, "f": 4}}),
    ("9223372036854775807", LARGEST),
    ("-9223372036854775808", SMALLEST),
    ("0.1", 0.1),
    ("|\n  text\n", "text\n"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ)
def test_scalars_are_what_kubectl_takes_them_for(text: str, value: object) -> None:
    found = load(text, "file")
    assert found == value
    assert type(found) is type(value)


BILLIONS = "l0: &l0 [x]\n" + "".join(
    f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
"""A kilobyte that stands for a hundred billion values."""
REFUSED: list[tuple[str, str]] = [
    ("a: 1\nb: 2\na: 3", "file, line 3, column 1: not valid YAML: key 'a' is there twice"),
    ("{on: 1, 2: x, true: y}", "key 'true' is there twice"),
    ("1: a\n'1': b", "key '1' is there twice"),
    ("v: .nan", "file, line 1, column 4: not valid YAML: .nan is not a number that JSON can represent"),
    ("v: -.INF", "-.INF is not a number"),
    ("v: 9223372036854775808", "beyond 64 bits; put it in quotes"),
    ("v: 1180591620717411303424", "beyond 64 bits"),
    ("v: 12345678901234567.89", "would change 12345678901234567.89 to 1.2345678901234568e+16"),
    ("v: 1e999", "larger than any number"),
    ("v: !!binary aGk=", "!!binary is nothing that JSON has"),
    ("v: !!set {a}", "!!set is nothing"),
    ("v: !!python/object:os.system x", "is nothing that JSON has"),
    ("v: !!int x", "'x' is no !!int"),
    ("? [a]\n: b", "a key must be a text"),
    ("~: b", "a key must be a text"),
    ("1.5: b", "a key must be a text"),
    ("a: &x [*x]", "file, line 1,"),
    ("a: &x {b: *x}", "file, line 1,"),
    ("a: [1,\nb: 2", "file, line "),
    ("a: *nothing", "undefined alias"),
    (BILLIONS, "its aliases (*name) expand to more than a million characters"),
    (f"- &a {'x' * 10_000}\n" + "- *a\n" * 1_000, "its aliases (*name) expand to more than a million characters"),
    ("a\x01b", "not valid YAML"),
    ("[" * (DEEPEST + 5) + "]" * (DEEPEST + 5), f"more than {DEEPEST} lists"),
    ("[" * 100_000, "file, line "),
    ('{"a": 1, "a": 2}', "key 'a' is there twice"),
    ('{"a": NaN}', "NaN is not a number that JSON can represent"),
    ('{"a":\t12345678901234567890}', "beyond 64 bits"),
    ('{"a":\n"\\ud83d"}', "unpaired surrogate in a text: \\ud83d"),
    ('{"a":' * 300 + "1" + "}" * 300, f"more than {DEEPEST} lists"),
    ('{"a":' * 100_000, "file, line "),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_json_cannot_hold_exactly_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(text, "file")
    assert words in caught.value.message
    assert len(caught.value.message) < 400


def test_a_large_document_and_many_aliases_are_no_billions() -> None:
    assert len(load("[" + "x," * 200_000 + "]", "file")) == 200_000
    found = load("a: &a {b: [1, 2, 3]}\nc: [" + "*a," * 1_000 + "]", "file")
    assert found["c"] == [{"b": [1, 2, 3]}] * 1_000


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(UserError, match="file:2:4: not valid YAML"):
        load_all(b"a: 1\nb: !!int x", "file")
    with pytest.raises(UserError, match="not UTF-8: byte 1"):
        load_all(b"a\xff", "file")
    assert load(b"\xef\xbb\xbfa: 1", "file") == {"a": 1}


def test_json_is_read_as_json_and_knows_its_lines() -> None:
    text = '{"a":\t"\\ud83d\\ude00",\n"b": {"c": [1,\n 2]}}\n{"d": 1}'
    first, second = load_all(text.encode(), "file")
    assert first.value == {"a": "😀", "b": {"c": [1, 2]}}
    assert [first.line(["b"]), first.line(["b", "c", 1]), second.line(), second.line(["d"])] == [2, 3, 4, 4]


def test_several_documents_know_their_lines() -> None:
    documents = load_all(b"# comment\na: 1\n---\n---\nb:\n  c: 2\n", "file")
    assert [(item.value, item.line()) for item in documents] == [({"a": 1}, 2), ({"b": {"c": 2}}, 5)]
    assert documents[1].where(["b", "c", "none"]) == "file:6"
    with pytest.raises(UserError, match="a second document"):
        load("a: 1\n---\nb: 2", "file")


NUMBERS = st.integers(SMALLEST, LARGEST) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, JSON_VALUES))
def test_json_comes_out_as_it_was(value: dict[str, Any]) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent="\t")):
        assert same(load(text, "file"), value)


@given(st.text() | st.text(alphabet="0123456789+-._:eExXoObnyYT~!&*[]{}#\n ,\"'"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = load(text.encode("utf-8", "replace"), "file")
    except UserError:
        return
    assert same(json.loads(json.dumps(value, allow_nan=False)), value)
