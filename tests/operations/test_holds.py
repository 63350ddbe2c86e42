"""Snapshots that are held: nobody drops them, and the store holds what they need."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.errors import HoldViolation, NotFound
from backstay.operations.repair.run import repair_snapshots
from backstay.operations.retention.holds import clear_hold, set_hold
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.verify.run import run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.format import drop_name, hold_name, wal_name
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock, LockedStorage
from tests.operations.bases import make_base, store_wal, wal_file
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, make_source, open_alone, restored
from tests.postgres.made_wal import SYSTEM

PACKS = ("packs/", "meta/")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", files=10)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> LockedStorage:
    store = LockedStorage(clock=clock)
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    return store


@pytest.fixture
def two(store: LockedStorage, source: Path) -> tuple[str, str]:
    """Two snapshots of the same source."""
    with open_alone(store) as repository:
        first = back_up(repository, source)
        (source / "file-00").write_bytes(random.Random(3).randbytes(400_000))
        return first, back_up(repository, source)


def collect(repository: Repository) -> None:
    collector = Collector(repository)
    collector.execute(collector.plan())


def test_a_held_snapshot_cannot_be_dropped_until_it_is_cleared(store: LockedStorage, two: tuple[str, str]) -> None:
    with open_alone(store) as repository:
        snapshot = repository.snapshots.get(two[0])
        assert set_hold(repository, snapshot, "case 7").changed
        assert not set_hold(repository, snapshot, "case 7").changed
        with pytest.raises(HoldViolation, match="case 7"):
            repository.snapshots.drop(two[0], "", repository.clock)
        with pytest.raises(HoldViolation):
            repository.snapshots.accept_loss(two[0], "", repository.clock)
        repository.snapshots.drop(two[1], "", repository.clock)
        assert clear_hold(repository, snapshot.id, "closed").changed
        assert not clear_hold(repository, snapshot.id, "closed").changed
        repository.snapshots.drop(two[0], "", repository.clock)
        assert repository.snapshots.live() == []


def test_another_reason_replaces_that_of_a_hold_and_since_when_it_holds_stays(
    store: LockedStorage, two: tuple[str, str], clock: FakeClock
) -> None:
    with open_alone(store) as repository:
        snapshot, holds = repository.snapshots.get(two[0]), repository.snapshots.holds
        set_hold(repository, snapshot, "case 7")
        (first,) = holds.held().values()
        clock.advance(60)
        assert set_hold(repository, snapshot, "case 8").changed
        assert not set_hold(repository, snapshot, "").changed
        (record,) = holds.held().values()
        assert first is not None
        assert record is not None
        assert (record.reason, record.set_ns) == ("case 8", first.set_ns)
        clear_hold(repository, snapshot.id, "closed")
        assert not holds.explain(snapshot.id, "case 9"), "what is not held is not held by a reason"
        assert holds.held() == {}


def test_another_reason_for_a_hold_that_outweighs_a_drop_keeps_the_snapshot(
    store: LockedStorage, two: tuple[str, str]
) -> None:
    with open_alone(store) as one, open_alone(store) as other:
        free = one.snapshots.holds.require_free

        def held_late(ulids: list[str]) -> None:
            free(ulids)
            other.snapshots.hold(two[0], "case 7", other.clock)

        one.snapshots.holds.require_free = held_late  # type: ignore[method-assign,assignment]
        one.snapshots.drop(two[0], "", one.clock)
        assert other.snapshots.hold(two[0], "case 8", other.clock)
        assert two[0] in other.snapshots.holds.held()
    with open_alone(store) as repository:
        assert two[0] in {manifest.id for manifest in repository.snapshots.live()}


def test_prune_keeps_what_is_held_and_says_why(store: LockedStorage, two: tuple[str, str]) -> None:
    with open_alone(store) as repository:
        set_hold(repository, repository.snapshots.get(two[0]), "")
        rules = RetentionRules(keep_last=1)
        plan = plan_prune(repository, rules, now=repository.clock.now(), zone=repository.clock.now().tzinfo)  # type: ignore[arg-type]
        reasons = {decision.candidate.id: decision.reasons for decision in plan.kept}
        assert reasons[two[0]] == ("it is held",)
        assert "it is held" not in reasons[two[1]]
        assert execute_prune(repository, plan).dropped == ()


def test_the_store_holds_all_that_a_snapshot_needs(
    store: LockedStorage, two: tuple[str, str], source: Path, tmp_path: Path
) -> None:
    with open_alone(store) as repository:
        snapshot = repository.snapshots.get(two[0])
        result = set_hold(repository, snapshot, "")
        assert (result.objects, result.stores) == (len(store.holds), 1)
    copy = MemoryStorage()
    for name in store.holds:
        copy.store(name, store.retrieve(name))
    with open_alone(copy) as repository:
        files, errors = restored(repository, two[0], tmp_path / "out", source)
    assert files
    assert errors == []


def test_the_store_holds_the_wal_of_a_base_backup(store: LockedStorage, source: Path) -> None:
    with open_alone(store) as repository:
        store_wal(repository, range(1, 7))
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/600000\tpromoted\n")
        first, second = (repository.snapshots.get(make_base(repository, source, number)) for number in (2, 4))
        wal = {name: wal_name(SYSTEM, name) for name in (wal_file(2), wal_file(4), "00000002.history")}
        set_hold(repository, first, "")
        assert {name for name in store.holds if name.startswith("wal/")} == {wal[wal_file(2)], wal["00000002.history"]}
        set_hold(repository, second, "")
        clear_hold(repository, first.id, "")
        assert {name for name in store.holds if name.startswith("wal/")} == {wal[wal_file(4)], wal["00000002.history"]}


def test_what_another_held_snapshot_needs_stays_held(store: LockedStorage, two: tuple[str, str]) -> None:
    with open_alone(store) as repository:
        first, second = map(repository.snapshots.get, two)
        set_hold(repository, first, "")
        of_first = set(store.holds)
        set_hold(repository, second, "")
        both = set(store.holds)
        assert both > of_first
        clear_hold(repository, second.id, "")
        assert of_first <= store.holds
        assert f"snapshots/{two[1]}" not in store.holds
        clear_hold(repository, first.id, "")
        assert not {name for name in store.holds if not name.startswith("holds/")}


def test_a_hold_is_only_for_what_exists(store: LockedStorage, two: tuple[str, str]) -> None:
    with open_alone(store) as repository:
        snapshot = repository.snapshots.get(two[0])
        repository.snapshots.drop(two[0], "", repository.clock)
        with pytest.raises(NotFound):
            set_hold(repository, snapshot, "")
        assert repository.snapshots.holds.held() == {}


def test_of_a_drop_and_a_hold_at_the_same_time_one_wins(
    store: LockedStorage, two: tuple[str, str], source: Path
) -> None:
    """Whichever comes between the other's look and its record."""
    with open_alone(store) as one, open_alone(store) as other:
        get = one.snapshots.get

        def late(ulid: str) -> object:
            found = get(ulid)
            other.snapshots.drop(ulid, "", other.clock)
            return found

        one.snapshots.get = late  # type: ignore[method-assign,assignment]
        with pytest.raises(NotFound, match=two[0]):
            one.snapshots.hold(two[0], "", one.clock)
        assert one.snapshots.holds.held() == {}
        assert [manifest.id for manifest in other.snapshots.live()] == [two[1]]

        free = one.snapshots.holds.require_free

        def held_late(ulids: list[str]) -> None:
            free(ulids)
            other.snapshots.hold(two[1], "", other.clock)

        one.snapshots.get = get  # type: ignore[method-assign]
        one.snapshots.holds.require_free = held_late  # type: ignore[method-assign,assignment]
        one.snapshots.drop(two[1], "", one.clock)
        assert store.exists(drop_name(two[1]))
    with open_alone(store) as repository:
        assert [manifest.id for manifest in repository.snapshots.live()] == [two[1]]
        collect(repository)
        assert store.exists(f"snapshots/{two[1]}")
        assert [manifest.id for manifest in repository.snapshots.live()] == [two[1]]


