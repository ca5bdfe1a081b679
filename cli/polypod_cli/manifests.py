"""Reading manifests: several YAML documents, each error with its file and line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, get_args

from polypod_core.documents import Document
from polypod_core.errors import UserError, nearest
from polypod_core.kinds import API_VERSION, KIND, Key
from polypod_core.reasons import Reason
from polypod_crds.taskrun import ObjectMeta, TaskRun
from pydantic import BaseModel, ValidationError

from polypod_cli import order, sources
from polypod_cli.data_objects import ConfigMap, Secret, is_key

KINDS: dict[str, type[BaseModel]] = {KIND: TaskRun, "Secret": Secret, "ConfigMap": ConfigMap}


@dataclass(frozen=True, slots=True)
class Item:
    """A TaskRun and where it stands."""

    task_run: TaskRun
    document: Document


@dataclass(slots=True)
class Manifests:
    """What the files hold, in order. An object without a namespace has the namespace ""."""

    task_runs: list[Item] = field(default_factory=list)
    secrets: dict[Key, dict[str, str]] = field(default_factory=dict)
    config_maps: dict[Key, dict[str, str]] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)

    @property
    def ordered(self) -> list[tuple[TaskRun, Document]]:
        return [(item.task_run, item.document) for item in self.task_runs]


def load(
    names: Sequence[str],
    *,
    recursive: bool = False,
    besides: str = "",
    whole: bool = True,
    all_tasks: bool = False,
) -> Manifests:
    """Read and check manifests.

    Args:
        names: of files and folders; `recursive` and `besides`: as for `sources.documents`.
        whole: whether what TaskRuns refer to must be in the files, too; else it may be on the cluster already.
        all_tasks: likewise, of the tasks that they wait for.

    Raises:
        UserError: one message for everything that is wrong, a line each.
    """
    manifests = Manifests()
    problems: list[str] = []
    for document in sources.documents(names, recursive=recursive, besides=besides):
        problems += _add(manifests, document)
        manifests.documents.append(document)
    if not problems and not manifests.task_runs:
        problems.append(f"{', '.join(names)}: contains no TaskRun")
    if problems:
        raise UserError(Reason.INVALID_CONFIG, "\n".join(problems))
    problems = list(order.problems(manifests.ordered))
    problems += list(order.missing(manifests.ordered)) if all_tasks else []
    problems += list(_unresolved(manifests)) if whole else []
    if problems:
        raise UserError(Reason.INVALID_CONFIG, "\n".join(problems))
    return manifests


def _add(manifests: Manifests, document: Document) -> list[str]:
    value = document.value
    if not isinstance(value, dict):
        return [f"{document.where()}: a manifest is a mapping, not {type(value).__name__}"]
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return [f"{document.where(['kind'])}: kind {kind!r} is unknown{nearest(str(kind), KINDS)}"]
    if kind == KIND and value.get("apiVersion") != API_VERSION:
        seen = value.get("apiVersion")
        return [f"{document.where(['apiVersion'])}: apiVersion is {seen!r}; it must be {API_VERSION!r}"]
    try:
        if kind == KIND:
            manifests.task_runs.append(Item(TaskRun.model_validate(value), document))
        elif kind == "Secret":
            return _put(manifests.secrets, Secret.model_validate(value), document)
        else:
            return _put(manifests.config_maps, ConfigMap.model_validate(value), document)
    except ValidationError as error:
        return [_explain(document, KINDS[kind], problem) for problem in error.errors()]
    return []


def _put(known: dict[Key, dict[str, str]], found: Secret | ConfigMap, document: Document) -> list[str]:
    """Add an object; of two with the same name in a namespace, one would silently win."""
    key = _key(found.metadata)
    if key in known:
        return [f"{document.where(['metadata', 'name'])}: {found.kind} {'/'.join(filter(None, key))} is there twice"]
    known[key] = found.texts()
    return []


def _key(metadata: ObjectMeta) -> Key:
    return metadata.namespace or "", metadata.name


def _explain(document: Document, model: type[BaseModel], problem: Any) -> str:
    # pydantic marks a problem with a key, not with its value, by a part of its own
    location = [part for part in problem["loc"] if part != "[key]"]
    if model is not TaskRun:
        # what is no key may be a value in the wrong place
        location = list(takewhile(lambda part: is_key(str(part)), location))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    where = document.where(location)
    if problem["type"] == "extra_forbidden":
        *parents, name = problem["loc"]
        return f"{where}: unknown field {path}".rstrip() + nearest(str(name), _fields(model, parents))
    if problem["type"] == "missing":
        return f"{where}: {path} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    shown = problem.get("input")
    # what stands in a Secret is never shown, nor in a ConfigMap, which may hold a password as well
    tell = model is TaskRun and isinstance(shown, str | int | float | bool)
    seen = f" (seen: {shown!r})" if tell else ""
    return f"{where}: {path or 'the document'}: {message}{seen}"


def _fields(model: Any, location: Sequence[int | str]) -> list[str]:
    """Return the names of the fields that the model has at a place."""
    for part in location:
        if isinstance(part, int):
            continue
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        if part not in fields:
            return []
        model = _model_of(fields[part].annotation)
        if model is None:
            return []
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_of(part)) is not None), None)


def _unresolved(manifests: Manifests) -> Iterator[str]:
    """Yield a line for every Secret or ConfigMap that is referred to and not in the files."""
    for item in manifests.task_runs:
        spec = item.task_run.spec
        for index, connection in enumerate(spec.connections_from):
            if problem := _absent("Secret", connection.secret_ref.name, item, manifests.secrets):
                yield f"{item.document.where(['spec', 'connectionsFrom', index])}: {problem}"
        for index, source in enumerate(spec.variables_from):
            kind, ref, known = (
                ("ConfigMap", source.config_map_ref, manifests.config_maps)
                if source.config_map_ref is not None
                else ("Secret", source.secret_ref, manifests.secrets)
            )
            if ref is not None and (problem := _absent(kind, ref.name, item, known)):
                yield f"{item.document.where(['spec', 'variablesFrom', index])}: {problem}"


def _absent(kind: str, name: str, item: Item, known: Collection[Key]) -> str:
    """Return what is wrong if a TaskRun's own namespace has no object of that name; empty if it has."""
    namespace = _key(item.task_run.metadata)[0]
    if (namespace, name) in known:
        return ""
    where = f"; namespace {namespace!r} has none" if namespace else "; the TaskRun has no namespace"
    others = sorted(other or "none" for other, found in known if found == name)
    if others:
        return f"{kind} {name!r} is not in these files{where}, and the one that is there has {', '.join(others)}"
    return f"{kind} {name!r} is not in these files{nearest(name, [own for other, own in known if other == namespace])}"
