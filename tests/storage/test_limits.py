"""Bytes per second, requests per second, calls at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from backstay.errors import InvalidRequest
from backstay.storage.backend import Buffer, StorageBackend
from backstay.storage.limits import LimitPolicy, Limits, TokenBucket
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock, GlacierStorage, LockedStorage, StorageConformance


def limited(policy: LimitPolicy, clock: FakeClock, inner: StorageBackend | None = None) -> Limits:
    return Limits(inner or MemoryStorage(), policy, clock=clock)


class TestLimits(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        policy = LimitPolicy(upload=1000, download=1000, requests=10, concurrency=2)
        return limited(policy, FakeClock())


def test_uploads_keep_to_their_rate_on_average() -> None:
    clock = FakeClock()
    store = limited(LimitPolicy(upload=100), clock)
    for number in range(11):
        store.store(str(number), bytes(100))
    assert sum(clock.slept) == pytest.approx(9)  # the first second was saved up, and nobody waits for the last


def test_a_pause_saves_up_one_second_and_no_more() -> None:
    clock = FakeClock()
    bucket = TokenBucket(10, clock=clock, sleep=clock.sleep)
    clock.advance(1000)
    for _ in range(30):
        bucket.take(1)
    assert sum(clock.slept) == pytest.approx(1.9)


def test_what_is_larger_than_the_rate_is_paid_for_by_the_next() -> None:
    clock = FakeClock()
    store = limited(LimitPolicy(upload=100), clock)
    store.store("large", bytes(5000))
    assert clock.slept == []
    store.store("small", b"x")
    assert clock.slept == [pytest.approx(49)]


@pytest.mark.parametrize("length", [None, 400])
def test_downloads_keep_to_a_rate_of_their_own(length: int | None) -> None:
    clock = FakeClock()
    store = limited(LimitPolicy(download=100), clock)
    store.store("a", bytes(400))
    assert clock.slept == []
    for _ in range(3):
        store.retrieve("a", length=length)
    assert sum(clock.slept) == pytest.approx(7)


def test_requests_keep_to_their_rate() -> None:
    clock = FakeClock()
    store = limited(LimitPolicy(requests=2), clock)
    store.store("a", b"")
    for _ in range(10):
        store.stat("a")
        store.exists("a")
        list(store.list())
    assert sum(clock.slept) == pytest.approx((31 - 2 - 1) / 2)


def test_each_thousand_names_of_a_listing_count_as_a_request() -> None:
    clock = FakeClock()
    inner = MemoryStorage()
    for number in range(2500):
        inner.store(str(number), b"")
    store = limited(LimitPolicy(requests=1), clock, inner)
    assert len([*store.list()]) == 2500
    store.exists("0")
    assert clock.slept == [pytest.approx(2)]  # the first of three was saved up


def test_requests_to_an_archive_count_one_for_each_object() -> None:
    clock = FakeClock()
    names = [f"packs/{number}" for number in range(4)]
    inner = GlacierStorage(clock=clock)
    for name in names:
        inner.store(name, b"frozen")
    archive = limited(LimitPolicy(requests=2), clock, inner).archive()
    assert archive is not None
    archive.thaw(iter(names), days=1)
    assert [archive.thaw_state(name) for name in names] == ["thawing"] * 4
    assert archive.holds(names[0], b"frozen")
    assert archive.usual_s == inner.takes_s
    assert inner.batches == [(name,) for name in names]
    assert sum(clock.slept) == pytest.approx((9 - 2 - 1) / 2)


def test_requests_for_locks_count_too() -> None:
    clock = FakeClock()
    inner = LockedStorage(days=10, clock=clock)
    inner.store("packs/a", b"locked")
    locks = limited(LimitPolicy(requests=2), clock, inner).retention()
    assert locks is not None
    for _ in range(3):
        locks.extend("packs/a", clock.now() + timedelta(days=40))
        locks.hold("packs/a", on=True)
        assert locks.state("packs/a").held
    assert locks.days == 10
    assert sum(clock.slept) == pytest.approx((9 - 2 - 1) / 2)


@pytest.mark.parametrize("policy", [LimitPolicy(upload=1), LimitPolicy(requests=1)])
def test_a_store_without_locks_and_archive_stays_one(policy: LimitPolicy) -> None:
    store = limited(policy, FakeClock())
    assert store.archive() is None
    assert store.retention() is None


def test_no_more_calls_at_a_time_than_allowed() -> None:
    running, most, lock = [0], [0], threading.Lock()
    meet = threading.Barrier(2)  # two are let in at the same time, a third never is

    class Counting(MemoryStorage):
        def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            meet.wait(60)
            with lock:
                running[0] -= 1

    store = limited(LimitPolicy(concurrency=2), FakeClock(), Counting())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.store(str(number), b""), range(8)))
    assert most == [2]


def test_one_call_at_a_time_is_enough_to_delete_while_listing() -> None:
    store = limited(LimitPolicy(concurrency=1), FakeClock())
    for number in range(3):
        store.store(str(number), b"")
    for info in store.list():
        store.delete(info.name)
    assert list(store.list()) == []


@pytest.mark.parametrize(
    "policy", [LimitPolicy(upload=0), LimitPolicy(download=-1), LimitPolicy(requests=0), LimitPolicy(concurrency=0)]
)
def test_limits_that_cannot_be(policy: LimitPolicy) -> None:
    with pytest.raises(InvalidRequest):
        limited(policy, FakeClock())
