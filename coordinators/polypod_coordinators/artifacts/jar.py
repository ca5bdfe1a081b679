"""Jars: what a JVM artifact says of itself in `META-INF/MANIFEST.MF`."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from polypod_coordinators.artifacts.search import Unfit

MANIFEST = "META-INF/MANIFEST.MF"
MAIN_CLASS = "main-class"
SCHEMA_VERSION = "airflow-supervisor-schema-version"
CACHE_DIGEST = "airflow-cache-digest"
TASKS = "polypod-tasks"
"""A JSON object that the Java SDK writes when the jar is packed: the tasks that its main class registers, by Dag."""
_MAX_MANIFEST = 8 << 20


class JarError(Unfit):
    """The file is not a jar that can be read."""


@dataclass(frozen=True, slots=True)
class JarManifest:
    """The attributes of a jar that choose it; None where it has none.

    Attributes:
        cache_digest: opaque; it marks the jar that holds task handlers (upstream's ADR 0014).
        classes: those that it holds of the ones that were asked for.
        tasks: the tasks of each Dag that its main class registers; None if the jar lists none.
    """

    main_class: str | None
    schema_version: str | None
    cache_digest: str | None = None
    classes: frozenset[str] = frozenset()
    tasks: Mapping[str, tuple[str, ...]] | None = None


def parse_manifest(raw: bytes) -> dict[str, str]:
    """Return the main section of a manifest, names in lower case (JAR File Specification, §JAR Manifest).

    A line that starts with a space continues the one before; the section ends at the first empty line.
    """
    attributes: dict[str, bytes] = {}
    name = ""
    for line in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        if not line.strip():
            break
        if line.startswith(b" "):
            # a line holds 72 bytes, so a character may be on two
            if name:
                attributes[name] += line[1:]
            continue
        head, _, value = line.partition(b":")
        name = head.decode("utf-8", "replace").strip().lower()
        attributes[name] = value
    return {key: value.decode("utf-8", "replace").strip() for key, value in attributes.items()}


def read(fd: int, classes: Iterable[str] = ()) -> JarManifest:
    """Read the manifest of the jar that is open as `fd`, and look for classes in it.

    Raises:
        JarError: not a zip file, damaged, its manifest is unreasonably large, or its list of tasks is not valid.
    """
    try:
        with os.fdopen(os.dup(fd), "rb") as file, zipfile.ZipFile(file) as jar:
            held = frozenset(name for name in classes if f"{name.replace('.', '/')}.class" in jar.NameToInfo)
            try:
                info = jar.getinfo(MANIFEST)
            except KeyError:
                return JarManifest(None, None, classes=held)
            if info.file_size > _MAX_MANIFEST:
                raise JarError(f"{MANIFEST} is {info.file_size} bytes")
            attributes = parse_manifest(jar.read(info))
    # NotImplementedError: a compression method that is not known; RuntimeError: encrypted
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise JarError(f"not a readable jar: {error}") from None
    main_class, version, digest = (attributes.get(name) or None for name in (MAIN_CLASS, SCHEMA_VERSION, CACHE_DIGEST))
    return JarManifest(main_class, version, digest, held, _tasks(attributes.get(TASKS)))


def _tasks(listed: str | None) -> dict[str, tuple[str, ...]] | None:
    if listed is None:
        return None
    try:
        return msgspec.json.decode(listed, type=dict[str, tuple[str, ...]])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise JarError(f"Polypod-Tasks in {MANIFEST} is not a JSON object of Dags and their tasks: {error}") from None
