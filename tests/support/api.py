"""Our own Execution API, served for real, with a store that a test can fill and look into."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polypod_execution_api import models, registry
from polypod_execution_api.app import create_app
from polypod_execution_api.database import connect, migrate
from polypod_execution_api.server import ServerThread
from polypod_execution_api.tokens import TokenSigner
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

SECRET = b"a secret of a test, long enough for HS256"


@dataclass
class Store:
    """A database with its API."""

    engine: Engine
    signer: TokenSigner
    server: ServerThread

    @property
    def url(self) -> str:
        return self.server.url

    def add(
        self,
        task_id: str,
        run_id: str = "run-1",
        dag_id: str = "conformance",
        conf: dict[str, Any] | None = None,
        namespace: str = "",
        **spec: Any,
    ) -> uuid.UUID:
        with Session(self.engine) as session, session.begin():
            run = registry.RunSpec(dag_id, run_id, conf=conf or {}, namespace=namespace)
            return registry.add_task(session, run, registry.TaskSpec(task_id, **spec)).id

    def ti(self, ti_id: uuid.UUID) -> models.TaskInstance:
        with Session(self.engine, expire_on_commit=False) as session:
            return session.get_one(models.TaskInstance, ti_id)

    def set_state(self, ti_id: uuid.UUID, state: str) -> None:
        with Session(self.engine) as session, session.begin():
            session.get_one(models.TaskInstance, ti_id).state = state

    def xcoms(self, task_id: str, run_id: str = "run-1") -> dict[str, Any]:
        with Session(self.engine) as session:
            rows = session.scalars(
                select(models.XCom).where(models.XCom.task_id == task_id, models.XCom.run_id == run_id)
            )
            return {row.key: json.loads(row.value) for row in rows}

    def variable(self, key: str, value: str) -> None:
        with Session(self.engine) as session, session.begin():
            session.merge(models.Variable(key=key, value=value))

    def connection(self, conn_id: str, **fields: Any) -> None:
        with Session(self.engine) as session, session.begin():
            session.merge(models.Connection(conn_id=conn_id, **fields))

    def config(self, ti_id: uuid.UUID, queue: str, coordinators: dict[str, Any]) -> dict[str, Any]:
        """Return the bridge's configuration for a task instance."""
        ti = self.ti(ti_id)
        return {
            "ti": {
                "id": str(ti.id),
                "dag_id": ti.dag_id,
                "task_id": ti.task_id,
                "run_id": ti.run_id,
                "try_number": ti.try_number,
                "dag_version_id": str(uuid.uuid4()),
                "map_index": ti.map_index,
                "queue": queue,
            },
            "bundle_info": {"name": "test"},
            "token": self.signer.issue(ti_id),
            "execution_api": {"url": self.url},
            "coordinator_name": queue,
            "coordinator": coordinators[queue],
        }


def make_store(folder: Path, valid_for: float = 3600.0, port: int = 0, url: str | None = None) -> Store:
    """Return a store whose server is not started yet."""
    engine = connect(url or f"sqlite:///{folder}/execution-api.db")
    migrate(engine)
    signer = TokenSigner(SECRET, valid_for)
    return Store(engine, signer, ServerThread(create_app(engine, signer), port))
