"""Remove WAL that no recovery needs any more: a plan first, then its execution.

Needed is what makes each base backup consistent, and everything from one base backup on: the newest that lets the
whole window be recovered, or the oldest if no window is given. All base backups of the cluster count, whatever their
names are: they share its WAL. What lies between older base backups goes, which leaves gaps on purpose. Base backups are
dropped by `prune` and `delete`, which holds forbid: so holds keep their WAL as well.

Without any base backup all WAL waits for one, and so does that of a timeline which is newer than all of them: one may
be under way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.errors import InvalidRequest, NotFound
from backstay.operations.wal.bases import Base, base_backups, require_bases, sound
from backstay.operations.wal.since_window import needed_from
from backstay.repository.readers import running_readers
from backstay.repository.repository import Repository
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.lsn import format_lsn, is_segment, segment_start, timeline_of


@dataclass(frozen=True, slots=True, kw_only=True)
class WalExpiry:
    """What is to be removed of a cluster's WAL; everything from `from_lsn` on stays, that of base backup `since`.

    Both are None where no base backup is left. `names` are those of the cluster, `kept` counts segments.
    """

    system: int
    names: tuple[str, ...]
    since: str | None
    from_lsn: str | None
    expired: tuple[str, ...]
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryResult:
    """How many segments were removed; none if there are restores to wait for, told by their processes."""

    removed: int
    waiting_for: tuple[str, ...] = ()


def plan_expiry(repository: Repository, name: str, *, window: timedelta | None = None) -> WalExpiry:
    """Decide about one cluster without removing anything.

    Raises NotFound when there is no base backup: then all WAL waits for one; and CorruptedBackup when a snapshot cannot
    be read: it may be one that needs the WAL.
    """
    system = require_bases(repository, name)[-1].system
    bases = [base for base in base_backups(repository) if base.system == system]
    return _plan(repository, system, bases, window)


def plan_expiries(
    repository: Repository, *, without: Collection[str] = (), window: timedelta | None = None
) -> list[WalExpiry]:
    """Decide about every cluster with WAL, as if the snapshots `without` were dropped.

    Raises CorruptedBackup as for one.
    """
    bases = [base for base in base_backups(repository) if base.snapshot not in without]
    plans = [
        _plan(repository, system, [base for base in bases if base.system == system], window)
        for system in repository.wal.systems()
    ]
    return [plan for plan in plans if plan.since is not None or plan.kept]  # others log something else than WAL


def plan_abandonment(repository: Repository, name: str) -> WalExpiry:
    """Decide to remove all segments of a cluster that has no base backup, as nobody else does.

    Raises NotFound for an unknown name, InvalidRequest while there is a base backup, CorruptedBackup.
    """
    system = repository.wal.bound(name)
    segments = [] if system is None else _segments(repository, system)
    if system is None or not segments:
        raise NotFound(
            f"there is no WAL of {name}",
            cause="no cluster of PostgreSQL ever had this name" if system is None else "no segment is stored",
        )
    left = [base for base in base_backups(repository) if base.system == system]
    if left:
        raise InvalidRequest(
            f"WAL of {name} is in use",
            cause=f"base backup {left[-1].snapshot} of its cluster exists",
            hint="leave --all out; or delete its base backups before, `backstay list` shows them",
        )
    return WalExpiry(system=system, names=(name,), since=None, from_lsn=None, expired=tuple(segments), kept=0)


def expire_wal(repository: Repository, plan: WalExpiry, *, events: EventSink = ignore) -> ExpiryResult:
    """Remove what a plan names, oldest first: a crash leaves newer WAL, and the next plan names the rest.

    Nothing is removed while a restore runs: it may need any of it.
    """
    if not plan.expired:
        return ExpiryResult(removed=0)
    readers = running_readers(repository)
    if readers:
        return ExpiryResult(removed=0, waiting_for=tuple(map(str, readers)))
    files = repository.wal.files(plan.system)
    events(Started(operation="expire WAL", total_files=len(plan.expired)))
    for done, file in enumerate(plan.expired):
        repository.wal.remove(plan.system, file, files.get(file, StoredFile()))
        events(Progress(files=done + 1, bytes=0, current=file))
    finished(events, "expire WAL")
    return ExpiryResult(removed=len(plan.expired))


def _plan(repository: Repository, system: int, bases: Sequence[Base], window: timedelta | None) -> WalExpiry:
    segments = _segments(repository, system)
    if not bases:
        names = tuple(name for name, bound in repository.wal.names().items() if bound == system)
        return WalExpiry(system=system, names=names, since=None, from_lsn=None, expired=(), kept=len(segments))
    now = repository.clock.now()
    usable = sound(bases) or bases
    needed = needed_from(usable, window, now, name=lambda base: base.name, moment=lambda base: base.stop_time)
    since = min(needed, key=lambda base: base.start_lsn)
    newest = max(base.timeline for base in bases)
    size = since.segment_size
    expired = [
        file
        for file in segments
        if timeline_of(file) <= newest
        and segment_start(file, size) + size <= since.start_lsn
        and not any(base.needs(segment_start(file, size)) for base in bases)
    ]
    expired.sort(key=lambda file: segment_start(file, size))
    return WalExpiry(
        system=system,
        names=tuple(sorted({base.name for base in bases})),
        since=since.snapshot,
        from_lsn=format_lsn(since.start_lsn),
        expired=tuple(expired),
        kept=len(segments) - len(expired),
    )


def _segments(repository: Repository, system: int) -> list[str]:
    return [file for file in repository.wal.files(system) if is_segment(file)]
