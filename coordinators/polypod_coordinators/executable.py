"""The Executable coordinator: runs the native bundle whose manifest names the task's Dag."""

from __future__ import annotations

import re

import msgspec
from polypod_core.schema_versions import resolve_version

from polypod_coordinators.artifacts import executable_bundle
from polypod_coordinators.artifacts.metadata import Metadata
from polypod_coordinators.artifacts.search import ArtifactRoot, Candidate
from polypod_coordinators.coordinator import DEFAULT_STARTUP_TIMEOUT, BundleKind, Command, check_roots, choose_bundle

_FILE_TYPE = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")
"""The end of a name that says what kind of file it is, such as `.py`; that of `pipeline-1.2` is a version."""


class ExecutableCoordinator(msgspec.Struct, kw_only=True, frozen=True):
    """Runs executable bundles (Executable Bundle Spec 1.0).

    A bundle is known by its trailer and not by its executable bit, which object stores lose.

    Attributes:
        executables_root: folders to look through, recursively.
        task_handler_bundle_name: the Dag bundle that holds the bundles, in place of folders.
        task_startup_timeout: seconds that the runtime has to connect.
    """

    executables_root: list[str] = []
    task_handler_bundle_name: str | None = None
    task_startup_timeout: float = DEFAULT_STARTUP_TIMEOUT

    def roots(self) -> tuple[str, list[str]]:
        return check_roots("executables_root", self.executables_root)

    def runs_dag_file(self, rel_path: str) -> bool:
        return bool(rel_path) and _FILE_TYPE.search(rel_path.rpartition("/")[2]) is None

    def command(self, dag_id: str, roots: list[ArtifactRoot], rel_path: str = "") -> Command:
        path, metadata, passed_over = choose_bundle(BUNDLES, dag_id, roots, rel_path)
        version = resolve_version(metadata.sdk.supervisor_schema_version, f"executable bundle {path}")
        return Command((path,), version, path, native=True, listed=metadata.listed(), passed_over=passed_over)


def _read(candidate: Candidate, fd: int) -> Metadata:
    return executable_bundle.read(fd, candidate.path).metadata


BUNDLES = BundleKind("executable bundle", lambda name: True, _read)
