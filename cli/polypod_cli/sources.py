"""Where manifests come from, as with kubectl: files, folders, standard input, and Lists, whose items are manifests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from polypod_core.documents import Document, load_all
from polypod_core.errors import UserError
from polypod_core.files import STANDARD_INPUT, read_file
from polypod_core.reasons import Reason

SUFFIXES = (".json", ".yaml", ".yml")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_LIST = "List"


def documents(names: Sequence[str], *, recursive: bool = False, besides: str = "") -> Iterator[Document]:
    """Yield the manifests of what was named, the items of Lists in place of the Lists.

    Args:
        names: of files and folders; `-` is standard input.
        recursive: whether the folders within folders are read, too.
        besides: a file that is no manifest although it may be in a folder: the routing.

    Raises:
        UserError: something cannot be read, or a List is none.
    """
    if names.count(STANDARD_INPUT) > 1:
        raise UserError(Reason.INVALID_CONFIG, "standard input can be read once only: give one -f -")
    for name in names:
        for path in _files(name, recursive, besides):
            shown = "standard input" if path == STANDARD_INPUT else path
            for document in load_all(read_file(path), shown):
                yield from _items(document)


def _files(name: str, recursive: bool, besides: str) -> Sequence[str]:
    if _URL.match(name):
        way_out = f"download it first, such as by: curl -fsSL {name} | polypod … -f -"
        raise UserError(Reason.INVALID_CONFIG, f"{name} is a URL, from which nothing is read; {way_out}")
    if not os.path.isdir(name):
        return [name]
    found = sorted(path for path in _within(name, recursive) if path.endswith(SUFFIXES))
    found = [path for path in found if not (besides and os.path.exists(path) and os.path.samefile(path, besides))]
    if not found:
        kinds = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        hint = "" if recursive else "; -R reads the folders within it, too"
        raise UserError(Reason.INVALID_CONFIG, f"{name} contains no file such as {kinds}{hint}")
    return found


def _within(folder: str, recursive: bool) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise UserError(Reason.INVALID_CONFIG, f"{error.filename} cannot be read: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=fail):
        yield from (os.path.join(parent, name) for name in files)
        if not recursive:
            folders.clear()


def _items(document: Document) -> Iterator[Document]:
    """Yield a document, or the items of a List, also of Lists within it.

    An item of a `ConfigMapList` need not say that it is a ConfigMap.
    """
    value = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not kind.endswith(_LIST):
        yield document
        return
    items = value.get("items")
    if not isinstance(items, list):
        where = document.where(["items"])
        raise UserError(Reason.INVALID_CONFIG, f"{where}: kind {kind}: items is {_kind_of(items)}; it must be a list")
    for index, item in enumerate(items):
        if isinstance(item, dict) and kind != _LIST:
            item = {"apiVersion": value.get("apiVersion"), "kind": kind.removesuffix(_LIST), **item}
        yield from _items(document.part(["items", index], item))


def _kind_of(value: object) -> str:
    return "missing" if value is None else type(value).__name__
