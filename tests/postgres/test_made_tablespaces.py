"""CREATE TABLESPACE is found in WAL without reading the rest of it, wherever in a page it lies."""

from __future__ import annotations

import struct

import pytest

from backstay.sources.postgres.lsn import PAGE
from backstay.sources.postgres.made_tablespaces import TablespaceReader
from backstay.sources.postgres.wal_records import EventReader
from tests.postgres.made_wal import SIZE, at, commit, record, stream

PLACE = "/srv/room"  # with it the record needs no padding, which `stream` would count as a part of it
FIRST_PAGE, LATER_PAGE = PAGE - 40, PAGE - 24  # bytes of records that fit


def tablespace(oid: int, place: str = PLACE, *, previous: int = 2 * SIZE) -> bytes:
    made = bytearray(record(0, 5, 0, struct.pack("<I", oid) + place.encode() + b"\0"))
    struct.pack_into("<Q", made, 8, previous)
    return bytes(made)


def filler(size: int) -> bytes:
    """A record of so many bytes that nobody looks at, full of what looks like the beginning of others."""
    content = struct.pack("<II", 0x0500, 0xFFFF_FFFF) * (size // 8 - 4)
    return struct.pack("<IIQBBHI", size, 0, 0, 0, 10, 0, 0) + b"\xfe\x00" + bytes(6) + content


@pytest.mark.parametrize("before", [64, *range(FIRST_PAGE - 56, FIRST_PAGE + 1, 8), FIRST_PAGE + LATER_PAGE - 8])
def test_it_is_found_wherever_it_lies(before: int) -> None:
    data = stream(3 * SIZE, [filler(before), tablespace(4711), commit(1, at(1))], 4)
    (made,) = TablespaceReader().feed(data)
    assert (made.oid, made.place) == (4711, PLACE)
    assert made.lsn == next(event.lsn for event in EventReader().feed(data))


def test_it_is_found_when_it_goes_on_in_the_next_segment() -> None:
    pages = SIZE // PAGE
    room = FIRST_PAGE + (pages - 1) * LATER_PAGE
    data = stream(3 * SIZE, [filler(room - 32), tablespace(4711), commit(1, at(1))], 2 * pages)
    reader = TablespaceReader()
    assert reader.feed(data[:SIZE]) == []
    assert [made.oid for made in reader.feed(data[SIZE:])] == [4711]


def test_what_only_looks_like_it_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(EventReader, "feed")
    data = stream(3 * SIZE, [filler(PAGE), commit(1, at(1)), tablespace(4711, previous=9 * SIZE)], 4)
    assert TablespaceReader().feed(data) == []


def test_one_within_the_data_directory_is_left_out() -> None:
    data = stream(3 * SIZE, [tablespace(4711, ""), tablespace(4712)], 2)
    assert [made.oid for made in TablespaceReader().feed(data)] == [4712]
