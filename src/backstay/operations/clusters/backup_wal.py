"""The WAL of one base backup, fetched beside it: a snapshot is recoverable whether a receiver runs or not."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self

from backstay.errors import SourceUnreachable
from backstay.repository.repository import Repository
from backstay.sources.postgres.base_backup import Position
from backstay.sources.postgres.lsn import format_lsn, segment_name
from backstay.sources.postgres.made_tablespaces import TablespaceReader
from backstay.sources.postgres.receiver import Asked, Data, Ended, WalStream
from backstay.sources.postgres.wal_records import TablespaceMade

PATIENCE_S: Final = 60.0  # for the server to send what it has written
SWITCH_S: Final = 5.0  # for it to fill up the last segment; a part of it is enough
LOOK_S: Final = 0.2


class _Tail:
    """WAL that was received and is not stored yet, from the start of a segment on."""

    def __init__(self, start: int) -> None:
        self.start, self.data = start, bytearray()

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def add(self, start: int, data: bytes) -> None:
        """Raises SourceUnreachable for what does not follow."""
        if start != self.end:
            raise SourceUnreachable(
                "the server's WAL does not hang together",
                cause=f"{format_lsn(start)} came after {format_lsn(self.end)}",
            )
        self.data += data

    def take(self, size: int) -> bytes:
        """The first bytes, which are no more part of it."""
        taken = bytes(self.data[:size])
        del self.data[:size]
        self.start += size
        return taken


class WalFetch:
    """Holds the server's WAL by a temporary slot from its making on, and stores what is asked for."""

    def __init__(self, repository: Repository, url: str, system: int, segment_size: int) -> None:
        """Raises SourceUnreachable, ReplicationDenied, WalLevelTooLow."""
        self._wal, self._clock = repository.wal, repository.clock
        self._system, self._size = system, segment_size
        self._stream = WalStream(url, self._clock)
        self._slot = f"backstay_base_{os.urandom(6).hex()}"
        try:
            self._stream.create_slot(self._slot, temporary=True)
        except BaseException:
            self._stream.close()
            raise

    def fetch(self, start: Position, stop: Position) -> list[TablespaceMade]:
        """Make all WAL between two positions of a timeline durable, as whole segments as far as they are complete.

        Tells which tablespaces it makes between them.

        What is stored already is compared: it may be the log of a copy of this server, which makes nothing of this one
        consistent. Raises SourceUnreachable, WalConflict and others.
        """
        first = start.lsn - start.lsn % self._size
        self._stream.start(self._slot, stop.timeline, first)
        made: list[TablespaceMade] = []
        self._store(_Tail(first), stop, made)
        return [event for event in made if start.lsn <= event.lsn < stop.lsn]

    def _store(self, tail: _Tail, stop: Position, made: list[TablespaceMade]) -> None:
        reader = TablespaceReader()
        since = self._clock.monotonic()
        patience = 0.0 if self._is_stored(stop) else SWITCH_S
        while True:
            if len(tail.data) >= self._size:
                name = self._name(tail, stop)
                segment = tail.take(self._size)
                made += reader.feed(segment)
                self._wal.store(self._system, name, segment)
                if tail.start >= stop.lsn:
                    return
                continue
            idle = self._clock.monotonic() - since
            if tail.end >= stop.lsn and idle >= patience:
                made += reader.feed(bytes(tail.data))
                self._wal.store_beginning(self._system, self._name(tail, stop), bytes(tail.data))
                return
            if self._receive(tail):
                since = self._clock.monotonic()
            elif idle > PATIENCE_S:
                raise SourceUnreachable(
                    f"{self._stream.place} does not send its WAL",
                    cause=f"nothing came for {PATIENCE_S:.0f} s, and {format_lsn(stop.lsn)} was not reached",
                )

    def _name(self, tail: _Tail, stop: Position) -> str:
        return segment_name(stop.timeline, tail.start, self._size)

    def _is_stored(self, stop: Position) -> bool:
        """Whether something is stored under the names that lead to the end: then there is nothing to wait for."""
        begin = (stop.lsn - 1) // self._size * self._size
        reach = self._wal.find(self._system, segment_name(stop.timeline, begin, self._size)).reach
        return reach is None or begin + reach >= stop.lsn

    def _receive(self, tail: _Tail) -> bool:
        """Take what has come; false if there was no WAL in it, or nothing came for a moment."""
        message = self._stream.next(LOOK_S)
        if isinstance(message, Ended):
            raise SourceUnreachable(f"{self._stream.place} ended the stream of its WAL")
        if isinstance(message, Data):
            tail.add(message.lsn, message.data)
            return True
        if isinstance(message, Asked):
            # The slot ends with this session and needs no report; a commit may wait for one that says "durable".
            self._stream.report(tail.end, 0)
        return False

    def close(self) -> None:
        """Let go of the slot, which ends with its connection."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
