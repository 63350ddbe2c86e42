"""What PostgreSQL's WAL tells: ends of transactions, restore points, new tablespaces (xlogrecord.h, xact.h and others).

Pages begin with a header, records go on over pages and segments, and what was not written yet is zero. The layout is
that of PostgreSQL 13 to 18.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from backstay.errors import CorruptedBackup, VersionUnsupported
from backstay.sources.postgres.lsn import PAGE

_PAGE_HEADER: Final = struct.Struct("<HHIQI")  # magic, info, timeline, address, what is left of a record
_LONG_HEADER: Final = struct.Struct("<QII")  # system identifier, segment size, page size
_SHORT_BYTES: Final = 24
_LONG_BYTES: Final = 40
_IS_CONTINUED: Final = 0x0001
_IS_LONG: Final = 0x0002
_MAGIC_HIGH: Final = 0xD1  # of every version since 10
_MAGIC_18: Final = 0xD118

_RECORD: Final = struct.Struct("<IIQBB")  # length, xid, previous record, info, resource manager
_RECORD_BYTES: Final = 24
_U32: Final = struct.Struct("<I")
_I64: Final = struct.Struct("<q")
_XLOG, _XACT, _TBLSPC = 0, 1, 5  # resource managers
_TOLD: Final = frozenset({_XLOG, _XACT, _TBLSPC})
_TABLESPACE_CREATE: Final = 0x00
_RESTORE_POINT: Final = 0x70
_COMMIT, _ABORT, _COMMIT_PREPARED, _ABORT_PREPARED = 0x00, 0x20, 0x30, 0x40
_ENDS: Final = frozenset({_COMMIT, _ABORT, _COMMIT_PREPARED, _ABORT_PREPARED})
_OPERATION: Final = 0x70  # the bits of a transaction record that say what it is
_HAS_INFO: Final = 0x80
_DATA_SHORT, _DATA_LONG, _ORIGIN, _TOP_XID = 255, 254, 253, 252  # what begins a record's own data, or comes before it
_SINCE: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction that was committed: its record lies from `lsn` to `end`."""

    lsn: int
    end: int
    xid: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Abort:
    """A transaction that was rolled back, as far as its server wrote that down."""

    lsn: int
    end: int
    xid: int
    time: datetime


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A position that somebody gave a name, with pg_create_restore_point."""

    lsn: int
    end: int
    name: str
    time: datetime


@dataclass(frozen=True, slots=True)
class TablespaceMade:
    """A tablespace was created, at a place of the server's file system; an empty one is within its data directory."""

    lsn: int
    end: int
    oid: int
    place: str

    def __str__(self) -> str:
        return f"a server that recovers makes tablespace {self.oid} in {self.place}, as its WAL says"


Event: TypeAlias = Commit | Abort | RestorePoint | TablespaceMade


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What the first page of a segment says; sizes in bytes."""

    magic: int
    start: int
    system: int
    segment_size: int


def segment_header(data: bytes) -> SegmentHeader:
    """Read the beginning of a segment. Raises CorruptedBackup, VersionUnsupported."""
    if len(data) < _LONG_BYTES:
        raise CorruptedBackup("a WAL segment is too short to be one", cause=f"it has {len(data)} bytes")
    magic, info, _, start, _ = _PAGE_HEADER.unpack_from(data)
    if magic >> 8 != _MAGIC_HIGH or not info & _IS_LONG:
        raise CorruptedBackup("a WAL segment does not begin as it should", cause=f"its magic number is {magic:04X}")
    system, size, page = _LONG_HEADER.unpack_from(data, _SHORT_BYTES)
    if page != PAGE:
        raise VersionUnsupported(
            f"this server's WAL has pages of {page} bytes",
            cause=f"only those of {PAGE} bytes can be read",
            hint="use a PostgreSQL that was built with the usual --with-wal-blocksize",
        )
    if size < PAGE or size & (size - 1) or start % size:
        raise CorruptedBackup("a WAL segment contradicts itself", cause=f"size {size}, start {start:X}")
    return SegmentHeader(magic, start, system, size)


class EventReader:
    """Reads segments that follow each other; a record that goes on in the next one is told with that one."""

    def __init__(self) -> None:
        self._record = bytearray()  # what is there of a record that is not complete
        self._missing = 0
        self._began = 0
        self.position: int | None = None  # where the last whole record ended
        self.newest: int | None = None  # where it began

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events of the next segment, up to where its records end."""
        pages = _Pages.of(data)
        opened = pages.open(0) if pages is not None else None
        if pages is None or opened is None:
            return
        at, rest = opened
        if rest and self._record and rest == self._missing:
            more, missing, end = pages.read(at, rest)
            self._record += more
            self._missing = missing
            if missing:
                return
            at = self._align(end)
            self.position, self.newest = pages.base + at, self._began
            yield from _event(pages.magic, self._began, self.position, bytes(self._record))
        elif rest:
            after = pages.after_rest(0, at, rest)
            if after is None:
                return
            at = after
        self._record.clear()
        yield from self._records(pages, at)

    def _records(self, pages: _Pages, at: int) -> Iterator[Event]:
        for start, record, missing, end in pages.records(at, len(pages.data)):
            if missing:
                self._record, self._missing, self._began = bytearray(record), missing, pages.base + start
                break
            self.position = pages.base + end
            yield from _event(pages.magic, pages.base + start, self.position, record)
        if pages.newest is not None:
            self.newest = pages.base + pages.newest

    @staticmethod
    def _align(at: int) -> int:
        return at + 7 & ~7


