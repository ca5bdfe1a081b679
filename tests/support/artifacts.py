"""Artifacts made for a test."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import yaml
from polypod_coordinators.artifacts import executable_bundle as eb

from support.paths import GO_ROOT, JAVA_ROOT, TYPESCRIPT_ROOT


def manifest(*dags: str, version: str = "2026-10-30", **more: Any) -> bytes:
    document = {
        "airflow_bundle_metadata_version": "1.0",
        "sdk": {"language": "c", "version": "1", "supervisor_schema_version": version},
        "source": "main.c",
        "dags": {dag: {"tasks": ["t"]} for dag in dags},
        **more,
    }
    return json.dumps(document).encode()


def bundle(path: Path, *dags: str, version: str = "2026-10-30", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(eb.pack(b"\x7fELF program", b"int main;", manifest(*dags, version=version)))
    path.chmod(mode)
    return path


def unnamed(path: Path) -> Path:
    """Make an executable bundle as the Go SDK 1.0.0 packs it: no Dag ids, and as an object store hands it over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(manifest())
    del document["dags"]
    document["digests"] = {"integrity": "0" * 64, "cache": "1" * 64}
    path.write_bytes(eb.pack(b"\x7fELF program", b"int main;", json.dumps(document).encode()))
    path.chmod(0o644)
    return path


def make_jar(
    path: Path,
    main: str | None = None,
    version: str | None = None,
    digest: str | None = None,
    tasks: str | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["Manifest-Version: 1.0"]
    lines += [f"Main-Class: {main}"] if main else []
    lines += [f"Airflow-Supervisor-Schema-Version: {version}"] if version else []
    lines += [f"Airflow-Cache-Digest: {digest}"] if digest else []
    lines += [f"Polypod-Tasks: {tasks}"] if tasks is not None else []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "\r\n".join(lines) + "\r\n")
    return path


def minified(published: bytes, *, identifiers: bool = True, sources: bool = False) -> bytes:
    """Return a bundle of the form that `airflow-ts-pack` 0.1.0-beta1 writes in the form of 1.0.0 (`*.min.mjs`).

    Made after the TypeScript Bundle Format: a line with the layout, a line with the metadata as JSON, the sources as
    comments, the code. The published metadata line stays in the code, as a comment.
    """
    first, _, _ = published.partition(b"\n")
    metadata = yaml.safe_load(base64.b64decode(first.removeprefix(b"//# airflowMetadata=")))
    dags = metadata.pop("dags")
    del metadata["source"]
    if identifiers:
        metadata["task_handlers"] = {dag_id: entry["tasks"] for dag_id, entry in dags.items()}
    code = b"// the code\n" + published
    source = b"// the source\n" if sources else b""
    raw = json.dumps(metadata, separators=(",", ":")).encode()

    def layout(sections: dict[str, tuple[int, bytes]], source_start: int) -> bytes:
        def section(start: int, data: bytes) -> dict[str, str]:
            end = start + len(data)
            return {"start": f"{start:016x}", "end": f"{end:016x}", "sha256": hashlib.sha256(data).hexdigest()}

        named: dict[str, Any] = {name: section(*where) for name, where in sections.items()}
        named["sources"] = [{"path": "main.ts", **section(source_start, source)}] if sources else []
        return b"//# airflowBundle=" + json.dumps(named, separators=(",", ":")).encode() + b"\n"

    # every offset has 16 digits, so the length of the line is known before they are
    head = len(layout({"metadata": (0, raw), "code": (0, code)}, 0))
    metadata_start = head + len(b"//# airflowMetadata=")
    opener, closer = (b"/*# airflowSource:main.ts\n", b"\n#*/\n") if sources else (b"", b"")
    source_start = metadata_start + len(raw) + 1 + len(opener)
    code_start = source_start + len(source) + len(closer)
    line = layout({"metadata": (metadata_start, raw), "code": (code_start, code)}, source_start)
    return line + b"//# airflowMetadata=" + raw + b"\n" + opener + source + closer + code


FORMS = ("go", "go-unnamed", "published", "minified", "minified-unnamed", "jars", "jars-digest")
"""The forms of the conformance programs: of the SDKs' betas, and of 1.0.0 with and without identifiers."""


def language(form: str) -> str:
    """Return the queue of the language that a form is in."""
    return {"go": "golang", "jars": "jvm"}.get(form.partition("-")[0], "typescript")


def make_forms(folder: Path) -> Path:
    """Make a folder with a folder for each form."""
    shutil.copytree(GO_ROOT, folder / "go")
    (folder / "go-unnamed").mkdir(parents=True)
    bundle_file = folder / "go-unnamed" / "conformance"
    bundle_file.write_bytes(_without_dags((GO_ROOT / "conformance").read_bytes()))
    # what an object store hands over
    bundle_file.chmod(0o644)
    published = (TYPESCRIPT_ROOT / "bundle.mjs").read_bytes()
    for form, name, content in (
        ("published", "bundle.mjs", published),
        ("minified", "tasks.min.mjs", minified(published)),
        ("minified-unnamed", "tasks.min.mjs", minified(published, identifiers=False, sources=True)),
    ):
        (folder / form).mkdir()
        (folder / form / name).write_bytes(content)
    shutil.copytree(JAVA_ROOT, folder / "jars")
    shutil.copytree(JAVA_ROOT, folder / "jars-digest")
    for path in (folder / "jars-digest").glob("*.jar"):
        _add_digest(path)
    return folder


def _without_dags(packed: bytes) -> bytes:
    trailer = eb.parse_trailer(packed[-eb.TRAILER_SIZE :], len(packed))
    document = yaml.safe_load(packed[trailer.metadata_start : trailer.end])
    del document["dags"]
    source = packed[trailer.source_start : trailer.metadata_start]
    return eb.pack(packed[: trailer.source_start], source, yaml.safe_dump(document).encode())


def _add_digest(path: Path) -> None:
    """Add the digest that marks a handler jar to one with a main class."""
    with zipfile.ZipFile(path) as archive:
        entries = {item: archive.read(item) for item in archive.infolist()}
    manifest_of = next(item for item in entries if item.filename == "META-INF/MANIFEST.MF")
    if b"Main-Class:" not in entries[manifest_of]:
        return
    entries[manifest_of] = entries[manifest_of].rstrip() + b"\r\nAirflow-Cache-Digest: 0123abcd\r\n\r\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for item, content in entries.items():
            archive.writestr(item.filename, content)
