"""One file of a binary log while it grows: what is whole and right of it is cut into pieces that are to be stored.

What was stored before is compared instead: a receiver begins with the last file that is stored, so that the server
proves to be the one whose log that is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backstay.errors import CorruptedSource, IdentityMismatch, WalConflict
from backstay.operations.mysql.binlog_archive import BinlogArchive
from backstay.operations.wal.storing import Piece
from backstay.repository.wal.slices import SLICE, end_name, slice_name
from backstay.sources.mysql.binlog import EventReader

_READ: Final = 4 << 20  # bytes at once


class GrowingLog:
    """Raises CorruptedSource for events that are not right, WalConflict and IdentityMismatch for other bytes."""

    def __init__(self, path: Path, archive: BinlogArchive) -> None:
        self.path, self._archive = path, archive
        self._stored = archive.logs.get(path.name)
        self._file = path.open("rb")
        self._reader = EventReader(path.name)
        self._read = 0
        self._slice = 0
        self._known: bytes | None = None  # what is stored of the slice that is being filled, once it was looked at
        self._cut = 0  # how much of that slice was offered, or is known
        self._origin: bytes | None = None  # the first event

    @property
    def position(self) -> int:
        """Up to where its events are whole and right."""
        return self._reader.position

    @property
    def received(self) -> int:
        """How many bytes of it were looked at."""
        return self._read

    @property
    def has_news(self) -> bool:
        """Whether more of it is whole and right than is stored."""
        return self.position > self._slice * SLICE + len(self._known_now())

    def advance(self) -> Iterator[Piece] | None:
        """The slices that what has come completes; None if nothing has come."""
        self._file.seek(self._read)
        data = self._file.read(_READ)
        if not data:
            return None
        self._read += len(data)
        for event in self._reader.feed(data):
            if self._origin is None:
                self._origin = self._bytes(0, event.end)
                self._require_origin(self._origin)
        return self._full_slices()

    def part(self) -> Piece | None:
        """What came since the last part was cut, if anything did."""
        known = self._known_now()
        start = self._slice * SLICE
        length = self.position - start
        if length < len(known) or length <= self._cut or self._is_stored():
            return None
        self._require_same(self._bytes(start, start + len(known)), known)
        piece = self._piece(self._cut, self._bytes(start + self._cut, start + length), is_whole=False)
        self._cut = length
        return piece

    def finish(self) -> Iterator[Piece]:
        """The rest, and the end, when the server has begun another file."""
        if not self._reader.is_between or not self.position:
            raise CorruptedSource(
                f"the binary log {self.path.name} ends within an event",
                cause=f"what follows byte {self.position} is not whole",
            )
        start = self._slice * SLICE
        if self._stored is not None and any(number > self._slice for number in self._stored.slices):
            raise self._conflict("the server's file is shorter than what it had sent before")
        if self.position > start or self._known_now():
            yield from self._whole(self._bytes(start, self.position))
        length = str(self.position).encode()
        yield Piece(end_name(self.path.name), 0, length, True, self.position)

    def close(self) -> None:
        self._file.close()

    def _full_slices(self) -> Iterator[Piece]:
        while self.position >= (self._slice + 1) * SLICE:
            start = self._slice * SLICE
            yield from self._whole(self._bytes(start, start + SLICE))
            self._slice, self._known, self._cut = self._slice + 1, None, 0

    def _whole(self, data: bytes) -> Iterator[Piece]:
        known = self._known_now()
        self._require_same(data[: len(known)], known)
        if not self._is_stored():
            yield self._piece(0, data, is_whole=True)
        elif len(data) != len(known):
            raise self._conflict("it had another length when it was stored")

    def _piece(self, start: int, data: bytes, *, is_whole: bool) -> Piece:
        end = self._slice * SLICE + start + len(data)
        return Piece(slice_name(self.path.name, self._slice), start, data, is_whole, end)

    def _bytes(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)

    # -- what is stored

    def _is_stored(self) -> bool:
        """Whether the slice that is being filled is stored whole."""
        return (
            self._stored is not None and self._slice in self._stored.slices and (self._stored.slices[self._slice].whole)
        )

    def _known_now(self) -> bytes:
        if self._known is None:
            stored = self._stored
            is_there = stored is not None and self._slice in stored.slices
            self._known = self._archive.read_slice(stored, self._slice) if stored and is_there else b""
            self._cut = len(self._known)
        return self._known

    def _require_origin(self, origin: bytes) -> None:
        known = self._known_now()[: len(origin)]
        if known != origin[: len(known)]:
            raise IdentityMismatch(
                f"the server's {self.path.name} is not the file of this name that is stored",
                cause="another server made it, or this one after its binary log was reset",
                hint="check the address; for another server, or after RESET MASTER, choose another --name and make "
                "a new dump",
            )

    def _require_same(self, data: bytes, known: bytes) -> None:
        if data != known:
            raise self._conflict("the same file came with other bytes before")

    def _conflict(self, cause: str) -> WalConflict:
        return WalConflict(
            f"{self.path.name} is stored with other bytes than the server sends",
            cause=f"{cause}: the server may have lost the end of its log in a crash (sync_binlog is not 1)",
            hint="make a new dump, and receive under another --name: the log goes on differently from there",
        )
