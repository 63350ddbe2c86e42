"""Remove WAL that no recovery needs any more: a plan first, then its execution.

Needed is what makes each base backup consistent, and everything from one base backup on: the newest that lets the
whole window be recovered, or the oldest if no window is given. All base backups of the cluster count, whatever their
names are: they share its WAL. What lies between older base backups goes, which leaves gaps on purpose. Base backups are
dropped by `prune` and `delete`, which holds forbid: so holds keep their WAL as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from backstay.core.events import EventSink, Finished, Progress, Started, ignore
from backstay.operations.pg_bases import Base, base_backups, require_bases
from backstay.operations.since_window import needed_from
from backstay.repository.repository import Repository
from backstay.repository.wal import StoredFile
from backstay.sources.postgres.lsn import format_lsn, is_segment, segment_start


@dataclass(frozen=True, slots=True, kw_only=True)
class WalExpiry:
    """What is to be removed of a cluster's WAL; everything from `from_lsn` on stays, that of base backup `since`."""

    system: int
    since: str
    from_lsn: str
    expired: tuple[str, ...]
    kept: int


def plan_expiry(repository: Repository, name: str, *, window: timedelta | None = None) -> WalExpiry:
    """Decide without removing anything.

    Raises NotFound when there is no base backup: then all WAL waits for one; and CorruptedBackup when a snapshot cannot
    be read: it may be one that needs the WAL.
    """
    system = require_bases(repository, name)[-1].system
    bases = [base for base in base_backups(repository) if base.system == system]
    now = repository.clock.now()
    needed = needed_from(bases, window, now, name=lambda base: base.name, moment=lambda base: base.stop_time)
    since = min(needed, key=lambda base: base.start_lsn)
    size = since.segment_size
    segments = [file for file in repository.wal.files(system) if is_segment(file)]
    expired = [
        file
        for file in segments
        if segment_start(file, size) + size <= since.start_lsn
        and not any(_overlaps(segment_start(file, size), size, base) for base in bases)
    ]
    expired.sort(key=lambda file: segment_start(file, size))
    return WalExpiry(
        system=system,
        since=since.snapshot,
        from_lsn=format_lsn(since.start_lsn),
        expired=tuple(expired),
        kept=len(segments) - len(expired),
    )


def expire_wal(repository: Repository, plan: WalExpiry, *, events: EventSink = ignore) -> None:
    """Remove what a plan names, oldest first: a crash leaves newer WAL, and the next plan names the rest."""
    files = repository.wal.files(plan.system)
    events(Started(operation="expire WAL", total_files=len(plan.expired)))
    for done, file in enumerate(plan.expired):
        repository.wal.remove(plan.system, file, files.get(file, StoredFile()))
        events(Progress(files=done + 1, bytes=0, current=file))
    events(Finished(operation="expire WAL"))


def _overlaps(start: int, size: int, base: Base) -> bool:
    return start <= base.stop_lsn and start + size > base.start_lsn
