"""One SQLite database file: where an address means it to be, how it is opened, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from backstay.core.names import printable
from backstay.errors import BackstayError, CorruptedSource, InsufficientSpace, InvalidRequest, NotFound, SourceRefused

KIND: Final = "sqlite"
PREFIX: Final = "sqlite:"
SIDE_FILES: Final = (b"-wal", b"-shm", b"-journal")  # what SQLite keeps beside a database, by suffix
_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
_PRIMARY: Final = 0xFF  # of an extended error code
_FORM: Final = "write sqlite:///absolute/path.db"


def is_address(text: str) -> bool:
    return text.startswith(PREFIX)


def path_of(address: str) -> bytes:
    """The absolute path of `sqlite:///path`, symlinks resolved as SQLite does. Raises InvalidRequest."""
    place = address.removeprefix(PREFIX)
    if place.startswith("//"):
        place = place.removeprefix("//")
        if not place.startswith("/"):
            raise InvalidRequest(
                f"{address} names no file", cause=f"{place.partition('/')[0]!r} stands where a host does", hint=_FORM
            )
    if not place.strip("/") or "\0" in place:
        raise InvalidRequest(f"{address} names no file", cause="there is no path in it", hint=_FORM)
    return os.path.realpath(os.fsencode(place))


def require_file(path: bytes) -> os.stat_result:
    """The state of a database file. Raises NotFound, InvalidRequest, SourceRefused."""
    shown = printable(path)
    try:
        info = Path(os.fsdecode(path)).stat()
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no database {shown}", cause="the file does not exist", hint="check the path; it is absolute"
        ) from error
    except OSError as error:
        raise SourceRefused(f"cannot look at the database {shown}", cause=_words(error)) from error
    if not stat.S_ISREG(info.st_mode):
        raise InvalidRequest(f"{shown} is no database", cause="it is not a file", hint=_FORM)
    return info


@contextmanager
def opened(path: bytes, mode: str, *, patience_s: float) -> Iterator[sqlite3.Connection]:
    """A connection for one thread; `mode` is ro or rw, so that no file is ever created.

    Waits so many seconds for a lock. Errors of SQLite within are raised as ours.
    """
    with translated(path):
        uri = f"file:{quote(path)}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=patience_s, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def translated(path: bytes) -> Iterator[None]:
    """Raises SourceRefused, CorruptedSource, InsufficientSpace instead of SQLite's own errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failure(error, path) from error


def _code(error: sqlite3.Error) -> int:
    return (getattr(error, "sqlite_errorcode", None) or 0) & _PRIMARY


def _failure(error: sqlite3.Error, path: bytes) -> BackstayError:
    shown, cause, code = printable(path), str(error), _code(error)
    if code in _LOCKED:
        return locked(path, cause)
    if code == sqlite3.SQLITE_NOTADB:
        return CorruptedSource(
            f"{shown} is no SQLite database",
            cause=f"{cause}: it is something else, or encrypted, or its first page is damaged",
            hint="back it up as a file: `backstay backup PATH`",
        )
    if code in _DAMAGED:
        return corrupted(path, cause)
    if code == sqlite3.SQLITE_FULL:
        return InsufficientSpace(f"no space for a copy of {shown}", cause=cause)
    if code == sqlite3.SQLITE_READONLY:
        return SourceRefused(
            f"{shown} needs recovery that may not write here",
            cause=f"{cause}: a program ended in the middle of a transaction",
            hint="open it once with its own program or `sqlite3`, which rolls the transaction back",
        )
    if code == sqlite3.SQLITE_ERROR:
        return SourceRefused(
            f"SQLite cannot do this with {shown}",
            cause=cause,
            hint="mend what the cause names; what only its own program adds to SQLite, as functions and collations, is "
            "not known here",
        )
    return SourceRefused(
        f"cannot open the database {shown}", cause=cause, hint="check that you may read it, and write to its directory"
    )


def locked(path: bytes, cause: str) -> SourceRefused:
    return SourceRefused(
        f"the database {printable(path)} is locked",
        cause=f"{cause}: another program keeps it to itself",
        hint="wait until that program has finished its transaction, then try again",
    )


def corrupted(path: bytes, cause: str) -> CorruptedSource:
    return CorruptedSource(
        f"the database {printable(path)} is damaged",
        cause=cause,
        hint="restore it from an earlier snapshot, or save what is readable: `sqlite3 FILE .recover`",
    )


def side_files(path: bytes) -> list[bytes]:
    """The paths of SQLite's own files beside a database, those that exist."""
    return [path + suffix for suffix in SIDE_FILES if os.path.lexists(path + suffix)]


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
