"""The map of chunk places on disk: LMDB, memory-mapped, disposable."""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from backstay.errors import InsufficientSpace, StorageUnavailable
from backstay.repository.format import RecordKind
from backstay.repository.index import PackInfo, Place
from backstay.repository.pack import PackTable, StoredPack

SCHEMA: Final = b"1"
_KEY_BYTES: Final = 16  # of a chunk id; the id itself is checked after decryption
_PLACE: Final = struct.Struct(">IIII")
_NUMBER: Final = struct.Struct(">I")
_MAP_SIZE: Final = 1 << 38  # address space, not disk
_PACKS_CACHED: Final = 256


class LmdbPlaceMap:
    """Places in an LMDB environment that several processes may share; lost or damaged, it is built anew."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._directory = directory
        self._open(directory)
        if self._get_meta(b"schema") != SCHEMA:
            self._rebuild()
        self._read: Any = self._env.begin(buffers=False)
        self._cached_pack = lru_cache(_PACKS_CACHED)(self._load_pack)

    def _open(self, directory: Path) -> None:
        with _typed_errors(directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._env = self._environment(directory)
            except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError):
                shutil.rmtree(directory)
                directory.mkdir(mode=0o700)
                self._env = self._environment(directory)
            self._places = self._env.open_db(b"places", dupsort=True, dupfixed=True)
            self._packs = self._env.open_db(b"packs")
            self._numbers = self._env.open_db(b"numbers")
            self._segments = self._env.open_db(b"segments")
            self._meta = self._env.open_db(b"meta")

    @staticmethod
    def _environment(directory: Path) -> Any:  # noqa: ANN401 - lmdb has no types
        return lmdb.open(str(directory), map_size=_MAP_SIZE, max_dbs=5, mode=0o600, max_readers=512, readahead=False)

    def _get_meta(self, key: bytes) -> bytes | None:
        with self._env.begin(db=self._meta) as txn:
            value: bytes | None = txn.get(key)
            return value

    def _rebuild(self) -> None:
        with _typed_errors(self._directory), self._env.begin(write=True) as txn:
            for database in (self._places, self._packs, self._numbers, self._segments, self._meta):
                txn.drop(database, delete=False)
            txn.put(b"schema", SCHEMA, db=self._meta)

    def _renew(self) -> None:
        with self._lock:
            self._read.abort()
            self._read = self._env.begin(buffers=False)

    def segments(self) -> dict[bytes, list[int]]:
        with self._env.begin(db=self._segments) as txn:
            return {bytes(name): _unpack_numbers(packs) for name, packs in txn.cursor()}

    def add(self, segments: Iterable[tuple[bytes, Iterable[StoredPack]]]) -> None:
        # One transaction per segment: a crash leaves whole segments in the map, or nothing of one.
        for name, packs in segments:
            with _typed_errors(self._directory), self._env.begin(write=True) as txn:
                numbers = [self._add_pack(txn, pack) for pack in packs]
                txn.put(name, b"".join(map(_NUMBER.pack, numbers)), db=self._segments)
        self._renew()

    def _add_pack(self, txn: Any, pack: StoredPack) -> int:  # noqa: ANN401 - lmdb has no types
        known = txn.get(pack.digest, db=self._numbers)
        if known is not None:
            return int(_NUMBER.unpack(known)[0])
        number = int(_NUMBER.unpack(txn.get(b"next", default=bytes(4), db=self._meta))[0])
        txn.put(b"next", _NUMBER.pack(number + 1), db=self._meta)
        txn.put(pack.digest, _NUMBER.pack(number), db=self._numbers)
        txn.put(_NUMBER.pack(number), _encode_pack(pack), db=self._packs)
        places = sorted(
            (chunk[:_KEY_BYTES], _PLACE.pack(number, ordinal, offset, length))
            for chunk, ordinal, offset, length in pack.table.chunks()
        )
        with txn.cursor(db=self._places) as cursor:
            cursor.putmulti(places)
        return number

    def forget(self, segments: Iterable[bytes]) -> None:
        segments = list(segments)
        if not segments:
            return
        with _typed_errors(self._directory), self._env.begin(write=True) as txn:
            for name in segments:
                txn.delete(name, db=self._segments)
        self._renew()

    def places(self, chunk: bytes) -> Iterator[Place]:
        key = chunk[:_KEY_BYTES]
        with self._lock:
            first = self._read.get(key, db=self._places)
        if first is not None:
            yield Place._make(_PLACE.unpack(first))
            for value in self._duplicates(key):
                yield Place._make(_PLACE.unpack(value))

    def _duplicates(self, key: bytes) -> list[bytes]:
        with self._lock, self._read.cursor(db=self._places) as cursor:
            cursor.set_key(key)
            return [bytes(value) for value in cursor.iternext_dup()][1:]

    def pack(self, number: int) -> PackInfo:
        return self._cached_pack(number)

    def _load_pack(self, number: int) -> PackInfo:
        with self._env.begin(db=self._packs) as txn:
            return _decode_pack(txn.get(_NUMBER.pack(number)))

    def number(self, digest: bytes) -> int | None:
        with self._env.begin(db=self._numbers) as txn:
            found = txn.get(digest)
            return None if found is None else int(_NUMBER.unpack(found)[0])

    def close(self) -> None:
        with self._lock:
            self._read.abort()
            self._env.close()


def _encode_pack(pack: StoredPack) -> bytes:
    """A pack without its member columns: those are in the places."""
    table = msgspec.structs.replace(pack.table, members=b"", member_ids=b"", member_lengths=b"")
    return msgspec.msgpack.encode((pack.digest, int(pack.kind), pack.size, pack.epoch, table))


def _decode_pack(data: bytes) -> PackInfo:
    digest, kind, size, epoch, table = msgspec.msgpack.decode(data, type=tuple[bytes, int, int, int, PackTable])
    return PackInfo(digest, RecordKind(kind), size, epoch, table)


def _unpack_numbers(data: bytes) -> list[int]:
    return [number for (number,) in _NUMBER.iter_unpack(data)]


@contextmanager
def _typed_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except (lmdb.MapFullError, lmdb.DiskError) as error:
        raise InsufficientSpace(
            f"the cache in {directory} cannot grow", cause=str(error), hint="free space, or set BACKSTAY_CACHE_DIR"
        ) from error
    except (lmdb.Error, OSError) as error:
        raise StorageUnavailable(
            f"the cache in {directory} cannot be used",
            cause=str(error),
            hint="it is disposable: delete that directory, or set BACKSTAY_CACHE_DIR to another place",
        ) from error
