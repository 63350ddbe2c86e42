"""Locks that are extended in time: by a backup for what its snapshot needs, and by command for all."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.core.events import Event, EventSink, Warned, ignore
from backstay.errors import BackstayError, Interrupted, InvalidRequest, StorageRefused
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.locks.extend import ExtensionResult, plan_extension, run_extension
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.tiers.moving import plan_move, run_move, set_tier
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.storage.retention import Retention, locked_until, must_stay
from backstay.testing import FakeClock, LockedStorage
from backstay.trust.validators import Validator
from tests.operations.copies import SECRET, make_source, open_alone

DAY = 86400
PACKS = ("packs/", "meta/")


@dataclass
class Place:
    """A repository in a store with locks, on a clock that the test moves; `cache` as on one machine."""

    root: Path
    source: Path
    clock: FakeClock = field(default_factory=FakeClock)
    store: LockedStorage = field(init=False)
    cold: StorageBackend = field(init=False)
    backend: StorageBackend = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.cold = LockedStorage(clock=self.clock), MemoryStorage(clock=self.clock)
        self.backend = self.store
        Repository.create(self.store, SECRET, environment=self.environment).close()

    @property
    def environment(self) -> Environment:
        return Environment(pack_target=256 << 10, threads=2, clock=self.clock, open_cold=lambda *_: self.cold)

    def open(self) -> Repository:
        return Repository.open(self.backend, SECRET, cache=self.root / "cache", environment=self.environment)

    def back_up(self, events: EventSink = ignore) -> str:
        self.clock.advance(1)  # ids sort by time
        self.store.extended.clear()
        self.store.asked.clear()
        with self.open() as repository:
            source = FilesystemSource([bytes(self.source)], filters=Filters([]), clock=SystemClock())
            made = run_backup(repository, source, BackupOptions(host="host"), events=events).snapshot
        assert made is not None
        return made

    def extend(self, share: float = 0.5) -> ExtensionResult:
        self.store.extended.clear()
        self.store.asked.clear()
        with self.open() as repository:
            return run_extension(repository, plan_extension(repository, repository.snapshots.live(), share=share))

    def collect(self) -> None:
        with self.open() as repository:
            collector = Collector(repository)
            collector.execute(collector.plan())

    def names(self, *prefixes: str) -> set[str]:
        return {info.name for info in self.store.list() if info.name.startswith(prefixes or "")}

    def needed_packs(self, snapshot: str) -> set[str]:
        """By what a restore reads, not by what the manifest says."""
        return self.names(*PACKS) - self._unread(snapshot)

    def _unread(self, snapshot: str) -> set[str]:
        """Packs without which all of the snapshot can be restored."""
        free = set()
        for name in self.names(*PACKS):
            objects = {info.name: self.store.retrieve(info.name) for info in self.store.list()}
            data = self.store.retrieve(name)
            copy = MemoryStorage(clock=self.clock)
            for other, kept in objects.items():
                if other != name:
                    copy.store(other, kept)
            with open_alone(copy) as repository:
                out = self.root / f"out-{random.getrandbits(40)}"
                try:
                    result = run_restore(
                        repository, repository.snapshots.get(snapshot), out, RestoreOptions(verify=True)
                    )
                except Exception:  # noqa: BLE001 - whatever it is, the pack was needed
                    continue
                if not result.errors:
                    free.add(name)
            assert data
        return free


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, make_source(tmp_path / "source", files=12))


def test_a_young_repository_needs_nothing(place: Place) -> None:
    place.back_up()
    place.clock.advance(5 * DAY)
    place.back_up()
    assert (place.store.extended, place.store.asked) == ([], [])
    assert place.extend() == ExtensionResult(extended=0)


def test_a_backup_extends_what_its_snapshot_needs_and_asks_nothing(place: Place) -> None:
    place.back_up()
    old = place.names()
    place.clock.advance(20 * DAY)
    (place.source / "new").write_bytes(b"new")
    snapshot = place.back_up()
    assert place.store.asked == []
    with place.open() as repository:
        needed = {pack.hex() for pack in repository.snapshots.get(snapshot).packs}
    until = locked_until(place.clock.now(), 30)
    extended = set(place.store.extended)
    assert {name for name in old if name.rpartition("/")[2] in needed} <= extended
    assert {name for name in old if name.startswith(("keys/", "index/", "repo.json"))} <= extended
    assert all(place.store.locks[name] == until for name in extended)
    assert extended <= old, "what was just written was locked again"
    assert not {name for name in extended if not must_stay(name)}


def test_what_is_extended_was_locked_when_it_was_written(place: Place) -> None:
    snapshot = place.back_up()
    with place.open() as repository:
        digest = repository.snapshots.digest(snapshot)
        repository.attestations.attest(snapshot, digest, Validator.generate("anna"), place.clock)
        repository.snapshots.graph_deletions.mark(snapshot, "for a test", place.clock)
        plan = plan_extension(repository, repository.snapshots.live())
    assert place.names("attestations/")
    assert place.names("graphs/")
    assert plan.due == 0
    place.clock.advance(20 * DAY)
    with place.open() as repository:
        (part,) = plan_extension(repository, repository.snapshots.live()).places
    assert {*place.names("attestations/"), *place.names("graphs/")} <= {*part.due}
    assert all(must_stay(name) for name in part.due)


def test_the_next_backup_remembers_and_another_machine_does_it_once_more(place: Place) -> None:
    place.back_up()
    place.clock.advance(20 * DAY)
    place.back_up()
    assert place.store.extended
    first = set(place.store.extended)
    place.back_up()
    assert place.store.extended == []
    place.root = place.root / "elsewhere"
    place.back_up()
    assert first <= set(place.store.extended)
    (memory,) = (place.root / "cache").glob("*/locks/*")
    for other in (b"torn", b"\x81\xa1\xff\x01"):  # the second one has a name that is no UTF-8
        memory.write_bytes(other)
        place.back_up()
        assert first <= set(place.store.extended)


def test_what_only_older_snapshots_need_is_left_to_the_command(place: Place) -> None:
    (place.source / "gone").write_bytes(random.Random(8).randbytes(400_000))
    first = place.back_up()
    (place.source / "gone").unlink()
    place.clock.advance(20 * DAY)
    second = place.back_up()
    assert f"snapshots/{first}" not in place.store.extended
    assert f"snapshots/{second}" in place.names()
    result = place.extend()
    assert f"snapshots/{first}" in place.store.extended
    assert result == ExtensionResult(extended=len(place.store.extended))
    assert place.extend() == ExtensionResult(extended=0)


def test_packs_that_a_collection_made_are_extended_too(place: Place) -> None:
    """The manifest of a later snapshot does not name them: it inherits them through listings that nobody read."""
    rng = random.Random(8)
    for number in range(8):
        (place.source / f"deep/mixed-{number}").write_bytes(rng.randbytes(550_000 + number))
        (place.source / f"mixed-{number}").write_bytes(rng.randbytes(60_000 + number))
    first = place.back_up()
    for path in place.source.rglob("mixed-[0-5]"):
        path.unlink()
    place.clock.advance(40 * DAY)  # so that locks are out of the way
    place.back_up()
    with place.open() as repository:
        repository.snapshots.drop(first, "for a test", place.clock)
    place.collect()
    place.clock.advance(20 * DAY)
    latest = place.back_up()
    with place.open() as repository:
        named = {pack.hex() for pack in repository.snapshots.get(latest).packs}
    needed = place.needed_packs(latest)
    assert {name for name in needed if name.rpartition("/")[2] not in named}, "nothing was moved"
    due = locked_until(place.clock.now(), 15)
    assert all(place.store.locks[name] >= due for name in needed)


def test_a_plan_changes_nothing_and_sees_what_the_store_says(place: Place) -> None:
    snapshot = place.back_up()
    place.store.locks.pop(f"snapshots/{snapshot}")  # as if it had been written before there were locks
    before = dict(place.store.locks)
    with place.open() as repository:
        plan = plan_extension(repository, repository.snapshots.live())
    assert place.store.locks == before
    (part,) = plan.places
    assert part.due == (f"snapshots/{snapshot}",)
    assert plan.locked == len(place.store.asked) - 1
    place.extend()
    assert f"snapshots/{snapshot}" in place.store.locks


def test_a_share_of_all_days_extends_everything(place: Place) -> None:
    place.back_up()
    place.clock.advance(2 * DAY)
    assert place.extend(share=1.0).extended == len(place.store.extended) > 5


def test_what_was_collected_since_the_plan_is_counted(place: Place) -> None:
    place.back_up()
    place.clock.advance(20 * DAY)
    with place.open() as repository:
        plan = plan_extension(repository, repository.snapshots.live())
        gone = next(name for name in plan.places[0].due if name.startswith("index/"))
        MemoryStorage.delete(place.store, gone)
        assert run_extension(repository, plan) == ExtensionResult(extended=plan.due - 1, gone=1)


def test_a_store_without_locks_is_refused(place: Place) -> None:
    with Repository.create(MemoryStorage(), SECRET) as repository, pytest.raises(InvalidRequest, match="locked"):
        plan_extension(repository, repository.snapshots.live())


def test_a_backup_tells_when_it_could_not_extend(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.back_up()
    place.clock.advance(20 * DAY)

    def refuse(locks: object, name: str, until: object) -> None:
        raise StorageRefused(f"cannot extend the lock of {name}", cause="it answered AccessDenied")

    monkeypatch.setattr(type(place.store.retention()), "extend", refuse)
    events: list[Event] = []
    assert place.back_up(events.append)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert any("AccessDenied" in text and "backstay retain" in text for text in warnings)


@pytest.mark.parametrize("kind", [StorageRefused, InvalidRequest])
def test_what_is_refused_keeps_nothing_else_from_being_extended(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: type[BackstayError]
) -> None:
    place.back_up()
    place.clock.advance(20 * DAY)
    locks = type(place.store.retention())
    extend = locks.extend

    def extend_some(self: Retention, name: str, until: datetime) -> None:
        if name.startswith("keys/"):
            raise kind(f"cannot extend the lock of {name}", cause="it answered AccessDenied", hint="allow it")
        extend(self, name, until)

    monkeypatch.setattr(locks, "extend", extend_some)
    keys = place.names("keys/")
    with pytest.raises(StorageRefused) as caught:
        place.extend()
    assert len(place.store.extended) > 5
    assert caught.value.title.startswith(f"{len(keys)} of ")
    assert all(name in caught.value.cause for name in keys)
    assert "AccessDenied" in caught.value.cause
    assert caught.value.hint == "allow it"
    with pytest.raises(StorageRefused):
        place.extend()
    assert place.store.extended == [], "what was extended is due no more"


def test_a_wish_to_stop_while_locks_are_extended_is_told_with_the_snapshot(place: Place) -> None:
    place.back_up()
    place.clock.advance(20 * DAY)
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if "extend" in getattr(event, "operation", "") or any(isinstance(told, Warned) for told in events):
            raise Interrupted("interrupted", cause="a signal asked it to stop")

    assert place.back_up(stop)
    assert place.store.extended == []
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert any("a signal asked it to stop" in text and "backstay retain" in text for text in warnings)


def test_each_copy_is_extended_by_itself(place: Place) -> None:
    other = LockedStorage(clock=place.clock, days=60, address="other")
    for info in place.store.list():
        other.store(info.name, place.store.retrieve(info.name))
    place.backend = Mirrored([place.store, other])
    place.back_up()
    place.clock.advance(20 * DAY)
    place.back_up()
    assert place.store.extended
    assert other.extended == []
    place.clock.advance(20 * DAY)
    place.back_up()
    assert other.extended


def test_packs_in_a_cold_tier_with_locks_are_extended_there(place: Place) -> None:
    place.cold = cold = LockedStorage(clock=place.clock, address="cold")
    place.back_up()
    with place.open() as repository:
        set_tier(repository, "memory:drawer", 0)
    with place.open() as repository:
        run_move(repository, plan_move(repository))
    place.clock.advance(20 * DAY)
    place.back_up()
    assert any(name.startswith("packs/") for name in cold.extended)
    assert place.store.extended
    assert not any(name.startswith("packs/") for name in place.store.extended)


def test_a_collection_tells_what_is_still_locked(place: Place) -> None:
    """It is gone for all who look, and none of it is free."""
    first = place.back_up()
    locked_on = place.clock.now()
    for path in place.source.rglob("file-*"):
        path.unlink()
    place.back_up()
    with place.open() as repository:
        repository.snapshots.drop(first, "for a test", place.clock)
        collector = Collector(repository)
        plan = collector.plan()
        result = collector.execute(plan)
    assert result.freed_bytes == 0
    assert result.retained_bytes >= plan.dead_bytes > 0
    assert result.retained_packs == len([name for name in place.store.buried if name.startswith(PACKS)])
    assert result.retained_until == locked_until(locked_on, 30)
    with place.open() as repository:
        again = Collector(repository)
        result = again.execute(again.plan())
    assert (result.freed_bytes, result.retained_packs, result.retained_until) == (0, 0, None)


def test_a_collection_frees_what_is_not_locked_any_more(place: Place) -> None:
    first = place.back_up()
    for path in place.source.rglob("file-*"):
        path.unlink()
    place.back_up()
    place.clock.advance(40 * DAY)
    with place.open() as repository:
        repository.snapshots.drop(first, "for a test", place.clock)
        collector = Collector(repository)
        result = collector.execute(collector.plan())
    assert result.freed_bytes > 0
    assert result.retained_packs == 0


def test_a_cold_tier_without_locks_may_be_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.back_up()
    with place.open() as repository:
        set_tier(repository, "memory:drawer", 0)

    def away(address: str, create: bool) -> StorageBackend:
        raise InvalidRequest(f"cannot open {address}", cause="it is in a drawer")

    monkeypatch.setattr(Place, "environment", Environment(pack_target=256 << 10, clock=place.clock, open_cold=away))
    place.clock.advance(20 * DAY)
    warned: list[Event] = []
    place.back_up(warned.append)
    assert [event for event in warned if isinstance(event, Warned)] == []
    assert place.store.extended
