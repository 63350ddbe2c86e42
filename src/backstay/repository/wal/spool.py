"""WAL that is durable on this machine, and not in the repository yet.

A journal holds what came of one segment, from its start on: frames, each a length and a sealed record as the repository
has them, so that nothing lies open on the disk. A receiver that begins anew begins another journal. What a crash tore
off at the end of a journal was never acknowledged.

Journals are written over blocks that the file has already, those of an earlier journal or zeros: to make bytes durable
then is one write of the disk, while a file that grows needs its length recorded too. What lies behind the end of a
journal is thus of another segment, and no part of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from backstay.core.durable_names import make_directories
from backstay.errors import CorruptedBackup, InsufficientSpace, ObjectUnreadable, SlotInUse, StorageUnavailable
from backstay.repository.format import RecordKind
from backstay.repository.keys.keyring import Keyring
from backstay.repository.records import HEADER_BYTES, claimed_epoch, header_start
from backstay.repository.wal.store import BLOCK, WalRecord

_LENGTH: Final = struct.Struct(">I")
_DAMAGED: Final = ".damaged"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Spooled:
    """The beginning of a segment, as a journal has it; `is_damaged` if more was there that cannot be read."""

    system: int
    file: str
    data: bytes
    is_damaged: bool


class WalSpool:
    """The journals of one receiver in a directory; one process has it at a time. Any thread may call `forget`."""

    def __init__(self, directory: Path, keyring: Keyring) -> None:
        """Make the directory if there is none. Raises SlotInUse when another process has it, StorageUnavailable."""
        self._directory, self._keyring = directory, keyring
        self._lock = threading.Lock()
        self._open: int | None = None
        self._segment = ""
        self._taken: WalRecord | None = None  # where the next frame begins
        self._data = bytearray()
        self._room = 0
        with self._told():
            make_directories(directory, 0o700)
            self._place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._place)
            raise SlotInUse(f"another receiver uses {directory}", cause="it has locked the directory") from error

    # -- what a receiver before this one left

    def left(self) -> list[Path]:
        """The journals that are there, oldest first."""
        with self._told():
            return sorted(self._directory.glob("*.journal"))

    def read(self, journal: Path) -> Spooled | None:
        """What a journal holds, up to where a crash tore it off; None for nothing.

        Raises StorageUnavailable, and CorruptedBackup where the repository cannot give the key.
        """
        with self._told():
            data = journal.read_bytes()
        file, system, joined, place = journal.name.partition(".")[0], 0, bytearray(), 0
        for begin, end, record in self._frames(data):
            if isinstance(record, CorruptedBackup | ObjectUnreadable):
                if begin == place:  # else it is a rest of what the file held before
                    raise record
                continue
            if record.file != file or (joined and record.system != system):
                continue
            if begin == place and record.start == len(joined):
                system, place = record.system, end
                joined += record.data
            elif record.start >= len(joined):  # it was written behind what cannot be read: no crash does that
                return Spooled(system, file, bytes(joined), is_damaged=True)
        return Spooled(system, file, bytes(joined), is_damaged=False) if joined else None

    def _frames(self, data: bytes) -> Iterator[tuple[int, int, WalRecord | CorruptedBackup | ObjectUnreadable]]:
        """Where each frame begins and ends, and its record, of those that can be read or whose key is damaged.

        Whether one of the latter is torn cannot be told, and what was acknowledged waits for its key. They are
        searched for: a length that is wrong hides none of those behind it.
        """
        mark = header_start(RecordKind.WAL, self._keyring.repository)
        begin = data.find(mark, _LENGTH.size)
        while begin >= 0:
            end = begin + _LENGTH.unpack_from(data, begin - _LENGTH.size)[0]
            try:
                record = self._keyring.open(data[begin:end], RecordKind.WAL, WalRecord)
            except (CorruptedBackup, ObjectUnreadable) as error:
                if claimed_epoch(data[begin : begin + HEADER_BYTES], self._keyring.repository) in self._keyring.damaged:
                    yield begin - _LENGTH.size, end, error
            else:
                yield begin - _LENGTH.size, end, record
            begin = data.find(mark, begin + len(mark))

    def keep(self, journal: Path) -> Path:
        """Put a journal aside, where nothing removes it; its new place."""
        kept = journal.with_suffix(_DAMAGED)
        with self._told():
            journal.rename(kept)
        return kept

    # -- what this one receives

    def restart(self, room: int = 0) -> None:
        """Begin other journals, with room for so many bytes: what follows is the start of a segment again."""
        self._taken, self._data, self._room = None, bytearray(), room
        self._close()

    def append(self, system: int, file: str, start: int, data: bytes) -> None:
        """Take bytes of a segment, each behind those before. They are durable after `sync`."""
        if file != self._segment:
            self.sync()
            self.begin(file)
        if self._taken is None:
            self._taken = WalRecord(system, file, start, False, b"")
        self._data += data

    def sync(self) -> None:
        """Make durable what was taken, as one frame.

        A crash in it leaves a frame that nobody was told of, and that may be torn. Raises InsufficientSpace,
        StorageUnavailable; then `restart` is all that helps.
        """
        if self._taken is None or self._open is None:
            return
        record = msgspec.structs.replace(self._taken, data=bytes(self._data))
        sealed = self._keyring.seal(RecordKind.WAL, record, compress=len(record.data) > BLOCK)
        self._taken, self._data = None, bytearray()
        rest = memoryview(_LENGTH.pack(len(sealed)) + sealed)
        with self._told():
            while rest:
                rest = rest[os.write(self._open, rest) :]
            os.fdatasync(self._open)

    def begin(self, file: str) -> None:
        """Create a journal; its name is durable before anything in it is acknowledged.

        Raises InsufficientSpace when there is no room for a whole segment, StorageUnavailable.
        """
        self._close()
        with self._told(), self._lock:
            numbers = [int(path.suffixes[0][1:]) for path in self._journals(file)]
            path = self._directory / f"{file}.{max(numbers, default=0) + 1:06d}.journal"
            used = next(self._directory.glob("*.free"), None)
            if used is None:
                self._open = self._with_room(path)
            else:
                used.rename(path)
                self._open = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            os.fsync(self._place)
        self._segment = file

    def prepare(self) -> None:
        """Make room for the next journal, if there is none: its segment begins while commits wait.

        A crash leaves a file that is no journal, and is written over. Raises as `begin`.
        """
        with self._told(), self._lock:
            if any(self._directory.glob("*.free")):
                return
            new = self._directory / "new"
            os.close(self._with_room(new))
            new.rename(self._directory / "next.free")

    def _with_room(self, path: Path) -> int:
        """A new file with room for a journal, open; none where there is too little, which others may need."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _fill(descriptor, self._room)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return descriptor

    def _journals(self, file: str) -> list[Path]:
        return list(self._directory.glob(f"{file}.*.journal"))

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open)
        self._open, self._segment = None, ""

    def forget(self, file: str) -> None:
        """The repository has a segment: its journals are free to be written over, or go."""
        with self._told(), self._lock:
            for path in self._journals(file):
                if file == self._segment or any(self._directory.glob("*.free")):
                    path.unlink(missing_ok=True)
                else:
                    path.rename(path.with_suffix(".free"))

    def clear(self) -> None:
        """The repository has all: nothing stays but what was put aside."""
        self.restart()
        with self._told(), self._lock:
            for path in list(self._directory.iterdir()):
                if path.suffix != _DAMAGED:
                    path.unlink(missing_ok=True)

    # -- the end

    def close(self) -> None:
        self._close()
        os.close(self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = InsufficientSpace if error.errno in _FULL else StorageUnavailable
            raise kind(
                f"the spool {self._directory} cannot be used",
                cause=error.strerror or str(error),
                hint="make room there and see that it may be written, or name another place with --spool",
            ) from error


def _fill(descriptor: int, size: int) -> None:
    """Give a file so many zeros, durably, and go back to its beginning."""
    room = memoryview(bytes(size))
    while room:
        room = room[os.write(descriptor, room) :]
    os.fsync(descriptor)
    os.lseek(descriptor, 0, os.SEEK_SET)
