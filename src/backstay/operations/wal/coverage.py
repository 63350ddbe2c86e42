"""Which WAL of a cluster is stored, along its timelines: how far it reaches from a position, and where it has gaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from backstay.errors import CorruptedBackup
from backstay.repository.wal.store import GapRecord, StoredFile, WalStore
from backstay.sources.postgres.lsn import SEGMENT, is_segment, segment_name, segment_start, timeline_of
from backstay.sources.postgres.timelines import Path, history_file, path_of
from backstay.sources.postgres.wal_records import Event, EventReader, last_commit, segment_header


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """WAL that is missing before some that is stored; `segments` are not there, or not whole.

    `known` says who acknowledged it, if anybody did: that fills nothing.
    """

    from_lsn: int
    to_lsn: int
    segments: int
    known: GapRecord | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """WAL without a gap, from one position to another."""

    begin: int
    end: int


@dataclass(slots=True)
class WalCoverage:
    """The stored WAL of one cluster, as one listing showed it. Its methods raise CorruptedBackup, ObjectNotFound."""

    wal: WalStore
    system: int
    files: dict[str, StoredFile]
    _size: int = 0
    _paths: dict[int, Path] = field(default_factory=dict)
    _last_read: tuple[str, bytes] = ("", b"")

    @classmethod
    def load(cls, wal: WalStore, system: int, *, segment_size: int = 0) -> WalCoverage:
        """List what is stored of a cluster; the size of its segments, in bytes, is read from one if not given."""
        return cls(wal, system, wal.files(system), segment_size)

    @property
    def size(self) -> int:
        """Bytes of a segment, as the first one says itself."""
        if not self._size:
            first = next(((file, stored) for file, stored in self.files.items() if _has_beginning(file, stored)), None)
            self._size = segment_header(self.read(first[0])).segment_size if first else SEGMENT
        return self._size

    @property
    def timelines(self) -> list[int]:
        """Those of which there are segments."""
        return sorted({timeline_of(file) for file in self.files if is_segment(file)})

    def path(self, timeline: int) -> Path:
        """How its ancestors lead to a timeline; without its history it has none."""
        if timeline not in self._paths:
            name = history_file(timeline)
            history = self.read(name) if timeline > 1 and name in self.files else None
            self._paths[timeline] = path_of(timeline, history)
        return self._paths[timeline]

    def file(self, path: Path, number: int) -> str:
        """The name of a segment along a path; it need not be stored."""
        return segment_name(path.owner(number, self.size), number * self.size, self.size)

    def numbers(self, path: Path) -> list[int]:
        """The segments along a path of which anything is stored."""
        size = self.size
        members = {stretch.timeline for stretch in path.stretches}
        found = {
            segment_start(file, size) // size
            for file in self.files
            if is_segment(file) and timeline_of(file) in members
        }
        return sorted(number for number in found if self.file(path, number) in self.files)

    def runs(self, path: Path) -> list[Run]:
        """What is stored along a path, cut where something is missing."""
        size, found = self.size, list[Run]()
        for number in self.numbers(path):
            reach = self.files[self.file(path, number)].reach
            begin, end = number * size, number * size + (size if reach is None else reach)
            if found and found[-1].end == begin:
                begin = found.pop().begin
            if end > begin:
                found.append(Run(begin, end))
        return found

    def gaps(self, timeline: int) -> list[Gap]:
        """What is missing along the way to a timeline, between what is stored."""
        runs = self.runs(self.path(timeline))
        return self.gaps_behind(runs, runs[0].begin) if runs else []

    def gaps_behind(self, runs: list[Run], lsn: int) -> list[Gap]:
        """What is missing from a position on, before WAL that is stored."""
        behind = [run for run in runs if run.end >= lsn]
        if not behind or behind[0].begin > lsn:
            behind.insert(0, Run(lsn, lsn))
        return [self._gap(one.end, two.begin) for one, two in pairwise(behind)]

    def _gap(self, from_lsn: int, to_lsn: int) -> Gap:
        try:
            known = self.wal.acknowledged_gap(self.system, from_lsn, to_lsn)
        except CorruptedBackup:  # in doubt nobody knows of it; `verify` names the record
            known = None
        segments = to_lsn // self.size - from_lsn // self.size
        return Gap(from_lsn=from_lsn, to_lsn=to_lsn, segments=segments, known=known)

    def read(self, file: str) -> bytes:
        """A stored file, or what is there of a segment from its start on."""
        if self._last_read[0] != file:
            self._last_read = (file, self.wal.read(self.system, file, self.files[file]))
        return self._last_read[1]

    def last_commit_time(self, path: Path, run: Run, after: int) -> datetime | None:
        """When the last transaction in a run was committed, if one was after a position."""
        for number in range((run.end - 1) // self.size, max(run.begin, after) // self.size - 1, -1):
            commit = last_commit(self.read(self.file(path, number)))
            if commit is not None:
                return commit.time if commit.end > after else None
        return None

    def find_segment_for_time(self, path: Path, run: Run, moment: datetime, after: int) -> int | None:
        """The first segment behind a position that holds a commit later than a moment; None if there is none.

        Looks at the last commits of a few segments. Times of commits may be out of order by the time that a
        transaction takes to write its record; the segment that is found always has a later one.
        """
        low, high = max(run.begin, after) // self.size, (run.end - 1) // self.size
        found = None
        while low <= high:
            middle = (low + high) // 2
            number, time = self._last_commit_up_to(path, low, middle)
            if time is not None and time > moment:
                found, high = number, number - 1
            else:
                low = middle + 1
        return found

    def _last_commit_up_to(self, path: Path, low: int, number: int) -> tuple[int, datetime | None]:
        """The last segment up to `number`, not before `low`, that holds a commit, and the time of its last one."""
        for at in range(number, low - 1, -1):
            commit = last_commit(self.read(self.file(path, at)))
            if commit is not None:
                return at, commit.time
        return low, None

    def events(self, path: Path, run: Run, after: int) -> Iterator[Event]:
        """The commits and restore points behind a position, in their order."""
        reader = EventReader()
        for number in range(max(run.begin, after) // self.size, (run.end - 1) // self.size + 1):
            yield from (event for event in reader.feed(self.read(self.file(path, number))) if event.end > after)


def run_with(runs: list[Run], lsn: int) -> Run | None:
    """The run that holds a position, or ends at it."""
    at = bisect_right(runs, lsn, key=lambda run: run.begin) - 1
    return runs[at] if at >= 0 and lsn <= runs[at].end else None


def require_segment(data: bytes, file: str) -> int:
    """The size of a segment that comes under a name. Raises CorruptedBackup, VersionUnsupported."""
    header = segment_header(data)
    if segment_start(file, header.segment_size) != header.start:
        raise CorruptedBackup(
            f"{file} is another segment than its name says", cause=f"it begins at position {header.start:X}"
        )
    return header.segment_size


def _has_beginning(file: str, stored: StoredFile) -> bool:
    return is_segment(file) and stored.reach != 0
