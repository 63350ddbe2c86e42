"""Acknowledging ahead of the repository: what a receiver has is durable on this machine first.

Order: bytes become durable in the spool, then the server hears of them; they become durable in the repository, then
they leave the spool. Whatever a crash interrupts, the next receiver stores what is left there before it begins.
"""

from __future__ import annotations

from backstay.core.events import EventSink, Warned, ignore
from backstay.errors import InsufficientSpace, StorageUnavailable
from backstay.operations.wal.coverage import require_segment
from backstay.operations.wal.storing import Piece
from backstay.repository.repository import Repository
from backstay.repository.wal.spool import Spooled, WalSpool
from backstay.sources.postgres.lsn import PAGE, segment_name


class Spooling:
    """Spools one stream after the other; `durable` is the position up to which that is done."""

    def __init__(self, spool: WalSpool, system: int, events: EventSink) -> None:
        self._spool, self._system, self._events = spool, system, events
        self._timeline = self._size = self._position = 0
        self.durable = 0

    def restart_at(self, timeline: int, lsn: int, size: int) -> None:
        """A stream begins, at the start of a segment of so many bytes. Raises InsufficientSpace, StorageUnavailable."""
        self._spool.restart(size + size // 2)  # for what sealing adds to small frames
        self._timeline, self._position, self._size = timeline, lsn, size
        self.durable = 0
        self._spool.begin(segment_name(timeline, lsn, size))  # before anybody says that all is well
        try:
            self._spool.prepare()
        except InsufficientSpace as error:  # that of an earlier segment may be free when it is needed
            self._events(Warned(message=f"there is no room yet for the segment after this one ({error})"))

    def add(self, lsn: int, data: bytes) -> None:
        """Take what follows."""
        while data:
            start = lsn % self._size
            taken = data[: self._size - start]
            self._spool.append(self._system, segment_name(self._timeline, lsn, self._size), start, taken)
            lsn, data = lsn + len(taken), data[len(taken) :]
        self._position = lsn

    def commit(self) -> None:
        """Make it durable. Raises InsufficientSpace, StorageUnavailable."""
        self._spool.sync()
        self.durable = self._position

    def stored(self, piece: Piece) -> None:
        """The repository has a piece: a whole segment leaves the spool."""
        if not piece.is_whole:
            return
        try:
            self._spool.forget(piece.file)
        except StorageUnavailable as error:  # it does no harm: the next receiver forgets it
            self._events(Warned(message=f"{piece.file} stays in the spool, though it is stored ({error})"))

    def finish(self) -> None:
        """The repository has all: nothing stays."""
        self._spool.clear()


def replay(repository: Repository, spool: WalSpool, *, events: EventSink = ignore) -> int:
    """Store what a receiver left that was stopped in between; how many segments that touched.

    The server need not be there any more. A crash changes nothing: what is stored is not stored again. A journal that
    is damaged is stored as far as it can be read, and put aside. Raises WalConflict, CorruptedBackup,
    StorageUnavailable.
    """
    found = [(journal, spooled) for journal in spool.left() if (spooled := spool.read(journal)) is not None]
    touched = sum(_store(repository, spooled) for _, spooled in found if spooled.data)
    for journal, spooled in found:
        if spooled.is_damaged:
            lost = f"{spooled.file} is damaged in the spool behind its first {len(spooled.data)} bytes"
            events(Warned(message=f"{lost}: WAL that was acknowledged is lost if the server has not got it any more"))
            events(Warned(message=f"what is left of it was put aside as {spool.keep(journal)}"))
    spool.clear()
    return touched


def _store(repository: Repository, spooled: Spooled) -> bool:
    """Store the beginning of a segment, or all of it; false if it was there. Raises WalConflict."""
    wal, system, file = repository.wal, spooled.system, spooled.file
    if len(spooled.data) >= PAGE and len(spooled.data) == require_segment(spooled.data, file):
        return wal.store(system, file, spooled.data)
    return wal.store_beginning(system, file, spooled.data)
