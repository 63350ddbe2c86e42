"""CREATE TABLESPACE in PostgreSQL's WAL, found by what its record begins with: no other record is read.

What is looked for lies 16 bytes behind the beginning of a record (xlogrecord.h), and records begin at multiples of 8.
"""

from __future__ import annotations

import struct
from typing import Final

from backstay.sources.postgres.lsn import PAGE
from backstay.sources.postgres.wal_records import EventReader, TablespaceMade

_TABLESPACES: Final = 5  # the resource manager
_SIGN: Final = bytes((0, _TABLESPACES, 0, 0))  # one is made; its manager; padding
_PAGE_HEADER: Final = struct.Struct("<HHIQ")  # magic, info, timeline, address
_IS_LONG: Final = 0x0002
_SHORT_BYTES: Final = 24
_LONG_BYTES: Final = 40
_BEFORE: Final = struct.Struct("<IIQ")  # length, xid, previous record
_LONGEST: Final = 2048  # bytes of a record with a path
_FARTHEST: Final = 1 << 30  # bytes that the record before one may have


class TablespaceReader:
    """Reads segments that follow each other. A record whose header two segments share is not found."""

    def __init__(self) -> None:
        self._reader = EventReader()
        self._goes_on = False

    def feed(self, data: bytes) -> list[TablespaceMade]:
        """What the next segment tells, or pages of one, outside of the data directory."""
        is_likely = _may_tell(data)
        if not self._goes_on:
            self._reader = EventReader()
        is_read, self._goes_on = is_likely or self._goes_on, is_likely
        found = self._reader.feed(data) if is_read else ()
        return [event for event in found if isinstance(event, TablespaceMade) and event.place]


def _may_tell(data: bytes) -> bool:
    """Whether a record that makes a tablespace begins in these pages, as far as its header can tell."""
    managers = data[1::8]  # far faster to look through than all bytes
    word = managers.find(_TABLESPACES)
    while word != -1:
        if data.startswith(_SIGN, 8 * word) and _is_header(data, 8 * word):
            return True
        word = managers.find(_TABLESPACES, word + 1)
    return False


def _is_header(data: bytes, at: int) -> bool:
    """Whether what comes before the sign makes sense; a page may have begun in between."""
    page = at - at % PAGE
    if page + _LONG_BYTES > len(data):
        return False
    _, info, _, address = _PAGE_HEADER.unpack_from(data, page)
    begin = page + (_LONG_BYTES if info & _IS_LONG else _SHORT_BYTES)
    if at < begin or at + 8 > len(data):
        return False
    before = data[max(at - _BEFORE.size, begin) : at]
    if (missing := _BEFORE.size - len(before)) > page:
        return False
    length, _, previous = _BEFORE.unpack(data[page - missing : page] + before)
    position = address + at - page
    return bool(length < _LONGEST and position - _FARTHEST < previous < position)
