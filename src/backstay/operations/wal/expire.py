"""Remove WAL that no recovery needs any more: a plan first, then its execution.

Needed is what makes each base backup consistent, and on the way to each timeline everything from one base backup on:
the newest that lets the whole window be recovered, or the oldest if no window is given. All base backups of the cluster
count, whatever their names are: they share its WAL. What lies between older base backups goes, which leaves gaps on
purpose. Base backups are dropped by `prune` and `delete`, which holds forbid: so holds keep their WAL as well.

Without any base backup all WAL waits for one, and so does that of a timeline which is newer than all of them: one may
be under way. So it may on an older timeline that nothing needs: what lies behind all that is needed stays there too.
While a history of a cluster is damaged, none of its WAL goes: it says where timelines come from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay.core.events import EventSink, Progress, Started, Warned, finished, ignore
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.wal.bases import Base, base_backups, require_bases
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.ways import needed_ways
from backstay.repository.readers import running_readers
from backstay.repository.repository import Repository
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.lsn import format_lsn, is_segment, segment_start, timeline_of


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededWal:
    """From where on WAL stays on the way to a timeline: from the start of a base backup."""

    timeline: int
    since: str
    from_lsn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalExpiry:
    """What is to be removed of a cluster's WAL; what stays on the way to each of `timelines`, as recoveries need it.

    `since` and `from_lsn` are those of the one that begins first, and None where no base backup is left, or where
    `doubt` says why nobody can tell what is needed. `names` are those of the cluster, `kept` counts segments.
    """

    system: int
    names: tuple[str, ...]
    since: str | None
    from_lsn: str | None
    expired: tuple[str, ...]
    kept: int
    timelines: tuple[NeededWal, ...] = ()
    doubt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryResult:
    """How many segments were removed; none if there are restores to wait for, told by their processes."""

    removed: int
    waiting_for: tuple[str, ...] = ()


def plan_expiry(
    repository: Repository, name: str, *, window: timedelta | None = None, events: EventSink = ignore
) -> WalExpiry:
    """Decide about one cluster without removing anything; nothing goes, with a warning, where a history is damaged.

    Raises NotFound when there is no base backup: then all WAL waits for one; and CorruptedBackup when a snapshot cannot
    be read: it may be one that needs the WAL.
    """
    system = require_bases(repository, name)[-1].system
    bases = [base for base in base_backups(repository) if base.system == system]
    return _plan(repository, system, bases, window, events)


def plan_expiries(
    repository: Repository,
    *,
    without: Collection[str] = (),
    window: timedelta | None = None,
    events: EventSink = ignore,
) -> list[WalExpiry]:
    """Decide about every cluster with WAL, as if the snapshots `without` were dropped.

    Raises CorruptedBackup as for one.
    """
    bases = [base for base in base_backups(repository) if base.snapshot not in without]
    plans = [
        _plan(repository, system, [base for base in bases if base.system == system], window, events)
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


def _plan(
    repository: Repository, system: int, bases: Sequence[Base], window: timedelta | None, events: EventSink
) -> WalExpiry:
    if not bases:
        names = tuple(name for name, bound in repository.wal.names().items() if bound == system)
        kept = len(_segments(repository, system))
        return WalExpiry(system=system, names=names, since=None, from_lsn=None, expired=(), kept=kept)
    names = tuple(sorted({base.name for base in bases}))
    coverage = WalCoverage.load(repository.wal, system, segment_size=bases[0].segment_size)
    try:
        firsts = first_needed(coverage, bases, window, repository.clock.now())
    except CorruptedBackup as error:
        events(Warned(message=f"no WAL of {', '.join(names)} is removed, it cannot be told what is needed: {error}"))
        kept = sum(map(is_segment, coverage.files))
        return WalExpiry(system=system, names=names, since=None, from_lsn=None, expired=(), kept=kept, doubt=str(error))
    since = min(firsts.values(), key=_start)
    expired = sorted(expired_segments(coverage, bases, firsts), key=lambda file: segment_start(file, coverage.size))
    return WalExpiry(
        system=system,
        names=names,
        since=since.snapshot,
        from_lsn=format_lsn(since.start_lsn),
        expired=tuple(expired),
        kept=sum(map(is_segment, coverage.files)) - len(expired),
        timelines=tuple(
            NeededWal(timeline=timeline, since=base.snapshot, from_lsn=format_lsn(base.start_lsn))
            for timeline, base in sorted(firsts.items())
        ),
    )


def first_needed(
    coverage: WalCoverage, bases: Sequence[Base], window: timedelta | None, now: datetime
) -> dict[int, Base]:
    """Of each timeline that is needed the base backup from which on all WAL on the way to it stays."""
    firsts: dict[int, Base] = {}
    for way in needed_ways(coverage, bases, window, now):
        firsts[way.timeline] = min(*way.bases, firsts.get(way.timeline, way.bases[0]), key=_start)
    return firsts


def expired_segments(coverage: WalCoverage, bases: Sequence[Base], firsts: Mapping[int, Base]) -> Iterator[str]:
    """The segments that lie before the first needed base backup on each way that they are on."""
    size, kept = coverage.size, set[str]()
    for timeline, base in firsts.items():
        path = coverage.path(timeline)
        numbers = coverage.numbers(path)
        kept.update(coverage.file(path, number) for number in numbers if number >= base.start_lsn // size)
    newest = max(base.timeline for base in bases)
    lowest = min(map(_start, firsts.values()))
    for file in filter(is_segment, coverage.files):
        timeline, start = timeline_of(file), segment_start(file, size)
        is_passed = timeline in firsts or (timeline <= newest and start + size <= lowest)
        if is_passed and file not in kept and not any(base.needs(start) for base in bases):
            yield file


def _start(base: Base) -> int:
    return base.start_lsn


def _segments(repository: Repository, system: int) -> list[str]:
    return [file for file in repository.wal.files(system) if is_segment(file)]
