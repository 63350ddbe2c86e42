"""The binary log of one server as it is stored: which files, how far each reaches, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from backstay.errors import CorruptedBackup, CorruptedSource
from backstay.repository.wal.slices import SLICE, end_name, slice_name, slice_of
from backstay.repository.wal.store import StoredFile, WalStore
from backstay.sources.mysql.binlog import Event, EventReader, Position, position_at

_START: Final = 4  # where the first event of a file begins


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGap:
    """Files that are missing between two that are stored, or not complete: the first and the last of them."""

    first: str
    last: str
    files: int


@dataclass(slots=True)
class StoredLog:
    """What is stored of one file: slices by number, and whether its end is known."""

    start: Position
    slices: dict[int, StoredFile] = field(default_factory=dict)
    has_end: bool = False

    @property
    def file(self) -> str:
        return self.start.file

    @property
    def is_complete(self) -> bool:
        """Whether nothing of it is missing, as far as names tell."""
        there = all(number in self.slices and self.slices[number].whole for number in range(len(self.slices)))
        return self.has_end and there and bool(self.slices)

    @property
    def is_begun(self) -> bool:
        """Whether its first bytes are there."""
        return 0 in self.slices and self.slices[0].reach != 0


@dataclass(slots=True)
class BinlogArchive:
    """The stored log of one server, as one listing showed it. Its methods raise CorruptedBackup, ObjectNotFound."""

    wal: WalStore
    system: int
    logs: dict[str, StoredLog]

    @classmethod
    def load(cls, wal: WalStore, system: int) -> BinlogArchive:
        """List what is stored of a server, in the order of its log."""
        found: dict[str, StoredLog] = {}
        for file, stored in wal.files(system).items():
            if (parts := slice_of(file)) is None:
                continue
            log = found.setdefault(parts[0], StoredLog(position_at(parts[0], _START)))
            if parts[1] is None:
                log.has_end = stored.whole
            else:
                log.slices[parts[1]] = stored
        return cls(wal, system, dict(sorted(found.items(), key=lambda item: item[1].start)))

    @property
    def newest(self) -> StoredLog | None:
        """The file that was begun last."""
        return next(reversed(self.logs.values()), None)

    def reachable(self, log: StoredLog) -> dict[str, StoredFile]:
        """The slices of a file that can be read, from its beginning on, and its end if it is complete."""
        found: dict[str, StoredFile] = {}
        for number in range(len(log.slices)):
            if number not in log.slices or log.slices[number].reach == 0:
                break
            found[slice_name(log.file, number)] = log.slices[number]
            if not log.slices[number].whole:
                break
        if log.is_complete:
            found[end_name(log.file)] = StoredFile(whole=True)
        return found

    def run(self, file: str) -> list[StoredLog]:
        """Files without a gap, from one on: all but the last are complete. Empty if that one is not there."""
        found: list[StoredLog] = []
        log = self.logs.get(file)
        while log is not None and log.is_begun:
            found.append(log)
            following = log.start._replace(number=log.start.number + 1)
            log = self.logs.get(following.file) if log.is_complete else None
        return found

    def gap_behind(self, run: list[StoredLog]) -> LogGap | None:
        """What is missing between the end of a run and the next file that is stored; None if nothing is."""
        if not run:
            return None
        last = run[-1]
        following = next((log for log in self.logs.values() if log.start > last.start and log.is_begun), None)
        if following is None:
            return None
        first = last.start if not last.is_complete else last.start._replace(number=last.start.number + 1)
        final = following.start._replace(number=following.start.number - 1)
        return LogGap(first=first.file, last=final.file, files=final.number - first.number + 1)

    def lost(self, log: StoredLog) -> list[str]:
        """The slices of a file that are not there although its end is."""
        if not log.has_end:
            return []
        numbers = range(-(-self._length(log) // SLICE))
        return [slice_name(log.file, n) for n in numbers if n not in log.slices or not log.slices[n].whole]

    def read_slice(self, log: StoredLog, number: int) -> bytes:
        """A slice, or of one that is not whole what is there of its beginning."""
        return self.wal.read(self.system, slice_name(log.file, number), log.slices[number])

    def data(self, log: StoredLog) -> Iterator[bytes]:
        """What is there of a file, slice by slice. Raises CorruptedBackup when its end is known and not reached."""
        length = 0
        for number in range(len(log.slices)):
            if number not in log.slices:
                break
            data = self.read_slice(log, number)
            length += len(data)
            yield data
            if not log.slices[number].whole:
                break
        if log.has_end and length != (known := self._length(log)):
            raise CorruptedBackup(
                f"the binary log {log.file} is stored with {length} bytes",
                cause=f"it had {known} when it was complete: objects were lost",
                hint="`backstay repair packs --from-copy` brings them back from a copy",
            )

    def events(self, log: StoredLog) -> Iterator[Event]:
        """The events of a file that are there, each with its checksum tested."""
        reader = EventReader(log.file)
        try:
            for data in self.data(log):
                yield from reader.feed(data)
        except CorruptedSource as error:
            raise CorruptedBackup(
                f"the stored binary log {log.file} is damaged", cause=error.cause, hint="recover to a target before it"
            ) from error

    def _length(self, log: StoredLog) -> int:
        return int(self.wal.read(self.system, end_name(log.file), StoredFile(whole=True)))
