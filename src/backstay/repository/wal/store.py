"""What databases log: write-once objects beside the snapshots (docs/format.md, "WAL").

A file is a segment of PostgreSQL's WAL, a small file beside it, or a slice of MySQL's binary log (`log_slices`).

A segment is stored when it is complete. Before that it comes in parts, each from where the last one ended, so that
what a server wrote a moment ago is durable as well; parts go when their segment is stored. A name belongs to the
cluster that had it first. No session announces these objects and no collection looks at them: they are removed one by
one, when no snapshot needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from backstay.codec.cipher import expand
from backstay.core.clock import Clock
from backstay.errors import (
    BadWalName,
    CorruptedBackup,
    IdentityMismatch,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    WalConflict,
)
from backstay.repository.format import WAL, RecordKind, wal_binding_name, wal_gap_name, wal_name
from backstay.repository.keys.keyring import Keyring
from backstay.repository.wal.slices import SLICE_NAME, slice_of
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid

_POSTGRES: Final = re.compile(r"[0-9A-F]{24}(?:\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
_FILE: Final = re.compile(rf"{_POSTGRES.pattern}|{SLICE_NAME}")
_NAME: Final = re.compile(rf"wal/([0-9a-f]{{16}})/({_FILE.pattern})(?:\.([0-9a-f]{{8}})-([0-9a-f]{{8}}))?")
_GAP: Final = re.compile(r"wal/gaps/[0-9a-f]{16}\.([0-9a-f]{16})-([0-9a-f]{16})")
_BINDING: Final = re.compile(r"wal/names/([0-9a-f]{32})")
_MEND: Final = "`backstay repair packs --from-copy` mends it from a copy; without one, recover to a target before it"
BLOCK: Final = 4096  # bytes that a disk writes at least: commits that wait for less need not wait for compression
MAX_FILE: Final = 64 << 20  # bytes; the largest WAL segments that are in use


class WalRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bytes of one WAL file from `start` on: of a whole segment, of a part of one, or of a small file.

    `system` is the system identifier of the cluster, `file` the name that PostgreSQL gave.
    """

    system: int
    file: str
    start: int
    whole: bool
    data: bytes


class BindingRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cluster, by its system identifier, whose backups have a name; bound when, in nanoseconds since 1970."""

    name: str
    system: int
    bound_ns: int


class GapRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody knows that WAL of a cluster is missing between two positions: who, why, and since when.

    `known_ns` is in nanoseconds since 1970. It fills no gap: nothing is recovered across one.
    """

    system: int
    from_lsn: int
    to_lsn: int
    known_ns: int
    who: str
    reason: str


@dataclass(slots=True)
class StoredFile:
    """What is stored of one WAL file: all of it, or parts (first byte, the one behind the last)."""

    whole: bool = False
    parts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def reach(self) -> int | None:
        """How many bytes from its start on are there; None for all."""
        if self.whole:
            return None
        reach = 0
        for start, end in sorted(self.parts):
            if start > reach:
                break
            reach = max(reach, end)
        return reach


