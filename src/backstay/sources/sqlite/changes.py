"""Whether a SQLite database changed, as its files tell (sqlite.org/fileformat2.html, walformat.html).

Nothing is opened in the database and no lock is taken, so that looking is as good as free for the programs that use it.
These files are closed again, which would lose locks that this process holds on them: so nobody looks during a copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.errors import SourceRefused
from backstay.sources.sqlite.database import require_file

_HEADER: Final = 100  # bytes of the database
_WRITE_VERSION: Final = 18
_WAL_MODE: Final = 2
_COUNTER: Final = slice(24, 28)  # counts transactions, in all modes but WAL
_LOG_HEADER: Final = 32  # bytes; holds new random numbers each time that the log begins anew
_INDEX_HEADER: Final = 48  # bytes of the index of the log; holds its last commit, with a checksum over all before it


@dataclass(frozen=True, slots=True)
class Mark:
    """A state of a database: it is another one after each transaction, and rarely without one."""

    file: tuple[int, int]  # device and inode
    content: tuple[int | bytes, ...]


def mark_of(path: bytes) -> Mark:
    """The present state. Raises NotFound, InvalidRequest, SourceRefused."""
    info = require_file(path)
    with _told(path):
        header = _beginning(path, _HEADER)
        logged = _logged(path) if _is_logged(header) else None
    # With a log, only checkpoints write to the file itself, which move what is in the database already.
    content = logged or (info.st_size, info.st_mtime_ns, header[_COUNTER])
    return Mark((info.st_dev, info.st_ino), content)


def uses_log(path: bytes) -> bool:
    """Whether a database is in WAL mode, where nobody waits while it is copied. Raises NotFound, SourceRefused."""
    require_file(path)
    with _told(path):
        return _is_logged(_beginning(path, _HEADER))


@contextmanager
def _told(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceRefused(
            f"cannot look at the database {printable(path)}", cause=(error.strerror or str(error)).lower()
        ) from error


def _is_logged(header: bytes) -> bool:
    return header[_WRITE_VERSION : _WRITE_VERSION + 1] == bytes([_WAL_MODE])


def _logged(path: bytes) -> tuple[int | bytes, ...] | None:
    """The last commit in the log; None if there is no log, or nothing in it: our own look leaves an empty one."""
    log = path + b"-wal"
    try:
        info = Path(os.fsdecode(log)).stat()
        if info.st_size == 0:
            return None
        return (_beginning(path + b"-shm", _INDEX_HEADER),)
    except FileNotFoundError:  # without an index only a program that has it to itself, or that ended badly, wrote it
        pass
    try:
        info = Path(os.fsdecode(log)).stat()
        return (info.st_size, info.st_mtime_ns, _beginning(log, _LOG_HEADER))
    except FileNotFoundError:
        return None


def _beginning(path: bytes, size: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, size, 0)
    finally:
        os.close(file)
