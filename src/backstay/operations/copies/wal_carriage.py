"""Logs of databases go with their backups into a repository with other keys, so that the same can be recovered there.

What goes is all that a recovery from them can read: from each base backup on up to the first gap, along every timeline,
and from the file of each dump on. With WAL goes who knows of its gaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from backstay.core.events import EventSink, Warned, ignore
from backstay.operations.copies.acknowledged_gaps import carry_acknowledgements
from backstay.operations.copies.log_sending import LogSender
from backstay.operations.copies.medium import is_medium
from backstay.operations.findings import Finding
from backstay.operations.mysql import reachable as binlogs
from backstay.operations.mysql.dumps import is_dump
from backstay.operations.wal.bases import Base, base_of, is_base
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.names import bind_name
from backstay.operations.wal.reachable import reachable
from backstay.operations.wal.ways import ways
from backstay.repository.readers import announced
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.wal.slices import SLICE, slice_of
from backstay.sources.postgres.lsn import is_segment, timeline_of


@contextmanager
def kept_meanwhile(source: Repository, snapshots: Sequence[Manifest], events: EventSink) -> Iterator[None]:
    """Within, nobody removes logs that go with some snapshots. Media may be read-only, and nothing expires there."""
    if is_medium(source.backend) or not any(is_base(manifest) or is_dump(manifest) for manifest in snapshots):
        yield
        return
    with announced(source, warn=lambda text: events(Warned(message=text))):
        yield


class WalCarriage:
    """From one repository into another."""

    def __init__(self, source: Repository, target: Repository, *, events: EventSink = ignore) -> None:
        self._source, self._target, self._events = source, target, events
        self._sender = LogSender(source, target, events=events)

    @property
    def files(self) -> int:
        """How many went."""
        return self._sender.files

    @property
    def bytes(self) -> int:
        """As they are stored there."""
        return self._sender.bytes

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is damaged and stayed."""
        return tuple(self._sender.findings.found)

    def carry(self, snapshots: Sequence[Manifest]) -> None:
        """Send what the target lacks of the logs of those that are base backups, or dumps of MySQL and MariaDB.

        Raises IdentityMismatch when another server has a name there, WalConflict for other bytes under the same name:
        in what is sent, and in the last segment of each timeline, or slice, that both have. CorruptedBackup,
        ObjectNotFound.
        """
        bases = [base_of(manifest) for manifest in snapshots if is_base(manifest)]
        if bases:
            self._target.require_fit()
        for system in sorted({base.system for base in bases}):
            own = [base for base in bases if base.system == system]
            for name in sorted({base.name for base in own}):
                bind_name(self._target, name, system, events=self._events)
            self._carry_cluster(own)
        for name, archive, dumps in binlogs.logged(self._source.wal, snapshots):
            self._target.require_fit()
            bind_name(self._target, name, archive.system, events=self._events)
            wanted = binlogs.reachable(archive, dumps)
            there = self._target.wal.files(archive.system)
            both = [file for file in wanted if _is_slice(file) and file in there and there[file].whole]
            self._sender.send(archive.system, wanted, size=SLICE, compare=both[-1:])

    def _carry_cluster(self, bases: Sequence[Base]) -> None:
        system, size = bases[0].system, bases[0].segment_size
        coverage = WalCoverage.load(self._source.wal, system, segment_size=size)
        wanted, there = reachable(coverage, ways(coverage, bases)), self._target.wal.files(system)
        # Two clusters that parted differ in each segment from then on: the last one that both have tells.
        last = {
            timeline_of(file): file
            for file in wanted
            if is_segment(file) and coverage.files[file].whole and file in there and there[file].whole
        }
        files = {file: coverage.files[file] for file in wanted}
        self._sender.send(system, files, size=coverage.size, compare=last.values())
        copied = WalCoverage.load(self._target.wal, system, segment_size=size)
        carry_acknowledgements(coverage, copied, wanted)


def _is_slice(file: str) -> bool:
    found = slice_of(file)
    return found is not None and found[1] is not None
