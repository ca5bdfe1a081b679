"""YAML and JSON files as kubectl reads them, for manifests and routings alike.

kubectl turns YAML into JSON with sigs.k8s.io/yaml, on go.yaml.in/yaml v2. Its scalars are those of `resolve.go` there:
`no` is false and `0x10` is 16, but `12:30` is a text, as is a date. Whatever JSON cannot hold exactly is refused here,
with its line, where kubectl would change it silently: of two equal keys the first would vanish, and of a number
beyond 64 bits its last digits. The parser is PyYAML's (libyaml); only what a scalar means is ours.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import yaml

from polypod_core.errors import UserError
from polypod_core.reasons import Reason

DEEPEST = 100
"""How many lists and mappings may be within each other; Kubernetes itself takes a few hundred at most."""
_MOST_EXPANDED = 1_000_000
"""Characters that a document may have with its aliases written out, beyond twice those that it has."""
_TWICE = "a key is there twice in one mapping"
_DEEP = f"more than {DEEPEST} lists and mappings within each other"
LARGEST, SMALLEST = (1 << 63) - 1, -(1 << 63)
"""The whole numbers that survive the Kubernetes API."""

_PLAIN = "polypod:plain"
_CORE = "tag:yaml.org,2002:"
_TRUE = frozenset({"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_NOT_FINITE = re.compile(r"\.(nan|NaN|NAN)|[-+]?\.(inf|Inf|INF)")
_WHOLE = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
# by strconv.ParseFloat, which takes an underscore between two digits
_DOT_FLOAT = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+(?:_[0-9]+)*)?")


class _Composer(yaml.CSafeLoader):
    """Leaves open what a plain scalar without a tag is."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else f"{_CORE}str"
        return f"{_CORE}{'seq' if kind is yaml.SequenceNode else 'map'}"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its value, and the node that knows its lines, counted from the line `offset`."""

    path: str
    value: Any
    node: yaml.Node | None
    offset: int = 0

    def line(self, location: Sequence[int | str] = ()) -> int:
        """Return the line, from 1, of what is at `location`, or of the last part of it that exists."""
        node = self.node
        if node is None:
            return self.offset + 1
        line = node.start_mark.line
        for part in location:
            found = _child(node, part)
            if found is None:
                break
            key, node = found
            line = key.start_mark.line
        return self.offset + int(line) + 1

    def where(self, location: Sequence[int | str] = ()) -> str:
        return f"{self.path}:{self.line(location)}"

    def part(self, location: Sequence[int | str], value: Any) -> Document:
        """Return what is at `location` as a document of its own, with the value that it is to have."""
        node = self.node
        for part in location:
            found = _child(node, part) if node is not None else None
            node = found[1] if found is not None else None
        offset = self.offset if node is not None else self.line(location) - 1
        return Document(self.path, value, node, offset)


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


class _Problem(Exception):
    """What is wrong, and where: its line and column, from 0. `syntax`: it may be of another language."""

    def __init__(self, message: str, line: int, column: int, *, syntax: bool = False, bare: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.column, self.syntax = message, line, column, syntax
        self.bare = bare or message


class _Unfit(ValueError):
    """A scalar that cannot be used: the message quotes it, `bare` does not."""

    def __init__(self, message: str, bare: str) -> None:
        super().__init__(message)
        self.bare = bare


_MAY_HOLD_SECRETS = re.compile(r"secret|stringData", re.IGNORECASE)
"""In the text of a file: then its errors quote no scalar. A misspelt kind must not matter, nor where the error is."""


def _in_file(path: str, error: _Problem) -> str:
    return f"{path}:{error.line + 1}:{error.column + 1}"


def _in_text(name: str, error: _Problem) -> str:
    return f"{name}, line {error.line + 1}, column {error.column + 1}"


def load_all(raw: bytes, path: str, place: Callable[[str, _Problem], str] = _in_file) -> list[Document]:
    """Return the documents of a file; empty ones are left out.

    Args:
        raw: its content, UTF-8.
        path: its name, for messages.
        place: says in words where in it something is.

    Raises:
        UserError: it is neither YAML nor JSON, or holds what JSON cannot; with line and column.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(Reason.INVALID_CONFIG, f"{path} is not UTF-8: byte {error.start}") from None
    try:
        # as kubectl tells them apart; a mapping in YAML's own flow style may look like JSON
        documents = list(_json_documents(text, path)) if text.lstrip().startswith("{") else None
    except _Problem as error:
        documents = None
        if not (error.syntax and _is_flow_yaml(text)):
            raise _explained(place(path, error), "JSON", error, text) from None
    if documents is not None:
        return documents
    try:
        return list(_yaml_documents(text, path))
    except _Problem as error:
        raise _explained(place(path, error), "YAML", error, text) from None


