"""The binary log of MySQL and MariaDB: its events, checked one by one, and the transactions that they make.

Integers are little-endian. A file is four bytes and then events, of which the first describes the others.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from zlib import crc32

from backstay.errors import CorruptedSource, InvalidRequest

MAGIC: Final = b"\xfebin"
_HEADER: Final = struct.Struct("<IBIIIH")  # time, kind, server, length, end, flags
_CHECKSUM: Final = 4  # bytes, at the end of an event
_LARGEST: Final = 1 << 30  # bytes of an event; no server sends longer ones
_IN_USE: Final = 1  # a flag of the first event while the server writes the file; not part of its checksum
_FLAGS_AT: Final = 17
_NAME: Final = re.compile(r"(.+)\.([0-9]{6,10})")
_POSITION: Final = re.compile(r"([^:/]+):([0-9]{1,12})")
_GTID: Final = re.compile(r"[0-9]+-[0-9]+-[0-9]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9]+")

QUERY: Final = 2
FORMAT: Final = 15
_XID: Final = 16
_XA_PREPARE: Final = 38
_PAYLOAD: Final = 40  # of MySQL: a whole transaction, compressed
_COMPRESSED_QUERY: Final = 165
_MYSQL_GTID: Final = (33, 42)  # the second one has a tag
_ANONYMOUS_GTID: Final = 34
_MARIADB_GTID: Final = 162
_GTID_LIST: Final = 163
_STANDALONE: Final = 1  # a flag of MariaDB: one statement, which commits by itself
_QUERY_HEAD: Final = struct.Struct("<IIBHH")  # thread, seconds, length of the database, error, length of settings
_PREPARE_HEAD: Final = struct.Struct(
    "<?III"
)  # whether it commits at once, format, lengths of the two parts of its name
_XA_DONE: Final = re.compile(rb"XA (?:COMMIT|ROLLBACK) (X'[0-9A-Fa-f]*',X'[0-9A-Fa-f]*',\d+)")
_BEGINS: Final = re.compile(rb"(BEGIN|START TRANSACTION|XA START)\b")
_ENDS: Final = re.compile(rb"(COMMIT|ROLLBACK(?! TO)|XA COMMIT|XA ROLLBACK|XA PREPARE)\b")


class Position(NamedTuple):
    """A place in the binary log: a byte of one of its files. Positions of one server compare as they follow."""

    number: int
    offset: int
    base: str

    @property
    def file(self) -> str:
        return log_name(self.base, self.number)

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}"


def log_name(base: str, number: int) -> str:
    """The name of a file of the log."""
    return f"{base}.{number:06d}"


def split_name(file: str) -> tuple[str, int] | None:
    """What the files of a log have in common, and the number of this one; None for other names."""
    found = _NAME.fullmatch(file)
    return (found[1], int(found[2])) if found is not None else None


def position_at(file: str, offset: int) -> Position:
    """A place in a file. Raises InvalidRequest for a name that no server gives."""
    parts = split_name(file)
    if parts is None:
        raise InvalidRequest(f"{file!r} is no file of a binary log", cause="such a file ends in a point and six digits")
    return Position(parts[1], offset, parts[0])


def parse_position(text: str) -> Position:
    """What `binlog.000042:1234` means. Raises InvalidRequest."""
    found = _POSITION.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(
            f"{text!r} is no position in a binary log",
            cause="a position is a file and a number of bytes",
            hint="write it as in binlog.000042:1234, or as `SHOW BINLOG EVENTS` tells it",
        )
    return position_at(found[1], int(found[2]))


def parse_gtid(text: str) -> str:
    """The name of one transaction, as `Transaction.gtid` has it. Raises InvalidRequest."""
    name = text.strip().lower()
    if not _GTID.fullmatch(name):
        raise InvalidRequest(
            f"{text!r} is not the name of one transaction",
            cause="MariaDB writes it as domain-server-number, MySQL as UUID:number",
            hint="write it as in 0-1-4711; a list of several is no target",
        )
    return name


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a file: it lies from byte `start` to before `end`; `time` is in seconds since 1970, 0 for none.

    `body` is what stands between its header and its checksum.
    """

    kind: int
    time: int
    server: int
    start: int
    end: int
    body: bytes


