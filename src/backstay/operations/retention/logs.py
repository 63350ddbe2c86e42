"""Which stored objects of WAL and of binary logs snapshots that are kept need, to be recovered to any moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from backstay.operations.mysql import reachable as binlogs
from backstay.operations.wal.bases import Base, base_of, is_base, sound
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.needs import needed_wal
from backstay.operations.wal.reachable import reachable
from backstay.operations.wal.since_window import needed_from
from backstay.repository.format import WAL
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest
from backstay.repository.wal import StoredFile, object_names


def needed_logs(repository: Repository, snapshots: Sequence[Manifest], *, window: timedelta | None = None) -> set[str]:
    """What makes base backups consistent, what recoveries within the window can read, or from any of the snapshots
    without a window, and what says which server a name is and who knows of gaps. Raises CorruptedBackup.
    """
    found = needed_wal(repository, snapshots)
    bases = [base_of(manifest) for manifest in snapshots if is_base(manifest)]
    for system in sorted({base.system for base in bases}):
        found.update(_of_cluster(repository, system, [base for base in bases if base.system == system], window))
    now = repository.clock.now()
    for name, archive, dumps in binlogs.logged(repository.wal, snapshots):
        since = needed_from(dumps, window, now, name=lambda dump: dump.name, moment=lambda dump: dump.time)
        found.add(repository.wal.binding_name(name))
        found.update(_objects(archive.system, binlogs.reachable(archive, since)))
    return found


def _of_cluster(repository: Repository, system: int, bases: Sequence[Base], window: timedelta | None) -> Iterator[str]:
    wal = repository.wal
    yield from (wal.binding_name(base.name) for base in bases)
    yield from (name for name in wal.objects() if name.startswith(f"{WAL}gaps/{system:016x}."))
    usable = sound(bases) or bases
    since = needed_from(
        usable, window, repository.clock.now(), name=lambda base: base.name, moment=lambda base: base.stop_time
    )
    coverage = WalCoverage.load(wal, system, segment_size=bases[0].segment_size)
    yield from _objects(system, {file: coverage.files[file] for file in reachable(coverage, since)})


def _objects(system: int, files: dict[str, StoredFile]) -> Iterator[str]:
    for file, stored in files.items():
        yield from object_names(system, file, stored)
