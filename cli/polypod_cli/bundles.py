"""`polypod bundle`: pack, inspect and verify artifacts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml
from polypod_coordinators.artifacts import executable_bundle, jar, metadata, typescript_bundle
from polypod_coordinators.artifacts.metadata import Metadata
from polypod_coordinators.artifacts.search import Unfit
from polypod_core.errors import UserError
from polypod_core.files import check_file, open_file, read_file
from polypod_core.reasons import Reason
from polypod_core.schema_versions import resolve_version

from polypod_cli.interrupts import unwinding


def inspect(path: Path, source: bool) -> None:
    """Print what an artifact holds, as YAML; or its embedded source.

    Raises:
        UserError: it cannot be read, or is none of the three kinds.
    """
    fd = _open(path)
    try:
        if source:
            click.echo(_source(path, fd), nl=False)
            return
        click.echo(yaml.safe_dump(_describe(path, fd), sort_keys=False, allow_unicode=True), nl=False)
    finally:
        os.close(fd)


def verify(paths: Sequence[Path]) -> None:
    """Verify artifacts; print a line each.

    Raises:
        UserError: one of them is not valid.
    """
    for path in paths:
        fd = _open(path)
        try:
            described = _describe(path, fd)
            kind = described["kind"]
            _check(path, described, fd)
            lost_bit = kind == "executable bundle" and not os.fstat(fd).st_mode & 0o111
        finally:
            os.close(fd)
        click.echo(f"{path}: ok, {kind}")
        if lost_bit:
            click.echo(f"{path}: warning: not executable; Polypod runs it all the same, Airflow's own worker does not: "
                       f"chmod +x {path}", err=True)  # fmt: skip


def pack(executable: Path, manifest: Path, source: Path | None, output: Path) -> None:
    """Write an executable bundle, executable by everybody, as a whole or not at all.

    Raises:
        UserError: a file cannot be read or written, or the manifest is not valid.
    """
    check_file(str(output), Reason.INVALID_ARTIFACT)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        raw_source = _read(source) if source is not None else b""
        raw_manifest = _read(manifest)
        packed = executable_bundle.pack(_read(executable), raw_source, raw_manifest)
        _check_source(f"{source}", raw_source)
        version = metadata.parse(raw_manifest).sdk.supervisor_schema_version
        resolve_version(version, str(manifest))
        output.parent.mkdir(parents=True, exist_ok=True)
        with unwinding():
            try:
                temporary.write_bytes(packed)
                temporary.chmod(0o755)
                temporary.replace(output)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(Reason.INVALID_ARTIFACT, f"{output} cannot be written: {error.strerror}") from None
    except Unfit as unfit:
        raise UserError(Reason.INVALID_ARTIFACT, f"cannot pack {executable}: {unfit}") from None
    click.echo(f"{output}: {len(packed)} bytes")


def _check(path: Path, described: dict[str, Any], fd: int) -> None:
    """Check what a worker would refuse, or could not show.

    Raises:
        UserError: its schema version is not known, or its source is not UTF-8.
    """
    if described["kind"] == "jar":
        version = described["supervisor_schema_version"]
    else:
        version = described["sdk"]["supervisor_schema_version"]
        _check_source(f"{path}: its source", _source(path, fd))
    # most jars are libraries, which say nothing
    if version is not None:
        resolve_version(version, str(path))


def _check_source(what: str, source: bytes) -> None:
    try:
        source.decode()
    except UnicodeDecodeError as error:
        raise UserError(Reason.INVALID_ARTIFACT, f"{what} is not UTF-8: byte {error.start}") from None


def _open(path: Path) -> int:
    return open_file(str(path), Reason.INVALID_ARTIFACT)


def _read(path: Path) -> bytes:
    return read_file(str(path), Reason.INVALID_ARTIFACT)


def _describe(path: Path, fd: int) -> dict[str, Any]:
    try:
        if path.suffix == ".jar":
            manifest = jar.read(fd)
            return {
                "kind": "jar",
                "main_class": manifest.main_class,
                "supervisor_schema_version": manifest.schema_version,
                **({"cache_digest": manifest.cache_digest} if manifest.cache_digest else {}),
                **({"dags": _dags(manifest.tasks)} if manifest.tasks is not None else {}),
                "size": os.fstat(fd).st_size,
            }
        if path.suffix == ".mjs":
            script = typescript_bundle.read(fd)
            sections = {name: section.sha256 for name, section in script.header.sections()} if script.header else {}
            return {"kind": "TypeScript bundle", "size": script.size, **_manifest(script.metadata), "sha256": sections}
        bundle = executable_bundle.read(fd, str(path))
        trailer = bundle.trailer
        return {
            "kind": "executable bundle",
            "size": bundle.size,
            "regions": {
                "binary": trailer.source_start,
                "source": trailer.source_len,
                "metadata": trailer.metadata_len,
            },
            "binary_sha256": trailer.binary_sha256.hex(),
            **_manifest(bundle.metadata),
        }
    except Unfit as unfit:
        raise UserError(Reason.INVALID_ARTIFACT, f"{path}: {unfit}") from None


def _dags(tasks: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {dag_id: {"tasks": list(of_dag)} for dag_id, of_dag in tasks.items()}


def _manifest(found: Metadata) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(found)
    return built


def _source(path: Path, fd: int) -> bytes:
    try:
        if path.suffix == ".mjs":
            header = typescript_bundle.read(fd).header
            sections = [section for name, section in header.sections() if name.startswith("source")] if header else []
            return b"".join(os.pread(fd, int(s.end, 16) - int(s.start, 16), int(s.start, 16)) for s in sections)
        return executable_bundle.read_source(fd, executable_bundle.read(fd, str(path)).trailer)
    except Unfit as unfit:
        raise UserError(Reason.INVALID_ARTIFACT, f"{path}: {unfit}") from None
