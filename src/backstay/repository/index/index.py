"""Where every chunk lies: index segments of the repository, and the map that is built from them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from backstay.codec.digest import sha256
from backstay.core.ids import is_digest
from backstay.errors import CorruptedBackup, ObjectExists, ObjectNotFound, ObjectUnreadable, StorageUnavailable
from backstay.repository.format import MAX_PACK, RecordKind, index_name
from backstay.repository.keys.keyring import Keyring
from backstay.repository.packs.pack import BlobInfo, PackTable, StoredPack
from backstay.storage.backend import StorageBackend

_T = TypeVar("_T")
_TRIES: Final = 3  # listings, when segments are superseded while they are read


class IndexedPack(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One pack as an index segment names it."""

    digest: bytes
    kind: int
    size: int
    epoch: int
    table: PackTable


class SegmentRecord(msgspec.Struct, array_like=True, frozen=True):
    """An index segment; it holds everything that the segments in `supersedes` hold, but for deleted packs."""

    supersedes: tuple[bytes, ...]
    packs: tuple[IndexedPack, ...]


class Place(NamedTuple):
    """Where a chunk's bytes are: pack number (`pack_number`), blob ordinal, offset in the raw blob, length."""

    pack: int
    ordinal: int
    offset: int
    length: int


@dataclass(slots=True)
class PackInfo:
    """A pack as the map knows it."""

    digest: bytes
    kind: RecordKind
    size: int
    epoch: int
    table: PackTable = field(repr=False)  # its member columns may be empty
    _blobs: list[BlobInfo] | None = None

    @property
    def blobs(self) -> list[BlobInfo]:
        if self._blobs is None:
            self._blobs = list(self.table.blobs())
        return self._blobs


class PlacesDamaged(StorageUnavailable):
    """A map does not hold any more what was put into it: it is to be built anew."""


def pack_number(digest: bytes) -> int:
    """What a pack goes by in maps: in all of them the same, so that one can take another's place."""
    return int.from_bytes(digest[:8], "big")


def require_same(known: bytes, digest: bytes) -> None:
    """Refuse two packs with one number, as one in 10⁷ repositories of a million packs has. Raises CorruptedBackup."""
    if known != digest:
        raise CorruptedBackup("two packs have nearly the same name", cause=f"{known.hex()} and {digest.hex()}")


class PlaceMap(Protocol):
    """The map from chunk ids to places; one implementation in memory, one on disk, which may raise PlacesDamaged."""

    def segments(self) -> dict[bytes, list[int]]:
        """The segments that were added, each with its pack numbers."""
        ...

    def add(self, segments: Iterable[tuple[bytes, Iterable[StoredPack]]]) -> None:
        """Take over whole segments: after a crash they are in or they are not."""
        ...

    def forget(self, segments: Iterable[bytes]) -> None:
        """Drop segments that the repository no longer has; their packs may stay, unused."""
        ...

    def may_hold(self, chunk: bytes) -> bool:
        """False only when no place is known; cheaper than `places`."""
        ...

    def place_in(self, chunk: bytes, packs: AbstractSet[int]) -> Place | None:
        """A place of a chunk in one of these packs, if there is one."""
        ...

    def places(self, chunk: bytes) -> Iterator[Place]:
        """Every place known for a chunk, dead packs included."""
        ...

    def pack(self, number: int) -> PackInfo: ...

    def number(self, digest: bytes) -> int | None: ...

    def renewed(self) -> PlaceMap:
        """After damage: an empty map in place of this one."""
        ...

    def close(self) -> None: ...


