"""From the tables that are there to those of this program, in one transaction.

Order: a lock that all processes share, the changes, and the number of the version, all in one transaction. A crash
leaves the tables as they were or as they should be; whoever waited finds nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from backstay.errors import CatalogOutdated

REVISIONS: Final = ("0001",)  # of migrations/versions, oldest first
_DIRECTORY: Final = Path(__file__).with_name("migrations")
_LOCK: Final = 0x6261636B73746179  # "backstay"; PostgreSQL's advisory locks have numbers for names


def migrate(engine: Engine) -> None:
    """Raises CatalogOutdated for tables of a newer program."""
    with engine.connect() as connection:
        if _version(connection) == REVISIONS[-1]:
            return  # without loading what changes tables, which takes a second
    with _changing(engine) as alone, alone.begin() as connection:
        if connection.dialect.name == "postgresql":
            from backstay.catalog.postgresql import without_end

            without_end(connection.connection.dbapi_connection)
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        version = _version(connection)
        if version is not None and version not in REVISIONS:
            raise _newer(version)
        _upgrade(connection)


def require_current(connection: Connection) -> None:
    """Raises CatalogOutdated when the tables are not those of this program."""
    version = _version(connection)
    if version == REVISIONS[-1]:
        return
    if version is None:
        raise outdated("it has no tables yet")
    raise outdated(f"its tables are of version {version}") if version in REVISIONS else _newer(version)


def outdated(cause: str) -> CatalogOutdated:
    """What is told of tables that are older than the program."""
    return CatalogOutdated(
        "the catalog is not that of this program",
        cause=cause,
        hint="start `backstay serve` once: it brings the tables up to date",
    )


def _newer(version: str) -> CatalogOutdated:
    return CatalogOutdated(
        "the catalog was made by a newer version of this program",
        cause=f"its tables are of version {version}, which this one does not know; it knows {REVISIONS[-1]}",
        hint="use the newer version of backstay",
    )


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_DIRECTORY).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _changing(engine: Engine) -> Iterator[Engine]:
    """An engine that changes tables: SQLite copies some to change them, which foreign keys would forbid."""
    if engine.dialect.name != "sqlite":
        yield engine
        return
    own = create_engine(engine.url, poolclass=NullPool)
    event.listen(own, "connect", _prepare)
    event.listen(own, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        yield own
    finally:
        own.dispose()


def _prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    del record
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("busy_timeout=60000", "synchronous=FULL", "foreign_keys=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