class EventReader:
    """Takes the bytes of one file in pieces of any length, and gives the events that they complete.

    It holds an event until the event is whole: as much as the server's longest row.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._held = bytearray()
        self._checksum: int | None = None  # bytes, once the first event was seen
        self.position = 0  # behind the last event that was whole and right

    @property
    def is_between(self) -> bool:
        """Whether no event was begun."""
        return not self._held

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that end in these bytes. Raises CorruptedSource at the first one that is not right."""
        self._held += data
        used = 0
        if self.position == 0:
            if len(self._held) < len(MAGIC):
                return
            if self._held[: len(MAGIC)] != MAGIC:
                raise self._wrong("it does not begin as such files do; an encrypted one cannot be read from disk")
            used = self.position = len(MAGIC)
        try:
            while (event := self._event(used)) is not None:
                used += event.end - event.start
                self.position = event.end
                yield event
        finally:
            del self._held[:used]

    def _event(self, at: int) -> Event | None:
        if len(self._held) - at < _HEADER.size:
            return None
        time, kind, server, length, end, flags = _HEADER.unpack_from(self._held, at)
        if not _HEADER.size <= length <= _LARGEST:
            raise self._wrong(f"an event has {length} bytes")
        if end != (self.position + length) % 2**32:
            raise self._wrong("an event claims to lie elsewhere")
        if len(self._held) - at < length:
            return None
        data = bytes(memoryview(self._held)[at : at + length])
        if self._checksum is None:
            self._checksum = self._described(kind, data)
        if self._checksum and crc32(_sealed(kind, flags, data)) != int.from_bytes(data[-_CHECKSUM:], "little"):
            raise self._wrong("the checksum of an event is wrong")
        body = data[_HEADER.size : length - self._checksum]
        return Event(kind, time, server, self.position, self.position + length, body)

    def _described(self, kind: int, data: bytes) -> int:
        """How many bytes of checksum the events of this file have, as its first event tells."""
        if kind != FORMAT or len(data) < _HEADER.size + 60:
            raise self._wrong("its first event does not describe it")
        algorithm = data[-_CHECKSUM - 1]
        if algorithm > 1:
            raise self._wrong(f"its events have checksums of an unknown kind ({algorithm})")
        return _CHECKSUM if algorithm else 0

    def _wrong(self, cause: str) -> CorruptedSource:
        return CorruptedSource(
            f"the binary log {self._file} is not right at byte {self.position}",
            cause=cause,
            hint="check that file with `mariadb-binlog --verify-binlog-checksum`, and the disk that it lies on",
        )


