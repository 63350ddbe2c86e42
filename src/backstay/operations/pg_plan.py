"""Plan a recovery: which base backup, which WAL, and whether both lead to the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

from backstay.errors import CorruptedBackup, InvalidRequest, NotFound, TargetNotCovered, WalGap
from backstay.operations.pg_backup import base_snapshots
from backstay.repository.repository import Repository
from backstay.repository.selectors import LATEST, choose
from backstay.repository.snapshots import Manifest
from backstay.repository.wal import StoredFile, WalStore
from backstay.sources.postgres.lsn import (
    SEGMENT,
    format_lsn,
    is_segment,
    parse_lsn,
    segment_name,
    segment_start,
    timeline_of,
)
from backstay.sources.postgres.timelines import Path, history_file, path_of
from backstay.sources.postgres.wal_records import Commit, EventReader, RestorePoint, events, last_commit

TargetKind: TypeAlias = Literal["latest", "time", "lsn", "xid", "name", "immediate"]
_SETTING: Final[dict[TargetKind, str]] = {
    "time": "recovery_target_time",
    "lsn": "recovery_target_lsn",
    "xid": "recovery_target_xid",
    "name": "recovery_target_name",
    "immediate": "recovery_target",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryTarget:
    """Where a recovery is to stop; of the values the one of its kind is given. `timeline` None is the newest."""

    kind: TargetKind = "latest"
    time: datetime | None = None  # with a zone
    lsn: int | None = None
    xid: int | None = None
    name: str | None = None
    timeline: int | None = None

    def __str__(self) -> str:
        told: dict[TargetKind, str] = {
            "latest": "the end of the WAL",
            "immediate": "the end of the base backup",
            "time": self.time.isoformat(sep=" ") if self.time is not None else "",
            "lsn": format_lsn(self.lsn or 0),
            "xid": f"transaction {self.xid}",
            "name": f"restore point {self.name!r}",
        }
        return told[self.kind]

    def settings(self) -> dict[str, str]:
        """What stops PostgreSQL there (its documentation, "Recovery Target")."""
        if self.kind == "latest":
            return {}
        value = {
            "time": self.time.isoformat(sep=" ") if self.time is not None else "",
            "lsn": format_lsn(self.lsn or 0),
            "xid": str(self.xid),
            "name": self.name or "",
        }.get(self.kind, "immediate")
        return {_SETTING[self.kind]: value, "recovery_target_action": "promote"}


@dataclass(frozen=True, slots=True)
class WalFile:
    """A file of the WAL that a recovery needs."""

    name: str
    stored: StoredFile


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    """What a recovery takes; `last_commit` is of the last transaction that will be there, None if none came since."""

    base: Manifest
    target: RecoveryTarget
    system: int
    path: Path
    segment_size: int
    segments: tuple[WalFile, ...]
    histories: tuple[WalFile, ...]
    end_lsn: int
    last_commit: datetime | None

    @property
    def wal_bytes(self) -> int:
        return len(self.segments) * self.segment_size


def plan_recovery(repository: Repository, name: str, snapshot: str, target: RecoveryTarget) -> RecoveryPlan:
    """Decide without writing: `snapshot` is `latest`, an id or its beginning.

    Raises NotFound, InvalidRequest, TargetNotCovered with what is covered, WalGap with what is missing.
    """
    bases = base_snapshots(repository, name)
    if not bases:
        raise NotFound(
            f"there is no base backup of {name}",
            cause="none was made under this name, or all were deleted",
            hint="make one with `backstay pg backup`; `backstay list` shows the names there are",
        )
    if snapshot != LATEST:
        bases = [choose(bases, snapshot, now=repository.clock.now())]
    return _Planner(repository, name, bases, target).run()


@dataclass(slots=True)
class _Run:
    """WAL that hangs together from a base backup on: segments, and where the last byte of them lies."""

    segments: list[WalFile] = field(default_factory=list)
    start: int = 0  # position of the first
    end: int = 0
    is_cut: bool = False  # there is more WAL behind a hole


class _Planner:
    def __init__(self, repository: Repository, name: str, bases: Sequence[Manifest], target: RecoveryTarget) -> None:
        self._wal: WalStore = repository.wal
        self._name, self._target = name, target
        self._system = _system(bases[-1])
        self._bases = [base for base in bases if _system(base) == self._system]
        self._files = self._wal.files(self._system)
        self._size = int(self._bases[-1].consistency.get("segment_size", SEGMENT))
        self._paths = self._known_paths()

    def run(self) -> RecoveryPlan:
        refused: Exception | None = None
        for base in reversed(self._bases):  # the newest that can reach the target needs the least WAL
            path = self._path(base)
            if path is None or not self._may_reach(base):
                continue
            try:
                return self._plan(base, path)
            except (TargetNotCovered, WalGap) as error:
                refused = refused or error
                if self._target.kind in ("latest", "time", "immediate"):
                    break  # an older base backup reaches no further
        raise refused or self._too_early()

    # -- the base

    def _known_paths(self) -> dict[int, Path]:
        paths = {timeline_of(name): path_of(timeline_of(name), None) for name in self._files if is_segment(name)}
        for name, stored in self._files.items():
            if name.endswith(".history"):
                timeline = timeline_of(name)
                paths[timeline] = path_of(timeline, self._wal.read(self._system, name, stored))
        return paths

    def _path(self, base: Manifest) -> Path | None:
        """How the WAL runs from a base backup to the wanted timeline; None when it does not lead there."""
        timeline, stop = _timeline(base), _lsn(base, "stop_lsn")
        if self._target.timeline is None:
            leading = [path for path in self._paths.values() if path.leads_over(timeline, stop)]
            return max(leading, key=lambda path: path.timeline, default=path_of(timeline, None))
        wanted = self._paths.get(self._target.timeline) or path_of(self._target.timeline, None)
        return wanted if wanted.leads_over(timeline, stop) else None

    def _may_reach(self, base: Manifest) -> bool:
        """Whether the target does not lie before a base backup."""
        target = self._target
        if target.kind == "time" and target.time is not None:
            return _stop_time(base) <= target.time
        return target.kind != "lsn" or target.lsn is None or _lsn(base, "stop_lsn") <= target.lsn

    def _too_early(self) -> Exception:
        first = self._bases[0]
        if self._target.timeline is not None and all(self._path(base) is None for base in self._bases):
            return NotFound(
                f"no base backup of {self._name} leads to timeline {self._target.timeline}",
                cause=f"known are {', '.join(map(str, sorted(self._paths))) or 'none'}",
                hint="`backstay pg windows` shows what can be reached",
            )
        return TargetNotCovered(
            f"{self._target} is not covered: it lies before the first base backup of {self._name}",
            cause=f"snapshot {first.id} was complete at {_stop_time(first).isoformat(sep=' ')}, "
            f"{first.consistency.get('stop_lsn')}",
            hint="nothing before that can be recovered",
        )

    # -- the WAL

    def _plan(self, base: Manifest, path: Path) -> RecoveryPlan:
        run = self._run(base, path)
        stop = _lsn(base, "stop_lsn")
        if run.end < stop:
            raise self._gap(run, path, "the base backup is not consistent without it")
        count, end = self._needed(base, run, path)
        segments = run.segments[:count]
        return RecoveryPlan(
            base=base,
            target=self._target,
            system=self._system,
            path=path,
            segment_size=self._size,
            segments=tuple(segments),
            histories=tuple(self._histories(path)),
            end_lsn=end,
            last_commit=self._last_commit(segments, end),
        )

    def _run(self, base: Manifest, path: Path) -> _Run:
        """The WAL of a path from a base backup on, as far as it hangs together."""
        start = _lsn(base, "start_lsn")
        run = _Run(start=start - start % self._size)
        run.end = run.start
        while True:
            name = self._segment(path, run.end)
            stored = self._files.get(name)
            reach = stored.reach if stored is not None else 0
            if stored is not None and reach != 0:
                run.segments.append(WalFile(name, stored))
            if reach is not None:
                run.end += reach
                run.is_cut = self._has_more(path, run.end)
                return run
            run.end += self._size

    def _segment(self, path: Path, start: int) -> str:
        return segment_name(path.owner(start // self._size, self._size), start, self._size)

    def _has_more(self, path: Path, end: int) -> bool:
        """Whether WAL is stored on this path behind a position that is missing."""
        return any(
            is_segment(name) and (start := segment_start(name, self._size)) > end and self._segment(path, start) == name
            for name in self._files
        )

    def _needed(self, base: Manifest, run: _Run, path: Path) -> tuple[int, int]:
        """How many segments of a run lead to the target, and to which position."""
        target = self._target
        if target.kind == "immediate":
            stop = _lsn(base, "stop_lsn")
            return self._count(run, stop), stop
        if target.kind == "latest":
            if run.is_cut:
                raise self._gap(run, path, "what is stored behind it cannot be reached")
            return len(run.segments), run.end
        if target.kind == "lsn":
            assert target.lsn is not None
            if target.lsn > run.end:
                raise self._not_covered(run, path)
            return self._count(run, target.lsn), target.lsn
        if target.kind == "time":
            return self._until_time(run, path)
        return self._until_event(base, run, path)

    def _count(self, run: _Run, lsn: int) -> int:
        """Segments up to the one with a position, and one more for a record that goes on."""
        return min(len(run.segments), (lsn - run.start) // self._size + 2)

    def _until_time(self, run: _Run, path: Path) -> tuple[int, int]:
        """Up to the first commit after the target: without one PostgreSQL does not know that it has arrived."""
        assert self._target.time is not None
        low, high = 0, len(run.segments)  # the first segment with a later commit lies in [low, high]
        while low < high:
            middle = (low + high) // 2
            at, commit = self._commit_before(run, low, middle)
            if commit is not None and commit.time > self._target.time:
                high = at
            else:
                low = middle + 1
        if low == len(run.segments):
            raise self._not_covered(run, path)
        later = next(
            event
            for event in self._events(run.segments[low])
            if isinstance(event, Commit) and event.time > self._target.time
        )
        return self._count(run, later.end), later.lsn

    def _commit_before(self, run: _Run, low: int, at: int) -> tuple[int, Commit | None]:
        """The last commit of a segment, or of the nearest one before it that has any."""
        for index in range(at, low - 1, -1):
            commit = last_commit(self._read(run.segments[index]))
            if commit is not None:
                return index, commit
        return at, None

    def _until_event(self, base: Manifest, run: _Run, path: Path) -> tuple[int, int]:
        """Up to a restore point or a transaction."""
        stop, reader = _lsn(base, "stop_lsn"), EventReader()
        for segment in run.segments:
            for event in reader.feed(self._read(segment)):
                if event.lsn >= stop and self._is_target(event):
                    return self._count(run, event.end), event.end
        raise self._not_covered(run, path)

    def _is_target(self, event: Commit | RestorePoint) -> bool:
        if isinstance(event, RestorePoint):
            return self._target.kind == "name" and event.name == self._target.name
        return self._target.kind == "xid" and event.xid == self._target.xid

    def _last_commit(self, segments: Sequence[WalFile], end: int) -> datetime | None:
        """The last commit that a recovery up to a position will bring back."""
        for segment in reversed(segments):
            commits = (event for event in self._events(segment) if isinstance(event, Commit) and event.lsn < end)
            if found := list(commits):
                return found[-1].time
        return None

    def _events(self, segment: WalFile) -> Iterator[Commit | RestorePoint]:
        return events(self._read(segment))

    def _read(self, segment: WalFile) -> bytes:
        return self._wal.read(self._system, segment.name, segment.stored)

    def _histories(self, path: Path) -> Iterator[WalFile]:
        for stretch in path.stretches:
            name = history_file(stretch.timeline)
            if name in self._files:
                yield WalFile(name, self._files[name])

    # -- what is told

    def _not_covered(self, run: _Run, path: Path) -> Exception:
        if run.is_cut:
            return self._gap(run, path, f"{self._target} does not lie before it")
        times = (last_commit(self._read(segment)) for segment in reversed(run.segments))
        commit = next(filter(None, times), None)
        until = (
            f"the last commit in it is of {commit.time.isoformat(sep=' ')}"
            if commit is not None
            else "there is no commit in it"
        )
        return TargetNotCovered(
            f"{self._target} is not covered by the stored WAL of {self._name}",
            cause=f"it reaches to {format_lsn(run.end)} on timeline {path.timeline}, and {until}",
            hint="choose an earlier target, or wait until `backstay pg receive` has stored a later commit",
        )

    def _gap(self, run: _Run, path: Path, why: str) -> Exception:
        return WalGap(
            f"WAL of {self._name} is missing from {format_lsn(run.end)} on",
            cause=f"segment {self._segment(path, run.end)} is not there, and {why}",
        )


def _system(base: Manifest) -> int:
    return int(base.consistency["system_id"])


def _timeline(base: Manifest) -> int:
    return int(base.consistency["timeline"])


def _lsn(base: Manifest, which: str) -> int:
    try:
        return parse_lsn(base.consistency[which])
    except (KeyError, InvalidRequest) as error:
        raise CorruptedBackup(f"snapshot {base.id} does not say where its WAL lies", cause=str(error)) from error


def _stop_time(base: Manifest) -> datetime:
    return datetime.fromisoformat(base.consistency["stop_time"])
