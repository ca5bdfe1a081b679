"""The FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI
from sqlalchemy import Engine

from polypod_execution_api.cluster import ClusterAccess
from polypod_execution_api.routes import airflow_only, dags, secrets, store, task_instances, xcoms
from polypod_execution_api.tokens import TokenSigner

PREFIX = "/execution"


def create_app(engine: Engine, signer: TokenSigner, cluster: ClusterAccess | None = None) -> FastAPI:
    """Return the API on a database that is up to date, with tokens by `signer`. Its page is at `/docs`.

    Args:
        cluster: if given, the pods of TaskRuns are known by their service account tokens, too.
    """
    app = FastAPI(
        title="Polypod Execution API",
        description="Airflow's Task Execution API (2026-06-30) for runs without Airflow.",
        version="2026-06-30",
    )
    app.state.engine = engine
    app.state.signer = signer
    app.state.cluster = cluster
    for router in (
        task_instances.router,
        task_instances.reschedules,
        xcoms.router,
        secrets.connections,
        secrets.variables,
        dags.dag_runs,
        dags.dags,
        # before the task state store: its paths are more specific
        airflow_only.router,
        store.router,
    ):
        app.include_router(router, prefix=PREFIX)

    @app.get("/health", tags=["Health"])
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app
