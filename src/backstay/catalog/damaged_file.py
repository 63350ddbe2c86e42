"""A database file that SQLite finds damaged: how that is recognised, and what is said of it."""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy import Engine

from backstay.errors import CatalogUnavailable

_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY: Final = 0xFF  # of an extended error code


def damaged_file(error: Exception, engine: Engine) -> str | None:
    """The file of a database, if this error says that it is damaged, or none of SQLite at all."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return engine.url.database if code is not None and code & _PRIMARY in _DAMAGE else None


def told_damage(title: str, file: str, error: Exception, *, then: str) -> CatalogUnavailable:
    """The damage in our words. `then` says what to do when the file is out of the way."""
    return CatalogUnavailable(
        title,
        cause=f"{file} is damaged: {one_line(error)}",
        hint=f"stop what uses it, move {file} and, if they are there, {file}-wal and {file}-shm away; {then}",
    )


def one_line(error: Exception) -> str:
    """What a database or its driver says, which may be lines with indents."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
