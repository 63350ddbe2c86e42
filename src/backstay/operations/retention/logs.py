"""Which stored objects of WAL and of binary logs snapshots that are kept need, to be recovered to any moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from backstay.core.events import EventSink, Warned, ignore
from backstay.errors import CorruptedBackup
from backstay.operations.mysql import reachable as binlogs
from backstay.operations.wal.bases import Base, base_of, is_base
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.needs import needed_wal
from backstay.operations.wal.reachable import reachable
from backstay.operations.wal.since_window import needed_from
from backstay.operations.wal.ways import needed_ways
from backstay.repository.format import WAL
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.wal.store import StoredFile, object_names


def needed_logs(
    repository: Repository,
    snapshots: Sequence[Manifest],
    *,
    window: timedelta | None = None,
    events: EventSink = ignore,
) -> set[str]:
    """What makes base backups consistent, what recoveries within the window can read, or from any of the snapshots
    without a window, and what says which server a name is and who knows of gaps.

    All of a log where it cannot be told, since what tells it is damaged: that may be mended, what is gone may not.
    Raises CorruptedBackup for a snapshot that says what it cannot.
    """
    found = needed_wal(repository, snapshots)
    bases = [base_of(manifest) for manifest in snapshots if is_base(manifest)]
    for system in sorted({base.system for base in bases}):
        try:
            found.update(_of_cluster(repository, system, [base for base in bases if base.system == system], window))
        except CorruptedBackup as error:
            events(Warned(message=f"all WAL of cluster {system} is taken for needed: {error}"))
            found.update(_all_of(repository, f"{WAL}{system:016x}/"))
    try:
        found.update(_of_dumps(repository, snapshots, window))
    except CorruptedBackup as error:
        events(Warned(message=f"all WAL and binary logs are taken for needed: {error}"))
        found.update(_all_of(repository, WAL))
    return found


def _of_dumps(repository: Repository, snapshots: Sequence[Manifest], window: timedelta | None) -> Iterator[str]:
    now = repository.clock.now()
    for name, archive, dumps in binlogs.logged(repository.wal, snapshots):
        since = needed_from(dumps, window, now, name=lambda dump: dump.name, moment=lambda dump: dump.time)
        yield repository.wal.binding_name(name)
        yield from _objects(archive.system, binlogs.reachable(archive, since))


def _all_of(repository: Repository, prefix: str) -> Iterator[str]:
    return (name for name in repository.wal.objects() if name.startswith(prefix))


def _of_cluster(repository: Repository, system: int, bases: Sequence[Base], window: timedelta | None) -> Iterator[str]:
    wal = repository.wal
    yield from (wal.binding_name(base.name) for base in bases)
    yield from (name for name in wal.objects() if name.startswith(f"{WAL}gaps/{system:016x}."))
    coverage = WalCoverage.load(wal, system, segment_size=bases[0].segment_size)
    needed = needed_ways(coverage, bases, window, repository.clock.now())
    yield from _objects(system, {file: coverage.files[file] for file in reachable(coverage, needed)})


def _objects(system: int, files: dict[str, StoredFile]) -> Iterator[str]:
    for file, stored in files.items():
        yield from object_names(system, file, stored)
