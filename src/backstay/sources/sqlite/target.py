"""Put a database back where one may lie: never under a program that uses it, never beside the log of another one."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.errors import CorruptedSource, RestoreConflict, SourceRefused
from backstay.sources.sqlite.database import SIDE_FILES, opened, side_files

# Where SQLite's locks lie (sqlite.org/fileformat.html and walformat.html). In WAL mode every connection holds one.
_FILE_LOCKS: Final = (0x40000000, 512)
_LOG_LOCKS: Final = (120, 9)
_HEADER: Final = b"SQLite format 3\0"
_STOP_IT: Final = "stop the program that uses it, then try again"


def require_unused(path: bytes) -> None:
    """Raises RestoreConflict while another process uses the database. Changes nothing."""
    if not _is_regular(path):
        return
    if _is_locked(path, *_FILE_LOCKS) or _is_locked(path + b"-shm", *_LOG_LOCKS):
        raise _in_use(path, "another program holds a lock on it")
    holder = next(_holders(path), None)
    if holder is not None:
        raise _in_use(path, f"process {holder} has it open")


def require_database(path: bytes) -> None:
    """Raises RestoreConflict for a file that SQLite would not take for a database, an empty one apart."""
    if not _is_regular(path):
        return
    try:
        with _path(path).open("rb") as file:
            begin, cause = file.read(len(_HEADER)), "it does not begin as one"
    except OSError as error:
        begin, cause = b"?", f"it cannot be read: {(error.strerror or str(error)).lower()}"
    if begin not in (b"", _HEADER):
        shown = printable(path)
        raise RestoreConflict(
            f"{shown} is no SQLite database, nothing was written",
            cause=cause,
            hint="name another path; if it was a database that is damaged now or encrypted, move it away first",
            paths=(shown,),
        )


def has_log(path: bytes) -> bool:
    """Whether something lies beside the path that SQLite would take for the log of the database there."""
    return any(_size(beside) > 0 for beside in side_files(path) if not beside.endswith(b"-shm"))


def settle(path: bytes) -> None:
    """Let SQLite itself bring the log of a database into it, so that the file alone is the whole database.

    A restore that fails later then leaves the old database as good as it was. Raises RestoreConflict.
    """
    if not _is_regular(path) or not side_files(path):
        return
    with suppress(CorruptedSource):  # its log cannot be saved, and goes when the file does
        try:
            with opened(path, "rw", patience_s=0) as connection:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except SourceRefused as error:
            raise _in_use(path, error.cause) from error


def make_way(file: int, directory: int, name: bytes) -> None:
    """The last thing before a restored database gets its name: what SQLite keeps beside the old one goes.

    Order: the new file is durable, the old log is removed, the new file is renamed. A crash in between leaves the
    old database as `settle` left it; the other order could leave a restored one into which an old log is replayed.
    Raises RestoreConflict, OSError.
    """
    os.fsync(file)
    place = os.fsencode(Path(f"/proc/self/fd/{directory}").readlink()).rstrip(b"/") + b"/" + name
    require_unused(place)
    for suffix in SIDE_FILES:
        with suppress(FileNotFoundError):
            os.unlink(name + suffix, dir_fd=directory)
    os.fsync(directory)


def _is_regular(path: bytes) -> bool:
    try:
        return stat.S_ISREG(_path(path).lstat().st_mode)
    except OSError:
        return False


def _size(path: bytes) -> int:
    try:
        return _path(path).lstat().st_size
    except FileNotFoundError:
        return 0


def _is_locked(path: bytes, start: int, length: int) -> bool:
    """Whether another process holds a lock in a range of a file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # not there, or not ours to write; whoever has it open is found in another way
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks
    finally:
        os.close(fd)
    return False


def _holders(path: bytes) -> Iterator[int]:
    """Other processes that have the file open, as far as this one may look: without WAL an idle one holds no lock."""
    info = _path(path).stat()
    me = os.getpid()
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == me:
            continue
        with suppress(OSError):  # it ended, or is another user's
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    found = descriptor.stat()
                    if (found.st_dev, found.st_ino) == (info.st_dev, info.st_ino):
                        yield int(process.name)


def _in_use(path: bytes, cause: str) -> RestoreConflict:
    shown = printable(path)
    return RestoreConflict(f"the database {shown} is in use", cause=cause, hint=_STOP_IT, paths=(shown,))


def _path(path: bytes) -> Path:
    return Path(os.fsdecode(path))
