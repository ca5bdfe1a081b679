"""`polypod bundle`: what a worker would refuse is refused here, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from polypod_cli import bundles
from polypod_coordinators.artifacts import executable_bundle as eb
from polypod_core.errors import UserError
from support.artifacts import bundle, make_jar, manifest

LATIN = b"// \xe9"


def test_verify_refuses_versions_that_nothing_here_speaks(tmp_path: Path) -> None:
    for path in (
        bundle(tmp_path / "old", "dag", version="1999-01-01"),
        make_jar(tmp_path / "a.jar", "A", "1999-01-01"),
    ):
        with pytest.raises(UserError, match="schema version '1999-01-01'; known here: 2026-06-16") as caught:
            bundles.verify([path])
        assert str(path) in caught.value.message
        bundles.inspect(path, source=False)
    bundles.verify([make_jar(tmp_path / "library.jar"), bundle(tmp_path / "good", "dag")])


def test_verify_refuses_a_source_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(eb.pack(b"\x7fELF program", LATIN, manifest("dag")))
    with pytest.raises(UserError, match="latin: its source is not UTF-8: byte 3"):
        bundles.verify([tmp_path / "latin"])


@pytest.mark.parametrize(("version", "source", "said"), [
    ("1999-01-01", b"x", "'1999-01-01'; known here"), ("2026-10-30", LATIN, "source.c is not UTF-8: byte 3"),
])  # fmt: skip
def test_pack_refuses_what_verify_refuses_and_leaves_nothing(
    tmp_path: Path, version: str, source: bytes, said: str
) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF program")
    (tmp_path / "source.c").write_bytes(source)
    (tmp_path / "manifest").write_bytes(manifest("dag", version=version))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=said):
        bundles.pack(tmp_path / "program", tmp_path / "manifest", tmp_path / "source.c", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
