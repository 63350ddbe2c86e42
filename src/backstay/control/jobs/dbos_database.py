"""The database of the job engine: a file of its own beside the catalog on SQLite, a schema of its own on PostgreSQL.

The engine's own way to open SQLite is not used: its tables call `unixepoch('subsec')`, which SQLite has since 3.42,
and Debian 12 has 3.40. What is missing there is added to each connection.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any, Final

from sqlalchemy import Engine, create_engine, event, make_url

from backstay.errors import CatalogUnavailable, InvalidRequest

_NEW_ENOUGH: Final = (3, 42)
# Durable as the catalog is, and pollers do not wait for writers.
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON")
_POOL: Final = 8  # connections: each queue polls by itself, and each running job asks whether it should end


def open_database(url: str, *, sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Engine:
    """An engine for `sqlite:////whole/path` or `postgresql://…`. Raises InvalidRequest, CatalogUnavailable."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        _make_private(url)
        engine = create_engine(url, pool_size=_POOL)
        lacking = sqlite_version < _NEW_ENOUGH

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: object) -> None:  # noqa: ANN401 - of the driver
            del record
            connection.isolation_level = "IMMEDIATE"  # writers queue up instead of failing halfway
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            if lacking:
                connection.create_function("unixepoch", -1, _unixepoch)

        return engine
    if scheme in ("postgresql", "postgres"):
        from backstay.catalog.postgresql import postgresql_engine

        return postgresql_engine(url, pool_size=_POOL)
    raise InvalidRequest(
        "jobs cannot be kept there",
        cause=f"it is neither sqlite: nor postgresql: but {scheme}:",
        hint="leave --database out for SQLite, or give postgresql://user@host/database",
    )


def _make_private(url: str) -> None:
    """Make the file for its owner alone before SQLite makes it for all. Raises CatalogUnavailable."""
    file = make_url(url).database
    try:
        if file is not None:
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise CatalogUnavailable(
            "the queue of jobs cannot be used", cause=f"{file}: {error.strerror}", hint="choose another --data-dir"
        ) from error


def _unixepoch(*asked: object) -> float | int:
    """What SQLite 3.42 answers to `unixepoch()` and `unixepoch('subsec')`; the engine asks for nothing else."""
    now = time.time_ns()
    return now / 1e9 if "subsec" in asked else now // 10**9
