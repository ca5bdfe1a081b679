"""Where a log is kept when its pod is gone: an object store, or whatever else fsspec has a file system for.

A log is one object, named as Airflow names it (`…/attempt=1.log`). A long one goes on in objects whose names begin with
the first's: Airflow's log handlers read all of a prefix, in the order of their names.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from polypod_bridge.logs.masking import Masker

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "azure", "adl", "abfs", "abfss"})
"""URL schemes that the bridge's image serves by itself; for others, fsspec needs that file system's package."""

BEGINS = "attempt begins"
"""The event that is the first line of each pod in its log: an object may hold the lines of several."""

PART = 8 << 20
"""Bytes that are printed at once: a kubelet rotates a container's log at 10 MiB (containerLogMaxSize)."""
PRINTED = re.compile(r"(?P<lines>\d+) lines; (?P<rest>that is all|more follow)")
"""What is said after the last line that is printed."""
_STAMP = 64
"""Bytes that a container runtime adds to a line, at most."""

_UNSAFE = re.compile(r"[/?#%\x00-\x1f\x7f]")
_QUERY = re.compile(r"\?[^\s)\"']+")
_CAUSE = re.compile(r'"([^"\n]{10,})"')
_ANSWER = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
_TIMING = re.compile(r" in [\d.]+(?:s|ms|µs|ns)(?:, after [^-]*)?(?= - |$)")
_CLIENT = {"timeout": "10s", "connect_timeout": "5s"}


class StorageError(Exception):
    """The storage cannot be used now; the message says why, for a person."""


class Storage(Protocol):
    """What a log needs of a storage. Each call may take seconds.

    Raises:
        StorageError: from each, if it does not work.
    """

    def names(self) -> list[str]:
        """Return the names of the log's objects, in their order."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object, or overwrite it."""

    def get(self, name: str) -> bytes:
        """Return an object."""


def log_path(dag_id: str, run_id: str, task_id: str, map_index: int, attempt: int) -> str:
    """Return where a log is below its storage's base: Airflow's default `log_filename_template`."""
    parts = [f"dag_id={_part(dag_id)}", f"run_id={_part(run_id)}", f"task_id={_part(task_id)}"]
    if map_index >= 0:
        parts.append(f"map_index={map_index}")
    return "/".join([*parts, f"attempt={attempt}.log"])


def _part(identifier: str) -> str:
    # Airflow's ids hold none of these; ours may, and must not lead elsewhere
    return _UNSAFE.sub(lambda found: quote(found[0], safe=""), identifier)


def joined(base: str, path: str) -> str:
    """Return the URL of a log; a path that would lead out of its base does not."""
    return "/".join([base.rstrip("/"), *(part for part in path.split("/") if part not in ("", ".", ".."))])


def local_path(url: str) -> str | None:
    """Return the path of a `file:` URL, None for any other."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "file" else None


def object_name(path: str, number: int) -> str:
    """Return the name of the log's object `number`, counted from 0."""
    return path if number == 0 else f"{path}.{number:06d}"


def after(path: str, names: Iterable[str]) -> int:
    """Return the number of the first object that is not there yet, nor any after it."""
    numbers = [0 if name == path else int(name.removeprefix(f"{path}.")) for name in names]
    return max(numbers, default=-1) + 1


def _ours(path: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name == path or name.removeprefix(f"{path}.").isdecimal())


def open_storage(url: str, options: Mapping[str, str]) -> tuple[Storage, str]:
    """Return the storage of a log's URL, and the log's path in it.

    Raises:
        StorageError: there is no such storage, or it cannot be set up.
    """
    if urlsplit(url).scheme in OBJECT_STORES:
        return _ObjectStore.open(url, options)
    return _FileSystem.open(url, options)


class _ObjectStore:
    """S3, Google's or Azure's, by obstore: a tenth of the weight of the three fsspec packages, and of their start."""

    @classmethod
    def open(cls, url: str, options: Mapping[str, str]) -> tuple[_ObjectStore, str]:
        from obstore.store import from_url

        parts = urlsplit(url)
        settings = {key.lower(): value for key, value in options.items()}
        client: dict[str, Any] = dict(_CLIENT)
        authority = settings.pop("root_certificate", "")
        if authority:
            client["root_certificate"] = authority
        # whoever writes such a URL wants it so
        client["allow_http"] = any(value.startswith("http://") for value in (*settings.values(), *_environment()))
        path = parts.path.strip("/")
        opened: Any = from_url
        errors = _Errors(options)
        with errors:
            store = opened(
                f"{parts.scheme}://{parts.netloc}", config=settings, client_options=client,
                retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=20)},
            )  # fmt: skip
        return cls(store, path, errors), path

    def __init__(self, store: Any, path: str, errors: _Errors) -> None:
        self._store, self._path, self._errors = store, path, errors

    def names(self) -> list[str]:
        import obstore

        folder, _, _ = self._path.rpartition("/")
        with self._errors:
            found = obstore.list_with_delimiter(self._store, folder)["objects"]
        return _ours(self._path, (item["path"] for item in found))

    def put(self, name: str, data: bytes) -> None:
        import obstore

        with self._errors:
            # a log's object is small enough for one request, and the same for every store
            obstore.put(self._store, name, data, use_multipart=False)

    def get(self, name: str) -> bytes:
        import obstore

        with self._errors:
            return bytes(obstore.get(self._store, name).bytes())


