"""A consistent copy of a SQLite database that is in use, by its own backup interface, in one step.

One step, because SQLite begins a copy anew whenever another process writes between two steps: under a steady writer
a stepwise copy never ends. In WAL mode nobody waits meanwhile; else writers wait until the copy is made.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Final

from backstay.core.quantities import format_size
from backstay.errors import BackupFailed, InsufficientSpace
from backstay.sources.scratch import Scratch
from backstay.sources.sqlite.checking import check
from backstay.sources.sqlite.database import corrupted, locked, opened, translated

PATIENCE_S: Final = 30.0  # for a program that keeps the database to itself
_KIND: Final = "backstay-sqlite"
_NAME: Final = "copy.db"
_SPARE: Final = 1 << 20  # bytes


class DatabaseCopy:
    """The copy as a stream of bytes: made when it is opened, in a private directory below `scratch`, checked, read."""

    def __init__(self, path: bytes, *, scratch: Path, patience_s: float) -> None:
        """Raises SourceRefused, CorruptedSource, InsufficientSpace, BackupFailed."""
        self._file = -1
        try:
            self._place = Scratch(scratch, _KIND)
        except OSError as error:
            raise _no_copy(path, error) from error
        try:
            copy = self._place.path / _NAME
            _copy(path, copy, patience_s)
            _check(path, copy)
            self._file = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.abandon()
            raise _no_copy(path, error) from error
        except BaseException:
            self.abandon()
            raise
        self._place.clear()  # the file stays as long as it is open; a crash from here on leaves nothing

    def read(self, size: int) -> bytes:
        """The next bytes of the copy; empty at the end. Raises BackupFailed."""
        try:
            return os.read(self._file, size)
        except OSError as error:
            raise BackupFailed("the copy of a database cannot be read", cause=error.strerror or str(error)) from error

    def finish(self) -> None:
        """Let go of the copy."""
        self.abandon()

    def abandon(self) -> None:
        """Let go of the copy; may be called more than once."""
        fd, self._file = self._file, -1
        if fd >= 0:
            os.close(fd)
        self._place.clear()


def _copy(path: bytes, copy: Path, patience_s: float) -> None:
    def give_up(status: int, remaining: int, total: int) -> None:  # noqa: ARG001 - SQLite calls it so
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise locked(path, "it cannot be read although it was just now")

    with opened(path, "ro", patience_s=patience_s) as source:
        source.execute("BEGIN")  # so that there is one wait for a lock, which the first look takes, and the copy keeps
        _require_space(source, copy.parent)
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        target = sqlite3.connect(copy, isolation_level=None)
        try:
            target.execute("PRAGMA synchronous = OFF")  # a copy that a crash breaks is made anew
            target.execute("PRAGMA journal_mode = OFF")
            source.backup(target, pages=-1, progress=give_up)
        finally:
            target.close()


def _require_space(source: sqlite3.Connection, place: Path) -> None:
    """Raises InsufficientSpace. What lies in the log counts, so SQLite is asked and not the file system."""
    pages, size = (int(source.execute(f"PRAGMA {what}").fetchone()[0]) for what in ("page_count", "page_size"))
    needed = pages * size + _SPARE
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InsufficientSpace(
            "there is no space for a copy of the database",
            cause=f"{place.parent} has {format_size(free)} left, and it takes {format_size(needed)}",
            hint="set BACKSTAY_CACHE_DIR, or TMPDIR where there is no cache, to a place with more space",
        )


def _check(path: bytes, copy: Path) -> None:
    """Raises CorruptedSource: pages were copied as they are, and tell nothing by that."""
    with translated(path):
        connection = sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            found = check(connection, thorough=False, limit=5)
        finally:
            connection.close()
    if not found.is_ok:
        raise corrupted(path, "; ".join(found.says))


def _no_copy(path: bytes, error: OSError) -> BackupFailed:
    return BackupFailed(
        f"no copy of the database {os.fsdecode(path)} can be made",
        cause=f"{error.filename or 'temporary directory'}: {(error.strerror or str(error)).lower()}",
        hint="set BACKSTAY_CACHE_DIR, or TMPDIR where there is no cache, to a place that you may write to",
    )
