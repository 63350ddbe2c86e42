"""Segments of WAL without a server: small ones that hold commits at given times."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from backstay.sources.postgres.lsn import PAGE

SYSTEM = 7_500_000_000_000_000_001
SIZE = 1 << 20  # the smallest that a cluster may have
_MAGIC = 0xD118
_SINCE = datetime(2000, 1, 1, tzinfo=UTC)
DAY = datetime(2026, 3, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    """A moment of the day that made WAL is of."""
    return DAY + timedelta(minutes=minutes)


def record(xid: int, manager: int, info: int, own: bytes) -> bytes:
    body = struct.pack("<BB", 255, len(own)) + own
    header = struct.pack("<IIQBBHI", 24 + len(body), xid, 0, info, manager, 0, 0)
    whole = header + body
    return whole + bytes(-len(whole) % 8)


def commit(xid: int, moment: datetime) -> bytes:
    return record(xid, 1, 0, struct.pack("<q", (moment - _SINCE) // timedelta(microseconds=1)))


def abort(xid: int, moment: datetime) -> bytes:
    return record(xid, 1, 0x20, struct.pack("<q", (moment - _SINCE) // timedelta(microseconds=1)))


def restore_point(name: str, moment: datetime) -> bytes:
    own = struct.pack("<q64s", (moment - _SINCE) // timedelta(microseconds=1), name.encode())
    return record(0, 0, 0x70, own)


def header(address: int, *, info: int = 0, rest: int = 0, size: int = SIZE, system: int = SYSTEM) -> bytes:
    """Of a page; that of the first one of a segment is longer."""
    is_first = address % size == 0
    fields = struct.pack("<HHIQI4x", _MAGIC, info | (2 if is_first else 0), 1, address, rest)
    return fields + (struct.pack("<QII", system, size, PAGE) if is_first else b"")


def stream(start: int, records: Iterable[bytes], pages: int, *, size: int = SIZE) -> bytes:
    """So many pages of WAL from a position on, filled with records that go on over pages and segments."""
    left, made = b"".join(records), bytearray()
    ends, at = [], 0
    for one in records:
        at += len(one)
        ends.append(at)
    written = 0
    for number in range(pages):
        rest = next((end - written for end in ends if end > written), 0)
        is_inside = written not in (0, *ends)
        page = header(start + number * PAGE, info=int(is_inside), rest=rest if is_inside else 0, size=size)
        piece = left[written : written + PAGE - len(page)]
        written += len(piece)
        made += (page + piece).ljust(PAGE, b"\0")
    return bytes(made)


def segment(number: int, records: Iterable[bytes] = (), *, size: int = SIZE, system: int = SYSTEM) -> bytes:
    """A whole segment with some records, which must fit into its first page; zeros follow."""
    page = header(number * size, size=size, system=system) + b"".join(records)
    assert len(page) <= PAGE
    return page.ljust(size, b"\0")