class _FileSystem:
    """Anything that fsspec has a file system for."""

    @classmethod
    def open(cls, url: str, options: Mapping[str, str]) -> tuple[_FileSystem, str]:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        errors = _Errors(options)
        with errors:
            files, path = url_to_fs(url, **options)
        return cls(files, str(path), errors), str(path)

    def __init__(self, files: Any, path: str, errors: _Errors) -> None:
        self._files, self._path, self._errors = files, path, errors

    def names(self) -> list[str]:
        folder, _, _ = self._path.rpartition("/")
        with self._errors:
            self._files.invalidate_cache()
            try:
                found = self._files.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        return _ours(self._path, map(str, found))

    def put(self, name: str, data: bytes) -> None:
        with self._errors:
            self._files.makedirs(name.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(name, data)

    def get(self, name: str) -> bytes:
        with self._errors:
            return bytes(self._files.cat_file(name))


class _Errors:
    """Turns what a client raises, each its own, into a StorageError that holds no secret."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._masker = Masker()
        self._masker.add(dict(options), "")

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            said = _plain(str(error)) or type(error).__name__
            raise StorageError(self._masker.text(said)[:500]) from None


def _plain(said: str) -> str:
    """Return the part of a client's words that people need.

    obstore's have the call, then a store's answer as XML, and below it the whole cause in Rust's words.
    """
    first, _, rest = said.partition("\n")
    answer = _ANSWER.search(said)
    causes = [answer.expand(r"\1: \2")] if answer else _CAUSE.findall(rest)[-1:]
    # a query may be a signature
    head = _TIMING.sub("", _QUERY.sub("", first.partition("<?xml")[0].rstrip(": ")))
    return f"{head} ({causes[0]})" if causes else head


def _environment() -> list[str]:
    return [value for key, value in os.environ.items() if key.startswith(("AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT"))]


def read_options(folder: str) -> dict[str, str]:
    """Return what a Secret's files say of a storage: a key each, such as `aws_access_key_id`.

    Raises:
        StorageError: one cannot be read.
    """
    if not folder:
        return {}
    options = {}
    try:
        for name in sorted(os.listdir(folder)):
            # the kubelet's own links begin with a dot
            if not name.startswith("."):
                with open(f"{folder}/{name}", encoding="utf-8") as file:
                    options[name] = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"the Secret with the storage's options cannot be read: {error}") from None
    return options


def read(url: str, options: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the lines of a log, without their ends.

    Raises:
        StorageError: there is none, or it cannot be read.
    """
    rest = b""
    for data in _objects(url, options):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _objects(url: str, options: Mapping[str, str]) -> Iterator[bytes]:
    path = local_path(url)
    if path is not None:
        try:
            with open(path, "rb") as file:
                while data := file.read(1 << 20):
                    yield data
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from None
        return
    storage, path = open_storage(url, options)
    names = storage.names()
    if not names:
        raise StorageError(f"there is no log at {url}")
    for name in names:
        yield storage.get(name)


def part(lines: Iterable[bytes], skip: int, most: int) -> Iterator[bytes]:
    """Yield lines as far as they fit into a container's log, and then what has been printed (`PRINTED`).

    Args:
        skip: how many lines are left out at the beginning.
        most: bytes, each line's stamp by the runtime included.
    """
    printed = size = 0
    rest = "that is all"
    for line in itertools.islice(lines, skip, None):
        size += len(line) + _STAMP
        if printed and size > most:
            rest = "more follow"
            break
        printed += 1
        yield line
    yield f"polypod-bridge: {printed} lines; {rest}".encode()


def of_pod(lines: Iterable[bytes], pod: str) -> Iterator[bytes]:
    """Yield the lines that one pod has written: from where it begins to where the next one does."""
    within = False
    for line in lines:
        if BEGINS.encode() in line[:200]:
            try:
                event = msgspec.json.decode(line)
                if event["event"] == BEGINS and event["logger"] == "supervisor":
                    within = event["pod"] == pod
                    continue
            except (msgspec.MsgspecError, KeyError, TypeError):
                # a line of the task that only looks like it
                pass
        if within:
            yield line
