"""Databases on the command line: which one an address means, and the source that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backstay.cli.context import Context
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.repository.repository import Repository
    from backstay.sources.generated import GeneratedSource

_MYSQL = ("mysql://", "mariadb://")
_SCHEMES = ("postgresql://", "postgres://", "sqlite:", *_MYSQL)


@dataclass(frozen=True, slots=True)
class Database:
    """A database to back up; `address` may hold a password."""

    address: str
    schemas: tuple[str, ...]

    @property
    def is_sqlite(self) -> bool:
        return self.address.startswith("sqlite:")


def is_mysql(address: str) -> bool:
    """Whether an address is one of MySQL or MariaDB."""
    return address.startswith(_MYSQL)


def is_address(text: str | None) -> bool:
    """Whether an address is one of a database."""
    return text is not None and text.startswith(_SCHEMES)


def asked(address: str | None, schemas: Sequence[str], *, beside: Sequence[object]) -> Database | None:
    """The database that an address means; None for other sources. Raises InvalidRequest for what goes not with it."""
    if address is None or not is_address(address):
        if schemas:
            raise InvalidRequest("only databases have schemas", cause="--schema goes with a postgresql:// source")
        return None
    found = Database(address, tuple(dict.fromkeys(schemas)))
    if beside:
        raise InvalidRequest(
            "a database is backed up by itself",
            cause="paths or patterns are given beside it",
            hint="make two backups, one of the database and one of the files",
        )
    if schemas and (found.is_sqlite or is_mysql(found.address)):
        name = "SQLite" if found.is_sqlite else "MySQL"
        raise InvalidRequest(f"{name} has no schemas", cause="--schema goes with a postgresql:// source")
    return found


def source(context: Context, repository: Repository, database: Database) -> GeneratedSource:
    """What reads a database. Raises what its kind of source does."""
    from backstay.sources.mysql.dump import mysql_source
    from backstay.sources.postgres.dump import dump_source
    from backstay.sources.scratch import scratch_above
    from backstay.sources.sqlite.database import path_of
    from backstay.sources.sqlite.source import sqlite_source

    if database.is_sqlite:
        return sqlite_source(path_of(database.address), scratch=scratch_above(repository.cache))
    if is_mysql(database.address):
        return mysql_source(database.address, clock=context.clock, environ=context.environ, warn=context.warn)
    return dump_source(
        database.address, database.schemas, clock=context.clock, environ=context.environ, warn=context.warn
    )
