"""One file of a server's WAL into the repository, for archive_command: success means that it is durable."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.errors import BackstayError, CorruptedBackup, InvalidRequest, WalConflict
from backstay.operations.pg_names import bind_name
from backstay.operations.wal_coverage import require_segment
from backstay.repository.repository import Repository
from backstay.repository.wal import MAX_FILE, check_file
from backstay.sources.postgres.lsn import is_segment
from backstay.sources.postgres.wal_records import EventReader, segment_header
from backstay.storage.fitness import require_fit

_PARTIAL: Final = re.compile(r"([0-9A-F]{24})\.partial")
_SYSTEM: Final = struct.Struct("<Q")  # begins global/pg_control


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveResult:
    """What became of a file: `stored` is false if it was there, with the same bytes."""

    file: str
    system: int
    bytes: int
    stored: bool


def archive_file(repository: Repository, path: Path, name: str) -> ArchiveResult:
    """Make a file of pg_wal durable, once.

    Raises InvalidRequest, CorruptedBackup for a segment that is none, IdentityMismatch, WalConflict,
    StorageUnavailable.
    """
    partial = _PARTIAL.fullmatch(path.name)
    file = check_file(partial[1] if partial else path.name)
    data = _read(path)
    system = _system_of_segment(file, data) if is_segment(file) else _system_beside(path)
    require_fit(repository.backend)  # without a lease: `run_receive` says why
    bind_name(repository, name, system)
    repository.keyring.begin_epoch_if_due(repository.clock)
    if partial is None:
        stored = repository.wal.store(system, file, data)
    else:
        stored = _store_beginning(repository, system, file, data)
    return ArchiveResult(file=file, system=system, bytes=len(data), stored=stored)


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MAX_FILE:
            raise InvalidRequest(
                f"{path} is too large", cause=f"it has {size} bytes", hint="pass %p of archive_command"
            )
        return path.read_bytes()
    except OSError as error:
        raise BackstayError(
            f"cannot read {path}",
            cause=error.strerror or "",
            hint="the server calls archive_command in its data directory, with %p",
        ) from error


def _system_of_segment(file: str, data: bytes) -> int:
    size = require_segment(data, file)
    if len(data) != size:
        raise CorruptedBackup(
            f"{file} is not whole",
            cause=f"it has {len(data)} bytes, and segments of its cluster have {size}",
            hint="archive only what the server passes to archive_command",
        )
    return segment_header(data).system


def _system_beside(path: Path) -> int:
    """The cluster of a file that does not name it, by the control file of the directory that it lies in."""
    control = path.parent.parent / "global/pg_control"
    try:
        with control.open("rb") as file:
            return int(_SYSTEM.unpack(file.read(_SYSTEM.size))[0])
    except (OSError, struct.error) as error:
        raise InvalidRequest(
            f"cannot tell which cluster {path.name} belongs to",
            cause=f"{control} cannot be read: {error}",
            hint="pass %p of archive_command, which lies in the data directory",
        ) from error


def _store_beginning(repository: Repository, system: int, file: str, data: bytes) -> bool:
    """What a `.partial` holds of a segment that its timeline did not finish: its records, and not what follows them."""
    reader = EventReader()
    for _ in reader.feed(data):
        continue
    length = 0 if reader.position is None else reader.position - segment_header(data).start
    stored = repository.wal.files(system).get(file)
    if stored is not None and (stored.whole or (stored.reach or 0) >= length):
        there = repository.wal.read(system, file, stored)
        if there[:length] != data[:length]:
            raise WalConflict(
                f"{file} of cluster {system} is stored with other bytes", cause="a part of it came before"
            )
        return False
    return length > 0 and repository.wal.store_part(system, file, 0, data[:length])
