"""The record of garbage collections: what each condemned, whom it waited for, what it deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias, TypeVar

import msgspec

from backstay.errors import (
    BackstayError,
    CollectionBusy,
    CorruptedBackup,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    UnsupportedFormat,
)
from backstay.repository.format import RecordKind, collection_name, verdict_name, waiting_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import ObjectInfo, StorageBackend
from backstay.storage.copies import retrieve_valid

OnDamage: TypeAlias = Callable[[str, BackstayError], None]
_NAME: Final = re.compile(r"gc/(\d{8})(\.done|\.sessions)?")


class CollectionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """gc/<n>: packs that no snapshot in `marked` needs. From its creation on no new writer uses them."""

    number: int
    created_ns: int
    condemned: tuple[bytes, ...]
    marked: tuple[str, ...]


class WaitingRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """gc/<n>.sessions: the writers that may not have seen gc/<n>."""

    number: int
    sessions: tuple[str, ...]


class VerdictRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """gc/<n>.done: which condemned packs are deleted, and which were found to be needed after all."""

    number: int
    decided_ns: int
    deleted: tuple[bytes, ...]
    kept: tuple[bytes, ...]


Record = TypeVar("Record", bound=CollectionRecord | WaitingRecord | VerdictRecord)
_KINDS: Final[dict[type, RecordKind]] = {
    CollectionRecord: RecordKind.COLLECTION,
    WaitingRecord: RecordKind.WAITING,
    VerdictRecord: RecordKind.VERDICT,
}
_TYPES: Final[dict[str, type[CollectionRecord | WaitingRecord | VerdictRecord]]] = {
    "": CollectionRecord,
    ".sessions": WaitingRecord,
    ".done": VerdictRecord,
}
_MEND_HINT: Final = "put it back from a copy; else run `backstay repair index`"


class CollectionLog:
    """All collections of a repository. Records are never removed: they forbid their packs for good.

    Only what cannot be read is replaced, by `mend`. Until then it is in `damaged` for readers, who can do without, and
    an error for writers and collectors, who cannot know what it forbids.
    """

    def __init__(self, backend: StorageBackend, keyring: Keyring) -> None:
        self._backend, self._keyring = backend, keyring
        self._cache: dict[str, msgspec.Struct] = {}
        self._listed: dict[str, ObjectInfo] = {}
        self._names: set[str] = set()
        self.foreign: list[str] = []
        self.damaged: dict[str, BackstayError] = {}

    def refresh(self) -> None:
        """List the collections that exist now."""
        listed = {info.name: info for info in self._backend.list("gc/")}
        self._cache = {  # a repair may have replaced a verdict; what is condemned, a running writer must not forget
            name: record
            for name, record in self._cache.items()
            if isinstance(record, CollectionRecord) or listed.get(name) == self._listed.get(name)
        }
        self._listed = listed
        self._names = {name for name in listed if _NAME.fullmatch(name)}
        self.foreign = sorted(listed.keys() - self._names)

    @property
    def last(self) -> int:
        """The number of the newest collection, 0 if there was none."""
        return max((int(name[3:11]) for name in self._names), default=0)

    def open_numbers(self) -> list[int]:
        """Collections whose verdict is still out, oldest first."""
        numbers = {int(name[3:11]) for name in self._names}
        return sorted(n for n in numbers if verdict_name(n) not in self._names)

    def condemned(self) -> set[bytes]:
        """Packs that a collection without a verdict condemned: still readable, but not to be built upon."""
        return self._condemned(self.open_numbers(), None)

    def exclusions(self) -> tuple[set[bytes], set[bytes]]:
        """(deleted, condemned) as far as the records can be read; the others go to `damaged`.

        What was condemned stays so while its verdict cannot be read: who relied on that may go on.
        """
        self.damaged = {}
        deleted = self.deleted(self.damaged.__setitem__)
        undecided = {*self.open_numbers(), *(int(name[3:11]) for name in self.damaged)}
        return deleted, self._condemned(sorted(undecided), self.damaged.__setitem__)

    def _condemned(self, numbers: Iterable[int], on_damage: OnDamage | None) -> set[bytes]:
        names = map(collection_name, numbers)
        return {pack for record in self._readable(names, CollectionRecord, on_damage) for pack in record.condemned}

    def refuse_damage(self) -> None:
        """Raises what `exclusions` could not read: nobody may build upon, or delete, what it may forbid."""
        for error in self.damaged.values():
            raise error

    def may_build_on(self, snapshot: str) -> bool:
        """Whether a new writer may use what a snapshot names without looking each chunk up.

        A collection that is open and did not mark the snapshot keeps its packs only as long as it exists, and does
        not wait for the new writer.
        """
        return all(snapshot in self.collection(number).marked for number in self.open_numbers())

    def deleted(self, on_damage: OnDamage | None = None) -> set[bytes]:
        """Every pack that some verdict deleted.

        A record that cannot be read is passed to `on_damage`; without that, its error is raised.
        """
        names = sorted(name for name in self._names if name.endswith(".done"))
        return {pack for record in self._readable(names, VerdictRecord, on_damage) for pack in record.deleted}

    def announced(self, on_damage: OnDamage) -> list[CollectionRecord]:
        """What every collection condemned and marked, oldest first, as far as it can be read."""
        return [*self._readable(map(collection_name, range(1, self.last + 1)), CollectionRecord, on_damage)]

    def _readable(self, names: Iterable[str], type_: type[Record], on_damage: OnDamage | None) -> Iterator[Record]:
        for name in names:
            try:
                yield self._read(name, type_)
            except (CorruptedBackup, UnsupportedFormat, ObjectNotFound, ObjectUnreadable) as error:
                if on_damage is None:
                    raise
                on_damage(name, _lost(name) if isinstance(error, ObjectNotFound) else error)

    def problems(self) -> dict[str, BackstayError]:
        """Every record that cannot be read, or is lost beside others of its collection, needed or not."""
        announced = {collection_name(int(name[3:11])) for name in self._names}
        found: dict[str, BackstayError] = {name: _lost(name) for name in sorted(announced - self._names)}
        for name in sorted(self._names):
            try:
                self._read(name, _TYPES[name[11:]])
            except (CorruptedBackup, UnsupportedFormat, ObjectNotFound, ObjectUnreadable) as error:
                found[name] = error
        return found

    def mend(self, stored: AbstractSet[bytes], now_ns: int) -> list[str]:
        """Replace every record that is damaged; their names. `stored` are the packs that are there, or should be."""
        bad = {name for name, error in self.problems().items() if isinstance(error, CorruptedBackup)}
        for number in sorted({int(name[3:11]) for name in bad}):
            self._mend(number, bad, stored, now_ns)
        return sorted(bad)

    def _mend(self, number: int, bad: AbstractSet[str], stored: AbstractSet[bytes], now_ns: int) -> None:
        """Decide so that nothing goes that may be needed, whatever the damaged records said.

        Order: the verdict, then the other records, which mean nothing beside it. A verdict that was lost is replaced:
        condemned packs that are gone were deleted, the others are kept. An open collection of which anything is lost
        keeps all; a collector that goes on with it finds this verdict.
        """
        announced, waiting, verdict = collection_name(number), waiting_name(number), verdict_name(number)
        if verdict in bad or verdict not in self._names:
            condemned = () if announced in bad else self.collection(number).condemned
            gone = {pack for pack in condemned if pack not in stored} if verdict in bad else set()
            kept = tuple(pack for pack in condemned if pack not in gone)
            record = VerdictRecord(number, now_ns, tuple(sorted(gone)), kept)
            if verdict in bad:
                self._store(verdict, record, overwrite=True)
            else:
                self.decide(record)
        if announced in bad:
            decided = self._read(verdict, VerdictRecord)
            condemned = tuple(sorted(decided.deleted + decided.kept))
            self._store(announced, CollectionRecord(number, now_ns, condemned, ()), overwrite=True)
        if waiting in bad:
            self._store(waiting, WaitingRecord(number, ()), overwrite=True)

    def collection(self, number: int) -> CollectionRecord:
        return self._read(collection_name(number), CollectionRecord)

    def create(self, record: CollectionRecord) -> None:
        """Announce a condemned list; its number decides between collectors. Raises CollectionBusy."""
        try:
            self._store(collection_name(record.number), record)
        except ObjectExists as error:
            if self._read(collection_name(record.number), CollectionRecord) == record:
                self._names.add(collection_name(record.number))
                return  # an earlier try of this very call got through
            raise CollectionBusy(
                "another collector was faster", cause=f"{collection_name(record.number)} exists already"
            ) from error

    def wait_for(self, record: WaitingRecord) -> WaitingRecord:
        """Fix the writers to wait for, or learn which an earlier try fixed."""
        return self._create_once(waiting_name(record.number), record, WaitingRecord)

    def waiting(self, number: int) -> WaitingRecord | None:
        """The writers that were fixed for a collection, if they were."""
        name = waiting_name(number)
        return self._read(name, WaitingRecord) if name in self._names else None

    def verdict(self, number: int) -> VerdictRecord | None:
        """What a collection decided, if it did."""
        name = verdict_name(number)
        return self._read(name, VerdictRecord) if name in self._names else None

    def decide(self, record: VerdictRecord) -> VerdictRecord:
        """Fix what is deleted, or learn what another collector decided; only then may anything be deleted."""
        return self._create_once(verdict_name(record.number), record, VerdictRecord)

    def _create_once(self, name: str, record: Record, type_: type[Record]) -> Record:
        try:
            self._store(name, record)
        except ObjectExists:
            self._names.add(name)
            try:
                return self._read(name, type_)
            except ObjectNotFound as error:
                raise CorruptedBackup(
                    f"{name} can neither be stored nor read",
                    cause="something else lies under its name",
                    hint="find out what put it there, and remove it",
                ) from error
        return record

    def _store(
        self, name: str, record: CollectionRecord | WaitingRecord | VerdictRecord, *, overwrite: bool = False
    ) -> None:
        kind = _KINDS[type(record)]
        data = self._keyring.seal(kind, record)
        self._backend.store(name, data, overwrite=overwrite)
        self._names.add(name)
        self._cache[name] = record

    def _read(self, name: str, type_: type[Record]) -> Record:
        known = self._cache.get(name)
        if known is None:
            known = retrieve_valid(self._backend, name, lambda data: self._decode(name, data, type_))
            self._cache[name] = known
        assert isinstance(known, type_)  # a name says of which kind its record is
        return known

    def check(self, name: str, data: bytes) -> None:
        """Raises CorruptedBackup or UnsupportedFormat unless the bytes are the record that the name promises."""
        if not _NAME.fullmatch(name):
            raise CorruptedBackup(f"{name} is no record of a collection")
        self._decode(name, data, _TYPES[name[11:]])

    def _decode(self, name: str, data: bytes, type_: type[Record]) -> Record:
        try:
            record = self._keyring.open(data, _KINDS[type_], type_)
        except CorruptedBackup as error:
            raise CorruptedBackup(f"{name} cannot be read", cause=str(error), hint=_MEND_HINT) from error
        if record.number != int(name[3:11]):
            raise CorruptedBackup(f"{name} is the record of another collection", hint=_MEND_HINT)
        return record


def _lost(name: str) -> CorruptedBackup:
    return CorruptedBackup(f"{name} is missing", cause="others refer to it, or it was listed", hint=_MEND_HINT)
