"""Where to begin to receive: behind what is stored, along the timelines of the server."""

from __future__ import annotations

from dataclasses import dataclass

from backstay.operations.wal.coverage import WalCoverage, run_with
from backstay.sources.postgres.lsn import is_segment, segment_name, segment_start, timeline_of
from backstay.sources.postgres.timelines import Path


@dataclass(frozen=True, slots=True)
class Start:
    """A timeline, a position at the start of a segment of it, and the bytes that are stored of that segment."""

    timeline: int
    lsn: int
    known: bytes = b""


def first_start(coverage: WalCoverage, path: Path, kept: Start, size: int) -> Start:
    """Behind what is stored; but never behind a hole in it that the slot can still fill, which begins at `kept`.

    Others store WAL as well: a base backup fetches its own, ahead of a receiver that was away.
    """
    behind = start_behind_stored(coverage, path, size)
    if behind is None:
        return kept
    if behind.lsn <= kept.lsn:
        return behind
    run = run_with(coverage.runs(path), kept.lsn)
    hole = kept.lsn if run is None else run.end
    if hole >= behind.lsn + len(behind.known):
        return behind
    begin = hole // size * size
    file = segment_name(path.owner(begin // size, size), begin, size)
    known = coverage.read(file) if file in coverage.files and not coverage.files[file].whole else b""
    return Start(timeline_of(file), begin, known)


def start_behind_stored(coverage: WalCoverage, path: Path, size: int) -> Start | None:
    """Behind the newest WAL that is stored along a path of the server; None if none is.

    A segment of which only parts are stored is received again from its start: then nobody needs to trust that the
    parts fit together.
    """
    for at, stretch in reversed(list(enumerate(path.stretches))):
        last = None if stretch.end is None else (stretch.end - 1) // size
        numbers = [
            segment_start(file, size) // size
            for file in coverage.files
            if is_segment(file) and timeline_of(file) == stretch.timeline
        ]
        numbers = [number for number in numbers if last is None or number <= last]
        if not numbers:
            continue
        file = segment_name(stretch.timeline, max(numbers) * size, size)
        begin = (max(numbers) + coverage.files[file].whole) * size
        if stretch.end is not None and begin >= stretch.end:
            following = path.stretches[at + 1]
            return Start(following.timeline, following.begin // size * size)
        known = b"" if coverage.files[file].whole else coverage.read(file)
        return Start(stretch.timeline, begin, known)
    return None


def start_at(path: Path, lsn: int, size: int) -> Start:
    """At the segment that holds a position."""
    begin = lsn // size * size
    return Start(path.owner(lsn // size, size), begin)
