"""Timelines of a cluster: from where each of them came (`.history` files)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from backstay.errors import CorruptedBackup
from backstay.sources.postgres.lsn import parse_lsn

_LINE: Final = re.compile(rb"\s*([0-9]{1,10})\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s.*)?")


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a timeline that belongs to a path: from `begin` to where another one left it, if one did."""

    timeline: int
    begin: int
    end: int | None

    def has(self, lsn: int) -> bool:
        return self.begin <= lsn and (self.end is None or lsn < self.end)


@dataclass(frozen=True, slots=True)
class Path:
    """How to come to a timeline from its oldest ancestor on."""

    stretches: tuple[Stretch, ...]

    @property
    def timeline(self) -> int:
        return self.stretches[-1].timeline

    def stretch(self, timeline: int) -> Stretch | None:
        return next((stretch for stretch in self.stretches if stretch.timeline == timeline), None)

    def leads_over(self, timeline: int, lsn: int) -> bool:
        """Whether the path runs over a position of a timeline, or up to it."""
        stretch = self.stretch(timeline)
        return stretch is not None and (stretch.end is None or lsn <= stretch.end)

    def parts_from(self, other: Path) -> int | None:
        """The position up to which both run over the same timelines; None if they are the same."""
        for mine, its in zip(self.stretches, other.stretches, strict=False):
            if mine.timeline != its.timeline:
                return mine.begin
            if mine.end != its.end:
                return min(end for end in (mine.end, its.end) if end is not None)
        return None

    def owner(self, number: int, size: int) -> int:
        """The timeline in whose name the server reads a segment: the newest that has begun by then.

        The segment in which a timeline begins starts with a copy of the one before.
        """
        for stretch in reversed(self.stretches):
            if stretch.begin // size <= number:
                return stretch.timeline
        return self.stretches[0].timeline


def history_file(timeline: int) -> str:
    return f"{timeline:08X}.history"


def path_of(timeline: int, history: bytes | None) -> Path:
    """The path to a timeline by its history; without one it has no ancestors. Raises CorruptedBackup."""
    return Path(tuple(_stretches(timeline, _forks(timeline, history or b""))))


def _stretches(timeline: int, forks: Iterable[tuple[int, int]]) -> Iterable[Stretch]:
    begin = 0
    for parent, end in forks:
        yield Stretch(parent, begin, end)
        begin = end
    yield Stretch(timeline, begin, None)


def _forks(timeline: int, history: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for line in history.split(b"\n"):  # and nowhere else: a reason may hold a carriage return
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        match = _LINE.fullmatch(line)
        parent, end = (int(match[1]), parse_lsn(match[2].decode())) if match else (0, 0)
        if match is None or parent >= timeline or (found and (parent, end) <= found[-1]):
            raise CorruptedBackup(
                f"the history of timeline {timeline} cannot be read", cause=f"it has a line {line[:80]!r}"
            )
        found.append((parent, end))
    return found
