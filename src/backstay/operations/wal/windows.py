"""Recovery windows: from when to when a cluster can be restored, and what is missing in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from backstay.errors import NotFound
from backstay.operations.wal.bases import Base, base_backups, sound
from backstay.operations.wal.coverage import Gap, Run, WalCoverage, run_with
from backstay.operations.wal.ways import leads, ways
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import OnDamage
from backstay.sources.postgres.timelines import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What can be restored on one timeline without meeting a gap, from the first of some base backups on.

    `end_time` is that of the last commit in it, at least when the first base backup ended; None means that the WAL
    which its base backups need is not stored, so that nothing can be restored. `gaps` lie behind `end_lsn`, before
    the next window.
    """

    name: str
    system: int
    timeline: int
    snapshots: tuple[str, ...]
    start_time: datetime
    end_time: datetime | None
    start_lsn: int
    end_lsn: int
    gaps: tuple[Gap, ...]


def covered(repository: Repository, name: str | None = None, *, on_damage: OnDamage | None = None) -> list[Window]:
    """The windows of the base backups of a name, or of all. Raises CorruptedBackup, ObjectNotFound.

    A name that nobody has used is a NotFound; one of which only WAL is stored has no window yet.
    """
    bases = sound(base_backups(repository, name, on_damage=on_damage))
    if name is not None and not bases and repository.wal.bound(name) is None:
        raise NotFound(
            f"no cluster is called {name}",
            cause="there is neither a base backup nor WAL under this name",
            hint="`backstay pg windows` without --name shows all there are",
        )
    found: list[Window] = []
    for system in sorted({base.system for base in bases}):
        coverage = WalCoverage.load(repository.wal, system)
        for one in sorted({base.name for base in bases if base.system == system}):
            found += windows(coverage, [base for base in bases if (base.system, base.name) == (system, one)])
    return found


def windows(coverage: WalCoverage, bases: list[Base]) -> list[Window]:
    """The windows of some base backups of one cluster, timeline by timeline, oldest first."""
    found: list[Window] = []
    for way in ways(coverage, bases):
        found += _on_path(coverage, way.path, way.bases)
    return found


def open_gap(coverage: WalCoverage, path: Path, bases: list[Base], *, before: int | None = None) -> Gap | None:
    """The newest gap along a path, if no base backup lies behind it: then nothing that follows can be recovered.

    WAL behind a position `before` is left out: what is missing there may still come.
    """
    runs = coverage.runs(path)
    gaps = coverage.gaps_behind(runs, runs[0].begin) if runs else []
    gaps = [gap for gap in gaps if before is None or gap.to_lsn <= before]
    return gaps[-1] if gaps and not has_base_behind(bases, coverage.system, path, gaps[-1].to_lsn) else None


def has_base_behind(bases: list[Base], system: int, path: Path, lsn: int) -> bool:
    """Whether recovery of a cluster can begin behind a position of a path."""
    return any(base.system == system and base.start_lsn >= lsn and leads(path, base) for base in bases)


def _on_path(coverage: WalCoverage, path: Path, bases: Sequence[Base]) -> Iterator[Window]:
    """Base backups that reach the same end, and find the WAL that they need, make one window."""
    runs = coverage.runs(path)
    groups: dict[tuple[int, bool], list[Base]] = {}
    for base in bases:
        run = run_with(runs, base.start_lsn)
        end = base.start_lsn if run is None else run.end
        groups.setdefault((end, end >= base.stop_lsn), []).append(base)
    for (end, is_usable), group in groups.items():
        following = min((base.start_lsn for base in bases if base.start_lsn > end), default=None)
        gaps = coverage.gaps_behind(runs, group[0].start_lsn)
        run = run_with(runs, group[0].start_lsn) if is_usable else None
        yield _window(
            coverage, path, group, run, end, tuple(gap for gap in gaps if following is None or gap.from_lsn < following)
        )


def _window(
    coverage: WalCoverage, path: Path, group: list[Base], run: Run | None, end: int, gaps: tuple[Gap, ...]
) -> Window:
    first = group[0]
    end_time = None
    if run is not None:
        last = coverage.last_commit_time(path, run, first.stop_lsn)
        end_time = max(first.stop_time, last) if last is not None else first.stop_time
    return Window(
        name=first.name,
        system=first.system,
        timeline=path.timeline,
        snapshots=tuple(base.snapshot for base in group),
        start_time=first.stop_time,
        end_time=end_time,
        start_lsn=first.stop_lsn,
        end_lsn=end,
        gaps=gaps,
    )
