"""The build-time manifest of a bundle (Executable Bundle Spec 1.0, §airflow-metadata.yaml).

The types below are the specification's JSON schema: the same required keys and patterns; unknown keys are ignored.
Since the SDKs 1.0.0 a manifest need not name its Dags any more, nor a source file (upstream's ADR 0014).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

METADATA_VERSION = "1.0"

_TAKEN_FOR_ANOTHER = re.compile(r"Expected `str`, got `(int|float|bool|date|datetime)`")
"""Of a text without quotes, such as 1.0 or 2026-10-30."""

NonEmpty = Annotated[str, Meta(min_length=1)]


class Sdk(msgspec.Struct, kw_only=True):
    language: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_+.\-]*$")]
    version: NonEmpty
    supervisor_schema_version: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]


class DagEntry(msgspec.Struct, kw_only=True):
    tasks: list[NonEmpty]


class Metadata(msgspec.Struct, kw_only=True):
    airflow_bundle_metadata_version: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")]
    sdk: Sdk
    source: str = ""
    dags: dict[str, DagEntry] = {}
    digests: dict[str, str] = {}

    def listed(self) -> dict[str, list[str]] | None:
        """Return the tasks of each Dag; None if it names no Dags."""
        return {dag_id: entry.tasks for dag_id, entry in self.dags.items()} or None


class MetadataError(Exception):
    """The manifest is not valid; the message names the key and what was seen."""


def parse(raw: bytes) -> Metadata:
    """Parse and check a manifest.

    Raises:
        MetadataError: not UTF-8, not YAML, not a mapping, against the schema, or of a later major version.
    """
    # imported late: a JVM task never needs it
    import yaml
    from polypod_core.documents import check_depth

    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MetadataError(f"metadata is not UTF-8: {error.reason} at byte {error.start}") from None
    try:
        check_depth(text)
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise MetadataError(f"metadata is not YAML: {problem}") from None
    if not isinstance(document, dict):
        raise MetadataError(f"metadata is not a mapping but {type(document).__name__}")
    _unify_names(document)
    try:
        metadata = msgspec.convert(document, Metadata)
    except (msgspec.ValidationError, RecursionError) as error:
        hint = "; put it in quotes" if _TAKEN_FOR_ANOTHER.match(str(error)) else ""
        raise MetadataError(f"metadata: {error}{hint}") from None
    if metadata.airflow_bundle_metadata_version.split(".")[0] != METADATA_VERSION.split(".")[0]:
        seen = metadata.airflow_bundle_metadata_version
        raise MetadataError(f"metadata version {seen} is not known; known: {METADATA_VERSION}")
    return metadata


def _unify_names(document: dict[str, Any]) -> None:
    """Rename, in place, what later manifests call otherwise; null counts as left out."""
    for name, later in (("dags", "task_handlers"), ("source", "entrypoint_path"), ("source", "entrypoint")):
        if document.get(name) is None:
            document.pop(name, None)
            if document.get(later) is not None:
                document[name] = document[later]
    dags = document.get("dags")
    if isinstance(dags, dict):
        document["dags"] = {dag_id: _as_entry(entry) for dag_id, entry in dags.items()}


def _as_entry(entry: Any) -> Any:
    """Return a Dag's entry as {tasks: [id]}: it may also be a list of ids, or of declarations with a `task_id`."""
    if not isinstance(entry, list):
        return entry
    return {"tasks": [item.get("task_id") if isinstance(item, dict) else item for item in entry]}
