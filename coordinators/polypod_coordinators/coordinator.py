"""What all coordinators do: from a task instance to the command of its runtime.

A coordinator looks through its artifact roots, takes exactly one artifact or says why it took none, and returns the
command. It starts nothing. Airflow's own class paths are accepted, so an `[sdk] coordinators` entry works here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from polypod_core.errors import UserError, nearest
from polypod_core.reasons import Reason
from polypod_core.schema_versions import VERSIONS

from polypod_coordinators.artifacts.metadata import Metadata
from polypod_coordinators.artifacts.search import (
    ArtifactRoot,
    Candidate,
    Rank,
    Rejected,
    Unfit,
    Unreadable,
    describe,
    named,
    walk,
    why_none,
)

DEFAULT_STARTUP_TIMEOUT = 10.0
"""Seconds that a runtime has to connect, as upstream."""
LONGEST_STARTUP = 86400.0
"""Seconds: a day is a mistake."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start the runtime for one task.

    Attributes:
        argv: the command, without `--comm` and `--logs`.
        schema_version: the supervisor schema version that the artifact speaks.
        artifact: the path of what was chosen, for logs.
        native: the artifact itself is the program. It may have lost its executable bit, as in an object store.
        listed: the tasks of each Dag that the artifact's manifest lists; None if it lists none.
        passed_over: artifacts with a mistake, which were seen and not taken.
        whole_bits: how many bits of a whole number the language's SDK keeps, its sign aside.
        exits_on_second_sigterm: the first SIGTERM is for the task, the second ends the runtime in its own way.
    """

    argv: tuple[str, ...]
    schema_version: str
    artifact: str
    native: bool = False
    listed: Mapping[str, Sequence[str]] | None = None
    whole_bits: int = 64
    exits_on_second_sigterm: bool = False
    passed_over: tuple[Rejected, ...] = ()

    def lacks(self, dag_id: str, task_id: str) -> bool:
        """Tell whether the artifact lists its tasks, and not this one."""
        return self.listed is not None and task_id not in self.listed.get(dag_id, ())

    def no_such_task(self, dag_id: str, task_id: str) -> str:
        """Return what to tell of a task that the artifact does not hold."""
        known = ", ".join(sorted((self.listed or {}).get(dag_id, ())))
        dags = ", ".join(sorted(self.listed or ()))
        hint = f"; known: {known}" if known else f"; its Dags are: {dags}" if dags else ""
        return f"{self.artifact} has no task {task_id!r} in Dag {dag_id!r}{hint}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which artifact a task needs.

    Attributes:
        dag_id: the task's Dag.
        rel_path: the artifact's path below its root, if Airflow has said so: then nothing is searched.
        bundle: the Dag bundle that holds the artifact, if Airflow has said so.
        own_bundle: the Dag bundle of the task's Dag, empty without Airflow.
        dag_rel_path: the Dag's own file in it. It may be the artifact itself: a native Dag, in that language.
    """

    dag_id: str
    rel_path: str = ""
    bundle: str = ""
    own_bundle: str = ""
    dag_rel_path: str = ""


class Coordinator(Protocol):
    """One configured coordinator."""

    @property
    def task_startup_timeout(self) -> float:
        """Seconds that the runtime has to connect to both sockets."""

    @property
    def task_handler_bundle_name(self) -> str | None:
        """The Dag bundle that holds the artifacts (Airflow 3.4), in place of roots."""

    def roots(self) -> tuple[str, list[str]]:
        """Return the keyword of the folders to look through, and the folders, as configured; there may be none.

        Raises:
            UserError: one is an empty string.
        """

    def runs_dag_file(self, rel_path: str) -> bool:
        """Tell whether a Dag file of this name is an artifact of this coordinator: a native Dag."""

    def command(self, dag_id: str, roots: list[ArtifactRoot], rel_path: str = "") -> Command:
        """Choose the artifact for `dag_id` among the open `roots`; with a `rel_path`, the one there.

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
    cls = _class_of(classpath)
    if cls is None:
        raise UserError(
            Reason.INVALID_COORDINATOR,
            f"coordinator {name!r}: classpath {classpath!r} is not known" + nearest(classpath, CLASS_PATHS),
        )
    class_name, known = cls.__name__, keywords(classpath)
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
    _check_values(name, made)
    coordinator: Coordinator = made
    return coordinator


def _check_values(name: str, made: msgspec.Struct) -> None:
    """Refuse what is of the right type and can never work."""
    for keyword, value in msgspec.structs.asdict(made).items():
        texts = value if isinstance(value, list) else [value]
        problem = ""
        if any(isinstance(text, str) and "\0" in text for text in texts):
            problem = "no file and no argument can hold a NUL character"
        elif keyword == "task_startup_timeout" and not 0 < value < LONGEST_STARTUP:
            problem = f"it is {value:g}; it must be more than 0 and less than {LONGEST_STARTUP:.0f} seconds"
        if problem:
            raise UserError(Reason.INVALID_COORDINATOR, f"coordinator {name!r}: kwargs.{keyword}: {problem}")


def keywords(classpath: str) -> list[str]:
    """Return the keywords of the coordinator of this class path; none if there is no such coordinator."""
    cls = _class_of(classpath)
    return [field.name for field in msgspec.structs.fields(cls)] if cls is not None else []


def _class_of(classpath: str) -> type[msgspec.Struct] | None:
    # the whole path, or the class alone
    known = CLASS_PATHS if "." in classpath else {path.rpartition(".")[2]: ours for path, ours in CLASS_PATHS.items()}
    target = known.get(classpath)
    if target is None:
        return None
    module_name, _, class_name = target.partition(":")
    cls: type[msgspec.Struct] = getattr(importlib.import_module(module_name), class_name)
    return cls


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
        UserError: one is an empty string.
    """
    if not all(paths):
        raise UserError(
            Reason.INVALID_COORDINATOR, f"{keyword} must be a non-empty list of existing folders; it is {paths!r}"
        )
    return keyword, paths


