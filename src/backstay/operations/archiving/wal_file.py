"""One file of a server's WAL into the repository, for archive_command: success means that it is durable."""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from backstay.errors import BackstayError, CorruptedBackup, CorruptedSource, InvalidRequest, WalWrongSize
from backstay.operations.wal.coverage import require_segment
from backstay.operations.wal.names import bind_name
from backstay.repository.repository import Repository
from backstay.repository.wal.store import MAX_FILE, check_file, require_cluster
from backstay.sources.postgres.lsn import is_segment
from backstay.sources.postgres.timelines import path_of
from backstay.sources.postgres.wal_records import EventReader, segment_header
from backstay.storage.fitness import require_fit

_PARTIAL: Final = re.compile(r"([0-9A-F]{24})\.partial")
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")
_SYSTEM: Final = struct.Struct("<Q")  # begins global/pg_control
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that nobody writes to is not waited for
_NO_LOG: Final = (
    "archive only what the server passes to archive_command; if it did so with this one, look at its log and its disk, "
    "and make a base backup"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveResult:
    """What became of a file: `stored` is false if it was there, with the same bytes."""

    file: str
    system: int
    bytes: int
    stored: bool


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a file apart from every other one, and from itself with other bytes.

    Nobody can set the time of the last change back, which is `changed_ns`.
    """

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Self:
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Offered:
    """A file of pg_wal under the name that its server gave it: open, and closed by who stores it.

    `system` is the cluster that its data directory says, where one was looked at.
    """

    name: str
    descriptor: int
    system: int | None

    def close(self) -> None:
        os.close(self.descriptor)

    def read(self) -> bytes:
        """All of it. Raises InvalidRequest, BackstayError when it changes meanwhile or cannot be read."""
        try:
            if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
                raise InvalidRequest(
                    f"{self.name} is no file", cause="it is a directory, a pipe or a device", hint="pass %p"
                )
            before = FileState.of(self.descriptor)
            if before.size > MAX_FILE:
                raise InvalidRequest(
                    f"{self.name} is too large", cause=f"it has {before.size} bytes", hint="pass %p of archive_command"
                )
            data = os.pread(self.descriptor, before.size + 1, 0)
            is_same = len(data) == before.size and FileState.of(self.descriptor) == before
        except OSError as error:
            raise BackstayError(f"cannot read {self.name}", cause=(error.strerror or "").lower()) from error
        if not is_same:
            raise BackstayError(
                f"{self.name} changed while it was read",
                cause="what a server archives is written to no more",
                hint="archive only what the server passes to archive_command",
            )
        return data


class Archiver:
    """Stores files of the cluster that a name belongs to. Any thread may call it, as long as the repository is open."""

    def __init__(self, repository: Repository, name: str) -> None:
        """Raises StorageUnfit, StorageUnavailable."""
        require_fit(repository.backend)  # without a lease: `run_receive` says why
        self._repository, self._name = repository, name
        self._system: int | None = None
        self._lock = threading.Lock()

    def store(self, offered: Offered) -> ArchiveResult:
        """Make a file durable, once.

        Raises BadWalName, InvalidRequest, WalWrongSize, CorruptedSource for a segment or a history that is none,
        IdentityMismatch, WalConflict, StorageUnavailable.
        """
        partial = _PARTIAL.fullmatch(offered.name)
        file = check_file(partial[1] if partial else offered.name)
        data = offered.read()
        system = _system_of_segment(file, data) if is_segment(file) else _system_beside(offered)
        if history := _HISTORY.fullmatch(file):
            _require_history(int(history[1], 16), file, data)
        self._admit(system)
        if partial is None:
            stored = self._repository.wal.store(system, file, data)
        else:
            stored = _store_beginning(self._repository, system, file, data)
        return ArchiveResult(file=file, system=system, bytes=len(data), stored=stored)

    def _admit(self, system: int) -> None:
        """A name never goes over to another cluster, so that it is bound once."""
        with self._lock:
            if self._system is None:
                bind_name(self._repository, self._name, system)
                self._system = system
            require_cluster(self._name, self._system, system)
            self._repository.keyring.begin_epoch_if_due(self._repository.clock)


def archive_file(repository: Repository, path: Path, name: str) -> ArchiveResult:
    """Make a file of pg_wal durable, once. Raises BackstayError when it cannot be read, and as `Archiver.store`."""
    check_file(path.name.removesuffix(".partial"))
    try:
        offered = Offered(path.name, os.open(path, _READ), _system_in(path.parent.parent))
    except OSError as error:
        raise BackstayError(
            f"cannot read {path}",
            cause=error.strerror or "",
            hint="the server calls archive_command in its data directory, with %p",
        ) from error
    try:
        return Archiver(repository, name).store(offered)
    finally:
        offered.close()


def system_of_control(descriptor: int) -> int | None:
    """The cluster that an open global/pg_control names; None for what is too short to be one."""
    begin = os.pread(descriptor, _SYSTEM.size, 0)
    return int(_SYSTEM.unpack(begin)[0]) if len(begin) == _SYSTEM.size else None


def _system_in(data: Path) -> int | None:
    """The cluster of a data directory, if its control file can be read."""
    try:
        descriptor = os.open(data / "global/pg_control", _READ)
    except OSError:
        return None  # segments name their cluster themselves; for others `_system_beside` tells
    try:
        return system_of_control(descriptor)
    finally:
        os.close(descriptor)


def _system_of_segment(file: str, data: bytes) -> int:
    try:
        size = require_segment(data, file)
    except CorruptedBackup as error:
        raise CorruptedSource(f"{file} is no such segment", cause=str(error), hint=_NO_LOG) from error
    if len(data) != size:
        raise WalWrongSize(
            f"{file} is not whole", cause=f"it has {len(data)} bytes, and segments of its cluster have {size}"
        )
    return segment_header(data).system


def _require_history(timeline: int, file: str, data: bytes) -> None:
    """A recovery finds its way by it, and a server that reads another one does not start."""
    try:
        forks = len(path_of(timeline, data).stretches) - 1
    except CorruptedBackup as error:
        raise CorruptedSource(f"{file} is no history", cause=error.cause, hint=_NO_LOG) from error
    if not forks:
        raise CorruptedSource(f"{file} is no history", cause="it names no timeline to come from", hint=_NO_LOG)


def _system_beside(offered: Offered) -> int:
    """The cluster of a file that does not name it, by the control file of the directory that it lies in."""
    if offered.system is None:
        raise InvalidRequest(
            f"cannot tell which cluster {offered.name} belongs to",
            cause="there is no readable global/pg_control in the directory above",
            hint="pass %p of archive_command, which lies in the data directory",
        )
    return offered.system


def _store_beginning(repository: Repository, system: int, file: str, data: bytes) -> bool:
    """What a `.partial` holds of a segment that its timeline did not finish: its records, and not what follows them."""
    reader = EventReader()
    for _ in reader.feed(data):
        continue
    length = 0 if reader.position is None else reader.position - segment_header(data).start
    return length > 0 and repository.wal.store_beginning(system, file, data[:length])
