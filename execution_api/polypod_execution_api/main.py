"""The command `polypod-execution-api`: serve the API, or bring its database up to date."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from polypod_core.server_certificate import ServerCertificate
from sqlalchemy import Engine

from polypod_execution_api.database import DatabaseUrlError, connect, migrate
from polypod_execution_api.tokens import MIN_SECRET, TokenSigner

if TYPE_CHECKING:
    from polypod_execution_api.metrics import Metrics

_CERTIFICATES_EVERY = 10.0
"""Seconds between two looks at the certificate's files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="polypod-execution-api", description="Airflow's Task Execution API for runs without Airflow."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (
        ("serve", "serve the API"),
        ("migrate", "bring the database up to date"),
        ("xcoms", "show the XComs of a run"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument(
            "--database-url",
            default=os.environ.get("POLYPOD_DATABASE_URL", "sqlite:///polypod.db"),
            help="sqlite:////PATH or postgresql://USER@HOST/NAME (or POLYPOD_DATABASE_URL)",
        )
        if name == "xcoms":
            command.add_argument(
                "--namespace", default="", help="namespace of the TaskRuns; empty: a run without Kubernetes"
            )
            command.add_argument("--dag-id", required=True)
            command.add_argument("--run-id", required=True)
        if name == "serve":
            command.add_argument("--host", default="127.0.0.1")
            command.add_argument("--port", type=int, default=8080)
            command.add_argument(
                "--secret-file",
                type=Path,
                help="file with the secret that signs tokens, at least 32 bytes; optional with --pods",
            )
            command.add_argument(
                "--pods", action="store_true", help="authenticate pods of TaskRuns by their service account tokens"
            )
            command.add_argument(
                "--operator-account",
                default="",
                help="with --pods: NAMESPACE/NAME of the operator's service account, which may look up final states",
            )
            command.add_argument(
                "--retention-days",
                type=float,
                default=30.0,
                help="retention of a run after its last update, in days; 0: forever (default: 30)",
            )
            command.add_argument(
                "--namespace-limit-mib",
                type=int,
                default=0,
                help="storage limit of a namespace for XComs, variables and states, in MiB; 0: no limit (default: 0)",
            )
            command.add_argument(
                "--metrics-address",
                default="",
                metavar="HOST:PORT",
                help="address for Prometheus metrics (default: none)",
            )
            command.add_argument("--tls-cert", help="certificate chain, PEM")
            command.add_argument("--tls-key", help="its private key, PEM")
    options = parser.parse_args(arguments)
    try:
        engine = connect(options.database_url)
        migrate(engine)
        if options.command == "xcoms":
            _show_xcoms(engine, options.namespace, options.dag_id, options.run_id)
        if options.command == "serve":
            if options.secret_file is None and not options.pods:
                parser.error("set --secret-file, or --pods")
            if (options.tls_cert is None) != (options.tls_key is None):
                parser.error("set both --tls-cert and --tls-key, or neither")
            secret = options.secret_file.read_bytes().strip() if options.secret_file else os.urandom(MIN_SECRET)
            _serve(options, TokenSigner(secret), engine)
    except (DatabaseUrlError, ValueError) as error:
        print(f"polypod-execution-api: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"polypod-execution-api: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _show_xcoms(engine: Engine, namespace: str, dag_id: str, run_id: str) -> None:
    from sqlalchemy import select
    from sqlalchemy.orm import Session

    from polypod_execution_api.models import XCom

    with Session(engine) as session:
        mine = (XCom.namespace == namespace, XCom.dag_id == dag_id, XCom.run_id == run_id)
        wanted = select(XCom).where(*mine).order_by(XCom.timestamp)
        for xcom in session.scalars(wanted):
            mapped = f"[{xcom.map_index}]" if xcom.map_index >= 0 else ""
            print(f"{xcom.task_id}{mapped} {xcom.key}: {xcom.value}")


def _serve(options: argparse.Namespace, signer: TokenSigner, engine: Engine) -> None:
    import uvicorn

    from polypod_execution_api.app import create_app
    from polypod_execution_api.cluster import ClusterAccess
    from polypod_execution_api.forgetting import keep_forgetting
    from polypod_execution_api.metrics import Metrics
    from polypod_execution_api.sizes import Sizes

    cluster = ClusterAccess() if options.pods else None
    retention = timedelta(days=options.retention_days) if options.retention_days > 0 else None
    exists = cluster.has_namespace if cluster is not None else lambda name: True
    threading.Thread(target=keep_forgetting, args=(engine, retention, exists), name="forgetting", daemon=True).start()
    sizes = Sizes(engine, options.namespace_limit_mib << 20)
    metrics = Metrics(sizes)
    threading.Thread(target=sizes.keep_measuring, name="sizes", daemon=True).start()
    if options.metrics_address:
        _serve_metrics(options.metrics_address, metrics)
    certificate = _certificate(options.tls_cert, options.tls_key) if options.tls_cert else None
    config = uvicorn.Config(
        create_app(engine, signer, cluster, options.operator_account, sizes, metrics),
        host=options.host,
        port=options.port,
        ssl_context_factory=None if certificate is None else lambda config, default: certificate.context,
        lifespan="off",
        access_log=False,
    )
    uvicorn.Server(config).run()


def _serve_metrics(address: str, metrics: Metrics) -> None:
    from prometheus_client import start_http_server

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"--metrics-address {address!r}: expected HOST:PORT, such as 0.0.0.0:8082")
    start_http_server(int(port), host, metrics.registry)


def _certificate(path: str, key: str) -> ServerCertificate:
    certificate = ServerCertificate()
    try:
        certificate.load(path, key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"--tls-cert {path} and --tls-key {key} cannot be used: {error}") from error
    threading.Thread(target=_follow, args=(certificate, path, key), name="certificates", daemon=True).start()
    return certificate


def _follow(certificate: ServerCertificate, path: str, key: str) -> None:
    """Have new connections see a certificate that was renewed: the kubelet replaces the files below us."""
    seen = _stamp(path, key)
    while True:
        time.sleep(_CERTIFICATES_EVERY)
        now = _stamp(path, key)
        if now == seen:
            continue
        try:
            certificate.load(path, key)
            seen = now
        except (OSError, ssl.SSLError) as error:
            # a moment between two files, or not a certificate: the last one stays in use
            print(f"polypod-execution-api: {path} cannot be used: {error}", file=sys.stderr)


def _stamp(*paths: str) -> list[float]:
    return [os.stat(path).st_mtime if os.path.exists(path) else 0.0 for path in paths]


if __name__ == "__main__":
    sys.exit(main())