class WalStore:
    """The WAL in a repository. Any thread may call it."""

    def __init__(self, backend: StorageBackend, keyring: Keyring) -> None:
        self._backend, self._keyring = backend, keyring

    def store(self, system: int, file: str, data: bytes, *, parts: Iterable[tuple[int, int]] | None = None) -> bool:
        """Make a whole file durable; false if it was there. Raises WalConflict, InvalidRequest.

        Somebody was told that its parts are durable: they must be the same bytes. Those that are compared are
        `parts`, or all that are stored. Then they are not needed any more: a crash before they are forgotten does no
        harm.
        """
        record = WalRecord(system, _checked(file), 0, True, data)
        if parts is None:
            stored = self.find(system, file)
            if stored.whole:
                return self._settle(record)
            parts = stored.parts
        if others := self.contradicting(system, file, data, parts):
            raise WalConflict(
                f"{file} of cluster {system} is stored with other bytes",
                cause=f"a part of it, from byte {others[0][0]} to {others[0][1]}, came before, and was of another one",
            )
        return self._store(record)

    def store_part(self, system: int, file: str, start: int, data: bytes) -> bool:
        """Make a part of a segment durable; false if it was there. Raises WalConflict, InvalidRequest."""
        return self._store(WalRecord(system, _checked(file), start, False, data), compress=len(data) > BLOCK)

    def store_beginning(self, system: int, file: str, data: bytes) -> bool:
        """Make the first bytes of a segment durable; false if they were there. Raises WalConflict, InvalidRequest.

        They stand in for what is stored of it and damaged.
        """
        stored = self.find(system, file)
        try:
            known = self.read(system, file, stored) if stored.reach != 0 else b""
        except CorruptedBackup:
            known = b""
            parts = () if stored.whole else stored.parts
            same = not any(self._differs(wal_name(system, file, part), data, is_whole=False) for part in parts)
        else:
            same = known[: len(data)] == data[: len(known)]
        if not same:
            raise WalConflict(
                f"{file} of cluster {system} is stored with other bytes",
                cause="this segment, or a part of it, came before, and was another one",
            )
        return len(known) < len(data) and self.store_part(system, file, 0, data)

    def _store(self, record: WalRecord, *, compress: bool = True) -> bool:
        if len(record.data) > MAX_FILE:
            raise InvalidRequest(f"{record.file} is too large", cause=f"it has {len(record.data)} bytes")
        try:
            self._backend.store(_name_of(record), self._keyring.seal(RecordKind.WAL, record, compress=compress))
        except ObjectExists:
            return self._settle(record)
        return True

    def _settle(self, record: WalRecord) -> bool:
        """Where an object of this name is: false for the same bytes; one that is damaged is replaced.

        Raises WalConflict.
        """
        name = _name_of(record)
        try:
            there = self._read(name).data
        except CorruptedBackup:
            self._backend.store(name, self._keyring.seal(RecordKind.WAL, record), overwrite=True)
            return True
        if there != record.data:
            raise WalConflict(
                f"{record.file} of cluster {record.system} is stored with other bytes",
                cause="a file of this name came before, and was another one",
            )
        return False

    def contradicting(
        self, system: int, file: str, data: bytes, parts: Iterable[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """The parts that hold other bytes than a whole file; what is damaged or gone does not contradict it."""
        return [part for part in parts if self._differs(wal_name(system, file, part), data, is_whole=True)]

    def _differs(self, name: str, data: bytes, *, is_whole: bool) -> bool:
        """Whether a part has other bytes than a file, or than its beginning, as far as that is known."""
        try:
            part = self._read(name)
        except (CorruptedBackup, ObjectNotFound):  # the file is what replaces it
            return False
        known = part.data if is_whole else part.data[: max(0, len(data) - part.start)]
        return data[part.start : part.start + len(part.data)] != known

    def forget_parts(self, system: int, file: str, stored: StoredFile) -> None:
        """Remove the parts of a segment that is stored whole, and that do not contradict it."""
        self._backend.delete_all([wal_name(system, file, part) for part in stored.parts])

    @property
    def forgets_at_once(self) -> int:
        """How many parts are forgotten in about the time that one takes."""
        return self._backend.deletes_at_once

    def systems(self) -> list[int]:
        """The clusters of which there is any WAL."""
        return sorted({int(match[1], 16) for match in self._matches(WAL)})

    def files(self, system: int) -> dict[str, StoredFile]:
        """What is stored of a cluster, by the names of its files, in their order."""
        return self._files(f"{WAL}{system:016x}/")

    def find(self, system: int, file: str) -> StoredFile:
        """What is stored of one file."""
        return self._files(wal_name(system, file)).get(file, StoredFile())

    def _files(self, prefix: str) -> dict[str, StoredFile]:
        found: dict[str, StoredFile] = {}
        for match in self._matches(prefix):
            stored = found.setdefault(match[2], StoredFile())
            if match[3] is None:
                stored.whole = True
            else:
                stored.parts.append((int(match[3], 16), int(match[4], 16)))
        return dict(sorted(found.items()))

    def newest_ns(self, system: int) -> int:
        """When WAL of a cluster was stored last, by the clock of the store, in nanoseconds since 1970; 0 for never."""
        return max((info.modified_ns for info in self._backend.list(f"{WAL}{system:016x}/")), default=0)

    def read(self, system: int, file: str, stored: StoredFile) -> bytes:
        """A whole file, or of a segment what its parts hold from its start on.

        When parts went since they were listed, their segment is whole by now. Raises CorruptedBackup, ObjectNotFound.
        """
        if not stored.whole:
            try:
                return self._joined(system, file, stored)
            except ObjectNotFound:
                pass  # told by the line below, if it is not so
        return self._read(wal_name(system, file)).data

    def _joined(self, system: int, file: str, stored: StoredFile) -> bytes:
        joined = bytearray()
        for start, end in sorted(stored.parts):
            if start <= len(joined) < end:
                data = self._read(wal_name(system, file, (start, end))).data
                if joined[start:] != data[: len(joined) - start]:
                    raise CorruptedBackup(f"parts of {file} contradict each other")
                joined[start:] = data
        return bytes(joined)

    def remove(self, system: int, file: str, stored: StoredFile) -> None:
        """Forget a file that no snapshot needs."""
        for name in object_names(system, file, stored):
            self._backend.delete(name)

    # -- names of clusters

    def bind(self, name: str, system: int, clock: Clock) -> None:
        """Let a name belong to a cluster, if it is still free. Raises IdentityMismatch when another one has it.

        The atomic create decides between two clusters. A crash after it leaves a name without WAL, which is its own.
        """
        record = BindingRecord(name, system, clock.now_ns())
        try:
            self._backend.store(self.binding_name(name), self._keyring.seal(RecordKind.WAL_NAME, record))
        except ObjectExists:
            require_cluster(name, self._bound(self.binding_name(name)).system, system)

    def bound(self, name: str) -> int | None:
        """The cluster that has a name, if one has. Raises CorruptedBackup."""
        try:
            return self._bound(self.binding_name(name)).system
        except ObjectNotFound:
            return None

    def names(self) -> dict[str, int]:
        """All names, with the clusters that have them. Raises CorruptedBackup."""
        found = [info.name for info in self._backend.list(f"{WAL}names/") if _BINDING.fullmatch(info.name)]
        return dict(sorted((record.name, record.system) for record in map(self._bound, found)))

    def binding_name(self, name: str) -> str:
        """The object that says which cluster has a name."""
        return wal_binding_name(expand(self._keyring.root, b"backstay/v1/wal-name" + name.encode(), 16))

    def _bound(self, object_name: str) -> BindingRecord:
        return retrieve_valid(self._backend, object_name, lambda data: self._decode_binding(object_name, data))

    def _decode_binding(self, object_name: str, data: bytes) -> BindingRecord:
        record = self._keyring.open(data, RecordKind.WAL_NAME, BindingRecord)
        if self.binding_name(record.name) != object_name:
            raise CorruptedBackup(f"{object_name} is about another name")
        return record

    # -- gaps that somebody knows of

    def acknowledge_gap(self, record: GapRecord) -> bool:
        """Record that a gap is known; false if it was. A crash leaves the record, or nothing."""
        name = wal_gap_name(record.system, record.from_lsn, record.to_lsn)
        try:
            self._backend.store(name, self._keyring.seal(RecordKind.WAL_GAP, record))
        except ObjectExists:
            return False
        return True

    def acknowledged_gap(self, system: int, from_lsn: int, to_lsn: int) -> GapRecord | None:
        """Who knows of a gap, if anybody does. Raises CorruptedBackup."""
        name = wal_gap_name(system, from_lsn, to_lsn)
        try:
            return retrieve_valid(self._backend, name, lambda data: self._decode_gap(name, data))
        except ObjectNotFound:
            return None

    def acknowledged_gaps(self, system: int) -> list[GapRecord]:
        """All gaps of a cluster that somebody knows of; records that are damaged are left out: `verify` names them."""
        found: list[GapRecord] = []
        for info in self._backend.list(f"{WAL}gaps/{system:016x}."):
            if (match := _GAP.fullmatch(info.name)) is not None:
                from_lsn, to_lsn = int(match[1], 16), int(match[2], 16)
                with suppress(CorruptedBackup):
                    record = self.acknowledged_gap(system, from_lsn, to_lsn)
                    found += [] if record is None else [record]
        return found

    def _decode_gap(self, object_name: str, data: bytes) -> GapRecord:
        record = self._keyring.open(data, RecordKind.WAL_GAP, GapRecord)
        if wal_gap_name(record.system, record.from_lsn, record.to_lsn) != object_name:
            raise CorruptedBackup(f"{object_name} is about another gap")
        return record

    # -- checking

    def check(self, name: str, data: bytes) -> None:
        """See that the object of a name is what was stored. Raises CorruptedBackup, UnsupportedFormat."""
        if _BINDING.fullmatch(name):
            self._decode_binding(name, data)
        elif _GAP.fullmatch(name):
            self._decode_gap(name, data)
        elif _NAME.fullmatch(name):
            self.decode(name, data)
        else:
            raise CorruptedBackup(f"{name} is foreign", cause="no WAL is stored under such a name")

    @staticmethod
    def is_name(name: str) -> bool:
        """Whether WAL, or what belongs to it, can be stored under a name."""
        return any(pattern.fullmatch(name) for pattern in (_NAME, _BINDING, _GAP))

    def check_stored(self, name: str) -> None:
        """Read an object and check it; a part may have gone since it was listed, when its segment became whole.

        Raises CorruptedBackup, ObjectNotFound, UnsupportedFormat.
        """
        try:
            retrieve_valid(self._backend, name, lambda data: self.check(name, data))
        except ObjectNotFound:
            whole = whole_of(name)
            if whole is None or not self._backend.exists(whole):
                raise

    def objects(self) -> dict[str, int]:
        """Everything that is stored of WAL, foreign objects too, with sizes in bytes."""
        return {info.name: info.size for info in self._backend.list(WAL)}

    def decode(self, name: str, data: bytes) -> WalRecord:
        """The record under a name. Raises CorruptedBackup, UnsupportedFormat."""
        try:
            record = self._keyring.open(data, RecordKind.WAL, WalRecord)
        except CorruptedBackup as error:
            raise CorruptedBackup(f"{name} is damaged", cause=str(error), hint=_MEND) from error
        if _name_of(record) != name:
            raise CorruptedBackup(f"{name} holds other WAL than its name says")
        return record

    def _read(self, name: str) -> WalRecord:
        return retrieve_valid(self._backend, name, lambda data: self.decode(name, data))

    def _matches(self, prefix: str) -> list[re.Match[str]]:
        return [match for info in self._backend.list(prefix) if (match := _NAME.fullmatch(info.name))]


def object_names(system: int, file: str, stored: StoredFile) -> list[str]:
    """The objects that a file lies in, its parts first."""
    parts = [wal_name(system, file, part) for part in stored.parts]
    return [*parts, wal_name(system, file)] if stored.whole else parts


def check_file(file: str) -> str:
    """A name that PostgreSQL gives to files of its log. Raises BadWalName."""
    if not _POSTGRES.fullmatch(file):
        raise BadWalName(
            f"{file!r} is no WAL file", cause="names are 24 hexadecimal digits, or end in .history or .backup"
        )
    return file


def owner_of(name: str) -> tuple[int, str] | None:
    """The cluster and the file that an object belongs to; None for what is no part of the WAL itself."""
    match = _NAME.fullmatch(name)
    return (int(match[1], 16), match[2]) if match is not None else None


def _checked(file: str) -> str:
    if slice_of(file) is not None:
        return file
    return check_file(file)


def whole_of(name: str) -> str | None:
    """The object of the whole segment that replaces this part of it; None for what is no part."""
    match = _NAME.fullmatch(name)
    return f"{WAL}{match[1]}/{match[2]}" if match is not None and match[3] is not None else None


def require_cluster(name: str, expected: int, system: int) -> None:
    """Raise IdentityMismatch unless a cluster is the one that a name belongs to."""
    if system != expected:
        raise IdentityMismatch(
            f"{name} is the name of another database cluster",
            cause=f"its system identifier is {expected}, and this one's is {system}",
        )


def _name_of(record: WalRecord) -> str:
    part = None if record.whole else (record.start, record.start + len(record.data))
    return wal_name(record.system, record.file, part)