def _sealed(kind: int, flags: int, data: bytes) -> bytes:
    """What the checksum of an event is about."""
    sealed = data[:-_CHECKSUM]
    if kind == FORMAT and flags & _IN_USE:
        return sealed[:_FLAGS_AT] + bytes([sealed[_FLAGS_AT] & ~_IN_USE]) + sealed[_FLAGS_AT + 1 :]
    return sealed


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is applied as a whole; `time` is that of the event that ends it, in seconds since 1970.

    `gtid` is its name as the server writes it, if it has one, and `domain` that of MariaDB. `sql` are the first bytes
    of a statement that is a transaction by itself. `prepares` and `completes` are the XA transaction that it leaves
    for later, or ends, as `XA RECOVER FORMAT='SQL'` writes it.
    """

    start: int
    end: int
    time: int
    gtid: str | None
    sql: bytes
    prepares: str = ""
    completes: str = ""


class Transactions:
    """Puts the events of one file together; what it was given up to `boundary` are whole transactions."""

    def __init__(self) -> None:
        self.boundary = len(MAGIC)
        self.state: dict[int, dict[int, int]] | None = None  # MariaDB: last sequence number by domain and server
        self._last: dict[int, int] = {}  # the server that logged last, by domain
        self._first: Event | None = None
        self._is_open = False  # waits for a commit, not for a statement

    def position(self) -> frozenset[str] | None:
        """The GTIDs of MariaDB that a replica which is at the boundary has come to; None where there are none."""
        if self.state is None:
            return None
        return frozenset(f"{domain}-{server}-{self.state[domain][server]}" for domain, server in self._last.items())

    def add(self, event: Event) -> Transaction | None:
        """The transaction that this event completes, if it does. Raises CorruptedSource."""
        try:
            return self._add(event)
        except (struct.error, IndexError) as error:  # its file has no checksums
            raise CorruptedSource(f"an event at byte {event.start} cannot be read", cause=str(error)) from error

    def _add(self, event: Event) -> Transaction | None:
        if event.kind == _GTID_LIST:
            self._take_list(event.body)
        if self._first is None:
            if not _begins(event):
                self.boundary = event.end
                return None
            self._first, self._is_open = event, _is_group(event)
            return self._ended(event) if event.kind == QUERY and not self._is_open else None
        if event.kind == QUERY and not self._is_open:
            self._is_open = bool(_BEGINS.match(_statement(event.body)))
            return None if self._is_open else self._ended(event)
        is_end = event.kind in (_XID, _XA_PREPARE, _PAYLOAD) or (event.kind == _COMPRESSED_QUERY and not self._is_open)
        if is_end or (event.kind == QUERY and _ENDS.match(_statement(event.body))):
            return self._ended(event)
        return None

    def _ended(self, event: Event) -> Transaction:
        first = self._first
        assert first is not None
        self._first, self._is_open, self.boundary = None, False, event.end
        self._count(first)
        sql = _statement(event.body) if event.kind == QUERY else b""
        prepares = _prepared(event.body) if event.kind == _XA_PREPARE else ""
        done = _XA_DONE.match(sql)
        completes = done[1].decode().lower() if done is not None else ""
        return Transaction(first.start, event.end, event.time, _gtid(first), sql[:256], prepares, completes)

    def _take_list(self, body: bytes) -> None:
        """What was logged before this file."""
        self.state, self._last = {}, {}
        count = int.from_bytes(body[:4], "little") & 0x0FFFFFFF
        for domain, server, number in struct.iter_unpack("<IIQ", body[4 : 4 + 16 * count]):
            self.state.setdefault(domain, {})[server] = number
            self._last[domain] = server  # the last one of a domain is listed last

    def _count(self, first: Event) -> None:
        if first.kind == _MARIADB_GTID and self.state is not None:
            number, domain = struct.unpack_from("<QI", first.body)
            self.state.setdefault(domain, {})[first.server] = number
            self._last[domain] = first.server


def _begins(event: Event) -> bool:
    """Whether an event outside of a transaction begins one; others, such as Rotate, stand for themselves."""
    return event.kind in (*_MYSQL_GTID, _ANONYMOUS_GTID, _MARIADB_GTID, QUERY)


def _is_group(event: Event) -> bool:
    """Whether a transaction that begins so goes on to a commit."""
    if event.kind == _MARIADB_GTID:
        return not event.body[12] & _STANDALONE
    return event.kind == QUERY and bool(_BEGINS.match(_statement(event.body)))


def _gtid(first: Event) -> str | None:
    if first.kind == _MARIADB_GTID:
        number, domain = struct.unpack_from("<QI", first.body)
        return f"{domain}-{first.server}-{number}"
    if first.kind == _MYSQL_GTID[0]:
        source = first.body[1:17].hex()
        number = int.from_bytes(first.body[17:25], "little")
        return "-".join((source[:8], source[8:12], source[12:16], source[16:20], source[20:])) + f":{number}"
    return None


def _prepared(body: bytes) -> str:
    """The name of what an XA PREPARE leaves for later; empty for one that commits at once."""
    at_once, kind, first, second = _PREPARE_HEAD.unpack_from(body)
    name = body[_PREPARE_HEAD.size : _PREPARE_HEAD.size + first + second]
    return "" if at_once else f"x'{name[:first].hex()}',x'{name[first:].hex()}',{kind}"


def _statement(body: bytes) -> bytes:
    """The text of a statement's event."""
    _, _, database, _, settings = _QUERY_HEAD.unpack_from(body)
    return body[_QUERY_HEAD.size + settings + database + 1 :]
