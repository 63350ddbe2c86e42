"""Locks of WAL and binary logs are extended for exactly what snapshots that are kept need."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from backstay.operations.locks.extend import plan_extension, run_extension
from backstay.operations.retention.logs import needed_logs
from backstay.repository.format import wal_gap_name, wal_name
from backstay.repository.repository import Environment, Repository
from backstay.repository.wal.store import GapRecord
from backstay.testing import FakeClock, LockedStorage
from tests.operations.bases import NAME, make_base, store_wal, wal_file
from tests.operations.copies import SECRET, damaged, make_source
from tests.postgres.made_wal import DAY, SIZE, SYSTEM, at, segment

DAYS = 86400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(DAY)


@pytest.fixture
def store(clock: FakeClock) -> LockedStorage:
    return LockedStorage(clock=clock)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", files=3)


def opened(store: LockedStorage, clock: FakeClock) -> Repository:
    environment = Environment(clock=clock, threads=2)
    if not store.exists("repo.json"):
        Repository.create(store, SECRET, environment=environment).close()
    return Repository.open(store, SECRET, environment=environment)


def extended(repository: Repository, store: LockedStorage, window: timedelta | None = None) -> set[str]:
    """The objects of logs whose locks are extended."""
    store.extended.clear()
    kept = repository.snapshots.live()
    plan = plan_extension(repository, kept, logs=needed_logs(repository, kept, window=window))
    run_extension(repository, plan)
    return {name for name in store.extended if name.startswith("wal/")}


def segments(numbers: Iterable[int]) -> set[str]:
    return {wal_name(SYSTEM, wal_file(number)) for number in numbers}


def test_what_can_be_recovered_with_stays_locked_and_nothing_else(
    store: LockedStorage, clock: FakeClock, source: Path
) -> None:
    with opened(store, clock) as repository:
        store_wal(repository, [1, 2, 3, 4, 6, 7, 8])
        make_base(repository, source, 3)
        make_base(repository, source, 7)
        repository.wal.store_part(SYSTEM, wal_file(9), 0, segment(9)[: SIZE // 2])
        repository.wal.store(8, wal_file(1), segment(1, system=8))  # of a cluster without a base backup
        repository.wal.acknowledge_gap(GapRecord(SYSTEM, 5 * SIZE, 6 * SIZE, clock.now_ns(), "eve", "a full disk"))
        also = {repository.wal.binding_name(NAME), wal_gap_name(SYSTEM, 5 * SIZE, 6 * SIZE)}
        assert extended(repository, store) == set()
        clock.advance(20 * DAYS)
        assert extended(repository, store) == segments([3, 4, 7, 8]) | also
        assert extended(repository, store) == set()
    assert all(store.locks[name] > clock.now() + timedelta(days=30) for name in segments([3, 4, 7, 8]) | also)
    assert all(store.locks[name] < clock.now() + timedelta(days=15) for name in segments([1, 2, 6]))


def test_a_window_keeps_the_way_to_a_timeline_locked_that_begins_before_the_last_base_backup(
    store: LockedStorage, clock: FakeClock, source: Path
) -> None:
    with opened(store, clock) as repository:
        store_wal(repository, range(1, 8))
        make_base(repository, source, 2)
        make_base(repository, source, 6)
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/400000\tbefore\n")
        store_wal(repository, [4, 5], timeline=2, begun=at(6))
        clock.advance(20 * DAYS)
        locked = extended(repository, store, timedelta(days=1))
    assert {wal_name(SYSTEM, file) for file in (wal_file(3), wal_file(4, 2), wal_file(5, 2))} <= locked
    assert wal_name(SYSTEM, wal_file(5)) not in locked


def test_a_window_leaves_out_what_lies_between_older_base_backups(
    store: LockedStorage, clock: FakeClock, source: Path
) -> None:
    with opened(store, clock) as repository:
        store_wal(repository, range(1, 10))
        for number in (2, 5, 7):
            make_base(repository, source, number)
        clock.advance(20 * DAYS)
        # The base backup of the fifth minute is the newest that is so old.
        window = clock.now() - at(6)
        also = {repository.wal.binding_name(NAME)}
        assert extended(repository, store, window) == segments([2, 5, 6, 7, 8, 9]) | also
        assert extended(repository, store) == segments([3, 4])


def test_wal_of_a_dropped_base_backup_is_let_go(store: LockedStorage, clock: FakeClock, source: Path) -> None:
    with opened(store, clock) as repository:
        store_wal(repository, range(1, 6))
        first = make_base(repository, source, 1)
        make_base(repository, source, 4)
        repository.snapshots.drop(first, "", clock)
        clock.advance(20 * DAYS)
        assert extended(repository, store) == {*segments([4, 5]), repository.wal.binding_name(NAME)}


def test_another_timeline_is_locked_with_its_history(store: LockedStorage, clock: FakeClock, source: Path) -> None:
    with opened(store, clock) as repository:
        store_wal(repository, [1, 2])
        make_base(repository, source, 1)
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/280000\tpromoted\n")
        store_wal(repository, [2, 3], timeline=2)
        clock.advance(20 * DAYS)
        second = {wal_name(SYSTEM, wal_file(number, 2)) for number in (2, 3)}
        assert segments([1, 2]) | second | {wal_name(SYSTEM, "00000002.history")} < extended(repository, store)


def test_where_it_cannot_be_told_what_is_needed_all_stays_locked(
    store: LockedStorage, clock: FakeClock, source: Path
) -> None:
    """A damaged history must not let the locks of everything else end."""
    warned: list[str] = []
    with opened(store, clock) as repository:
        store_wal(repository, [1, 2, 3])
        make_base(repository, source, 2)
        history = wal_name(SYSTEM, "00000002.history")
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/280000\tpromoted\n")
        store_wal(repository, [2, 3], timeline=2)
        repository.wal.store(8, wal_file(1), segment(1, system=8))  # of another cluster, without a base backup
        store.store(history, damaged(store.retrieve(history), random.Random(1)), overwrite=True)
        clock.advance(20 * DAYS)
        kept = repository.snapshots.live()
        logs = needed_logs(repository, kept, events=lambda event: warned.append(str(event)))
    second = {wal_name(SYSTEM, wal_file(number, 2)) for number in (2, 3)}
    assert logs >= segments([1, 2, 3]) | second | {history}
    assert wal_name(8, wal_file(1)) not in logs
    assert any(f"all WAL of cluster {SYSTEM} is taken for needed" in text for text in warned)