class MemoryPlaceMap:
    """Places in dictionaries: where there is no cache directory, or none can be used.

    A place is kept as one number, which takes a sixth of the memory of a tuple in a list.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, int | tuple[int, ...]] = {}
        self._packs: dict[int, PackInfo] = {}
        self._segments: dict[bytes, list[int]] = {}

    def segments(self) -> dict[bytes, list[int]]:
        return self._segments

    def add(self, segments: Iterable[tuple[bytes, Iterable[StoredPack]]]) -> None:
        for name, packs in segments:
            self._segments[name] = [self._add_pack(pack) for pack in packs]

    def _add_pack(self, pack: StoredPack) -> int:
        number = pack_number(pack.digest)
        if number in self._packs:
            require_same(self._packs[number].digest, pack.digest)
            return number
        self._packs[number] = PackInfo(pack.digest, pack.kind, pack.size, pack.epoch, pack.table)
        known = self._places
        for chunk, ordinal, offset, length in pack.table.chunks():
            place = ((number << 32 | ordinal) << 32 | offset) << 32 | length
            earlier = known.setdefault(chunk, place)
            if earlier is not place:
                known[chunk] = (*earlier, place) if isinstance(earlier, tuple) else (earlier, place)
        return number

    def forget(self, segments: Iterable[bytes]) -> None:
        for name in segments:
            self._segments.pop(name, None)

    def may_hold(self, chunk: bytes) -> bool:
        return chunk in self._places

    def place_in(self, chunk: bytes, packs: AbstractSet[int]) -> Place | None:
        found = self._places.get(chunk)
        if isinstance(found, int):  # nearly always
            return _place(found) if found >> 96 in packs else None
        return next((place for place in self.places(chunk) if place.pack in packs), None)

    def places(self, chunk: bytes) -> Iterator[Place]:
        found = self._places.get(chunk, ())
        return map(_place, found if isinstance(found, tuple) else (found,))

    def pack(self, number: int) -> PackInfo:
        try:
            return self._packs[number]
        except KeyError:  # known to a map in whose place this one came
            raise CorruptedBackup(f"no index segment names pack {number:016x} any more") from None

    def number(self, digest: bytes) -> int | None:
        number = pack_number(digest)
        known = self._packs.get(number)
        return number if known is not None and known.digest == digest else None

    def renewed(self) -> PlaceMap:
        return MemoryPlaceMap()

    def close(self) -> None:
        """Nothing is held outside this object."""


_COLUMN: Final = (1 << 32) - 1


def _place(number: int) -> Place:
    return Place(number >> 96, number >> 64 & _COLUMN, number >> 32 & _COLUMN, number & _COLUMN)


class Index:
    """The chunks that the repository's index segments name, less those in packs that a collector deleted.

    A map that turns out to be damaged is built anew from the segments, and asked again.
    """

    def __init__(self, backend: StorageBackend, keyring: Keyring, places: PlaceMap) -> None:
        self._backend = backend
        self._keyring = keyring
        self._map = places
        self._renewing = threading.RLock()
        self._is_fresh = isinstance(places, MemoryPlaceMap)  # nothing of the map is older than this program
        self._listed: set[bytes] = set()  # a map may be shared with a copy of the repository, which has others
        self._deleted: frozenset[bytes] = frozenset()
        self._condemned: frozenset[bytes] = frozenset()
        self._live: set[int] = set()
        self._reusable: set[int] = set()
        self._missing: frozenset[bytes] = frozenset()
        self._cut: frozenset[bytes] = frozenset()
        self._distrusted: frozenset[int] = frozenset()
        self._vanished = False
        self.damaged: list[tuple[str, CorruptedBackup | ObjectUnreadable]] = []

    def load(self, *, deleted: Iterable[bytes] = (), condemned: Iterable[bytes] = ()) -> None:
        """Bring the map up to date with the store; a segment that cannot be read goes to `damaged`.

        `deleted` packs do not exist any more, although segments may still name them. `condemned` ones can be read,
        but a writer must not build upon them.
        """
        self._deleted, self._condemned = frozenset(deleted), frozenset(condemned)
        self._ask(self._fill)
        self._refresh_live()

    def _fill(self, places: PlaceMap) -> None:
        for _ in range(_TRIES):
            self.damaged, self._vanished = [], False
            known = set(places.segments())  # before the listing: others that share the map may add what it lacks
            names = set(self._list())
            places.add(self._read_all(sorted(names - known)))
            places.forget(known - names)
            self._listed = names
            if not self._vanished:
                break

    def look_again(self) -> None:
        """Read segments that were written since. What is deleted and condemned stays as it was when it was loaded: who
        asks whether something may be built upon relies on an answer from before it was found."""
        self._ask(self._fill)
        self._refresh_live()

    def search(self, chunk: bytes) -> Place | None:
        """As `find`; before nothing is found, the map is built anew once: damage to it is no loss of a chunk."""
        places, place = self._map, self.find(chunk)
        if place is None and not self._is_fresh:
            self._renew(places)
            place = self.find(chunk)
        return place

    def _ask(self, ask: Callable[[PlaceMap], _T]) -> _T:
        places = self._map
        try:
            return ask(places)
        except PlacesDamaged:
            self._renew(places)
        return self._ask(ask)  # at most twice: then the map is in memory

    def _renew(self, places: PlaceMap) -> None:
        """Build another map in place of a damaged one; other threads see it when it is complete."""
        with self._renewing:
            if self._map is not places:
                return  # another thread was faster
            fresh = MemoryPlaceMap() if self._is_fresh else places.renewed()
            self._is_fresh = True
            try:
                self._fill(fresh)
            except PlacesDamaged:
                self._fill(fresh := MemoryPlaceMap())
            self._map = fresh
        self._refresh_live()

    def _list(self) -> Iterator[bytes]:
        for info in self._backend.list("index/"):
            leaf = info.name.removeprefix("index/")
            if is_digest(leaf):
                yield bytes.fromhex(leaf)
            else:
                self.damaged.append((info.name, CorruptedBackup("a foreign object lies among the index segments")))

    def hide_missing(self, present: Mapping[bytes, int]) -> set[bytes]:
        """Leave out packs that segments name and the store, whose packs have these sizes, does not have or has in
        another size, so that what they held is stored again; of the latter, what can be read still is.

        Packs that were missed before are looked for again: they may be back, or missing still.
        """
        wrong = {digest for digest, size in self._ask(self._named).items() if present.get(digest) != size}
        wrong -= self._deleted
        self._missing, self._cut = frozenset(wrong - present.keys()), frozenset(wrong & present.keys())
        self._refresh_live()
        return wrong

    def _named(self, places: PlaceMap) -> dict[bytes, int]:
        segments = places.segments()
        packs = (places.pack(number) for name in self._listed for number in segments.get(name, ()))
        return {pack.digest: pack.size for pack in packs}

    @property
    def unread(self) -> list[str]:
        """The segments that could not be read, by name."""
        return [name for name, _ in self.damaged if is_digest(name.rpartition("/")[2])]

    def finds_all(self, packs: Iterable[bytes]) -> bool:
        """Whether all that snapshots with these packs need has a place, as far as packs are not deleted or missing.

        A collection may have put it into other packs: then no segment may be unread.
        """
        if self.damaged and self.unread:
            return False
        return all(
            (pack_number(pack) in self._live and pack not in self._cut) or pack in self._deleted for pack in packs
        )

    def distrust(self, pack: int) -> None:
        """Let nothing new build upon a pack in which damage was met; what it holds is stored again where it comes."""
        self._distrusted |= {pack}
        self._reusable.discard(pack)

    def _refresh_live(self) -> None:
        numbers = {number for packs in self._segments().values() for number in packs}
        self._live = numbers - set(map(pack_number, self._deleted | self._missing))
        condemned = set(map(pack_number, self._condemned))
        self._reusable = self._live - condemned - self._distrusted - set(map(pack_number, self._cut))

    def _segments(self) -> dict[bytes, list[int]]:
        """Those of this store, with the numbers of their packs."""
        return {name: packs for name, packs in self._all_segments().items() if name in self._listed}

    def _all_segments(self) -> dict[bytes, list[int]]:
        return self._ask(lambda places: places.segments())

    def _read_all(self, names: Iterable[bytes]) -> Iterator[tuple[bytes, list[StoredPack]]]:
        for name in names:
            try:
                yield name, stored_packs(read_segment(self._backend, self._keyring, name))
            except ObjectNotFound:
                self._vanished = True  # superseded since the listing: its successor is in the next one
            except (CorruptedBackup, ObjectUnreadable) as error:
                self.damaged.append((index_name(name), error))

    def write(self, packs: Iterable[StoredPack], *, supersedes: Iterable[bytes] = ()) -> bytes:
        """Store one segment, durably, and take it into the map; its name's digest is returned."""
        packs = sorted(packs, key=lambda pack: pack.digest)
        record = SegmentRecord(
            tuple(sorted(supersedes)),
            tuple(IndexedPack(p.digest, int(p.kind), p.size, p.epoch, p.table) for p in packs),
        )
        data = self._keyring.seal(RecordKind.INDEX, record)
        name = sha256(data)
        with suppress(ObjectExists):  # an earlier try of this very call got through
            self._backend.store(index_name(name), data)
        self._ask(lambda places: places.add([(name, packs)]))
        self._listed.add(name)
        numbers = self._segments().get(name, ())  # who reads a copy with the same map may have dropped it again
        self._live.update(numbers)
        self._reusable.update(numbers)
        return name

    def find(self, chunk: bytes) -> Place | None:
        """Where a chunk can be read, or None; a pack that will stay is preferred."""
        places = self._map
        try:
            return places.place_in(chunk, self._reusable) or places.place_in(chunk, self._live)
        except PlacesDamaged:
            self._renew(places)
        return self.find(chunk)

    def find_all(self, chunk: bytes) -> list[Place]:
        """Everywhere a chunk can be read, packs that will stay first."""
        known = self._ask(lambda places: list(places.places(chunk)))
        return sorted(
            (place for place in known if place.pack in self._live), key=lambda place: place.pack not in self._reusable
        )

    def find_reusable(self, chunk: bytes) -> Place | None:
        """Where a chunk lies that a new snapshot may refer to, or None."""
        places = self._map
        try:
            return places.place_in(chunk, self._reusable) if places.may_hold(chunk) else None
        except PlacesDamaged:
            self._renew(places)
        return self.find_reusable(chunk)

    def pack(self, number: int) -> PackInfo:
        places = self._map
        try:
            return places.pack(number)
        except PlacesDamaged:
            self._renew(places)
        return self.pack(number)

    def packs(self) -> Iterator[tuple[int, PackInfo]]:
        """Every readable pack with its number."""
        for number in sorted(self._live):
            yield number, self.pack(number)

    def number(self, digest: bytes) -> int | None:
        """The number of a readable pack, or None."""
        number = self._ask(lambda places: places.number(digest))
        return number if number in self._live else None

    def packs_of(self, segment: bytes) -> list[bytes]:
        """The digests of the packs that a segment names."""
        return [self.pack(number).digest for number in self._all_segments()[segment]]

    def segments(self) -> list[bytes]:
        """The digests of all segments that were read."""
        return sorted(self._segments())

    def close(self) -> None:
        self._map.close()


