"""TypeScript bundles: one JavaScript module whose first lines carry its manifest.

Published form (SDK 0.1.0-beta1): `bundle.mjs`, first line `//# airflowMetadata=<base64 of the YAML manifest>`.
Coming form (upstream's main): `*.min.mjs`, first line `//# airflowBundle=<json>` with the byte range and SHA-256 of
the metadata, source(s) and code; offsets are 16 lower-case hex digits, ends exclusive. The metadata there is JSON,
and names its Dags `dags` or, later, `task_handlers`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from polypod_coordinators.artifacts import metadata as md
from polypod_coordinators.artifacts.search import Unfit

FILE_NAME = "bundle.mjs"
SUFFIX = ".min.mjs"
METADATA_PREFIX = b"//# airflowMetadata="
HEADER_PREFIX = b"//# airflowBundle="
MAX_LINE = 1 << 20
"""Longest header or metadata line accepted, in bytes."""

Offset = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Section(msgspec.Struct, kw_only=True):
    start: Offset
    end: Offset
    sha256: Digest
    path: str = ""


class Header(msgspec.Struct, kw_only=True):
    metadata: Section
    code: Section
    source: Section | None = None
    sources: list[Section] = []

    def sections(self) -> list[tuple[str, Section]]:
        """Return every section with the name that a message gives it."""
        named = [("metadata", self.metadata), ("code", self.code)]
        if self.source is not None:
            named.append(("source", self.source))
        return named + [(f"source {section.path!r}", section) for section in self.sources]


class TypeScriptBundleError(Unfit):
    """The file is not a valid TypeScript bundle."""


@dataclass(frozen=True, slots=True)
class TypeScriptBundle:
    """A verified bundle: its manifest, size in bytes, and section header if it is of the coming form."""

    metadata: md.Metadata
    size: int
    header: Header | None


def is_candidate(name: str) -> bool:
    """Tell whether a file of this name could be a TypeScript bundle."""
    return name == FILE_NAME or name.endswith(SUFFIX)


def read(fd: int) -> TypeScriptBundle:
    """Read and verify the bundle that is open as `fd`.

    Raises:
        TypeScriptBundleError: no metadata line, a damaged one, or a section that does not match its digest.
        OSError: it cannot be read.
    """
    size = os.fstat(fd).st_size
    first = _first_line(fd)
    header = None
    if first.startswith(HEADER_PREFIX):
        header = _header(first[len(HEADER_PREFIX) :])
        for name, section in header.sections():
            _verify(fd, size, name, section)
        start, end = int(header.metadata.start, 16), int(header.metadata.end, 16)
        raw = os.pread(fd, end - start, start).strip().removeprefix(METADATA_PREFIX)
    elif first.startswith(METADATA_PREFIX):
        raw = first[len(METADATA_PREFIX) :].strip()
    else:
        raise TypeScriptBundleError("no '//# airflowMetadata=' line at the start; pack it with airflow-ts-pack")
    try:
        manifest = raw if raw.startswith(b"{") else base64.b64decode(raw, validate=True)
        return TypeScriptBundle(md.parse(manifest), size, header)
    except (binascii.Error, ValueError) as error:
        raise TypeScriptBundleError(f"the metadata line is not base64: {error}") from None
    except md.MetadataError as error:
        raise TypeScriptBundleError(str(error)) from None


def _first_line(fd: int) -> bytes:
    head = os.pread(fd, MAX_LINE + 1, 0)
    line, newline, _ = head.partition(b"\n")
    if not newline and len(head) > MAX_LINE:
        raise TypeScriptBundleError(f"its first line is longer than {MAX_LINE} bytes")
    return line


def _header(raw: bytes) -> Header:
    try:
        return msgspec.json.decode(raw, type=Header)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise TypeScriptBundleError(f"the airflowBundle line is not valid: {error}") from None


def _verify(fd: int, size: int, name: str, section: Section) -> None:
    start, end = int(section.start, 16), int(section.end, 16)
    if not start <= end <= size:
        raise TypeScriptBundleError(f"section {name} [{start}, {end}) does not fit a file of {size} bytes")
    digest = hashlib.sha256(os.pread(fd, end - start, start)).hexdigest()
    if digest != section.sha256:
        raise TypeScriptBundleError(f"section {name}: its SHA-256 is {digest}, the header says {section.sha256}")
