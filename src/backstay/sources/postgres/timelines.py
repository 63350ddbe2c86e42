"""Timelines: which WAL leads from one to the next (PostgreSQL documentation, "Timelines"; timeline.c)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backstay.errors import CorruptedBackup, NotFound
from backstay.sources.postgres.lsn import parse_lsn


@dataclass(frozen=True, slots=True)
class Stretch:
    """The WAL of one timeline up to where the next one took over; `end` None for the last."""

    timeline: int
    end: int | None


@dataclass(frozen=True, slots=True)
class TimelinePath:
    """How the WAL runs from the first timeline to one."""

    stretches: tuple[Stretch, ...]

    @property
    def last(self) -> int:
        return self.stretches[-1].timeline

    def end_of(self, timeline: int) -> int | None:
        """Where the path leaves a timeline; None if it ends there. Raises NotFound when it does not lead over it."""
        for stretch in self.stretches:
            if stretch.timeline == timeline:
                return stretch.end
        raise NotFound(f"timeline {self.last} does not come from timeline {timeline}")

    def leads_over(self, timeline: int, lsn: int) -> bool:
        """Whether a position of a timeline lies on this path."""
        return any(
            stretch.timeline == timeline and (stretch.end is None or lsn <= stretch.end) for stretch in self.stretches
        )

    def timeline_at(self, segment_end: int) -> int:
        """The timeline whose file holds a segment that ends there: where one took over, the later one."""
        for stretch in self.stretches:
            if stretch.end is None or segment_end <= stretch.end:
                return stretch.timeline
        return self.last


def read_history(timeline: int, data: bytes) -> TimelinePath:
    """The path to a timeline, from its `.history` file. Raises CorruptedBackup."""
    stretches = []
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        try:
            stretches.append(Stretch(int(words[0]), parse_lsn(words[1])))
        except (ValueError, IndexError):
            raise CorruptedBackup(f"the history of timeline {timeline} cannot be read", cause=repr(line[:80])) from None
    return TimelinePath((*stretches, Stretch(timeline, None)))


def only(timeline: int) -> TimelinePath:
    """The path to a timeline that comes from no other."""
    return TimelinePath((Stretch(timeline, None),))


def newest_from(timeline: int, lsn: int, paths: Mapping[int, TimelinePath]) -> TimelinePath:
    """Of the known paths the one to the highest timeline that leads over a position."""
    leading = [path for path in paths.values() if path.leads_over(timeline, lsn)]
    return max(leading, key=lambda path: path.last, default=only(timeline))
