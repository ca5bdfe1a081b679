"""Images, built with buildah and kept in the cache as OCI layouts: no registry and no Docker is needed for that."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster import programs

STORE = programs.CACHE / "images"
_BUILDAH = ("buildah", "--root", f"{programs.CACHE}/buildah/root", "--runroot", f"{programs.CACHE}/buildah/run",
            "--storage-driver", "overlay")  # fmt: skip
PYTHON_BASE = "localhost/polypod-test-python:3"
"""The base image of our own images in the tests: Debian with Python, as small as Debian makes it."""


def build(name: str, containerfile: str, files: Mapping[str, Path], *, target: str = "", base: str = "") -> Path:
    """Build an image and return its OCI layout, a folder, from the cache if nothing of it has changed.

    Args:
        name: the image's name, for the folder's and the progress line.
        containerfile: the text of the Dockerfile.
        files: what the Dockerfile copies: path in the context → file or folder.
        target: the target of the Dockerfile, if it has several.
        base: the value of the build argument BASE_IMAGE; such an image must be in the store.
    """
    key = _key(containerfile, files, target, base)
    layout = STORE / f"{name}-{key}"
    if not layout.exists():
        with alone():
            if not layout.exists():
                _build(layout, containerfile, files, target, base)
    return layout


@contextmanager
def alone() -> Iterator[None]:
    """Let one process build at a time: two of the same image would take away each other's."""
    STORE.mkdir(parents=True, exist_ok=True)
    with open(STORE / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(layout: Path, containerfile: str, files: Mapping[str, Path], target: str, base: str) -> None:
    name, _, key = layout.name.rpartition("-")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="polypod-image-") as context:
        for path, source in files.items():
            _copy(source, Path(context) / path)
        (Path(context) / "Dockerfile").write_text(containerfile)
        tag = f"localhost/polypod-build-{name}:{key}"
        command = [*_BUILDAH, "bud", "--quiet", "--isolation", "chroot", "--pull-never", "--timestamp", "0", "-t", tag]
        # the stage that compiles the standard library is the same for each image on this base
        command += ["--build-arg", f"BASE_IMAGE={base}", "--layers"] if base else []
        command += ["--target", target] if target else []
        _run(*command, context)
    temporary = STORE / f"{name}-{key}.{os.getpid()}"
    _run(*_BUILDAH, "push", "--quiet", tag, f"oci:{temporary}:{key}")
    _run(*_BUILDAH, "rmi", "--force", tag)
    size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file()) / (1 << 20)
    temporary.rename(layout)
    print(f"image {name}: {size:.0f} MiB compressed, built in {time.monotonic() - started:.0f} s",
          file=sys.stderr, flush=True)  # fmt: skip


def python_base() -> str:
    """Make the base image of our own images, once; return its name."""
    with alone():
        return _python_base()


def _python_base() -> str:
    if subprocess.run(
        [*_BUILDAH, "inspect", "--type", "image", PYTHON_BASE], capture_output=True, check=False
    ).returncode:
        print("making a base image of Debian and Python …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="polypod-image-") as context:
            root = Path(context) / "root.tar"
            certificates = (
                'mkdir -p "$1/etc/ssl/certs" && '
                'cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"'
            )
            # unpacked and not installed: no dpkg, no shell, no users; what a language image may lack, ours may too
            _run("mmdebstrap", "--quiet", "--variant=extract", "--include=python3,ca-certificates",
                 "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                 "--dpkgopt=path-exclude=/usr/share/locale/*", f"--extract-hook={certificates}",
                 "bookworm", str(root))  # fmt: skip
            (Path(context) / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
            _run(*_BUILDAH, "bud", "--quiet", "--isolation", "chroot", "-t", PYTHON_BASE, context)
    return PYTHON_BASE


def _key(containerfile: str, files: Mapping[str, Path], target: str, base: str) -> str:
    digest = hashlib.sha256(f"{containerfile}\0{target}\0{base}\0{_id(base) if base else ''}".encode())
    for name, source in sorted(files.items()):
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            digest.update(f"{name}\0{path.relative_to(source)}\0{path.stat().st_mode}\0".encode())
            if path.is_file():
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@functools.cache
def _id(image: str) -> str:
    """Return which image a name stands for now."""
    return _run(*_BUILDAH, "inspect", "--type", "image", "--format", "{{.FromImageID}}", image).strip()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}:\n{(done.stderr or done.stdout)[-3000:]}")
    return done.stdout
