"""The command `polypod-execution-api`: serve the API, or bring its database up to date."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from polypod_execution_api.database import DatabaseUrlError, connect, migrate
from polypod_execution_api.tokens import TokenSigner


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="polypod-execution-api", description="Airflow's Task Execution API for runs without Airflow."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, summary in (("serve", "serve the API"), ("migrate", "bring the database up to date")):
        command = commands.add_parser(name, help=summary)
        command.add_argument(
            "--database-url",
            default=os.environ.get("POLYPOD_DATABASE_URL", "sqlite:///polypod.db"),
            help="sqlite:////PATH or postgresql://USER@HOST/NAME (or POLYPOD_DATABASE_URL)",
        )
        if name == "serve":
            command.add_argument("--host", default="127.0.0.1")
            command.add_argument("--port", type=int, default=8080)
            command.add_argument(
                "--secret-file",
                required=True,
                type=Path,
                help="file with the secret that signs tokens, 32 bytes or more",
            )
            command.add_argument("--tls-cert", help="certificate chain, PEM")
            command.add_argument("--tls-key", help="its private key, PEM")
    options = parser.parse_args(arguments)
    try:
        engine = connect(options.database_url)
        migrate(engine)
        if options.command == "serve":
            _serve(options, TokenSigner(options.secret_file.read_bytes().strip()), engine)
    except (DatabaseUrlError, ValueError) as error:
        print(f"polypod-execution-api: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"polypod-execution-api: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _serve(options: argparse.Namespace, signer: TokenSigner, engine: object) -> None:
    import uvicorn
    from sqlalchemy import Engine

    from polypod_execution_api.app import create_app

    assert isinstance(engine, Engine)
    uvicorn.run(
        create_app(engine, signer),
        host=options.host,
        port=options.port,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        lifespan="off",
    )


if __name__ == "__main__":
    sys.exit(main())
