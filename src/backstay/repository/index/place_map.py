"""The map of chunk places on disk: sorted runs in LMDB, memory-mapped, disposable."""

from __future__ import annotations

import heapq
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from backstay.errors import InsufficientSpace, StorageUnavailable
from backstay.repository.format import RecordKind
from backstay.repository.index.chunk_filter import ChunkFilter
from backstay.repository.index.environment import DAMAGE, damaged, has_readers, shared, typed_errors
from backstay.repository.index.index import (
    MemoryPlaceMap,
    PackInfo,
    Place,
    PlaceMap,
    PlacesDamaged,
    pack_number,
    require_same,
)
from backstay.repository.packs.pack import PackTable, StoredPack

MERGE_RUNS: Final = 8  # runs beyond which they are merged when the map is closed
FILTER_AFTER: Final = 2000  # look-ups that make a filter worth its building
_KEY_BYTES: Final = 16  # of a chunk id; the id itself is checked after decryption
_RUN: Final = struct.Struct(">I")
_PLACE: Final = struct.Struct(">QIII")
_NUMBER: Final = struct.Struct(">Q")
_ID_AT: Final = _RUN.size
_PLACE_AT: Final = _RUN.size + _KEY_BYTES
_PACKS_CACHED: Final = 256
_BATCH: Final = 50_000
_DIGEST_BYTES: Final = 32
_CHECK_BYTES: Final = 8


