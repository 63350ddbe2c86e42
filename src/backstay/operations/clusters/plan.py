"""Plan a recovery: which base backup, which WAL, and whether both lead to the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Final, Literal, TypeAlias

from backstay.errors import (
    ChecksumFailure,
    NotFound,
    SnapshotIncomplete,
    TargetAmbiguousTimeline,
    TargetBeforeSnapshot,
    TargetNotCovered,
    WalGap,
)
from backstay.operations.wal.bases import Base, bases_of, readable_bases, sound
from backstay.operations.wal.coverage import Run, WalCoverage, run_with
from backstay.operations.wal.ways import followed_timeline, is_led_to, leads, ways
from backstay.repository.repository import Repository
from backstay.repository.snapshots.selectors import LATEST, choose
from backstay.repository.snapshots.store import Manifest
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.timelines import Path, history_file
from backstay.sources.postgres.wal_records import (
    Abort,
    Commit,
    Event,
    EventReader,
    RestorePoint,
    TablespaceMade,
    events,
)

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
class OtherTimeline:
    """One that was not asked for, and does not lie on the way: its last commit is later than any on the way."""

    timeline: int
    last_commit: datetime

    def __str__(self) -> str:
        return f"timeline {self.timeline} has later commits, up to {self.last_commit.isoformat(sep=' ')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPlan:
    """What a recovery takes; `last_commit` is of the last transaction that will be there, None if none came since.

    `made` are tablespaces that the server makes on the way, outside of its data directory and where they lay.
    `same_name` are restore points behind the target that have its name: the first one behind the base backup is taken.
    `others` are timelines that whoever names none may have meant: a test copy that archives begins the newest one.
    """

    base: Base
    target: RecoveryTarget
    path: Path
    segments: tuple[WalFile, ...]
    histories: tuple[WalFile, ...]
    end_lsn: int
    last_commit: datetime | None
    made: tuple[TablespaceMade, ...]
    same_name: tuple[RestorePoint, ...]
    others: tuple[OtherTimeline, ...]

    @property
    def manifest(self) -> Manifest:
        assert self.base.manifest is not None
        return self.base.manifest

    @property
    def wal_bytes(self) -> int:
        return len(self.segments) * self.base.segment_size


def plan_recovery(repository: Repository, name: str, snapshot: str, target: RecoveryTarget) -> RecoveryPlan:
    """Decide without writing: `snapshot` is `latest`, an id or its beginning.

    Base backups that are damaged are used only if they are named. Raises NotFound, InvalidRequest, TargetNotCovered
    with what is covered, TargetAmbiguousTimeline, WalGap with what is missing, SnapshotIncomplete, ChecksumFailure.
    """
    every = readable_bases(repository)
    bases = bases_of(every, name)
    coverage = WalCoverage.load(repository.wal, bases[-1].system)
    followed: int | None = None
    if snapshot == LATEST:
        bases = _sound(bases, name)
        if target.timeline is None:
            followed = followed_timeline(coverage, every, name)
            _require_led_to(coverage, followed, bases, name)
    else:
        manifests = [base.manifest for base in bases if base.manifest is not None]
        chosen = choose(manifests, snapshot, now=repository.clock.now())
        bases = [base for base in bases if base.snapshot == chosen.id]
    return _Planner(coverage, name, bases, target, followed).run()


def _sound(bases: list[Base], name: str) -> list[Base]:
    if not (found := sound(bases)):
        raise ChecksumFailure(
            f"all base backups of {name} are damaged",
            cause=f"the newest is {bases[-1].snapshot}: {bases[-1].damage}",
            hint="name one of them to restore it all the same; pg_amcheck then tells what is damaged",
        )
    return found


def _require_led_to(coverage: WalCoverage, followed: int | None, bases: Sequence[Base], name: str) -> None:
    """The newest timeline is what everybody expects: another one comes only to those who name it."""
    if followed is None or is_led_to(coverage.path(followed), bases):
        return
    led = max(way.timeline for way in ways(coverage, bases) if way.bases)
    history = history_file(followed)
    why = "" if history in coverage.files else f", as far as is known: its history, {history}, is not stored"
    raise TargetNotCovered(
        f"no base backup of {name} leads to timeline {followed}, the newest",
        cause=f"its WAL is stored, and all base backups lie on what it left, on the way to timeline {led}{why}",
        hint=f"make one with `backstay pg backup`, from which on it can be recovered; --timeline {led} recovers what "
        "it left",
    )


@dataclass(frozen=True, slots=True)
class _Passed:
    """What lies on the way of a recovery: the time of its last commit, where the last record begins, where it stops,
    and the tablespaces that the server makes.
    """

    last_commit: datetime | None
    newest: int
    end: int
    made: tuple[TablespaceMade, ...]


class _Planner:
    """`followed` is the timeline to take if the target names none; else the newest that any base backup leads to is."""

    def __init__(
        self,
        coverage: WalCoverage,
        name: str,
        bases: Sequence[Base],
        target: RecoveryTarget,
        followed: int | None = None,
    ) -> None:
        self._coverage, self._name, self._bases, self._target = coverage, name, bases, target
        self._aborted: Abort | None = None  # of the transaction that is the target
        self._followed = followed

    def run(self) -> RecoveryPlan:
        path = self._path()
        leading = [base for base in self._bases if leads(path, base)]
        refused: Exception | None = None
        for base in reversed(leading):  # the newest that can reach the target needs the least WAL
            if not self._may_reach(base):
                continue
            try:
                return self._plan(base, path)
            except (TargetNotCovered, WalGap) as error:
                refused = error if refused is None or self._aborted is not None else refused
                if self._target.kind in ("latest", "time", "immediate"):
                    break  # an older base backup reaches no further
        raise refused or self._too_early(leading)

    # -- the timeline, and the base

    def _path(self) -> Path:
        """How the WAL runs to the wanted timeline, or to the newest one that any of the base backups leads to."""
        timelines = {*self._coverage.timelines, *(base.timeline for base in self._bases)}
        wanted = self._followed if self._target.timeline is None else self._target.timeline
        if wanted is not None:
            timelines = {wanted}
        for timeline in sorted(timelines, reverse=True):
            path = self._coverage.path(timeline)
            if is_led_to(path, self._bases):
                self._require_histories(path)
                return path
        raise NotFound(
            f"no base backup of {self._name} leads to timeline {self._target.timeline}",
            cause=f"there is WAL of {', '.join(map(str, self._coverage.timelines)) or 'none'}",
            hint="`backstay pg windows` shows what can be reached",
        )

    def _require_histories(self, path: Path) -> None:
        """Without its history a server does not know where a timeline comes from, and does not start."""
        for stretch in path.stretches:
            if stretch.timeline > 1 and history_file(stretch.timeline) not in self._coverage.files:
                raise TargetNotCovered(
                    f"timeline {stretch.timeline} of {self._name} cannot be recovered",
                    cause=f"its history, {history_file(stretch.timeline)}, is not stored",
                    hint="a new base backup or `backstay pg receive` stores it, as long as the server has it",
                )

    def _may_reach(self, base: Base) -> bool:
        """Whether the target does not lie before a base backup."""
        target = self._target
        if target.kind == "time" and target.time is not None:
            return base.stop_time <= target.time
        return target.kind != "lsn" or target.lsn is None or base.stop_lsn <= target.lsn

    def _too_early(self, leading: Sequence[Base]) -> Exception:
        first = leading[0]
        return TargetBeforeSnapshot(
            f"{self._target} is not covered: it lies before the first base backup of {self._name}",
            cause=f"snapshot {first.snapshot} was complete at {first.stop_time.isoformat(sep=' ')}, "
            f"{format_lsn(first.stop_lsn)}, on the way to timeline {self._path().timeline}",
            hint="nothing before that can be recovered on this timeline; --timeline N follows another one",
        )

    # -- the WAL

    def _plan(self, base: Base, path: Path) -> RecoveryPlan:
        runs = self._coverage.runs(path)
        run = run_with(runs, base.start_lsn) or Run(base.start_lsn, base.start_lsn)
        is_cut = any(other.begin > run.end for other in runs)
        if run.end < base.stop_lsn:
            raise SnapshotIncomplete(
                f"base backup {base.snapshot} of {self._name} is not complete",
                cause=f"it is consistent from {format_lsn(base.stop_lsn)} on, and WAL is missing from "
                f"{format_lsn(run.end)} on: segment {self._missing(run, path)} is not there, or not whole",
            )
        behind, end = self._reached(base, path, run, is_cut=is_cut)
        first = base.start_lsn // base.segment_size
        # One more than the target lies in: its record may go on there.
        last = min(behind // base.segment_size + 1, (run.end - 1) // base.segment_size)
        names = [self._coverage.file(path, number) for number in range(first, last + 1)]
        self._require_one_meaning(path, end)
        passed = self._passed(base, names, end)
        if self._target.kind == "lsn" and self._target.lsn is not None and passed.newest < self._target.lsn:
            raise self._not_covered(path, run, is_cut=is_cut)
        return RecoveryPlan(
            base=base,
            target=self._target,
            path=path,
            segments=tuple(map(self._file, names)),
            histories=tuple(map(self._file, self._histories())),
            end_lsn=passed.end,
            last_commit=passed.last_commit,
            made=passed.made,
            same_name=tuple(self._same_name(path, run, end)) if self._target.kind == "name" else (),
            others=tuple(self._others(path)) if self._target.timeline is None else (),
        )

    def _file(self, name: str) -> WalFile:
        return WalFile(name, self._coverage.files[name])

    def _histories(self) -> Iterator[str]:
        """All that are known: the server takes the next free number for the timeline that it begins."""
        return (name for name in self._coverage.files if name.endswith(".history"))

    def _passed(self, base: Base, names: Sequence[str], end: int) -> _Passed:
        """Read all WAL that a recovery will, which also shows whether it is whole.

        Where a clock was ahead, a commit before `end` may be later than the target: there the server stops.
        """
        reader, last, made = EventReader(), None, list[TablespaceMade]()
        for name in names:
            for event in reader.feed(self._coverage.read(name)):
                if event.lsn >= end or event.end <= base.start_lsn:
                    continue
                if isinstance(event, Commit):
                    if self._is_past(event) and event.lsn >= base.stop_lsn:
                        return _Passed(last, event.lsn, event.lsn, tuple(made))
                    last = event.time
                if isinstance(event, TablespaceMade) and event.place and event.lsn >= base.start_lsn:
                    made.append(event)
        return _Passed(last, reader.newest or base.start_lsn, end, tuple(made))

    def _is_past(self, commit: Commit) -> bool:
        return self._target.time is not None and commit.time > self._target.time

    def _require_one_meaning(self, path: Path, end: int) -> None:
        """What lies on another timeline as well, behind where the two parted, may mean either: a time or a position,
        a transaction's number or the name of a restore point.
        """
        if self._target.timeline is not None or self._target.kind in ("latest", "immediate"):
            return
        for timeline in self._coverage.timelines:
            other = self._coverage.path(timeline)
            parted = path.parts_from(other)
            if parted is None or end <= parted or not is_led_to(other, self._bases):
                continue
            if self._covers(other, parted) and not self._is_before_all_behind(parted, path, other):
                raise TargetAmbiguousTimeline(
                    f"{self._target} lies on timeline {path.timeline} and on timeline {timeline} of {self._name}",
                    cause=f"they parted at {format_lsn(parted)}, before it, and each was in another state then",
                    hint=f"say which with --timeline {path.timeline} or --timeline {timeline}",
                )

    def _is_before_all_behind(self, parted: int, *paths: Path) -> bool:
        """Whether the target is a time that no commit behind the parting has reached: each leads to the same state.

        So it is when a recovery to a time is done once more.
        """
        first = [self._first_commit(path, parted) for path in paths]
        return all(commit is not None and self._is_past(commit) for commit in first)

    def _first_commit(self, path: Path, behind: int) -> Commit | None:
        run = run_with(self._coverage.runs(path), behind)
        found = self._coverage.events(path, run, behind) if run is not None else ()
        return next((event for event in found if isinstance(event, Commit)), None)

    def _covers(self, path: Path, behind: int) -> bool:
        """Whether the target lies on a path behind a position."""
        runs = self._coverage.runs(path)
        if not runs or runs[-1].end <= behind:
            return False
        if self._target.lsn is not None:
            return self._target.lsn <= runs[-1].end
        if self._target.kind in ("xid", "name"):
            found = (self._coverage.events(path, run, behind) for run in runs if run.end > behind)
            return any(map(self._is_target, chain.from_iterable(found)))
        last = self._last_commit(path)
        return last is not None and self._target.time is not None and last > self._target.time

    def _others(self, path: Path) -> Iterator[OtherTimeline]:
        """Timelines that a base backup leads to as well, and that go on later."""
        own = self._last_commit(path)
        for timeline in self._coverage.timelines:
            other = self._coverage.path(timeline)
            if timeline == path.timeline or not is_led_to(other, self._bases):
                continue
            last = self._last_commit(other)
            if last is not None and (own is None or last > own):
                yield OtherTimeline(timeline=timeline, last_commit=last)

    def _last_commit(self, path: Path) -> datetime | None:
        runs = self._coverage.runs(path)
        return self._coverage.last_commit_time(path, runs[-1], runs[-1].begin) if runs else None

    def _reached(self, base: Base, path: Path, run: Run, *, is_cut: bool) -> tuple[int, int]:
        """(behind what a recovery has to read, where it stops)."""
        target = self._target
        if target.kind == "immediate":
            return base.stop_lsn, base.stop_lsn
        if target.kind == "latest":
            if is_cut:
                raise self._gap(run, path, "what is stored behind it cannot be reached")
            return run.end, run.end
        if target.kind == "lsn" and target.lsn is not None:
            if target.lsn > run.end:
                raise self._not_covered(path, run, is_cut=is_cut)
            return target.lsn, target.lsn
        if target.kind == "time" and target.time is not None:
            later = self._first_commit_after(target.time, base, path, run)
            if later is None:
                raise self._not_covered(path, run, is_cut=is_cut)
            return later.end, later.lsn
        found = next(filter(self._is_target, self._noticed(self._coverage.events(path, run, base.stop_lsn))), None)
        if found is None:
            raise self._not_covered(path, run, is_cut=is_cut)
        return found.end, found.end

    def _noticed(self, found: Iterable[Event]) -> Iterator[Event]:
        """Notice on the way whether the transaction that is the target was aborted."""
        for event in found:
            if isinstance(event, Abort) and self._target.kind == "xid" and event.xid == self._target.xid:
                self._aborted = event
            yield event

    def _same_name(self, path: Path, run: Run, behind: int) -> Iterator[RestorePoint]:
        for event in self._coverage.events(path, run, behind):
            if isinstance(event, RestorePoint) and self._is_target(event):
                yield event

    def _first_commit_after(self, moment: datetime, base: Base, path: Path, run: Run) -> Commit | None:
        """Without a commit after its target PostgreSQL does not know that it has arrived."""
        number = self._coverage.find_segment_for_time(path, run, moment, base.stop_lsn)
        if number is None:
            return None
        data = self._coverage.read(self._coverage.file(path, number))
        commits = (event for event in events(data) if isinstance(event, Commit))
        return next((commit for commit in commits if commit.time > moment and commit.lsn >= base.stop_lsn), None)

    def _is_target(self, event: Event) -> bool:
        if isinstance(event, RestorePoint):
            return self._target.kind == "name" and event.name == self._target.name
        return self._target.kind == "xid" and isinstance(event, Commit) and event.xid == self._target.xid

    # -- what is told

    def _not_covered(self, path: Path, run: Run, *, is_cut: bool) -> Exception:
        if self._aborted is not None:
            return TargetNotCovered(
                f"{self._target} of {self._name} was aborted, so that no recovery can stop behind its commit",
                cause=f"it was rolled back at {self._aborted.time.isoformat(sep=' ')}, {format_lsn(self._aborted.lsn)}",
                hint=f"name one that was committed, or stop there with --lsn {format_lsn(self._aborted.lsn)}",
            )
        if is_cut:
            return self._gap(run, path, f"{self._target} does not lie before it")
        last = self._coverage.last_commit_time(path, run, run.begin)
        until = f"the last commit in it is of {last.isoformat(sep=' ')}" if last else "there is no commit in it"
        return TargetNotCovered(
            f"{self._target} is not covered by the stored WAL of {self._name}",
            cause=f"it reaches to {format_lsn(run.end)} on timeline {path.timeline}, and {until}",
            hint="choose an earlier target, or wait until `backstay pg receive` has stored a later commit",
        )

    def _gap(self, run: Run, path: Path, why: str) -> Exception:
        return WalGap(
            f"WAL of {self._name} is missing from {format_lsn(run.end)} on",
            cause=f"segment {self._missing(run, path)} is not there, or not whole, and {why}",
        )

    def _missing(self, run: Run, path: Path) -> str:
        return self._coverage.file(path, run.end // self._coverage.size)
