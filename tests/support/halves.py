"""Folders of jars of which one is damaged or lacks something: what a copy that was cut off, or a wrong build, leaves."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from support.paths import JAVA_ROOT

Spoil = Callable[[Path], None]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _without(name: str) -> Spoil:
    def spoil(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            entries = {item.filename: archive.read(item) for item in archive.infolist() if item.filename != name}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)

    return spoil


HALVES: dict[str, tuple[str, Spoil, str, str]] = {
    "msgpack-cut": ("msgpack-core", _cut, "RuntimeExited", "msgpack-core-0.9.8.jar: not a readable jar"),
    "msgpack-missing": ("msgpack-core", Path.unlink, "RuntimeExited", "NoClassDefFoundError: org/msgpack/"),
    "jackson-cut": ("jackson-databind", _cut, "TaskFailed", "NoClassDefFoundError: com/fasterxml/jackson/"),
    "main-cut": ("conformance", _cut, "InvalidArtifact", "conformance-0.1.0.jar: not a readable jar"),
    "sdk-cut": ("polypod-sdk", _cut, "InvalidArtifact", "polypod-sdk-0.1.0.jar: not a readable jar"),
    "main-missing": (
        "conformance", _without("conformance/Main.class"), "StartupFailed", "ClassNotFoundException: conformance.Main"
    ),
    "task-missing": (
        "conformance", _without("conformance/Main$Success.class"), "StartupFailed", "ClassNotFoundException: conformance.Main$Success",
    ),
    "comm-missing": (
        "polypod-sdk", _without("dev/polypod/sdk/internal/Comm.class"), "StartupFailed", "NoClassDefFoundError: dev/polypod/sdk/internal/Comm",
    ),
}  # fmt: skip
"""Name → which jar is spoilt, how, and the reason and words of a task's end."""


def make_halves(folder: Path) -> Path:
    """Make a folder with a folder of jars for each."""
    for name, (jar, spoil, _, _) in HALVES.items():
        shutil.copytree(JAVA_ROOT, folder / name)
        [path] = (folder / name).glob(f"{jar}-*.jar")
        spoil(path)
    return folder
