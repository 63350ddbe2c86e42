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


def restore_point(name: str, moment: datetime) -> bytes:
    own = struct.pack("<q64s", (moment - _SINCE) // timedelta(microseconds=1), name.encode())
    return record(0, 0, 0x70, own)


def segment(number: int, records: Iterable[bytes] = (), *, size: int = SIZE, system: int = SYSTEM) -> bytes:
    """A whole segment with some records, which must fit into its first page; zeros follow."""
    start = number * size
    page = struct.pack("<HHIQIxxxxQII", _MAGIC, 2, 1, start, 0, system, size, PAGE) + b"".join(records)
    assert len(page) <= PAGE
    return page.ljust(size, b"\0")