def read_segment(backend: StorageBackend, keyring: Keyring, name: bytes) -> SegmentRecord:
    """One segment, checked. Raises CorruptedBackup, ObjectNotFound."""
    return decode_segment(keyring, name, backend.retrieve(index_name(name)))


def decode_segment(keyring: Keyring, name: bytes, data: bytes) -> SegmentRecord:
    """One segment from its stored bytes, checked. Raises CorruptedBackup."""
    if sha256(data) != name:
        raise CorruptedBackup(f"{index_name(name)} was changed", cause="its bytes do not match its name")
    record = keyring.open(data, RecordKind.INDEX, SegmentRecord)
    for pack in record.packs:
        if len(pack.digest) != 32 or not 0 < pack.size <= MAX_PACK:
            raise CorruptedBackup(f"{index_name(name)} names an impossible pack")
        if pack.table.end() >= pack.size:
            raise CorruptedBackup(f"{index_name(name)} names blobs beyond the end of their pack")
        if pack.kind not in (RecordKind.DATA_PACK, RecordKind.META_PACK):
            raise CorruptedBackup(f"{index_name(name)} names a pack of an unknown kind")
        pack.table.check()
    return record


def stored_packs(record: SegmentRecord) -> list[StoredPack]:
    """The packs of a segment, ready for the map."""
    return [stored_pack(pack) for pack in record.packs]


def stored_pack(pack: IndexedPack) -> StoredPack:
    """A pack of a segment, ready for the map."""
    return StoredPack(pack.digest, RecordKind(pack.kind), pack.size, pack.epoch, pack.table)