class LmdbPlaceMap:
    """Places in an LMDB environment that several maps and processes may share; lost or damaged, it is built anew.

    Keys are run ‖ id ‖ place, without values. Each segment makes a run of its own, which is appended in order: a tree
    of random keys would be rewritten as a whole by every segment. Looking up asks all runs, newest first; a filter
    in memory answers for most chunks that are in none.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._directory = directory
        self._cached_pack = lru_cache(_PACKS_CACHED)(self._load_pack)
        self._filter: ChunkFilter | None = None
        self._filtered: set[int] = set()
        self._lookups = 0
        self._answered = b""
        self._is_open = True
        try:
            self._attach()
        except PlacesDamaged:
            self._shared.discard()
            self._attach()
        if not self._runs:
            self._filter = ChunkFilter(0)

    def _attach(self) -> None:
        self._shared = shared(self._directory)
        self._env = self._shared.env
        self._places, self._packs = self._shared.places, self._shared.packs
        self._segments, self._meta = self._shared.segments, self._shared.meta
        try:
            self._begin()
        except BaseException:
            self._shared.release()
            raise

    # -- reading

    def _begin(self) -> None:
        """See the newest state, other processes' work included."""
        with typed_errors(self._directory):
            self._read: Any = self._env.begin(buffers=False)
            self._cursor: Any = self._read.cursor(db=self._places)
            self._runs = _runs(self._read, self._meta)
            if self._filter is not None:
                self._extend_filter()

    def _renew(self) -> None:
        with self._lock:
            self._read.abort()
            self._begin()

    def segments(self) -> dict[bytes, list[int]]:
        """Those that any map has added; the places that they name are found from now on."""
        self._renew()
        with typed_errors(self._directory), self._lock, self._read.cursor(db=self._segments) as cursor:
            return {bytes(name): _unpack_numbers(packs) for name, packs in cursor}

    def may_hold(self, chunk: bytes) -> bool:
        if self._filter is None:
            with self._lock:
                self._lookups += 1
                if self._lookups > FILTER_AFTER:
                    with typed_errors(self._directory):
                        self._build_filter()
        found = self._filter is None or chunk in self._filter
        if found:
            self._shared.looked_up(len(self._runs))
        return found

    def place_in(self, chunk: bytes, packs: AbstractSet[int]) -> Place | None:
        key = chunk[:_KEY_BYTES]
        try:
            with self._lock:
                cursor = self._cursor
                for run in self._runs:
                    prefix = run + key
                    more = cursor.set_range(prefix)
                    while more and (found := cursor.key()).startswith(prefix):
                        number, ordinal, offset, length = _PLACE.unpack_from(found, _PLACE_AT)
                        if number in packs:
                            self._prefer(run)
                            return Place(number, ordinal, offset, length)
                        more = cursor.next()
        except DAMAGE as error:
            raise damaged(self._directory, error) from error
        return None

    def _prefer(self, run: bytes) -> None:
        """Ask a run first that has answered twice in succession: neighbours are asked for together."""
        if run == self._runs[0]:
            self._answered = run
        elif run == self._answered:
            self._runs = [run, *(other for other in self._runs if other != run)]
        else:
            self._answered = run

    def places(self, chunk: bytes) -> Iterator[Place]:
        key = chunk[:_KEY_BYTES]
        for run in self._runs:
            with typed_errors(self._directory), self._lock:
                found = self._find(run + key)
            yield from found

    def _find(self, prefix: bytes) -> list[Place]:
        cursor, found = self._cursor, []
        more = cursor.set_range(prefix)
        while more and (key := cursor.key()).startswith(prefix):
            found.append(Place(*_PLACE.unpack_from(key, _PLACE_AT)))
            more = cursor.next()
        return found

    def _build_filter(self) -> None:
        self._filter = ChunkFilter(self._read.stat(self._places)["entries"])
        self._filtered.clear()
        self._extend_filter()

    def _extend_filter(self) -> None:
        """Take in the runs that are not in the filter yet."""
        assert self._filter is not None
        entries = self._read.stat(self._places)["entries"]
        if entries > self._filter.capacity:
            self._filter = ChunkFilter(2 * entries)
            self._filtered.clear()
        for run in self._runs:
            number = _RUN.unpack(run)[0]
            if number not in self._filtered:
                self._filtered.add(number)
                for key in self._shared.read_through(_keys(self._cursor, run)):
                    self._filter.add(key[_ID_AT:_PLACE_AT])

    def pack(self, number: int) -> PackInfo:
        return self._cached_pack(number)

    def _load_pack(self, number: int) -> PackInfo:
        with typed_errors(self._directory):
            with self._lock:  # what the places were read from: another map that merges forgets packs
                found = self._read.get(_NUMBER.pack(number), db=self._packs)
            if found is None:
                raise damaged(self._directory, f"it has lost pack {number:016x}")
            return _decode_pack(number, found)

    def number(self, digest: bytes) -> int | None:
        number = pack_number(digest)
        with typed_errors(self._directory), self._env.begin(db=self._packs) as txn:
            found = txn.get(_NUMBER.pack(number))
        return number if found is not None and found[:_DIGEST_BYTES] == digest else None

    # -- writing

    def add(self, segments: Iterable[tuple[bytes, Iterable[StoredPack]]]) -> None:
        # One transaction per segment: a crash leaves whole segments in the map, or nothing of one.
        added = False
        for name, packs in segments:
            with typed_errors(self._directory), self._env.begin(write=True) as txn:
                if txn.get(name, db=self._segments) is None:  # another process may have been faster
                    self._add_segment(txn, name, list(packs))
            added = True
        if added:
            self._renew()

    def _add_segment(self, txn: Any, name: bytes, packs: list[StoredPack]) -> None:  # noqa: ANN401
        numbers: list[int] = []
        places: list[bytes] = []
        for pack in packs:
            number = pack_number(pack.digest)
            numbers.append(number)
            known = txn.get(_NUMBER.pack(number), db=self._packs)
            if known is None:
                txn.put(_NUMBER.pack(number), _encode_pack(pack), db=self._packs)
                places.extend(_encode_places(number, pack.table))
            else:
                require_same(known[:_DIGEST_BYTES], pack.digest)
        txn.put(name, b"".join(map(_NUMBER.pack, numbers)), db=self._segments)
        places.sort()
        if places:
            run = _append_run(txn, self._places, self._meta, places)
            if self._filter is not None:  # spares reading it back; if the commit fails, a few ids too many do no harm
                for place in places:
                    self._filter.add(place)
                self._filtered.add(run)

    def forget(self, segments: Iterable[bytes]) -> None:
        segments = list(segments)
        if not segments:
            return
        with typed_errors(self._directory), self._env.begin(write=True) as txn:
            for name in segments:
                txn.delete(name, db=self._segments)
        self._renew()

    def _merge(self) -> None:
        """Make one run of all, and forget the packs that no segment names any more, with their places.

        A pack that is known keeps its places when another segment names it: without places it must not be known. While
        others read the map none is forgotten: they may have segments that who opened a copy of the repository dropped.
        """
        keeps_all = has_readers(self._env)
        with typed_errors(self._directory), self._env.begin(write=True) as txn:
            runs = _runs(txn, self._meta)
            live = {n for _, packs in txn.cursor(db=self._segments) for n in _unpack_numbers(packs)}
            if keeps_all:
                live.update(int(_NUMBER.unpack(number)[0]) for number in _all_keys(txn, self._packs))
            cursors = [txn.cursor(db=self._places) for _ in runs]
            merged = heapq.merge(*(map(_without_run, _keys(c, run)) for c, run in zip(cursors, runs, strict=True)))
            kept = (place for place in merged if _PLACE.unpack_from(place, _KEY_BYTES)[0] in live)
            _append_run(txn, self._places, self._meta, self._shared.read_through(kept))
            for run in runs:
                deque(self._shared.read_through(_emptied(txn, self._places, run)), maxlen=0)
            _name_runs(txn, self._meta, [run for run in _runs(txn, self._meta) if run not in runs])
            self._forget_packs(txn, live)

    def _forget_packs(self, txn: Any, live: set[int]) -> None:  # noqa: ANN401 - lmdb has no types
        for number in list(_all_keys(txn, self._packs)):
            if _NUMBER.unpack(number)[0] not in live:
                txn.delete(number, db=self._packs)

    def close(self) -> None:
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            self._read.abort()
            try:
                if len(self._runs) > MERGE_RUNS:
                    self._merge()
            except PlacesDamaged:
                self._shared.discard()  # nothing is lost by it: the next map is built anew
            finally:
                self._shared.release()

    def renewed(self) -> PlaceMap:
        # It is not closed: other threads may be reading it.
        try:
            self._shared.discard()
            return LmdbPlaceMap(self._directory)
        except (StorageUnavailable, InsufficientSpace):
            return MemoryPlaceMap()


