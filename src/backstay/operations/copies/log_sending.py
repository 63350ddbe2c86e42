"""Files of a database's log on their way into a repository with other keys, one after the other in their order.

An interrupted run leaves a shorter stretch and no hole; the next one sends the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from backstay.core.events import EventSink, Progress, Started, finished
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, WalConflict
from backstay.operations.repair.result import Findings
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import slice_of
from backstay.repository.wal.store import StoredFile

READ_AHEAD: Final = 64 << 20  # bytes of files that are read before they are sent
_DAMAGED: Final = "mend it with `backstay repair packs --from-copy`, then copy again"


class LogSender:
    """Sends what the target lacks: `files`, and their stored `bytes`, went; `findings` are damaged and stayed."""

    def __init__(self, source: Repository, target: Repository, *, events: EventSink) -> None:
        self._source, self._target, self._events = source, target, events
        self._damaged: set[tuple[int, str]] = set()
        self._ended: set[tuple[int, str]] = set()  # logs of which no more goes
        self.findings = Findings(events)
        self.files = self.bytes = 0

    def send(self, system: int, wanted: Mapping[str, StoredFile], *, size: int, compare: Iterable[str]) -> None:
        """Send files of a server, of at most so many bytes; those to `compare` are read on both sides before.

        What is damaged stays, and of a file of a binary log all that follows: it ends there then. Raises WalConflict
        for other bytes under the same name, CorruptedBackup, ObjectNotFound.
        """
        there = self._target.wal.files(system)
        for file in compare:
            if wanted[file].whole and file in there and there[file].whole:
                self._compare(system, file, wanted[file], there[file])
        missing = [file for file in wanted if _lacks(there.get(file), wanted[file])]
        self._events(Started(operation="copy WAL", total_files=len(missing)))
        with Workers(self._source.environment.threads, "wal") as workers:
            read = workers.ordered(
                self._reading(system, wanted),
                missing,
                weigh=lambda file: size,  # noqa: ARG005 - all are as large
                limit=READ_AHEAD,
            )
            for done, (file, data) in enumerate(zip(missing, read, strict=True), 1):
                # Only now: what is damaged further on may have been read before what lies in front of it is sent.
                if data is None:
                    self._ended.add((system, log_of(file)))
                elif (system, log_of(file)) not in self._ended:
                    self._send(system, file, wanted[file], data, there.get(file, StoredFile()))
                self._events(Progress(files=done, bytes=self.bytes, current=file))
        finished(self._events, "copy WAL")

    def _compare(self, system: int, file: str, here: StoredFile, there: StoredFile) -> None:
        data = self._read(system, file, here)
        if data is not None and self._target.wal.read(system, file, there) != data:
            raise _conflict(system, file)

    def _reading(self, system: int, wanted: Mapping[str, StoredFile]) -> Callable[[str], bytes | None]:
        return lambda file: self._read(system, file, wanted[file])

    def _read(self, system: int, file: str, stored: StoredFile) -> bytes | None:
        """A file, or None and a finding when it is damaged: what lies before it can still be recovered."""
        if (system, file) in self._damaged:
            return None
        try:
            return self._source.wal.read(system, file, stored)
        except CorruptedBackup as error:
            self._damaged.add((system, file))
            self.findings.add("integrity", damaged_subject(system, file), str(error), _DAMAGED)
            return None

    def _send(self, system: int, file: str, here: StoredFile, data: bytes, there: StoredFile) -> None:
        """A whole file, or what follows the parts that are there."""
        wal = self._target.wal
        known = wal.read(system, file, there) if there.reach else b""
        if not data.startswith(known) and not known.startswith(data):
            raise _conflict(system, file)
        if here.whole:
            is_new, name = wal.store(system, file, data, parts=there.parts), wal_name(system, file)
            wal.forget_parts(system, file, there)
        elif len(data) > len(known):
            is_new = wal.store_part(system, file, len(known), data[len(known) :])
            name = wal_name(system, file, (len(known), len(data)))
        else:
            return
        if is_new:
            self.files += 1
            self.bytes += self._target.backend.stat(name).size


def log_of(file: str) -> str:
    """What is not readable behind a damaged file: itself, or the file of the binary log that it is a slice of."""
    found = slice_of(file)
    return file if found is None else found[0]


def damaged_subject(system: int, file: str) -> str:
    """How a finding calls a file."""
    what = "WAL" if slice_of(file) is None else "binary log"
    return f"{what} {file} of {_owner(system, file)}"


def _owner(system: int, file: str) -> str:
    return f"cluster {system}" if slice_of(file) is None else f"server {system}"


def _lacks(there: StoredFile | None, here: StoredFile) -> bool:
    """Whether one side has more of a file than the other."""
    if there is None:
        return True
    return not there.whole and (here.whole or (here.reach or 0) > (there.reach or 0))


def _conflict(system: int, file: str) -> WalConflict:
    return WalConflict(
        f"{file} of {_owner(system, file)} is stored with other bytes in the other repository",
        cause="both have the log of this server, which parted before the end of this file",
    )
