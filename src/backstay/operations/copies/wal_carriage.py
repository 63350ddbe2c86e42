"""The WAL of base backups goes with them into a repository with other keys, so that the same can be recovered there.

What goes is all that a recovery from them can read: from each of them on up to the first gap, along every timeline.
It is sent in its order, so that an interrupted run leaves a shorter stretch and no hole; the next one sends the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from backstay.core.events import EventSink, Finished, Progress, Started, Warned, ignore
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, WalConflict
from backstay.operations.copies.medium import is_medium
from backstay.operations.repair.result import Findings
from backstay.operations.wal.bases import Base, base_of, is_base
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.names import bind_name
from backstay.operations.wal.reachable import reachable
from backstay.repository.format import wal_name
from backstay.repository.readers import announced
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest
from backstay.repository.wal import StoredFile
from backstay.sources.postgres.lsn import is_segment, timeline_of

READ_AHEAD: Final = 64 << 20  # bytes of segments that are read before they are sent
_DAMAGED: Final = "mend it with `backstay repair packs --from-copy`, then copy again"


@contextmanager
def kept_meanwhile(source: Repository, snapshots: Sequence[Manifest], events: EventSink) -> Iterator[None]:
    """Within, nobody removes WAL that goes with some snapshots. Media may be read-only, and nothing expires there."""
    if is_medium(source.backend) or not any(map(is_base, snapshots)):
        yield
        return
    with announced(source, warn=lambda text: events(Warned(message=text))):
        yield


class WalCarriage:
    """From one repository into another: `files`, and their stored `bytes`, went; `findings` are damaged and stayed."""

    def __init__(self, source: Repository, target: Repository, *, events: EventSink = ignore) -> None:
        self._source, self._target, self._events = source, target, events
        self._damaged: set[tuple[int, str]] = set()
        self.findings = Findings(events)
        self.files = self.bytes = 0

    def carry(self, snapshots: Sequence[Manifest]) -> None:
        """Send what the target lacks of the WAL of those that are base backups.

        Raises IdentityMismatch when another cluster has a name there, WalConflict for other bytes under the same name:
        in what is sent, and in the last segment of each timeline that both have. CorruptedBackup, ObjectNotFound.
        """
        bases = [base_of(manifest) for manifest in snapshots if is_base(manifest)]
        if bases:
            self._target.require_fit()
        for system in sorted({base.system for base in bases}):
            own = [base for base in bases if base.system == system]
            for name in sorted({base.name for base in own}):
                bind_name(self._target, name, system, events=self._events)
            coverage = WalCoverage.load(self._source.wal, system, segment_size=own[0].segment_size)
            self._carry_cluster(coverage, own)

    def _carry_cluster(self, coverage: WalCoverage, bases: Sequence[Base]) -> None:
        wanted, there = reachable(coverage, bases), self._target.wal.files(coverage.system)
        self._compare(coverage, wanted, there)
        missing = [
            file
            for file in wanted
            if _lacks(there.get(file), coverage.files[file]) and (coverage.system, file) not in self._damaged
        ]
        self._events(Started(operation="copy WAL", total_files=len(missing)))
        with Workers(self._source.environment.threads, "wal") as workers:
            read = workers.ordered(
                lambda file: self._read(coverage, file),
                missing,
                weigh=lambda file: coverage.size,  # noqa: ARG005 - all are as large
                limit=READ_AHEAD,
            )
            for done, (file, data) in enumerate(zip(missing, read, strict=True), 1):
                if data is not None:
                    self._send(coverage, file, data, there.get(file, StoredFile()))
                self._events(Progress(files=done, bytes=self.bytes, current=file))
        self._events(Finished(operation="copy WAL"))

    def _compare(self, coverage: WalCoverage, wanted: Sequence[str], there: dict[str, StoredFile]) -> None:
        """Two clusters that parted differ in each segment from then on: the last one that both have tells."""
        last = {
            timeline_of(file): file
            for file in wanted
            if is_segment(file) and coverage.files[file].whole and file in there and there[file].whole
        }
        for file in last.values():
            data = self._read(coverage, file)
            if data is not None and self._target.wal.read(coverage.system, file, there[file]) != data:
                raise _conflict(coverage.system, file)

    def _read(self, coverage: WalCoverage, file: str) -> bytes | None:
        """A file, or None and a finding when it is damaged: what lies before it can still be recovered."""
        try:
            return self._source.wal.read(coverage.system, file, coverage.files[file])
        except CorruptedBackup as error:
            self._damaged.add((coverage.system, file))
            self.findings.add("integrity", f"WAL {file} of cluster {coverage.system}", str(error), _DAMAGED)
            return None

    def _send(self, coverage: WalCoverage, file: str, data: bytes, there: StoredFile) -> None:
        """A whole file, or what follows the parts that are there."""
        wal, system = self._target.wal, coverage.system
        known = wal.read(system, file, there) if there.reach else b""
        if not data.startswith(known) and not known.startswith(data):
            raise _conflict(system, file)
        if coverage.files[file].whole:
            is_new, name = wal.store(system, file, data), wal_name(system, file)
            wal.forget_parts(system, file, there)
        elif len(data) > len(known):
            is_new = wal.store_part(system, file, len(known), data[len(known) :])
            name = wal_name(system, file, (len(known), len(data)))
        else:
            return
        if is_new:
            self.files += 1
            self.bytes += self._target.backend.stat(name).size


def _lacks(there: StoredFile | None, here: StoredFile) -> bool:
    """Whether one side has more of a file than the other."""
    if there is None:
        return True
    return not there.whole and (here.whole or (here.reach or 0) > (there.reach or 0))


def _conflict(system: int, file: str) -> WalConflict:
    return WalConflict(
        f"{file} of cluster {system} is stored with other bytes in the other repository",
        cause="both have WAL of this cluster, which parted before the end of this segment",
    )
