"""The database: SQLite (write-ahead log) by default, PostgreSQL by URL, brought up to date by Alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

MIGRATIONS = Path(__file__).parent / "migrations"


class DatabaseUrlError(Exception):
    """The database URL cannot be used."""


def connect(url: str) -> Engine:
    """Open the database at `url`, such as `sqlite:////var/lib/polypod/polypod.db` or `postgresql://…`.

    Raises:
        DatabaseUrlError: not a URL, or another kind of database. The message holds no password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseUrlError(
            "the database URL is not valid; sqlite:////PATH or postgresql://USER@HOST/NAME"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.drivername.partition("+")[0]
    if backend not in ("sqlite", "postgresql"):
        raise DatabaseUrlError(f"the database is {backend!r}; known: sqlite, postgresql")
    engine = create_engine(parsed, pool_pre_ping=backend == "postgresql")
    if backend == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
    return engine


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
