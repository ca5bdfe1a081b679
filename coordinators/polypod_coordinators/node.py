"""The Node coordinator: runs the TypeScript bundle whose manifest names the task's Dag."""

from __future__ import annotations

import msgspec
from polypod_core.schema_versions import resolve_version

from polypod_coordinators.artifacts import typescript_bundle
from polypod_coordinators.artifacts.metadata import Metadata
from polypod_coordinators.artifacts.search import ArtifactRoot, Candidate
from polypod_coordinators.coordinator import DEFAULT_STARTUP_TIMEOUT, BundleKind, Command, check_roots, choose_bundle


class NodeCoordinator(msgspec.Struct, kw_only=True, frozen=True):
    """Runs bundles packed by `airflow-ts-pack`.

    Attributes:
        bundles_root: folders to look through, recursively.
        task_handler_bundle_name: the Dag bundle that holds the bundles, in place of folders.
        node_executable: the `node` command; needs Node 22 or later.
        task_startup_timeout: seconds that the runtime has to connect.
    """

    bundles_root: list[str] = []
    task_handler_bundle_name: str | None = None
    node_executable: str = "node"
    task_startup_timeout: float = DEFAULT_STARTUP_TIMEOUT

    def roots(self) -> tuple[str, list[str]]:
        return check_roots("bundles_root", self.bundles_root)

    def runs_dag_file(self, rel_path: str) -> bool:
        return rel_path.endswith(typescript_bundle.SUFFIX)

    def command(self, dag_id: str, roots: list[ArtifactRoot], rel_path: str = "") -> Command:
        path, metadata, passed_over = choose_bundle(BUNDLES, dag_id, roots, rel_path)
        version = resolve_version(metadata.sdk.supervisor_schema_version, f"TypeScript bundle {path}")
        # the SDK has JavaScript's numbers, which are floats
        argv = (self.node_executable, path)
        return Command(argv, version, path, listed=metadata.listed(), whole_bits=53, passed_over=passed_over)


def _read(candidate: Candidate, fd: int) -> Metadata:
    return typescript_bundle.read(fd).metadata


BUNDLES = BundleKind("TypeScript bundle", typescript_bundle.is_candidate, _read)
