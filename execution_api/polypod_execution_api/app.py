"""The FastAPI application."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, SQLAlchemyError, StatementError

from polypod_execution_api.admission import Admission
from polypod_execution_api.cluster import ClusterAccess
from polypod_execution_api.metrics import Metrics
from polypod_execution_api.routes import airflow_only, dags, operator, secrets, store, task_instances, xcoms
from polypod_execution_api.sizes import Sizes
from polypod_execution_api.tokens import TokenSigner

PREFIX = "/execution"
log = logging.getLogger("polypod.execution_api")


def create_app(
    engine: Engine,
    signer: TokenSigner,
    cluster: ClusterAccess | None = None,
    operator_account: str = "",
    sizes: Sizes | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """Return the API on a database that is up to date, with tokens by `signer`. Its page is at `/docs`.

    Args:
        cluster: if given, the pods of TaskRuns are known by their service account tokens, too.
        operator_account: NAMESPACE/NAME of the operator's service account, which may ask how tasks have ended.
        sizes: what a namespace may keep; nothing: as much as it sends.
        metrics: where the requests of pods are counted.
    """
    app = FastAPI(
        title="Polypod Execution API",
        description="Airflow's Task Execution API (2026-10-30) for runs without Airflow.",
        version="2026-10-30",
    )
    app.state.engine = engine
    app.state.signer = signer
    app.state.cluster = cluster
    app.state.operator_account = operator_account
    app.state.sizes = sizes
    if cluster is not None:
        # a database elsewhere is waited for, and meanwhile others can be served
        places = 2 if engine.dialect.name == "sqlite" else 4
        app.add_middleware(Admission, cluster=cluster, places=places, metrics=metrics)
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
        operator.router,
    ):
        app.include_router(router, prefix=PREFIX)

    @app.exception_handler(RecursionError)
    def too_deep(request: Request, error: Exception) -> JSONResponse:
        """Say so at once: a 500 would be tried again for half a minute."""
        detail = {"reason": "invalid_request", "message": "what was sent or asked for is nested too deeply"}
        return JSONResponse({"detail": detail}, status_code=422)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        """Say where and what, without what was sent: it may be a secret, or nothing that JSON can represent."""
        kept = [{name: item[name] for name in ("type", "loc", "msg")} for item in error.errors()]
        return JSONResponse({"detail": jsonable_encoder(kept)}, status_code=422)

    @app.exception_handler(OverflowError)
    @app.exception_handler(UnicodeError)
    @app.exception_handler(StatementError)
    def not_storable(request: Request, error: Exception) -> JSONResponse:
        """Say so at once: no other try would change that the database cannot hold it."""
        cause = error.orig if isinstance(error, StatementError) else error
        if not isinstance(error, DataError) and not isinstance(cause, ValueError | OverflowError):
            # the database itself: that is a 500, which is tried again. The log gets no SQL and no values
            log.error("%s %s: the database failed: %s", request.method, request.url.path, cause)
            detail = {"reason": "database_failed", "message": "the database failed; the log of the server says why"}
            return JSONResponse({"detail": detail}, status_code=500)
        message = "a number is out of range, or a text holds a character that the database cannot keep"
        return JSONResponse({"detail": {"reason": "invalid_request", "message": message}}, status_code=422)

    @app.get("/health", tags=["Health"])
    def health() -> dict[str, str]:
        return {"status": "healthy"}

    # as Airflow has it; it says nothing of anybody's, so it needs no token
    @app.get(f"{PREFIX}/health/ping", tags=["Health"], include_in_schema=False)
    def ping() -> JSONResponse:
        """Say whether the database answers."""
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            return JSONResponse({"ok": [], "failing": {"database": type(error).__name__}}, status_code=500)
        return JSONResponse({"ok": ["database"], "failing": {}})

    return app
