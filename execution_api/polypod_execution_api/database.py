"""The database: SQLite (write-ahead log) by default, PostgreSQL by URL, brought up to date by Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_RIGHT = "sqlite:////PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME"
MIGRATIONS = Path(__file__).parent / "migrations"


class DatabaseUrlError(Exception):
    """The database URL cannot be used."""


def connect(url: str) -> Engine:
    """Open the database at `url`, such as `sqlite:////var/lib/polypod/polypod.db` or `postgresql://…`.

    Raises:
        DatabaseUrlError: not a URL, or another kind of database. It quotes nothing of the URL.
    """
    parsed = _parsed(url)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.drivername.partition("+")[0]
    if backend not in ("sqlite", "postgresql"):
        raise DatabaseUrlError(f"the database URL is of another kind of database; {_RIGHT}")
    if backend == "postgresql" and any("@" in (part or "") for part in (parsed.host, parsed.database)):
        # the driver would quote that part, and with it the end of the password
        raise DatabaseUrlError(f"the database URL has a second '@'; write it as %40 in the password; {_RIGHT}")
    # parameters are what tasks have stored: variables, XComs
    engine = create_engine(parsed, pool_pre_ping=backend == "postgresql", hide_parameters=True)
    if backend == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
    return engine


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # a port that is no number is quoted, though it may be a password
        pass
    # after the handler, whose error would stay as the context
    raise DatabaseUrlError(
        f"the database URL is not valid; {_RIGHT}; in the password, write `/`, `:` and `@` as %2F, %3A and %40"
    )


def _tune_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def migrate(engine: Engine) -> None:
    """Bring the tables up to date."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
