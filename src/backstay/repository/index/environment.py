"""One LMDB environment per directory and process, shared by all who open it.

LMDB must not open the same files twice in one process: closing one of them drops the process's file locks, on which
the other relies.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import lmdb
import msgspec

from backstay.core.mapped_file import MappedFile
from backstay.errors import InsufficientSpace, StorageUnavailable
from backstay.repository.index.index import PlacesDamaged

SCHEMA: Final = b"5"
MAX_READERS: Final = 512  # maps at once, of all processes
_FILE: Final = "data.mdb"
_MAP_SIZE: Final = 1 << 38  # address space, not disk
_DISPOSABLE: Final = "it is disposable: delete that directory, or set BACKSTAY_CACHE_DIR to another place"
# What comes of files that something else has written to.
DAMAGE: Final = (
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.KeyExistsError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    msgspec.MsgspecError,
    struct.error,
)

_HELD: Final = 8 << 20  # bytes of the file in a writer's memory, about
_LOOKUPS_HELD: Final = _HELD // (64 << 10)  # each brings in so much around what it reads ("fault-around")
_PORTION: Final = 16_384  # entries that are read one after the other

_T = TypeVar("_T")
_Key: TypeAlias = tuple[int, int, int]  # process, and device and inode of the file

_opening = threading.Lock()


class PlaceEnvironment:
    """An open environment with its databases; each who got it from `shared` gives it back by one `release`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.users = 0
        self._lookups = 0
        with typed_errors(directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._open()
            except DAMAGE:
                shutil.rmtree(directory)
                directory.mkdir(mode=0o700)
                self._open()
            self.key = _key(directory)
        self._mapped = MappedFile.find(directory / _FILE)

    def _open(self) -> None:
        self.env = _environment(self.directory)
        try:
            self._require_whole()
            self.places = self.env.open_db(b"places")
            self.packs = self.env.open_db(b"packs")
            self.segments = self.env.open_db(b"segments")
            self.meta = self.env.open_db(b"meta")
            if self._schema() != SCHEMA:
                self._rebuild()
        except lmdb.Error:
            self.env.close()
            raise

    def _require_whole(self) -> None:
        """Refuse a file that was cut short: to read a map beyond its end kills the program."""
        if (self.directory / _FILE).stat().st_size < self._size():
            raise lmdb.CorruptedError("the file is cut short")

    def _size(self) -> int:
        """Bytes of the file that hold something, or did."""
        return int((self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"])

    def _schema(self) -> bytes | None:
        with self.env.begin(db=self.meta) as txn:
            value: bytes | None = txn.get(b"schema")
            return value

    def _rebuild(self) -> None:
        with self.env.begin(write=True) as txn:
            for database in (self.places, self.packs, self.segments, self.meta):
                txn.drop(database, delete=False)
            txn.put(b"schema", SCHEMA, db=self.meta)

    def looked_up(self, times: int) -> None:
        """Count look-ups, so that memory stays as it is however large the map grows.

        For writers, most of whose chunks the filter answers for: each look-up takes as long again (3 µs) when what it
        reads was let go. Readers, who look up everything, had better keep it.
        """
        self._lookups += times
        if self._lookups >= _LOOKUPS_HELD and self._size() > _HELD:
            self._let_go()

    def read_through(self, entries: Iterator[_T]) -> Iterator[_T]:
        """The same entries of the map, which are read as they are taken, and memory stays as it is."""
        while portion := list(islice(entries, _PORTION)):
            yield from portion
            self._let_go()

    def _let_go(self) -> None:
        self._lookups = 0
        with _opening:  # what was mapped there is something else's once it is closed
            if self.users and self._mapped is not None:
                self._mapped.let_go()

    def release(self) -> None:
        """Give it back; the last one closes it."""
        with _opening:
            self.users -= 1
            if self.users == 0:
                _shared.pop(self.key, None)
                self.env.close()

    def discard(self) -> None:
        """Remove its files, which are damaged, unless others lie in their place by now. Who has them open keeps them.

        Raises StorageUnavailable.
        """
        with _opening, typed_errors(self.directory):
            if _key(self.directory) == self.key:
                shutil.rmtree(self.directory)


# Weak, so that what was opened and forgotten without `release` is closed with its last user.
_shared: WeakValueDictionary[_Key, PlaceEnvironment] = WeakValueDictionary()


def shared(directory: Path) -> PlaceEnvironment:
    """The environment in a directory; lost or damaged, it is made anew.

    Raises InsufficientSpace, StorageUnavailable.
    """
    with _opening:
        found = _shared.get(_key(directory))
        if found is None:
            found = PlaceEnvironment(Path(os.path.realpath(directory)))
            _shared[found.key] = found
        found.users += 1
        return found


def has_readers(env: Any) -> bool:  # noqa: ANN401 - lmdb has no types
    """Whether any map of a process that lives has the environment open; each reads all the time."""
    env.reader_check()
    rows = [line.split() for line in env.readers().splitlines()]
    return any(len(row) == 3 and row[0].isdigit() and row[2].isdigit() for row in rows)


def _key(directory: Path) -> _Key:
    """Which files lie there, if any: somebody may move or remove them while they are open, and put others there.

    A forked child has to open its own.
    """
    try:
        found = (directory / _FILE).stat()
    except OSError:
        return os.getpid(), 0, 0
    return os.getpid(), found.st_dev, found.st_ino


def _environment(directory: Path) -> Any:  # noqa: ANN401 - lmdb has no types
    return lmdb.open(
        str(directory), map_size=_MAP_SIZE, max_dbs=4, mode=0o600, max_readers=MAX_READERS, readahead=False
    )


@contextmanager
def typed_errors(directory: Path) -> Iterator[None]:
    """LMDB's errors as those of this program. Raises PlacesDamaged, InsufficientSpace, StorageUnavailable."""
    try:
        yield
    except DAMAGE as error:
        raise damaged(directory, error) from error
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise InsufficientSpace(
            f"the cache in {directory} cannot grow", cause=str(error), hint="free space, or set BACKSTAY_CACHE_DIR"
        ) from error
    except (lmdb.Error, OSError) as error:
        raise StorageUnavailable(
            f"the cache in {directory} cannot be used", cause=str(error), hint=_DISPOSABLE
        ) from error


def damaged(directory: Path, error: Exception | str) -> PlacesDamaged:
    """What to raise where a map does not hold what was put into it."""
    return PlacesDamaged(f"the cache in {directory} is damaged", cause=str(error), hint=_DISPOSABLE)