def events(data: bytes) -> Iterator[Event]:
    """The commits and restore points whose records lie within one segment, or the beginning of one."""
    return EventReader().feed(data)


def last_commit(data: bytes) -> Commit | None:
    """The last commit whose record lies within a segment, or some pages of it; looked for from the end."""
    pages = _Pages.of(data)
    if pages is None:
        return None
    for page in range((len(data) - 1) // PAGE * PAGE, -1, -PAGE):
        opened = pages.open(page)
        if opened is None:
            continue  # not written yet, or what follows a switch
        at, rest = opened
        if rest:
            if at + rest > page + PAGE:
                continue  # no record begins here
            at = at + rest + 7 & ~7
        found = None
        for start, record, missing, end in pages.records(at, page + PAGE):
            if missing:
                break
            for event in _event(pages.magic, pages.base + start, pages.base + end, record):
                found = event if isinstance(event, Commit) else found
        if found is not None:
            return found
    return None


@dataclass(slots=True)
class _Pages:
    """The bytes of a segment from the start of one of its pages on."""

    data: bytes
    base: int
    magic: int
    newest: int | None = None  # where the last whole record that `records` met begins

    @classmethod
    def of(cls, data: bytes) -> _Pages | None:
        """None if not even the first page is there."""
        if len(data) < _LONG_BYTES:
            return None
        magic, _, _, base, _ = _PAGE_HEADER.unpack_from(data)
        return cls(data, base, magic) if magic >> 8 == _MAGIC_HIGH and base % PAGE == 0 else None

    def open(self, page: int) -> tuple[int, int] | None:
        """Where a page's bytes begin, and how many of them belong to an earlier record; None if it is no page yet."""
        if page + _LONG_BYTES > len(self.data):
            return None
        magic, info, _, address, rest = _PAGE_HEADER.unpack_from(self.data, page)
        if magic != self.magic or address != self.base + page:
            return None
        return page + (_LONG_BYTES if info & _IS_LONG else _SHORT_BYTES), rest if info & _IS_CONTINUED else 0

    def read(self, at: int, length: int) -> tuple[bytes, int, int]:
        """Bytes of a record that goes on over pages; how many are missing, and where those that are there end.

        When a server crashed within a record, the page after it begins anew: then all of the rest is missing, and the
        end is that page.
        """
        data = self.data
        pieces = []
        while True:
            stop = min(at + length, at - at % PAGE + PAGE, len(data))
            pieces.append(data[at:stop])
            length -= stop - at
            if not length or stop % PAGE or stop >= len(data):
                return b"".join(pieces), length, stop
            opened = self.open(stop)
            if opened is None or opened[1] != length:
                return b"".join(pieces), length, stop
            at = opened[0]

    def after_rest(self, page: int, at: int, rest: int) -> int | None:
        """Where the first record behind the rest of an earlier one begins."""
        while at + rest > page + PAGE:
            page += PAGE
            opened = self.open(page)
            if opened is None:
                return None
            at, rest = opened
        return at + rest + 7 & ~7

    def records(self, at: int, until: int) -> Iterator[tuple[int, bytes, int, int]]:
        """(begin, bytes, missing, end) of records that begin before an offset; of the uninteresting no bytes."""
        data, size = self.data, len(self.data)
        while at < until:
            if at % PAGE == 0:
                opened = self.open(at)
                if opened is None or opened[1]:
                    return
                at = opened[0]
            if at + 4 > size:
                return
            (length,) = _U32.unpack_from(data, at)
            if length < _RECORD_BYTES:
                return  # nothing was written here yet
            end = at + length
            if end <= at - at % PAGE + PAGE and end <= size:
                self.newest = at
                if data[at + 17] in _TOLD:
                    yield at, data[at:end], 0, end + 7 & ~7
                at = end + 7 & ~7
                continue
            record, missing, end = self.read(at, length)
            if missing and end < size and self.open(end) is not None:
                at = end  # it was never finished: the server went on behind it
                continue
            if not missing:
                self.newest = at
            yield at, record, missing, end + 7 & ~7
            if missing:
                return
            at = end + 7 & ~7


def _event(magic: int, lsn: int, end: int, record: bytes) -> Iterator[Event]:
    _, xid, _, info, manager = _RECORD.unpack_from(record)
    if manager == _XACT and (operation := info & _OPERATION) in _ENDS:
        own = _own_data(record)
        if own is not None and len(own) >= 8 and (time := _time(own)) is not None:
            if operation in (_COMMIT_PREPARED, _ABORT_PREPARED):
                xid = _prepared_xid(magic, info, own)
            yield (Commit if operation in (_COMMIT, _COMMIT_PREPARED) else Abort)(lsn, end, xid, time)
    elif manager == _XLOG and info & 0xF0 == _RESTORE_POINT:
        own = _own_data(record)
        if own is not None and len(own) > 8 and (time := _time(own)) is not None:
            yield RestorePoint(lsn, end, own[8:].partition(b"\0")[0].decode(errors="replace"), time)
    elif manager == _TBLSPC and info & 0xF0 == _TABLESPACE_CREATE:
        own = _own_data(record)
        if own is not None and len(own) > 4:
            (oid,) = _U32.unpack_from(own)
            yield TablespaceMade(lsn, end, oid, own[4:].partition(b"\0")[0].decode(errors="replace"))


def _own_data(record: bytes) -> bytes | None:
    """The data of a record that refers to no block; it lies at its end."""
    at = _RECORD_BYTES
    while at + 2 <= len(record):
        kind = record[at]
        if kind == _DATA_SHORT:
            return record[len(record) - record[at + 1] :]
        if kind == _DATA_LONG and at + 5 <= len(record):
            return record[len(record) - _U32.unpack_from(record, at + 1)[0] :]
        if kind not in (_ORIGIN, _TOP_XID):
            return None
        at += 3 if kind == _ORIGIN else 5
    return None


def _time(own: bytes) -> datetime | None:
    try:
        return _SINCE + timedelta(microseconds=_I64.unpack_from(own)[0])
    except OverflowError:
        return None


def _prepared_xid(magic: int, info: int, own: bytes) -> int:
    """Which transaction that was prepared ends: it stands behind lists of what its end does; 0 if not there."""
    if not info & _HAS_INFO or len(own) < 12:
        return 0
    (parts,) = _U32.unpack_from(own, 8)
    at = 12 + (8 if parts & 1 else 0)
    lists = ((1 << 1, 4), (1 << 2, 12), (1 << 8, 16 if magic >= _MAGIC_18 else 12), (1 << 3, 16))
    for bit, size in lists:  # subtransactions, files that are dropped, their statistics, invalidations
        if parts & bit:
            if at + 4 > len(own):
                return 0
            at += 4 + size * _U32.unpack_from(own, at)[0]
    if not parts & 1 << 4 or at + 4 > len(own):
        return 0
    return int(_U32.unpack_from(own, at)[0])
