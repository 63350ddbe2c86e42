"""Snapshots, deletions and collections in any sequence, by programs that end at any moment, against a model.

A value that a live snapshot names is never gone; those of deleted ones go; nothing else goes.

BACKSTAY_STATE_EXAMPLES and BACKSTAY_STATE_STEPS set the extent beyond 80 examples of 12 steps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from hashlib import sha256

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backstay.errors import OutputMissing
from backstay.graph.manager import GraphBackupManager
from backstay.graph.metadata_graph import MetadataGraph
from backstay.repository.cas import ContentAddressableStorage
from backstay.storage.memory import MemoryStorage
from backstay.testing import CrashPoint, Fault, FaultyBackend
from backstay.testing.clock import FakeClock
from backstay.testing.faults import FaultKind, Operation
from tests.graph.stored import Stored, made

CONTENTS = tuple(b"value %d" % number for number in range(6))
NAMES = ("one", "two")
CRASHES: tuple[tuple[FaultKind, Operation], ...] = (
    ("crash_before", "store"),
    ("crash_after", "store"),
    ("crash_before", "delete"),
    ("crash_after", "delete"),
)


@dataclass
class Model:
    """What must be: values that nobody may remove, and for each snapshot the values that it names."""

    values: set[str] = field(default_factory=set)
    live: dict[str, frozenset[str]] = field(default_factory=dict)
    deleted: dict[str, frozenset[str]] = field(default_factory=dict)

    def going(self) -> set[str]:
        """What a collection removes."""
        kept = set().union(*self.live.values())
        return set().union(*self.deleted.values()) - kept


class Graphs(RuleBasedStateMachine):
    """One program after the other; each lives until it crashes or is told to end."""

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.shelf = MemoryStorage(clock=self.clock)
        self.stored = Stored(self.shelf, clock=self.clock)
        self.model = Model()
        self.restart()
        for content in CONTENTS[:4]:
            self.store_value(content)

    @rule()
    def restart(self) -> None:
        """Another program goes on."""
        self.store = FaultyBackend(self.shelf)
        self.stored.reopen(self.store)
        self.clock.advance(1)

    @rule(kind=st.sampled_from(CRASHES), at=st.integers(1, 8))
    def crash_soon(self, kind: tuple[FaultKind, Operation], at: int) -> None:
        self.store.script(Fault(kind=kind[0], operation=kind[1], at=at))

    @rule(content=st.sampled_from(CONTENTS))
    def store_value(self, content: bytes) -> None:
        try:
            self.model.values.add(self.stored.values.store(content))
        except CrashPoint:
            self.look_again()

    @rule(contents=st.sets(st.sampled_from(CONTENTS), min_size=1), name=st.sampled_from(NAMES), new=st.booleans())
    def snapshot(self, contents: set[bytes], name: str, new: bool) -> None:
        if new:
            for content in sorted(contents):
                self.store_value(content)
        graph = MetadataGraph(name, timestamp=self.clock.now())
        ids = {content: value_of(content) for content in sorted(contents)}
        for content, key in ids.items():
            graph.add(made(content.decode(), key))
        named = frozenset(ids.values())
        try:
            told = self.stored.manager(graph).create_snapshot()
        except OutputMissing:
            assert not named <= self.model.values
        except CrashPoint:
            self.look_again(named)
        else:
            assert named <= self.model.values
            self.model.live[told.id] = named

    @rule(chosen=st.integers(min_value=0))
    @precondition(lambda self: self.model.live)
    def delete(self, chosen: int) -> None:
        ulid = sorted(self.model.live)[chosen % len(self.model.live)]
        try:
            assert self.stored.manager().delete_snapshot(ulid)
        except CrashPoint:
            self.look_again()
        else:
            self.model.deleted[ulid] = self.model.live.pop(ulid)

    @rule()
    def collect(self) -> None:
        going = self.model.going() & self.model.values
        try:
            gone = self.stored.manager().garbage_collect()
        except CrashPoint:
            self.look_again(going=going)
            return
        assert set(gone) == going
        self.model.values -= going
        self.model.deleted.clear()
        assert set(self.healthy().list()) == self.model.values

    @rule(count=st.integers(1, 2))
    def expire(self, count: int) -> None:
        """Only the newest of each graph stay."""
        manager = self.stored.manager()
        try:
            own = {told.id: told.name for told in manager.list_snapshots()}
            expired = {ulid for name in NAMES for ulid in sorted(ulid for ulid in own if own[ulid] == name)[:-count]}
            after = Model(
                live={ulid: named for ulid, named in self.model.live.items() if ulid not in expired},
                deleted={**self.model.deleted, **{ulid: self.model.live[ulid] for ulid in expired}},
            )
            going = after.going() & self.model.values
            gone = manager.garbage_collect(max_snapshots=count)
        except CrashPoint:
            self.look_again(going=self.model.values)
            return
        assert set(gone) == going
        self.model.values -= going
        self.model.live, self.model.deleted = after.live, {}

    # -- the truth after a crash

    def healthy(self) -> ContentAddressableStorage:
        return ContentAddressableStorage(self.stored.open(self.shelf))

    def look_again(self, named: frozenset[str] = frozenset(), going: set[str] | None = None) -> None:
        """The program has ended. What it was at may have been done, and nothing else."""
        repository = self.stored.open(self.shelf)
        there = set(ContentAddressableStorage(repository).list())
        assert self.model.values - there <= (going or set())
        self.model.values = there
        known = {**self.model.live, **self.model.deleted}
        found = {told.id for told in GraphBackupManager(repository).list_snapshots()}
        for ulid in found - known.keys():
            known[ulid] = named
        marked = repository.snapshots.graph_deletions.marked()
        dropped = repository.snapshots.dropped()
        self.model.live = {ulid: known[ulid] for ulid in found}
        self.model.deleted = {ulid: values for ulid, values in known.items() if ulid in marked and ulid not in dropped}
        assert known.keys() - found <= marked.keys() | dropped
        finished = set().union(*(known[ulid] for ulid in known.keys() & dropped))
        assert not (finished - set().union(*self.model.live.values())) & there, "dropped before its values had gone"
        self.restart()

    @invariant()
    def what_live_snapshots_name_is_there(self) -> None:
        if not hasattr(self, "model"):
            return
        repository = self.stored.open(self.shelf)
        values = ContentAddressableStorage(repository)
        live = {told.id for told in GraphBackupManager(repository).list_snapshots()}
        assert live == self.model.live.keys()
        named = set().union(*self.model.live.values())
        assert not values.missing(named)
        assert self.model.values <= set(values.list())


def value_of(content: bytes) -> str:
    """The id that a content has."""
    return f"sha256:{sha256(content).hexdigest()}"


TestGraphs = Graphs.TestCase
TestGraphs.settings = settings(
    max_examples=int(os.environ.get("BACKSTAY_STATE_EXAMPLES", "400")) // 5,
    stateful_step_count=int(os.environ.get("BACKSTAY_STATE_STEPS", "25")) // 2,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
