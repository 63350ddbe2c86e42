"""The catalog's database: SQLite in a file, or PostgreSQL by its URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from backstay.catalog.models.base import Base
from backstay.errors import CatalogUnavailable, InvalidRequest

# Durable, many readers beside one writer; a writer waits for another instead of failing.
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON")


class Catalog:
    """Records of runs, schedules, people and alerts; each `session` is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)

    @classmethod
    def open(cls, url: str) -> Self:
        """The catalog at `sqlite:////whole/path` or `postgresql://…`. Raises InvalidRequest, CatalogUnavailable."""
        return cls(_engine(url))

    def create_tables(self) -> None:
        """Make what is missing, without regard to versions."""
        with _told():
            Base.metadata.create_all(self.engine)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back by any exception. Raises CatalogUnavailable."""
        with _told(), self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _engine(url: str) -> Engine:
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        engine = create_engine(url)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return engine
    if scheme in ("postgresql", "postgres"):
        return create_engine("postgresql+psycopg:" + url.partition(":")[2], pool_pre_ping=True)
    raise InvalidRequest(
        "the catalog cannot be kept there",
        cause=f"it is neither sqlite: nor postgresql: but {scheme}:",
        hint="leave --database out for SQLite, or give postgresql://user@host/database",
    )


def _prepare_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    del record
    connection.isolation_level = None  # transactions begin when we say so, and cover reads too
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def _told() -> Iterator[None]:
    """Failures of the database as ours."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated or error.orig.__class__.__name__ == "OperationalError":
            raise CatalogUnavailable("the catalog cannot be used", cause=str(error.orig).strip()) from error
        raise
