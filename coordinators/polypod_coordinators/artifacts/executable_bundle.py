"""Executable bundles: a native program with its source, manifest and a 64-byte trailer appended.

Executable Bundle Spec 1.0, §trailer: the last 64 bytes are, little-endian, u32 source_len, u32 metadata_len,
u32 footer_ver (1), the SHA-256 of the binary region, 12 zero bytes and the magic `AFBNDL01`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import OrderedDict
from dataclasses import dataclass

from polypod_coordinators.artifacts import metadata as md
from polypod_coordinators.artifacts.search import Rank, Unfit

MAGIC = b"AFBNDL01"
TRAILER_SIZE = 64
FOOTER_VERSION = 1
_TRAILER = struct.Struct("<III32s12s8s")
_CHUNK = 1 << 20
_ELF = b"\x7fELF"


class NotABundle(Unfit):
    """The file has no trailer: it is something else, and none of our business."""

    rank = Rank.SOMETHING_ELSE


class NotPacked(NotABundle):
    """A program without a trailer: it was not packed, or only a part of it was copied."""

    rank = Rank.MISTAKE


class BundleError(Unfit):
    """The file claims to be a bundle and is not a valid one."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """A parsed trailer; offsets are bytes from the start of the file."""

    source_start: int
    metadata_start: int
    end: int
    binary_sha256: bytes

    @property
    def source_len(self) -> int:
        return self.metadata_start - self.source_start

    @property
    def metadata_len(self) -> int:
        return self.end - self.metadata_start


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle: its trailer, manifest and size in bytes."""

    trailer: Trailer
    metadata: md.Metadata
    size: int


def parse_trailer(raw: bytes, file_size: int) -> Trailer:
    """Parse the last 64 bytes of a file of `file_size` bytes.

    Raises:
        NotABundle: too small, or no magic.
        BundleError: an unknown footer version, non-zero reserved bytes, or regions that do not fit the file.
    """
    if len(raw) != TRAILER_SIZE or file_size < TRAILER_SIZE or raw[-len(MAGIC) :] != MAGIC:
        raise NotABundle("no bundle trailer")
    source_len, metadata_len, footer_ver, digest, reserved, _ = _TRAILER.unpack(raw)
    if footer_ver != FOOTER_VERSION:
        raise BundleError(f"trailer: footer_ver {footer_ver} is not known; known: {FOOTER_VERSION}")
    if reserved.strip(b"\0"):
        raise BundleError("trailer: the 12 reserved bytes are not zero")
    end = file_size - TRAILER_SIZE
    metadata_start = end - metadata_len
    source_start = metadata_start - source_len
    if source_start < 0:
        raise BundleError(
            f"trailer: source ({source_len}) and metadata ({metadata_len}) do not fit a file of {file_size} bytes"
        )
    if source_start == 0:
        raise BundleError("trailer: the binary region is empty")
    return Trailer(source_start, metadata_start, end, digest)


def pack_trailer(binary_sha256: bytes, source_len: int, metadata_len: int) -> bytes:
    """Return the trailer for a binary region with this digest."""
    return _TRAILER.pack(source_len, metadata_len, FOOTER_VERSION, binary_sha256, bytes(12), MAGIC)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells one state of a file from another: the key of the digest cache."""

    path: str
    source_start: int
    inode: int
    mtime_ns: int
    size: int


class DigestCache:
    """The last digests computed, bounded; a file that was replaced or touched has another key."""

    def __init__(self, max_entries: int = 256) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[FileIdentity, bytes] = OrderedDict()

    def get(self, key: FileIdentity) -> bytes | None:
        digest = self._entries.get(key)
        if digest is not None:
            self._entries.move_to_end(key)
        return digest

    def put(self, key: FileIdentity, digest: bytes) -> None:
        self._entries[key] = digest
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


_digests = DigestCache()


def read(fd: int, path: str, cache: DigestCache = _digests) -> Bundle:
    """Read and verify the bundle that is open as `fd`; one fstat, and no second look at the path.

    Args:
        fd: the open file.
        path: its path, for the digest cache and for messages.

    Raises:
        NotABundle: it has no trailer.
        BundleError: its trailer, digest or manifest is wrong.
        OSError: it cannot be read.
    """
    status = os.fstat(fd)
    raw = os.pread(fd, TRAILER_SIZE, max(0, status.st_size - TRAILER_SIZE))
    try:
        trailer = parse_trailer(raw, status.st_size)
    except NotABundle:
        if os.pread(fd, len(_ELF), 0) == _ELF:
            raise NotPacked("a program without a bundle trailer: not packed, or copied in part") from None
        raise
    identity = FileIdentity(path, trailer.source_start, status.st_ino, status.st_mtime_ns, status.st_size)
    digest = cache.get(identity)
    if digest is None:
        digest = _digest(fd, trailer.source_start)
        cache.put(identity, digest)
    if digest != trailer.binary_sha256:
        expected, actual = trailer.binary_sha256.hex(), digest.hex()
        raise BundleError(f"binary_sha256 mismatch: the trailer says {expected}, the binary region is {actual}")
    try:
        metadata = md.parse(os.pread(fd, trailer.metadata_len, trailer.metadata_start))
    except md.MetadataError as error:
        raise BundleError(str(error)) from None
    return Bundle(trailer, metadata, status.st_size)


def read_source(fd: int, trailer: Trailer) -> bytes:
    """Return the embedded source file, empty if there is none."""
    return os.pread(fd, trailer.source_len, trailer.source_start)


def _digest(fd: int, length: int) -> bytes:
    digest = hashlib.sha256()
    position = 0
    while position < length:
        chunk = os.pread(fd, min(_CHUNK, length - position), position)
        if not chunk:
            raise BundleError(f"the file ended after {position} of {length} bytes of its binary region")
        digest.update(chunk)
        position += len(chunk)
    return digest.digest()


def pack(binary: bytes, source: bytes, manifest: bytes) -> bytes:
    """Return a bundle: binary, source, manifest and trailer (Executable Bundle Spec 1.0, §build order).

    Raises:
        BundleError: the binary is empty or already a bundle, or the manifest is not valid.
    """
    if not binary:
        raise BundleError("the executable is empty")
    if binary[-len(MAGIC) :] == MAGIC:
        raise BundleError("the executable is already a bundle; pack the plain executable")
    try:
        md.parse(manifest)
    except md.MetadataError as error:
        raise BundleError(str(error)) from None
    trailer = pack_trailer(hashlib.sha256(binary).digest(), len(source), len(manifest))
    return binary + source + manifest + trailer
