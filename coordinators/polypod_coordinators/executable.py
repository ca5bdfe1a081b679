"""The Executable coordinator: runs the native bundle whose manifest names the task's Dag."""

from __future__ import annotations

import msgspec

from polypod_coordinators.artifacts import executable_bundle
from polypod_coordinators.artifacts.metadata import Metadata
from polypod_coordinators.artifacts.search import ArtifactRoot, Candidate, Unfit
from polypod_coordinators.comm.versions import resolve_version
from polypod_coordinators.coordinator import DEFAULT_STARTUP_TIMEOUT, Command, check_roots, choose_bundle


class ExecutableCoordinator(msgspec.Struct, kw_only=True, frozen=True):
    """Runs executable bundles (Executable Bundle Spec 1.0).

    Attributes:
        executables_root: folders to look through, recursively.
        task_startup_timeout: seconds that the runtime has to connect.
    """

    executables_root: list[str]
    task_startup_timeout: float = DEFAULT_STARTUP_TIMEOUT

    def roots(self) -> tuple[str, list[str]]:
        return check_roots("executables_root", self.executables_root)

    def command(self, dag_id: str, roots: list[ArtifactRoot]) -> Command:
        path, metadata = choose_bundle("executable bundle", dag_id, roots, lambda name: True, _read)
        version = resolve_version(metadata.sdk.supervisor_schema_version, f"executable bundle {path}")
        return Command((path,), version, path)


def _read(candidate: Candidate, fd: int) -> Metadata:
    if not candidate.is_executable():
        raise Unfit("its executable bit is not set")
    return executable_bundle.read(fd, candidate.path).metadata