def _runs(txn: Any, meta: Any) -> list[bytes]:  # noqa: ANN401 - lmdb has no types
    """The prefixes of all runs, newest first."""
    text = txn.get(b"runs", default=b"", db=meta)
    return [text[at : at + _RUN.size] for at in range(0, len(text), _RUN.size)][::-1]


def _append_run(txn: Any, places: Any, meta: Any, sorted_places: Iterable[bytes]) -> int:  # noqa: ANN401
    """Add one run behind all others; its number."""
    last = int(_RUN.unpack(txn.get(b"last run", default=bytes(_RUN.size), db=meta))[0])
    run = _RUN.pack(last + 1)
    waiting = iter(sorted_places)
    with txn.cursor(db=places) as cursor:
        while batch := [(run + place, b"") for place in islice(waiting, _BATCH)]:
            cursor.putmulti(batch, append=True)
    txn.put(b"last run", run, db=meta)
    _name_runs(txn, meta, [run, *_runs(txn, meta)])
    return last + 1


def _name_runs(txn: Any, meta: Any, runs: Iterable[bytes]) -> None:  # noqa: ANN401
    """Say which runs there are, newest first."""
    txn.put(b"runs", b"".join([*runs][::-1]), db=meta)


def _emptied(txn: Any, places: Any, run: bytes) -> Iterator[None]:  # noqa: ANN401
    """Delete the places of a run, one each time that is taken."""
    with txn.cursor(db=places) as cursor:
        more = cursor.set_range(run)
        while more and cursor.key().startswith(run):
            more = cursor.delete()
            yield


def _keys(cursor: Any, run: bytes) -> Iterator[bytes]:  # noqa: ANN401 - lmdb has no types
    if cursor.set_range(run):
        for key in cursor.iternext(keys=True, values=False):
            if not key.startswith(run):
                return
            yield bytes(key)


def _all_keys(txn: Any, database: Any) -> Iterator[bytes]:  # noqa: ANN401 - lmdb has no types
    with txn.cursor(db=database) as cursor:
        yield from map(bytes, cursor.iternext(keys=True, values=False))


def _without_run(key: bytes) -> bytes:
    return key[_ID_AT:]


def _encode_places(number: int, table: PackTable) -> Iterator[bytes]:
    pack = _PLACE.pack
    for chunk, ordinal, offset, length in table.chunks():
        yield chunk[:_KEY_BYTES] + pack(number, ordinal, offset, length)


def _encode_pack(pack: StoredPack) -> bytes:
    """A pack without its member columns, which are in the places: its digest, a check, the rest."""
    table = msgspec.structs.replace(pack.table, members=b"", member_ids=b"", member_lengths=b"")
    body = msgspec.msgpack.encode((int(pack.kind), pack.size, pack.epoch, table))
    return pack.digest + _check(pack.digest, body) + body


def _decode_pack(number: int, data: bytes) -> PackInfo:
    """Raises lmdb.CorruptedError for what was not put there: a pack that seems lost would be mourned."""
    digest, body = data[:_DIGEST_BYTES], data[_DIGEST_BYTES + _CHECK_BYTES :]
    if data[_DIGEST_BYTES : _DIGEST_BYTES + _CHECK_BYTES] != _check(digest, body) or pack_number(digest) != number:
        raise lmdb.CorruptedError(f"the record of pack {number:016x} was changed")
    kind, size, epoch, table = msgspec.msgpack.decode(body, type=tuple[RecordKind, int, int, PackTable])
    return PackInfo(digest, kind, size, epoch, table)


def _check(digest: bytes, body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK_BYTES, key=digest).digest()


def _unpack_numbers(data: bytes) -> list[int]:
    return [number for (number,) in _NUMBER.iter_unpack(data)]