def _explained(where: str, language: str, error: _Problem, text: str) -> UserError:
    message = error.bare if _MAY_HOLD_SECRETS.search(text) else error.message
    return UserError(Reason.INVALID_CONFIG, f"{where}: not valid {language}: {message}")


def load(raw: str | bytes, where: str) -> Any:
    """Return the value of a text that is one document, None if it is empty.

    Raises:
        UserError: as `load_all`, or there are several.
    """
    documents = load_all(raw.encode() if isinstance(raw, str) else raw, where, _in_text)
    if len(documents) > 1:
        line = documents[1].line()
        raise UserError(Reason.INVALID_CONFIG, f"{where}, line {line}: a second document; there must be one")
    return documents[0].value if documents else None


# YAML.


def check_depth(text: str | bytes) -> None:
    """Look at the nesting before libyaml's composer does, which recurses in C: too deep, and the process is gone.

    Raises:
        yaml.YAMLError: it is too deep, or no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            mark = event.start_mark
            where = yaml.Mark("", 0, mark.line, mark.column, None, 0) if mark is not None else None
            raise yaml.MarkedYAMLError(problem=_DEEP, problem_mark=where)


def _nodes(text: str) -> Iterator[yaml.Node]:
    composer = None
    try:
        check_depth(text)
        composer = _Composer(text)
        while composer.check_node():
            node = composer.get_node()
            if node is not None:
                yield node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        raise _Problem(error.problem or str(error), line, column) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        raise _Problem(f"character {error.character!r} is not allowed", line, 0) from None
    finally:
        if composer is not None:
            composer.dispose()


def _yaml_documents(text: str, path: str) -> Iterator[Document]:
    for node in _nodes(text):
        if _expanded(node, {}, 0) > _MOST_EXPANDED + 2 * len(text):
            raise _at(node, "its aliases (*name) expand to more than a million characters; use fewer of them")
        value = _value(node, 0)
        if value is not None:
            yield Document(path, value, node)


def _is_flow_yaml(text: str) -> bool:
    try:
        return all(isinstance(node, yaml.MappingNode) for node in _nodes(text))
    except _Problem:
        return False


def _at(node: yaml.Node, message: str, bare: str = "") -> _Problem:
    return _Problem(message, node.start_mark.line, node.start_mark.column, bare=bare)


def _expanded(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many characters and brackets a value has with its aliases written out.

    Args:
        known: of the nodes that were counted already, by identity: a few lines of aliases stand for billions.
    """
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 1
    if isinstance(node, yaml.ScalarNode):
        known[id(node)] += len(node.value)
    elif depth <= DEEPEST:
        children = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] += sum(_expanded(child, known, depth + 1) for child in children)
    return known[id(node)]


def _value(node: yaml.Node, depth: int) -> Any:
    if depth > DEEPEST:
        raise _at(node, f"more than {DEEPEST} lists and mappings within each other, or one that holds itself")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    expected = "seq" if isinstance(node, yaml.SequenceNode) else "map"
    if node.tag != f"{_CORE}{expected}":
        raise _at(node, f"{_tag(node)} is nothing that JSON has", _STRANGE_TAG)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, depth + 1) for item in node.value]
    return _mapping(node, depth)


def _mapping(node: yaml.Node, depth: int) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == _PLAIN and key_node.value == "<<":
            several = isinstance(value_node, yaml.SequenceNode)
            for item in value_node.value if several else [value_node]:
                if not isinstance(item, yaml.MappingNode):
                    raise _at(item, "'<<' merges mappings only")
                merged = {**_mapping(item, depth + 1), **merged}
            continue
        key = _key(key_node)
        if key in own:
            raise _at(key_node, f"key {key!r} is there twice", _TWICE)
        own[key] = _value(value_node, depth + 1)
    return {**merged, **own}


def _key(node: yaml.Node) -> str:
    """Return a key as text, as kubectl makes it one."""
    if not isinstance(node, yaml.ScalarNode):
        raise _at(node, "a key must be a text")
    value = _scalar(node)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise _at(node, f"a key must be a text, not {node.value!r}; put it in quotes", "a key must be a text")
    return value


def _scalar(node: yaml.ScalarNode) -> Any:
    text = str(node.value)
    kind = node.tag.removeprefix(_CORE)
    if kind == "str":
        return text
    value = _resolved(node, text)
    fits = {
        _PLAIN: True,
        "bool": isinstance(value, bool),
        "null": value is None,
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
    }
    if kind not in fits:
        raise _at(node, f"{_tag(node)} is nothing that JSON has", _STRANGE_TAG)
    if not fits[kind]:
        raise _at(node, f"{text!r} is no {_tag(node)}", f"the value is no {_tag(node)}")
    return float(value) if kind == "float" else value


