"""What all coordinators do: from a task instance to the command of its runtime.

A coordinator looks through its artifact roots, takes exactly one artifact or says why it took none, and returns the
command. It starts nothing. Airflow's own class paths are accepted, so an `[sdk] coordinators` entry works here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from polypod_coordinators.artifacts.metadata import Metadata
from polypod_coordinators.artifacts.search import ArtifactRoot, Candidate, Rejected, Unfit, describe, walk
from polypod_coordinators.errors import UserError, nearest
from polypod_coordinators.supervisor.reasons import Reason

DEFAULT_STARTUP_TIMEOUT = 10.0
"""Seconds that a runtime has to connect, as upstream."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start the runtime for one task.

    Attributes:
        argv: the command, without `--comm` and `--logs`.
        schema_version: the supervisor schema version that the artifact speaks.
        artifact: the path of what was chosen, for logs.
    """

    argv: tuple[str, ...]
    schema_version: str
    artifact: str


class Coordinator(Protocol):
    """One configured coordinator."""

    @property
    def task_startup_timeout(self) -> float:
        """Seconds that the runtime has to connect to both sockets."""

    def roots(self) -> tuple[str, list[str]]:
        """Return the keyword of the folders to look through, and the folders, as configured."""

    def command(self, dag_id: str, roots: list[ArtifactRoot]) -> Command:
        """Choose the artifact for `dag_id` among the open `roots`.

        Raises:
            UserError: none fits, several fit, or the one that fits cannot be used; the message lists what was seen.
        """


CLASS_PATHS: dict[str, str] = {
    "airflow.sdk.coordinators.java.JavaCoordinator": "polypod_coordinators.java:JavaCoordinator",
    "airflow.sdk.coordinators.executable.ExecutableCoordinator": (
        "polypod_coordinators.executable:ExecutableCoordinator"
    ),
    "airflow.sdk.coordinators.node.NodeCoordinator": "polypod_coordinators.node:NodeCoordinator",
}
"""Airflow's class path → our class. The short names (`JavaCoordinator`) are accepted as well."""


def create(name: str, classpath: str, kwargs: dict[str, Any]) -> Coordinator:
    """Make the coordinator `name` from its configuration.

    Raises:
        UserError: unknown classpath, unknown or missing keyword, or a value of the wrong type.
    """
    full = classpath if "." in classpath else f".{classpath}"
    target = next((ours for theirs, ours in CLASS_PATHS.items() if theirs.endswith(full)), None)
    if target is None:
        raise UserError(
            Reason.INVALID_COORDINATOR,
            f"coordinator {name!r}: classpath {classpath!r} is not known" + nearest(classpath, CLASS_PATHS),
        )
    module_name, _, class_name = target.partition(":")
    cls: type[msgspec.Struct] = getattr(importlib.import_module(module_name), class_name)
    known = [field.name for field in msgspec.structs.fields(cls)]
    for keyword in kwargs:
        if keyword not in known:
            raise UserError(
                Reason.INVALID_COORDINATOR,
                f"coordinator {name!r}: {class_name} has no keyword {keyword!r}" + nearest(keyword, known),
            )
    try:
        made: Any = msgspec.convert(_one_as_list(kwargs), cls)
    except msgspec.ValidationError as error:
        raise UserError(Reason.INVALID_COORDINATOR, f"coordinator {name!r}: kwargs: {error}") from None
    coordinator: Coordinator = made
    return coordinator


def _one_as_list(kwargs: dict[str, Any]) -> dict[str, Any]:
    """As upstream, a root that is one string stands for a list of one; None stands for an empty list."""
    converted = dict(kwargs)
    for key, value in kwargs.items():
        if key.endswith("_root"):
            converted[key] = [] if value is None else [value] if isinstance(value, str) else value
    return converted


def check_roots(keyword: str, paths: list[str]) -> tuple[str, list[str]]:
    """Return the keyword and the configured roots.

    Raises:
        UserError: there is none, or one is an empty string.
    """
    if not paths or not all(paths):
        raise UserError(
            Reason.INVALID_COORDINATOR, f"{keyword} must be a non-empty list of existing folders; it is {paths!r}"
        )
    return keyword, paths


def choose_bundle(
    kind: str,
    dag_id: str,
    roots: list[ArtifactRoot],
    wanted: Callable[[str], bool],
    read: Callable[[Candidate, int], Metadata],
) -> tuple[str, Metadata]:
    """Return the path and manifest of the only bundle under `roots` that holds `dag_id`.

    Args:
        kind: what is looked for, in words.
        wanted: tells by its name whether a file is a candidate.
        read: reads the manifest of a candidate that is open as the descriptor; raises Unfit.

    Raises:
        UserError: there is none, or there are several; the message lists every candidate seen.
    """
    rejected: list[Rejected] = []
    found: dict[str, Metadata] = {}
    for candidate in walk(roots, wanted, rejected):
        try:
            fd = candidate.open()
            try:
                metadata = read(candidate, fd)
            finally:
                os.close(fd)
        except OSError as error:
            rejected.append(Rejected(candidate.path, f"it cannot be read: {error.strerror}"))
        except Unfit as unfit:
            rejected.append(Rejected(candidate.path, str(unfit)))
        else:
            if dag_id in metadata.dags:
                found[candidate.path] = metadata
            else:
                rejected.append(Rejected(candidate.path, f"its Dags are {sorted(metadata.dags)}"))
    where = ", ".join(root.path for root in roots)
    if not found:
        raise UserError(Reason.ARTIFACT_NOT_FOUND, f"no {kind} with Dag {dag_id!r} in {where}; {describe(rejected)}")
    if len(found) > 1:
        listed = "\n".join(f"  - {path}" for path in sorted(found))
        raise UserError(
            Reason.ARTIFACT_AMBIGUOUS,
            f"{len(found)} {kind}s hold Dag {dag_id!r} in {where}; leave one of them:\n{listed}",
        )
    return next(iter(found.items()))