def test_in_doubt_a_snapshot_is_held(store: LockedStorage, two: tuple[str, str]) -> None:
    with open_alone(store) as repository:
        repository.snapshots.hold(two[0], "", repository.clock)
        repository.snapshots.release(two[0], "", repository.clock)
        store.store(hold_name(two[0], 3), b"no record")
        store.store(hold_name(two[1], 1), store.retrieve(hold_name(two[0], 1)))
        assert repository.snapshots.holds.held() == {two[0]: None, two[1]: None}
        with pytest.raises(HoldViolation, match="cannot be read"):
            repository.snapshots.drop(two[0], "", repository.clock)
        found = {finding.subject: finding for finding in run_verify(repository).findings}
        assert found.keys() == {hold_name(two[0], 3), hold_name(two[1], 1)}
        assert all("hold clear" in finding.hint for finding in found.values())
        repository.snapshots.release(two[0], "", repository.clock)
        repository.snapshots.drop(two[0], "", repository.clock)


def test_a_collection_moves_nothing_out_of_packs_that_are_held(
    store: LockedStorage, two: tuple[str, str], source: Path
) -> None:
    with open_alone(store) as repository:
        set_hold(repository, repository.snapshots.get(two[1]), "")
        packs = {pack.hex() for pack in repository.snapshots.get(two[1]).packs}
        repository.snapshots.drop(two[0], "", repository.clock)
        collect(repository)
    left = {info.name.rpartition("/")[2] for prefix in PACKS for info in store.list(prefix)}
    assert packs <= left


def test_a_repair_leaves_what_is_held_as_it_is(store: LockedStorage, two: tuple[str, str]) -> None:
    """Whether its data, its manifest or all of it is damaged or gone; once the hold is cleared, it may go."""
    first, second = two
    with open_alone(store) as repository:
        for ulid in two:
            set_hold(repository, repository.snapshots.get(ulid), "")
        only_second = set(repository.snapshots.get(second).packs) - set(repository.snapshots.get(first).packs)
    for name in [info.name for prefix in PACKS for info in store.list(prefix)]:
        if bytes.fromhex(name.rpartition("/")[2]) in only_second:
            MemoryStorage.delete(store, name)
    MemoryStorage.delete(store, f"snapshots/{first}")
    before = {info.name for info in store.list("snapshots/")}
    with open_alone(store) as repository:
        result = repair_snapshots(repository)
        held = {finding.subject for finding in result.findings if "is held" in finding.message}
        assert held == {f"snapshots/{first}", f"snapshots/{second}"}
        assert (result.snapshots_dropped, result.snapshots_replaced) == ((), ())
        assert {info.name for info in store.list("snapshots/")} == before
        for ulid in two:
            assert clear_hold(repository, ulid, "").changed
        result = repair_snapshots(repository)
        assert first in result.snapshots_dropped
        assert not [finding for finding in result.findings if "is held" in finding.message]
