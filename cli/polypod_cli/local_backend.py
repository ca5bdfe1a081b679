"""What stands behind the tasks of a run on this machine: an Execution API on SQLite, and the files of the bridges."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from polypod_bridge.comm.answers import BundleInfo, TaskInstance
from polypod_bridge.config import BridgeConfig, ExecutionApiConfig, Timeouts
from polypod_core.durations import seconds
from polypod_core.identity import task_instance_id
from polypod_crds.taskrun import TaskRunSpec
from polypod_execution_api import registry
from polypod_execution_api.app import create_app
from polypod_execution_api.cluster import run_of, task_of
from polypod_execution_api.database import connect, migrate
from polypod_execution_api.server import ServerThread
from polypod_execution_api.tokens import TokenSigner
from polypod_operator.model.objects import TaskRunObject
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from polypod_cli.local_attempt import LocalAttempt
from polypod_cli.manifests import Manifests
from polypod_cli.plan import Planned


@dataclass(frozen=True, slots=True)
class Backend:
    """The Execution API, its database, and a folder of the run's own."""

    engine: Engine
    signer: TokenSigner
    url: str
    folder: Path

    def attempt_folder(self, run: TaskRunObject, number: int) -> Path:
        """Return the folder of an attempt, which is not there yet."""
        return self.folder / f"attempt-{run.uid}-{number}"

    def prepare(
        self, run: TaskRunObject, planned: Planned, manifests: Manifests, attempt: LocalAttempt, try_number: int
    ) -> BridgeConfig:
        """Register an attempt with the Execution API, as its pod would; return the configuration of its bridge."""
        assert run.spec is not None
        number = attempt.pod.attempt
        registered = registry.AttemptSpec(
            ti_id=task_instance_id(run.uid, number),
            try_number=try_number,
            earlier=frozenset(task_instance_id(run.uid, other) for other in range(1, number)),
            taskrun_uid=run.uid,
            number=number,
            pod_uid=attempt.pod.uid,
        )
        with Session(self.engine) as session, session.begin():
            registry.add_attempt(session, run_of(run.spec, run.namespace), task_of(run.spec), registered)
        secrets_dir = self.folder / f"secrets-{run.uid}"
        _write_secrets(secrets_dir, run.namespace, run.spec, manifests)
        return self._config(run.spec, planned, registered, secrets_dir)

    def _config(
        self, spec: TaskRunSpec, planned: Planned, attempt: registry.AttemptSpec, secrets_dir: Path
    ) -> BridgeConfig:
        timeouts = spec.timeouts
        return BridgeConfig(
            ti=TaskInstance(
                id=str(attempt.ti_id),
                dag_id=spec.dag_id,
                task_id=spec.task_id,
                run_id=spec.run_id,
                try_number=attempt.try_number,
                dag_version_id=str(uuid.uuid5(uuid.NAMESPACE_URL, spec.dag_id)),
                map_index=spec.map_index,
                queue=spec.queue,
            ),
            bundle_info=BundleInfo(name="polypod"),
            token=self.signer.issue(attempt.ti_id),
            execution_api=ExecutionApiConfig(url=self.url),
            coordinator_name=planned.coordinator_name,
            coordinator=planned.coordinator,
            dag_bundles=planned.dag_bundles,
            timeouts=Timeouts(
                startup=seconds(timeouts.startup) if timeouts.startup else None,
                execution=seconds(timeouts.execution) if timeouts.execution else None,
            ),
            secrets_dirs=[str(secrets_dir)],
            logging_level=os.environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL", "INFO"),
            namespace_levels=os.environ.get("AIRFLOW__LOGGING__NAMESPACE_LEVELS", ""),
            parent_pid=os.getpid(),
        )

    def xcoms(self, run: TaskRunObject) -> dict[str, str]:
        """Return what a task has left: key → JSON text."""
        spec = run.spec
        assert spec is not None
        with Session(self.engine) as session:
            return registry.xcom_values(session, spec.dag_id, spec.run_id, spec.task_id, spec.map_index, run.namespace)


@contextmanager
def backend_in(folder: Path) -> Iterator[Backend]:
    """Bring the Execution API up, its database in a folder; end it afterwards."""
    engine = connect(f"sqlite:///{folder}/execution-api.db")
    try:
        migrate(engine)
        signer = TokenSigner(secrets.token_bytes(32))
        with ServerThread(create_app(engine, signer)) as server:
            yield Backend(engine, signer, server.url, folder)
    finally:
        engine.dispose()


def _write_secrets(folder: Path, namespace: str, spec: TaskRunSpec, manifests: Manifests) -> None:
    """Lay out Secrets and ConfigMaps as a pod would mount them."""
    if folder.exists():
        return
    folder.mkdir(mode=0o700)
    sources = [manifests.secrets[namespace, source.secret_ref.name] for source in spec.connections_from]
    for source in spec.variables_from:
        if source.config_map_ref is not None:
            sources.append(manifests.config_maps[namespace, source.config_map_ref.name])
        elif source.secret_ref is not None:
            sources.append(manifests.secrets[namespace, source.secret_ref.name])
    for data in sources:
        for key, text in data.items():
            path = folder / key
            path.touch(mode=0o600)
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
