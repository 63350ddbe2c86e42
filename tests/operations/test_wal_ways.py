"""What could be recovered within a window still can be when WAL and base backups went, however timelines fork."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.operations.retention.prune import newest_bases
from backstay.operations.wal.bases import Base, sound
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.expire import expired_segments, first_needed
from backstay.operations.wal.reachable import reachable
from backstay.operations.wal.ways import followed_timeline, needed_ways
from backstay.repository.wal.store import StoredFile, WalStore
from backstay.sources.postgres.lsn import PAGE, format_lsn, segment_start
from backstay.sources.postgres.timelines import history_file
from tests.operations.bases import wal_file
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, header, restore_point

NAMES = ("main", "nightly")
ANY = "any name"


@dataclass(frozen=True)
class State:
    """A cluster as it was from a commit on, which is the last of a segment, up to the next commit."""

    timeline: int
    number: int
    begun: datetime
    over: datetime | None


@dataclass
class World:
    """Servers that write a segment a minute, and where each of their timelines left another one.

    It knows timelines as parents and forks, and nothing of paths.
    """

    minute: int = 0
    live: int = 1
    forks: dict[int, tuple[int, int]] = field(default_factory=dict)  # of a timeline its parent, and where it left
    ends: dict[int, int] = field(default_factory=lambda: {1: 1})  # the number of the next segment
    commits: dict[str, list[datetime]] = field(default_factory=dict)  # by segment, also those of a parent in a copy
    stored: set[str] = field(default_factory=set)
    bases: list[Base] = field(default_factory=list)

    def step(self, kind: str, choice: int) -> None:
        self.minute += 1
        number = self.ends[self.live]
        if kind == "turn":  # to another server
            self.live = sorted(self.ends)[choice % len(self.ends)]
            return
        if kind == "fork":
            self._fork(1 + choice % (number - 1), 500 * (choice % 2))  # within what is written
            return
        if kind == "base":
            self.bases.append(self._base(number, NAMES[choice % 2], damage="pages" if choice % 5 == 0 else ""))
        self.commits[wal_file(number, self.live)] = [at(self.minute)]
        if kind != "lose":
            self.stored.add(wal_file(number, self.live))
        self.ends[self.live] += 1

    def _fork(self, number: int, offset: int) -> None:
        """Leave the live timeline at the start of a segment, or behind the commit in it."""
        parent, position = self.live, number * SIZE + offset
        while parent in self.forks and self.forks[parent][1] >= position:
            parent = self.forks[parent][0]
        before = self.commits[self.file(parent, number)] if offset else []
        self.live = max(self.ends) + 1
        self.forks[self.live] = parent, position
        self.ends[self.live] = number + 1
        file = wal_file(number, self.live)
        self.commits[file] = [*before, at(self.minute)]
        self.stored.add(file)

    def _base(self, number: int, name: str, *, damage: str) -> Base:
        return Base(
            snapshot=f"base-{len(self.bases)}",
            name=name,
            system=SYSTEM,
            timeline=self.live,
            start_lsn=number * SIZE + 100,
            stop_lsn=number * SIZE + 200,
            stop_time=at(self.minute),
            segment_size=SIZE,
            damage=damage,
        )

    def coverage(self) -> WalCoverage:
        files = [*self.stored, *map(history_file, self.forks)]
        return WalCoverage(cast(WalStore, self), SYSTEM, {file: StoredFile(whole=True) for file in files}, SIZE)

    def read(self, system: int, file: str, stored: StoredFile) -> bytes:
        """As WalStore does: the first page of a segment is enough, or a history."""
        if file in self.commits:
            *before, last = (commit(1, time) for time in self.commits[file])
            filler = [restore_point("", at(0))] * (5 if before else 0)  # the last commit lies behind where one left
            return (header(segment_start(file, SIZE)) + b"".join([*before, *filler, last])).ljust(PAGE, b"\0")
        return "".join(reversed([*self._lines(int(file[:8], 16))])).encode()

    def _lines(self, timeline: int) -> Iterator[str]:
        while timeline in self.forks:
            timeline, position = self.forks[timeline]
            yield f"{timeline}\t{format_lsn(position)}\tleft\n"

    def file(self, timeline: int, number: int) -> str:
        while timeline in self.forks and number < self.forks[timeline][1] // SIZE:
            timeline = self.forks[timeline][0]
        return wal_file(number, timeline)

    def leads(self, base: Base, timeline: int) -> bool:
        left = None
        while timeline != base.timeline:
            if timeline not in self.forks:
                return False
            timeline, left = self.forks[timeline]
        return left is None or base.stop_lsn <= left

    def newest(self, bases: Sequence[Base], name: str) -> int:
        """The timeline that a name follows: the newest that one of its base backups leads to, and where it may be."""
        own = [base for base in bases if base.name == name]
        led = (one for one in self.ends if any(self.leads(base, one) for base in own))
        return max((one for one in led if not self.is_left(bases, name, one)), default=0)

    def is_left(self, bases: Sequence[Base], name: str, timeline: int) -> bool:
        """Whether the last base backup of a name is on another way, and another name or nobody is on this one."""
        last = latest(bases)[name]
        if self.leads(last, timeline):
            return False
        signs = [self.commits[file][-1] for file in self.stored if int(file[:8], 16) == timeline]
        signs += [base.stop_time for base in self.bases if base.timeline == timeline]
        return max(signs) < last.stop_time or self.is_taken(bases, name, timeline)

    def is_taken(self, bases: Sequence[Base], name: str, timeline: int, by: datetime | None = None) -> bool:
        """Whether another name is on a timeline that one is not on, and has made a base backup where this is sure."""
        last = latest(bases)
        if name not in last or self.leads(last[name], timeline):
            return False
        others = [base for base in bases if base.name != name and self.leads(last[base.name], timeline)]
        sure = [one for one in others if self.leads(one, timeline) and not self.leads(one, last[name].timeline)]
        return any(by is None or base.stop_time <= by for base in sure)

    def states(self) -> Iterator[State]:
        for timeline, end in self.ends.items():
            over: datetime | None = None
            for number in range(end - 1, 0, -1):
                file = self.file(timeline, number)
                if file in self.stored:
                    yield State(timeline, number, self.commits[file][-1], over)
                    over = self.commits[file][0]

    def recovers(self, base: Base, state: State, files: Collection[str]) -> bool:
        numbers = range(base.start_lsn // SIZE, state.number + 1)
        return (
            self.leads(base, state.timeline)
            and base.stop_time <= state.begun
            and all(self.file(state.timeline, number) in files for number in numbers)
        )

    def recoverable(self, bases: Sequence[Base], files: Collection[str]) -> set[tuple[str, State]]:
        """The states that base backups of each name lead to."""
        return {(base.name, state) for state in self.states() for base in bases if self.recovers(base, state, files)}

    def wanted(
        self, bases: Sequence[Base], since: datetime, *, taken_by: datetime | None = None
    ) -> set[tuple[str, State]]:
        """Of these those that were there since a moment; the last one of a timeline that was left counts by its commit.

        What another name has taken over is that one's, so that it may be recovered by either.
        """
        found = set()
        for name, state in self.recoverable(bases, self.stored):
            until = state.over or (None if state.timeline == self.newest(bases, name) else state.begun)
            if until is None or until > since:
                found.add((ANY, state))
                if not self.is_taken(bases, name, state.timeline, taken_by):
                    found.add((name, state))
        return found


def with_any(found: set[tuple[str, State]]) -> set[tuple[str, State]]:
    return found | {(ANY, state) for _name, state in found}


def latest(bases: Sequence[Base]) -> dict[str, Base]:
    return {base.name: base for base in sorted(bases, key=lambda base: base.stop_time)}


KINDS = st.sampled_from(["write", "write", "write", "base", "base", "fork", "turn", "lose"])
STEPS = st.lists(st.tuples(KINDS, st.integers(0, 29)), min_size=3, max_size=24)


def lived(steps: list[tuple[str, int]]) -> World:
    world = World()
    for kind, choice in [("base", 1), *steps]:
        world.step(kind, choice)
    return world


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, minutes=st.none() | st.integers(0, 15))
def test_no_moment_in_the_window_is_lost_with_wal(steps: list[tuple[str, int]], minutes: int | None) -> None:
    world = lived(steps)
    now = at(world.minute)
    window = None if minutes is None else timedelta(minutes=minutes)
    coverage, whole = world.coverage(), sound(world.bases)
    expired = set(expired_segments(coverage, world.bases, first_needed(coverage, world.bases, window, now)))
    since = at(0) if window is None else now - window
    before = world.wanted(whole, since, taken_by=since)
    assert before <= with_any(world.recoverable(whole, world.stored - expired))
    locked = reachable(coverage, needed_ways(coverage, world.bases, window, now))
    assert before <= with_any(world.recoverable(whole, locked))
    assert all(world.file(base.timeline, base.start_lsn // SIZE) not in expired for base in world.bases)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, minutes=st.integers(0, 15))
def test_the_ends_of_timelines_that_live_keep_a_base_backup(steps: list[tuple[str, int]], minutes: int) -> None:
    world = lived(steps)
    since = at(world.minute - minutes)
    coverage, whole = world.coverage(), sound(world.bases)
    ends = {(name, state) for name, state in world.wanted(whole, since) if not state.over}
    newest = {name: world.newest(whole, name) for name in latest(whole)}
    for moment in (None, since):
        spared = newest_bases(coverage, whole, moment)
        kept = [base for base in whole if base.snapshot in spared]
        wanted = {(name, end) for name, end in ends if moment is not None or end.timeline == newest.get(name)}
        assert wanted <= with_any(world.recoverable(kept, world.stored))


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_a_timeline_counts_as_followed_until_a_later_base_backup_tells_otherwise(steps: list[tuple[str, int]]) -> None:
    world = lived(steps)
    coverage, whole = world.coverage(), sound(world.bases)
    for name in latest(whole):
        followed = followed_timeline(coverage, world.bases, name)
        assert followed == max(one for one in world.ends if not world.is_left(whole, name, one))
