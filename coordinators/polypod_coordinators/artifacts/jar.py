"""Jars: what a JVM artifact says of itself in `META-INF/MANIFEST.MF`."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass

from polypod_coordinators.artifacts.search import Unfit

MANIFEST = "META-INF/MANIFEST.MF"
MAIN_CLASS = "main-class"
SCHEMA_VERSION = "airflow-supervisor-schema-version"
CACHE_DIGEST = "airflow-cache-digest"
_MAX_MANIFEST = 8 << 20


class JarError(Unfit):
    """The file is not a jar that can be read."""


@dataclass(frozen=True, slots=True)
class JarManifest:
    """The attributes of a jar that choose it; None where it has none.

    Attributes:
        cache_digest: opaque; it marks the jar that holds task handlers (upstream's ADR 0014).
        holds_class: whether it holds the class that was asked for.
    """

    main_class: str | None
    schema_version: str | None
    cache_digest: str | None = None
    holds_class: bool = False


def parse_manifest(raw: bytes) -> dict[str, str]:
    """Return the main section of a manifest, names in lower case (JAR File Specification, §JAR Manifest).

    A line that starts with a space continues the one before; the section ends at the first empty line.
    """
    attributes: dict[str, str] = {}
    name = ""
    for line in raw.decode("utf-8", "replace").splitlines():
        if not line.strip():
            break
        if line.startswith(" "):
            if name:
                attributes[name] += line[1:]
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        attributes[name] = value.lstrip(" ")
    return {key: value.strip() for key, value in attributes.items()}


def read(fd: int, class_name: str = "") -> JarManifest:
    """Read the manifest of the jar that is open as `fd`, and look for a class in it.

    Raises:
        JarError: not a zip file, damaged, or its manifest is unreasonably large.
    """
    try:
        with os.fdopen(os.dup(fd), "rb") as file, zipfile.ZipFile(file) as jar:
            holds_class = bool(class_name) and f"{class_name.replace('.', '/')}.class" in jar.NameToInfo
            try:
                info = jar.getinfo(MANIFEST)
            except KeyError:
                return JarManifest(None, None, holds_class=holds_class)
            if info.file_size > _MAX_MANIFEST:
                raise JarError(f"{MANIFEST} is {info.file_size} bytes")
            attributes = parse_manifest(jar.read(info))
    # NotImplementedError: a compression method that is not known; RuntimeError: encrypted
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise JarError(f"not a readable jar: {error}") from None
    main_class, version, digest = (attributes.get(name) or None for name in (MAIN_CLASS, SCHEMA_VERSION, CACHE_DIGEST))
    return JarManifest(main_class, version, digest, holds_class)
