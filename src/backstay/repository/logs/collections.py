"""The record of garbage collections: what each condemned, whom it waited for, what it deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, TypeVar

import msgspec

from backstay.errors import (
    BackstayError,
    CollectionBusy,
    CorruptedBackup,
    ObjectExists,
    ObjectNotFound,
    UnsupportedFormat,
)
from backstay.repository.format import RecordKind, collection_name, verdict_name, waiting_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import StorageBackend
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


Record = TypeVar("Record", CollectionRecord, WaitingRecord, VerdictRecord)
_KINDS: Final = {
    CollectionRecord: RecordKind.COLLECTION,
    WaitingRecord: RecordKind.WAITING,
    VerdictRecord: RecordKind.VERDICT,
}


class CollectionLog:
    """All collections of a repository. Records are never changed or removed: they forbid their packs for good."""

    def __init__(self, backend: StorageBackend, keyring: Keyring) -> None:
        self._backend, self._keyring = backend, keyring
        self._cache: dict[str, msgspec.Struct] = {}
        self._names: set[str] = set()
        self.foreign: list[str] = []

    def refresh(self) -> None:
        """List the collections that exist now."""
        names = {info.name for info in self._backend.list("gc/")}
        self._names = {name for name in names if _NAME.fullmatch(name)}
        self.foreign = sorted(names - self._names)

    @property
    def last(self) -> int:
        """The number of the newest collection, 0 if there was none."""
        return max((int(name[3:11]) for name in self._names), default=0)

    def open_numbers(self) -> list[int]:
        """Collections whose verdict is still out, oldest first."""
        numbers = {int(name[3:11]) for name in self._names}
        return sorted(n for n in numbers if verdict_name(n) not in self._names)

    def condemned(self, on_damage: OnDamage | None = None) -> set[bytes]:
        """Packs that a collection without a verdict condemned: still readable, but not to be built upon.

        A record that cannot be read is passed to `on_damage`; without that, its error is raised.
        """
        names = map(collection_name, self.open_numbers())
        return {pack for record in self._readable(names, CollectionRecord, on_damage) for pack in record.condemned}

    def may_build_on(self, snapshot: str) -> bool:
        """Whether a new writer may use what a snapshot names without looking each chunk up.

        A collection that is open and did not mark the snapshot keeps its packs only as long as it exists, and does
        not wait for the new writer.
        """
        return all(snapshot in self.collection(number).marked for number in self.open_numbers())

    def deleted(self, on_damage: OnDamage | None = None) -> set[bytes]:
        """Every pack that some verdict deleted; `on_damage` as in `condemned`."""
        names = sorted(name for name in self._names if name.endswith(".done"))
        return {pack for record in self._readable(names, VerdictRecord, on_damage) for pack in record.deleted}

    def announced(self, on_damage: OnDamage) -> list[CollectionRecord]:
        """What every collection condemned and marked, oldest first, as far as it can be read."""
        return [*self._readable(map(collection_name, range(1, self.last + 1)), CollectionRecord, on_damage)]

    def _readable(self, names: Iterable[str], type_: type[Record], on_damage: OnDamage | None) -> Iterator[Record]:
        for name in names:
            try:
                yield self._read(name, type_)
            except (CorruptedBackup, UnsupportedFormat, ObjectNotFound) as error:
                if on_damage is None:
                    raise
                on_damage(name, error)

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

    def decide(self, record: VerdictRecord) -> VerdictRecord:
        """Fix what is deleted, or learn what another collector decided; only then may anything be deleted."""
        return self._create_once(verdict_name(record.number), record, VerdictRecord)

    def _create_once(self, name: str, record: Record, type_: type[Record]) -> Record:
        try:
            self._store(name, record)
        except ObjectExists:
            self._names.add(name)
            return self._read(name, type_)
        return record

    def _store(self, name: str, record: CollectionRecord | WaitingRecord | VerdictRecord) -> None:
        kind = _KINDS[type(record)]
        data = self._keyring.seal(kind, record)
        self._backend.store(name, data)
        self._names.add(name)
        self._cache[name] = record

    def _read(self, name: str, type_: type[Record]) -> Record:
        known = self._cache.get(name)
        if known is None:
            known = retrieve_valid(self._backend, name, lambda data: self._decode(name, data, type_))
            self._cache[name] = known
        if not isinstance(known, type_):
            raise CorruptedBackup(f"{name} is a record of another kind")
        return known

    def check(self, name: str, data: bytes) -> None:
        """Raises CorruptedBackup or UnsupportedFormat unless the bytes are the record that the name promises."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise CorruptedBackup(f"{name} is no record of a collection")
        if match[2] == ".done":
            self._decode(name, data, VerdictRecord)
        elif match[2] == ".sessions":
            self._decode(name, data, WaitingRecord)
        else:
            self._decode(name, data, CollectionRecord)

    def _decode(self, name: str, data: bytes, type_: type[Record]) -> Record:
        record = self._keyring.open(data, _KINDS[type_], type_)
        if record.number != int(name[3:11]):
            raise CorruptedBackup(f"{name} is the record of another collection")
        return record
