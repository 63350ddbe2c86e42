"""The catalog's database: SQLite in a file, or PostgreSQL by its URL."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from backstay.catalog import migrating
from backstay.catalog.damaged_file import damaged_file, one_line, told_damage
from backstay.core.names import unwritable
from backstay.errors import BackstayError, CatalogUnavailable, InvalidRequest

# Durable, many readers beside one writer; a writer waits for another instead of failing.
_PRAGMAS: Final = ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
_LASTING: Final = 10  # connections that stay open in a process, for readers and for writers
_AT_ONCE: Final = 30  # further ones while many threads ask at once
_TRIES: Final = 8
_AGAIN: Final = ("40001", "40P01")  # SQLSTATE: serialization_failure, deadlock_detected
_REBUILD: Final = (
    "then `backstay doctor --rebuild-catalog` makes the list of backups anew; users, tokens, schedules made by the "
    "interface, jobs and the audit log come back only with a copy of the file"
)
_MISSING: Final = ("42P01", "42703")  # undefined_table, undefined_column

ResultT = TypeVar("ResultT")


class Catalog:
    """Records of runs, schedules, people and alerts. Used by many threads; `session` writes, `reading` reads.

    On SQLite a `session` has the right to write from its beginning, so that it waits for another writer and never
    fails half-way; therefore it must be short, and nothing inside of it may open another one.
    """

    def __init__(self, writing: Engine, reading: Engine) -> None:
        self.engine = writing
        self._reading = reading
        self._writers = sessionmaker(writing, expire_on_commit=False)
        self._readers = sessionmaker(reading, expire_on_commit=False)

    @classmethod
    def open(cls, url: str) -> Self:
        """The catalog at `sqlite:////whole/path` or `postgresql://…`; see `migrate` and `require_current`.

        Raises InvalidRequest, CatalogUnavailable.
        """
        scheme = url.partition(":")[0]
        if scheme == "sqlite":
            return cls(*_sqlite(url))
        if scheme in ("postgresql", "postgres"):
            return cls(*_postgresql(url))
        raise InvalidRequest(
            "the catalog cannot be kept there",
            cause=f"it is neither sqlite: nor postgresql: but {scheme}:",
            hint="leave --database out for SQLite, or give postgresql://user@host/database",
        )

    # -- tables

    def migrate(self) -> None:
        """Make the tables, or bring them up to date; several processes may do so at once.

        Raises CatalogOutdated for tables of a newer program, CatalogUnavailable.
        """
        with told(self.engine):
            migrating.migrate(self.engine)

    def require_current(self) -> None:
        """Raises CatalogOutdated when the tables are not those of this program, CatalogUnavailable."""
        with told(self.engine), self._reading.connect() as connection:
            migrating.require_current(connection)

    # -- transactions

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction that may write: committed at the end, rolled back by any exception.

        Raises CatalogUnavailable.
        """
        with told(self.engine), self._writers.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One transaction that sees the catalog as it was at its first query, and can change nothing.

        Raises CatalogUnavailable.
        """
        with told(self.engine), self._readers.begin() as session:
            yield session

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """A transaction as `reading` has, for rows instead of entities: what is asked all the time takes this.

        Raises CatalogUnavailable.
        """
        with told(self.engine), self._reading.begin() as connection:
            yield connection

    def transact(self, work: Callable[[Session], ResultT]) -> ResultT:
        """Do work in a transaction, and all of it again where PostgreSQL gave up for the sake of another one.

        Raises CatalogUnavailable, and what the work does.
        """
        for _ in range(_TRIES - 1):
            try:
                with self._writers.begin() as session:
                    return work(session)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _AGAIN:
                    raise _ours(error, self.engine) or error from error
        with self.session() as session:
            return work(session)

    def close(self) -> None:
        self.engine.dispose()
        self._reading.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sqlite(url: str) -> tuple[Engine, Engine]:
    """Two engines: one whose transactions take the right to write at once, and one that only reads."""
    file = make_url(url).database
    if not file or file == ":memory:" or not file.startswith("/"):
        raise InvalidRequest(
            "the catalog cannot be kept there",
            cause=f"{url!r} is no whole path of a file",
            hint="write sqlite: with four slashes, such as sqlite:////var/lib/backstay/catalog.db",
        )
    _make_private(Path(file))
    engines = [
        create_engine(url, pool_size=_LASTING, max_overflow=_AT_ONCE, json_deserializer=_document) for _ in range(2)
    ]
    writing, reading = engines
    event.listen(writing, "connect", _prepare_sqlite)
    event.listen(writing, "begin", _begin_immediate)
    event.listen(reading, "connect", _prepare_sqlite_reader)
    event.listen(reading, "begin", _begin)
    return writing, reading


def _postgresql(url: str) -> tuple[Engine, Engine]:
    from backstay.catalog.postgresql import postgresql_engine

    try:
        engine = postgresql_engine(url, pool_size=_LASTING, max_overflow=_AT_ONCE, json_deserializer=_document)
    except (ArgumentError, ValueError) as error:
        raise InvalidRequest(
            "the catalog cannot be kept there",
            cause="its address cannot be read",
            hint="write postgresql://user@host:port/database; the password may come from PGPASSWORD or ~/.pgpass",
        ) from error
    return engine, engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


_DOCUMENTS: Final = msgspec.json.Decoder()


def _document(text: str | bytes) -> Any:  # noqa: ANN401 - any JSON
    """A document of a column."""
    try:
        return _DOCUMENTS.decode(text)
    except msgspec.MsgspecError:  # infinities and halves of characters, which json writes
        return json.loads(text)


def _make_private(file: Path) -> None:
    """Make the file for its owner alone before SQLite makes it for all; what lies beside it gets the same rights."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CatalogUnavailable(
            "the catalog cannot be used", cause=f"{file}: {error.strerror}", hint="choose another --data-dir"
        ) from error


def _prepare_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    del record
    connection.isolation_level = None  # transactions begin when we say so, and cover reads too
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare_sqlite_reader(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    _prepare_sqlite(connection, record)
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another one wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    # Straight to the driver: to begin reading cannot fail, and SQLAlchemy's way takes as long as a small query.
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("BEGIN")


@contextmanager
def told(engine: Engine) -> Iterator[None]:
    """Failures of the database as ours, texts that none can keep too; a violated constraint stays what it is."""
    try:
        yield
    except (DBAPIError, NoConnectionLeft) as error:
        raise _ours(error, engine) or error from error
    except UnicodeEncodeError as error:  # of a parameter, whose driver has no error of its own for that
        raise unwritable("word") from error


def _ours(error: DBAPIError | NoConnectionLeft, engine: Engine) -> BackstayError | None:
    if (file := damaged_file(error, engine)) is not None:
        return told_damage("the catalog cannot be used", file, error, then=_REBUILD)
    cause = one_line(error)
    if _lacks_tables(error):
        return migrating.outdated(cause)
    if isinstance(error, NoConnectionLeft):
        return CatalogUnavailable("the catalog cannot be used", cause="too many threads ask it at once")
    # DatabaseError itself: a file that is damaged, or none of SQLite
    if isinstance(error, (OperationalError, InterfaceError)) or type(error) is DatabaseError:
        return CatalogUnavailable("the catalog cannot be used", cause=cause)
    return None


def _lacks_tables(error: Exception) -> bool:
    original = getattr(error, "orig", None)
    if getattr(original, "sqlstate", None) in _MISSING:
        return True
    return isinstance(error, OperationalError) and str(original).startswith(("no such table", "no such column"))
