"""artifacts/: what is read from a file, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polypod_coordinators.artifacts import executable_bundle as eb
from polypod_coordinators.artifacts import jar, metadata
from polypod_coordinators.artifacts import typescript_bundle as tsb
from polypod_coordinators.artifacts.search import Unfit
from support.artifacts import manifest


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=100), st.text("abcdefgh_", min_size=1, max_size=20))
def test_what_is_packed_is_read(tmp_path_factory: pytest.TempPathFactory, code: bytes, source: bytes, dag: str) -> None:
    if code.endswith(eb.MAGIC):
        return
    path = tmp_path_factory.mktemp("b") / "bundle"
    path.write_bytes(eb.pack(code, source, manifest(dag)))
    fd = os.open(path, os.O_RDONLY)
    try:
        read = eb.read(fd, str(path))
        assert list(read.metadata.dags) == [dag]
        assert eb.read_source(fd, read.trailer) == source
        assert read.trailer.source_start == len(code)
    finally:
        os.close(fd)


@settings(max_examples=300)
@given(st.binary(min_size=64, max_size=64), st.integers(0, 2**40))
def test_any_trailer_is_parsed_or_refused(raw: bytes, size: int) -> None:
    for candidate in (raw, raw[:56] + eb.MAGIC, b"\0" * 8 + b"\1\0\0\0" + raw[12:44] + bytes(12) + eb.MAGIC):
        try:
            trailer = eb.parse_trailer(candidate, size)
        except Unfit:
            continue
        assert 0 < trailer.source_start <= trailer.metadata_start <= trailer.end == size - 64


@given(st.data())
def test_any_flipped_byte_is_noticed_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(eb.pack(b"\x7fELF program", b"source", manifest("dag")))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("f") / "bundle"
    path.write_bytes(raw)
    fd = os.open(path, os.O_RDONLY)
    try:
        eb.read(fd, str(path), eb.DigestCache())
        assert place >= len(b"\x7fELF program"), "a flipped byte of the program went unnoticed"
    except Unfit:
        pass
    finally:
        os.close(fd)


@given(st.binary(max_size=400))
def test_no_file_breaks_a_reader(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("x") / "file"
    prefixes = (b"", tsb.METADATA_PREFIX, tsb.HEADER_PREFIX, b"PK\x03\x04")
    for content in [prefix + raw for prefix in prefixes] + [raw + eb.MAGIC]:
        path.write_bytes(content)
        fd = os.open(path, os.O_RDONLY)
        try:
            for read in (lambda fd=fd: eb.read(fd, "x"), lambda fd=fd: tsb.read(fd), lambda fd=fd: jar.read(fd)):
                try:
                    read()
                except Unfit:
                    pass
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.pop("sdk"), "missing required field `sdk`"),
        (lambda d: d["sdk"].update(language="Go"), r"\$.sdk.language"),
        (lambda d: d["sdk"].update(supervisor_schema_version=20261030), r"\$.sdk.supervisor_schema_version"),
        (lambda d: d.update(dags={"x": {}}), "missing required field `tasks`"),
        (lambda d: d.update(airflow_bundle_metadata_version="2.0"), "version 2.0 is not known"),
        (lambda d: d.update(dags=[]), r"\$.dags"),
        (lambda d: d.update(source=3), r"\$.source"),
    ],
)
def test_a_manifest_against_the_specification_is_refused(change: Callable[[Any], Any], why: str) -> None:
    document = json.loads(manifest("dag"))
    change(document)
    with pytest.raises(metadata.MetadataError, match=why):
        metadata.parse(json.dumps(document).encode())


@pytest.mark.parametrize("field", ["airflow_bundle_metadata_version: 1.0", "sdk.version: 1.2", "sdk.supervisor_schema_version: 2026-10-30",
                                   "sdk.version: 7", "sdk.language: no"])  # fmt: skip
def test_a_text_without_quotes_is_told_to_have_them(field: str) -> None:
    document = json.loads(manifest("dag"))
    name, value = field.split(": ")
    text = json.dumps(document).replace(json.dumps((document | document["sdk"])[name.removeprefix("sdk.")]), value, 1)
    with pytest.raises(metadata.MetadataError, match=rf"Expected `str`.*{name}`; put it in quotes"):
        metadata.parse(text.encode())


@pytest.mark.parametrize("dags", [None, {}])
def test_a_manifest_need_not_name_its_dags_nor_its_source(dags: Any) -> None:
    document = json.loads(manifest("dag"))
    del document["source"]
    document["dags"] = dags
    document["digests"] = {"integrity": "00", "cache": "01"}
    found = metadata.parse(json.dumps(document).encode())
    assert (found.dags, found.source, found.digests["cache"]) == ({}, "", "01")


@pytest.mark.parametrize("entry", [{"tasks": ["a", "b"]}, ["a", "b"], [{"task_id": "a"}, {"task_id": "b"}]])
def test_task_handlers_say_what_dags_say(entry: Any) -> None:
    document = json.loads(manifest())
    document.pop("dags")
    document["task_handlers"] = {"dag": entry}
    assert metadata.parse(json.dumps(document).encode()).dags["dag"].tasks == ["a", "b"]


def test_unknown_keys_of_a_manifest_are_ignored() -> None:
    assert metadata.parse(manifest("dag", future={"a": 1})).source == "main.c"


def test_the_digest_cache_forgets_a_file_that_changed() -> None:
    cache = eb.DigestCache(2)
    keys = [eb.FileIdentity("p", 1, 2, mtime, 4) for mtime in range(3)]
    for key in keys:
        cache.put(key, bytes([key.mtime_ns]) * 32)
    assert [cache.get(key) is not None for key in keys] == [False, True, True]


def test_a_manifest_line_may_be_continued() -> None:
    raw = b"Main-Class: com.example.a.very.long\r\n .Name\r\nOther: x\r\n\r\nName: section\r\nMain-Class: no\r\n"
    assert jar.parse_manifest(raw)["main-class"] == "com.example.a.very.long.Name"


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
@given(name=st.text(st.sampled_from("aö€😀."), min_size=1, max_size=60).filter(str.strip))
@settings(max_examples=60)
def test_a_manifest_line_may_be_continued_within_a_character(ending: bytes, name: str) -> None:
    """JAR File Specification: no line is longer than 72 bytes, in UTF-8."""
    raw = b"Main-Class: " + name.encode()
    lines = [raw[:72]]
    lines += [b" " + raw[at : at + 71] for at in range(72, len(raw), 71)]
    assert jar.parse_manifest(ending.join([b"Manifest-Version: 1.0", *lines, b"", b""]))["main-class"] == name