def locate(coordinator: Coordinator, wanted: Wanted, dag_bundles: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return where the artifact is: the key that says so, and the folders.

    Args:
        dag_bundles: the folder of each Dag bundle that the routing knows.

    Raises:
        UserError: nothing says where; the message names the keys that would.
    """
    keyword, paths = coordinator.roots()
    native = coordinator.runs_dag_file(wanted.dag_rel_path)
    names = [wanted.own_bundle] if native and not wanted.bundle else [wanted.bundle]
    names += [coordinator.task_handler_bundle_name or "", "" if paths else wanted.own_bundle]
    for name in names:
        if name in dag_bundles:
            return f"dag_bundles.{name}", [dag_bundles[name]]
    if paths:
        return keyword, paths
    named = [name for name in names if name]
    if not named:
        raise UserError(
            Reason.INVALID_COORDINATOR,
            f"nothing says where the artifacts are: set {keyword} to a non-empty list of folders, "
            "or task_handler_bundle_name to a name in dag_bundles",
        )
    raise UserError(
        Reason.INVALID_ROUTING,
        f"Dag bundle {named[0]!r} is not in the routing's dag_bundles{nearest(named[0], dag_bundles)}; add "
        f"dag_bundles.{named[0]} with the path, image or persistent_volume_claim of its artifacts, or set {keyword}",
    )


@dataclass(frozen=True, slots=True)
class BundleKind:
    """One kind of bundle.

    Attributes:
        name: what it is called in messages.
        wanted: tells by its name whether a file is a candidate.
        read: reads the manifest of a candidate that is open as the descriptor; raises Unfit.
    """

    name: str
    wanted: Callable[[str], bool]
    read: Callable[[Candidate, int], Metadata]


Choice = tuple[str, Metadata, tuple[Rejected, ...]]


def choose_bundle(kind: BundleKind, dag_id: str, roots: list[ArtifactRoot], rel_path: str = "") -> Choice:
    """Return the path and manifest of the bundle that runs `dag_id`, and what was passed over though it is near to one.

    That is the one at `rel_path`, if it is given; else the only one whose manifest names the Dag; else the only one
    whose manifest names no Dags at all.

    Raises:
        UserError: there is none, or there are several; the message lists every candidate seen.
    """
    if rel_path:
        return _bundle_at(kind, roots, rel_path)
    rejected: list[Rejected] = []
    found: dict[str, Metadata] = {}
    unnamed: dict[str, Metadata] = {}
    unknown: dict[str, Metadata] = {}
    for candidate in walk(roots, kind.wanted, rejected):
        try:
            metadata = _read(kind, candidate)
        except Unfit as unfit:
            rejected.append(Rejected(candidate.path, str(unfit), unfit.rank))
            continue
        version = metadata.sdk.supervisor_schema_version
        if version not in VERSIONS and (dag_id in metadata.dags or not metadata.dags):
            # Executable Bundle Spec 1.0: a bundle that cannot be run is passed over, and that is logged
            unknown[candidate.path] = metadata
            why = f"its schema version {version!r} is unknown"
            rejected.append(Rejected(candidate.path, why, Rank.MISTAKE))
            continue
        if dag_id in metadata.dags:
            found[candidate.path] = metadata
        elif metadata.dags:
            rejected.append(Rejected(candidate.path, f"its Dags are {sorted(metadata.dags)}"))
        else:
            unnamed[candidate.path] = metadata
    where = ", ".join(root.path for root in roots)
    chosen = found or unnamed or unknown
    if not chosen:
        message = f"no {kind.name} with Dag {dag_id!r} in {where}; {describe(rejected)}"
        raise UserError(why_none(rejected), message)
    if len(chosen) > 1 and chosen is unknown:
        versions = ", ".join(VERSIONS)
        problem = (
            f"{len(unknown)} {kind.name}s in {where} could run Dag {dag_id!r}, and all have unknown schema versions"
        )
        listed = _listed(f"{path}: {item.sdk.supervisor_schema_version!r}" for path, item in unknown.items())
        raise UserError(Reason.UNKNOWN_SCHEMA_VERSION, f"{problem}; known here: {versions}:\n{listed}")
    if len(chosen) > 1:
        problem = (
            f"{len(found)} {kind.name}s hold Dag {dag_id!r} in {where}; leave one of them:"
            if found
            else f"{len(unnamed)} {kind.name}s in {where} name no Dags, so none can be chosen for Dag {dag_id!r}; give "
            "each a folder and a queue of its own (queue_overrides.QUEUE.kwargs), or leave one of them:"
        )
        raise UserError(Reason.ARTIFACT_AMBIGUOUS, f"{problem}\n{_listed(chosen)}")
    [(path, metadata)] = chosen.items()
    return path, metadata, tuple(item for item in rejected if item.mistaken)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"  - {line}" for line in sorted(lines))


def _bundle_at(kind: BundleKind, roots: list[ArtifactRoot], rel_path: str) -> Choice:
    with named(roots, rel_path) as candidate:
        try:
            return candidate.path, _read(kind, candidate), ()
        except Unfit as unfit:
            raise UserError(
                Reason.INVALID_ARTIFACT, f"{candidate.path} cannot be used as {kind.name}: {unfit}"
            ) from None


def _read(kind: BundleKind, candidate: Candidate) -> Metadata:
    """Return a candidate's manifest.

    Raises:
        Unfit: it is no bundle of that kind, damaged, or cannot be read.
    """
    try:
        fd = candidate.open()
        try:
            return kind.read(candidate, fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from None
