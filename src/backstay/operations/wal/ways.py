"""Which base backups lead to which timelines of a cluster, and which of them a length of time needs.

Whoever recovers, removes WAL or base backups, locks WAL, or makes base backups asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay.errors import CorruptedBackup
from backstay.operations.wal.bases import Base, sound
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.since_window import needed_from
from backstay.sources.postgres.timelines import Path


@dataclass(frozen=True, slots=True)
class Way:
    """How WAL runs to a timeline, and the base backups that a recovery along it can begin with, as they lie on it."""

    path: Path
    bases: tuple[Base, ...]

    @property
    def timeline(self) -> int:
        return self.path.timeline

    @property
    def usable(self) -> tuple[Base, ...]:
        """Those that are whole; damaged ones where there are no others."""
        return tuple(sound(self.bases)) or self.bases


def leads(path: Path, base: Base) -> bool:
    """Whether recovery can come from a base backup to a timeline."""
    return path.leads_over(base.timeline, base.stop_lsn)


def is_led_to(path: Path, bases: Iterable[Base]) -> bool:
    """Whether any base backup leads to a timeline."""
    return any(leads(path, base) for base in bases)


def ways(coverage: WalCoverage, bases: Sequence[Base]) -> list[Way]:
    """To every timeline of which there is WAL or a base backup, in their order; some may have no base backup.

    Raises CorruptedBackup.
    """
    found: list[Way] = []
    ordered = sorted(bases, key=lambda base: (base.stop_lsn, base.stop_time))
    for timeline in sorted({*coverage.timelines, *(base.timeline for base in bases)}):
        path = coverage.path(timeline)
        found.append(Way(path, tuple(base for base in ordered if leads(path, base))))
    return found


def current_ways(
    coverage: WalCoverage, bases: Sequence[Base], since: datetime | None, *, taken_by: datetime | None = None
) -> list[Way]:
    """Of each name the way of its base backups to the newest timeline that its server may be on, and those to timelines
    that lived since a moment, if one is given.

    The newest counts however long it is silent: its server may be idle. One that another has left lives on while it has
    commits or base backups, but not for a name from which another one has taken it over, `taken_by` a moment or ever.
    Raises CorruptedBackup.
    """
    found: list[Way] = []
    for name in sorted({base.name for base in bases}):
        led = [way for way in ways(coverage, [base for base in bases if base.name == name]) if way.bases]
        own = [way for way in led if not _is_elsewhere(coverage, way.path, bases, name)]
        newest = [*own[-1:], *[way for way in own if sound(way.bases)][-1:]]  # damaged ones may be mended, or not
        found += (
            way
            for way in led
            if way in newest
            or (
                since is not None
                and not _is_taken_over(coverage, way.path, bases, name, by=taken_by)
                and _has_lived(coverage, way, since)
            )
        )
    return found


def needed_ways(coverage: WalCoverage, bases: Sequence[Base], window: timedelta | None, now: datetime) -> list[Way]:
    """The ways whose WAL recoveries within a window read, each with the base backups from which on they do.

    Those are all without a window; and where nobody knows from where the newest timeline came, until it has a base
    backup of its own that is as old as the window. Raises CorruptedBackup.
    """
    every = ways(coverage, bases)
    since = None if window is None else now - window
    if since is None or any(_may_begin_elsewhere(way, since) for way in every if way.timeline >= _newest(bases)):
        return [Way(way.path, way.usable) for way in every if way.bases]
    return [
        Way(way.path, tuple(needed_from(way.usable, window, now, name=_name, moment=_moment)))
        for way in current_ways(coverage, bases, since, taken_by=since)
    ]


def followed_timeline(coverage: WalCoverage, bases: Sequence[Base], name: str) -> int | None:
    """The newest timeline that the server of a name may be on, of which there is WAL or a base backup of that name.

    `bases` are those of all names. Raises CorruptedBackup.
    """
    own = {base.timeline for base in bases if (base.system, base.name) == (coverage.system, name)}
    timelines = sorted({*coverage.timelines, *own}, reverse=True)
    return next((one for one in timelines if not _is_elsewhere(coverage, coverage.path(one), bases, name)), None)


def _newest(bases: Sequence[Base]) -> int:
    return max((base.timeline for base in bases), default=0)


def _name(base: Base) -> str:
    return base.name


def _moment(base: Base) -> datetime:
    return base.stop_time


def _may_begin_elsewhere(way: Way, since: datetime) -> bool:
    """Whether the history of a timeline is missing, and with it base backups of other timelines that are needed."""
    is_lost = way.timeline > 1 and len(way.path.stretches) == 1
    return is_lost and not any(base.stop_time <= since for base in way.usable)


def _is_elsewhere(coverage: WalCoverage, path: Path, bases: Sequence[Base], name: str) -> bool:
    """Whether the server of a name is not on a timeline that its latest base backup does not lead to: another name has
    base backups there, or that one ended after all that is known of the timeline.
    """
    own = _latest(coverage, bases).get(name)
    if own is None or leads(path, own):
        return False
    return _is_taken_over(coverage, path, bases, name) or _is_silent_since(coverage, path, bases, own.stop_time)


def _is_taken_over(
    coverage: WalCoverage, path: Path, bases: Sequence[Base], name: str, *, by: datetime | None = None
) -> bool:
    """Whether the latest base backup of a name does not lead to a timeline, and that of another one does, which has one
    behind where their ways parted; since a moment or longer, if one is given.
    """
    latest = _latest(coverage, bases)
    there = {one.name for one in latest.values() if leads(path, one)}
    if name not in latest or name in there:
        return False
    home = coverage.path(latest[name].timeline)
    behind = (base for base in sound(bases) if base.name in there and leads(path, base) and not leads(home, base))
    return any(by is None or base.stop_time <= by for base in behind)


def _latest(coverage: WalCoverage, bases: Sequence[Base]) -> dict[str, Base]:
    """Of each name the whole base backup that ended last: its server was there then."""
    own = sound(base for base in bases if base.system == coverage.system)
    return {base.name: base for base in sorted(own, key=lambda base: (base.stop_time, base.snapshot))}


def _is_silent_since(coverage: WalCoverage, path: Path, bases: Sequence[Base], moment: datetime) -> bool:
    """Whether all that is known of a timeline, and something is, was before a moment."""
    try:
        last = _last_commit(coverage, path, path.stretches[-1].begin)
    except CorruptedBackup:  # in doubt it is not; `verify` names the segment
        return False
    known = [base.stop_time for base in bases if (base.system, base.timeline) == (coverage.system, path.timeline)]
    if last is not None:
        known.append(last)
    return bool(known) and max(known) < moment


def _has_lived(coverage: WalCoverage, way: Way, since: datetime) -> bool:
    if any(base.timeline == way.timeline and base.stop_time > since for base in way.bases):
        return True
    try:
        last = _last_commit(coverage, way.path, 0)
    except CorruptedBackup:  # in doubt it has; `verify` names the segment
        return True
    return last is not None and last > since


def _last_commit(coverage: WalCoverage, path: Path, behind: int) -> datetime | None:
    found = (coverage.last_commit_time(path, run, max(run.begin, behind)) for run in reversed(coverage.runs(path)))
    return next((time for time in found if time is not None), None)