def _resolved(node: yaml.Node, text: str) -> Any:
    """Return what a plain scalar is, by go.yaml.in/yaml v2's resolve.go."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in _NULL:
        return None
    if _NOT_FINITE.fullmatch(text):
        raise _at(node, f"{text} is not a number that JSON can represent")
    if text[0] == ".":
        return _float(node, text) if _DOT_FLOAT.fullmatch(text) else text
    if text[0] not in "+-0123456789":
        return text
    plain = text.replace("_", "")
    if _WHOLE.fullmatch(plain):
        return _whole(node, plain)
    return _float(node, plain) if _FLOAT.fullmatch(plain) else text


def _whole(node: yaml.Node, plain: str) -> int:
    sign = -1 if plain[0] == "-" else 1
    digits = plain.lstrip("+-").lower()
    if digits.startswith(("0x", "0b", "0o")):
        number = sign * int(digits, 0)
    else:
        number = sign * int(digits, 8 if len(digits) > 1 and digits[0] == "0" else 10)
    if not SMALLEST <= number <= LARGEST:
        unfit = _too_long(plain)
        raise _at(node, str(unfit), unfit.bare)
    return number


def _too_long(text: str) -> _Unfit:
    message = "the Kubernetes API would change {}, which is beyond 64 bits; put it in quotes"
    return _Unfit(message.format(text), message.format("the number"))


def _float(node: yaml.Node, plain: str) -> float:
    try:
        return _exact(plain.replace("_", ""))
    except _Unfit as error:
        raise _at(node, str(error), error.bare) from None


def _exact(text: str) -> float:
    """Return a decimal number as a float.

    Raises:
        _Unfit: that would change it.
    """
    number = float(text)
    if not math.isfinite(number):
        message = "{} is larger than any number that the Kubernetes API holds"
        raise _Unfit(message.format(text), message.format("the number"))
    if Decimal(text) != Decimal(repr(number)):
        message = "the Kubernetes API would change {} to {}; write that, or put it in quotes"
        bare = "the Kubernetes API would change the number; put it in quotes"
        raise _Unfit(message.format(text, repr(number)), bare)
    return number


_STRANGE_TAG = "a value that begins with '!' must be in quotes"


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace(_CORE, "!!")


# JSON.


def _json_documents(text: str, path: str) -> Iterator[Document]:
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_int=_json_int, parse_float=_exact, parse_constant=_json_constant
    )
    position = 0
    while (position := _skip(text, position)) < len(text):
        start = position
        try:
            value, position = decoder.raw_decode(text, position)
            _check_depth_and_text(value)
        except json.JSONDecodeError as error:
            raise _Problem(error.msg, error.lineno - 1, error.colno - 1, syntax=True) from None
        except RecursionError:
            raise _Problem(_DEEP, text.count("\n", 0, start), 0) from None
        except ValueError as error:
            bare = error.bare if isinstance(error, _Unfit) else ""
            raise _Problem(str(error), text.count("\n", 0, start), 0, bare=bare) from None
        yield Document(path, value, _node_of_json(text[start:position]), text.count("\n", 0, start))


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _node_of_json(text: str) -> yaml.Node | None:
    """Return a node that knows the lines: JSON is YAML but for tabs and some escapes, which matter to no line."""
    harmless = re.sub(r"\\.", "__", text).replace("\t", " ")
    try:
        return next(_nodes(harmless), None)
    except _Problem:
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Unfit(f"key {next(name for name in names if names.count(name) > 1)!r} is there twice", _TWICE)
    return made


def _json_int(text: str) -> int:
    number = int(text) if len(text) < 25 else 1 << 100
    if not SMALLEST <= number <= LARGEST:
        raise _too_long(text)
    return number


def _json_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number that JSON can represent")


def _check_depth_and_text(value: Any) -> None:
    ahead: list[tuple[Any, int]] = [(value, 0)]
    while ahead:
        found, depth = ahead.pop()
        if depth > DEEPEST:
            raise ValueError(_DEEP)
        if isinstance(found, str):
            _check_text(found)
        elif isinstance(found, list):
            ahead += [(item, depth + 1) for item in found]
        elif isinstance(found, dict):
            for key, item in found.items():
                _check_text(key)
                ahead.append((item, depth + 1))


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"unpaired surrogate in a text: \\u{ord(text[error.start]):04x}") from None
