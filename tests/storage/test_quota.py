"""A size limit that holds for all writers together."""

from __future__ import annotations

import random
import threading
from datetime import datetime
from typing import Any

import pytest

from backstay.core.clock import datetime_from_ns
from backstay.errors import InvalidRequest, ObjectExists, QuotaExceeded, StorageUnavailable
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.quota import MEASURE_EVERY_S, Quota
from backstay.storage.quota_ledger import LEASE_S
from backstay.testing import CrashPoint, Fault, FaultyBackend, Interleaving, StorageConformance

CHARGED = ("packs/", "meta/", "index/")


class Ticking:
    """A clock that moves on whenever it is looked at, so that no two events have the same time."""

    def __init__(self) -> None:
        self._ns = 1_767_225_600_000_000_000
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        with self._lock:
            self._ns += 1_000_000
            return self._ns

    def now(self) -> datetime:
        return datetime_from_ns(self.now_ns())

    def monotonic(self) -> float:
        return self.now_ns() / 1e9

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._ns += round(seconds * 1e9)

    advance = sleep


class World:
    """A store, and writers that share its limit."""

    def __init__(self, max_size: int = 10_000) -> None:
        self.max_size = max_size
        self.clock = Ticking()
        self.store = MemoryStorage(clock=self.clock)
        self.warnings: list[str] = []

    def writer(self, store: StorageBackend | None = None) -> Quota:
        return Quota(store or self.store, max_size=self.max_size, clock=self.clock, warn=self.warnings.append)

    @property
    def used(self) -> int:
        return size_of(self.store)


def size_of(store: StorageBackend) -> int:
    return sum(info.size for info in store.list() if info.name.startswith(CHARGED))


def names(store: StorageBackend, prefix: str = "quota/") -> list[str]:
    return [info.name.split("/")[1] for info in store.list(prefix)]


@pytest.fixture
def world() -> World:
    return World()


class TestQuota(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        return World(max_size=1 << 40).writer()


def test_what_fits_is_stored_and_what_does_not_is_refused_with_numbers(world: World) -> None:
    writer = world.writer()
    for number in range(9):
        writer.store(f"packs/00/{number}", bytes(1000))
    with pytest.raises(QuotaExceeded) as caught:
        writer.store("packs/00/9", bytes(1001))
    assert caught.value.exit_status == 14
    assert "limit of 9.8 KiB" in caught.value.title
    assert "8.8 KiB are used" in caught.value.cause
    assert "1001 B are to be added" in caught.value.cause
    writer.store("packs/00/9", bytes(1000))
    assert world.used == 10_000


def test_what_lay_there_before_counts(world: World) -> None:
    world.store.store("packs/00/old", bytes(9_500))
    with pytest.raises(QuotaExceeded):
        world.writer().store("packs/00/new", bytes(501))
    world.writer().store("packs/00/new", bytes(500))


@pytest.mark.parametrize("name", ["sessions/x.000000", "snapshots/x", "drops/x", "gc/00000001.done", "keys/slots/x"])
def test_small_records_and_deletions_are_never_refused(world: World, name: str) -> None:
    world.store.store("packs/00/full", bytes(20_000))
    writer = world.writer()
    with pytest.raises(QuotaExceeded):
        writer.store("index/x", b"x")
    writer.store(name, b"a record")
    writer.delete(name)
    writer.delete("packs/00/full")
    writer.store("packs/00/new", bytes(9_000))


def test_space_that_was_freed_meanwhile_is_found(world: World) -> None:
    writer = world.writer()
    for number in range(10):
        writer.store(f"packs/00/{number}", bytes(1000))
    for number in range(5):
        world.store.delete(f"packs/00/{number}")
    for number in range(10, 15):
        writer.store(f"packs/00/{number}", bytes(1000))
    with pytest.raises(QuotaExceeded):
        writer.store("packs/00/x", bytes(1000))
    assert world.used == 10_000


def test_a_pack_that_is_there_costs_nothing(world: World) -> None:
    writer = world.writer()
    writer.store("packs/00/a", bytes(6_000))
    for _ in range(5):
        with pytest.raises(ObjectExists):
            writer.store("packs/00/a", bytes(4_000))
    writer.store("packs/00/b", bytes(4_000))


def test_a_store_that_failed_may_have_stored(world: World) -> None:
    faulty = FaultyBackend(world.store)
    writer = world.writer(faulty)
    writer.store("packs/00/a", bytes(6_000))
    faulty.script(Fault(kind="error_after", operation="store", prefix="packs/"))
    with pytest.raises(StorageUnavailable):
        writer.store("packs/00/b", bytes(3_000))
    with pytest.raises(QuotaExceeded):
        writer.store("packs/00/c", bytes(2_000))


def test_two_writers_share_the_limit(world: World) -> None:
    one, two = world.writer(), world.writer()
    one.store("packs/00/a", bytes(5_000))
    two.store("packs/00/b", bytes(4_000))
    with pytest.raises(QuotaExceeded):
        one.store("packs/00/c", bytes(1_500))
    two.close()
    one.close()
    with pytest.raises(QuotaExceeded):
        world.writer().store("packs/00/c", bytes(1_500))
    world.writer().store("packs/00/c", bytes(1_000))


def test_a_long_writer_is_not_counted_twice_when_others_measure(world: World) -> None:
    long = world.writer()
    for number in range(4):
        long.store(f"packs/00/{number}", bytes(1000))
    other = world.writer()
    with pytest.raises(QuotaExceeded):
        other.store("packs/00/x", bytes(6_001))  # which measures the store
    other.store("packs/00/x", bytes(4_900))
    long.close()
    other.close()
    world.writer().store("packs/00/y", bytes(1_000))


def test_writers_that_ended_leave_little_behind(world: World) -> None:
    for number in range(20):
        with world.writer() as writer:
            writer.store(f"packs/00/{number}", bytes(490))
    with pytest.raises(QuotaExceeded):
        world.writer().store("packs/00/x", bytes(490))
    world.clock.advance(1)
    with pytest.raises(QuotaExceeded):
        world.writer().store("packs/00/x", bytes(490))
    assert sorted(set(names(world.store))) == ["totals"]
    assert len(names(world.store)) == 2


def test_the_claim_of_a_dead_writer_is_given_back_after_its_lease(world: World) -> None:
    dead = world.writer()
    dead.store("packs/00/a", bytes(1_000))
    world.store.delete("packs/00/a")
    with pytest.raises(QuotaExceeded):
        world.writer().store("packs/00/b", bytes(9_990))
    world.clock.advance(LEASE_S + 1)
    world.writer().store("packs/00/b", bytes(9_990))


def test_a_writer_that_was_only_asleep_exceeds_the_limit_by_one_block_at_most(world: World) -> None:
    asleep = world.writer()
    asleep.store("packs/00/a", bytes(10))
    world.clock.advance(LEASE_S + 1)
    world.writer().store("packs/00/b", bytes(9_990))
    for number in range(20):
        try:
            asleep.store(f"packs/00/more-{number}", bytes(10))
        except QuotaExceeded:
            break
    assert world.used <= 10_000 + 100


def test_what_others_stored_without_a_limit_is_found_after_a_day(world: World) -> None:
    with world.writer() as writer:
        writer.store("packs/00/a", bytes(1_000))
    world.store.store("packs/00/unlimited", bytes(8_500))
    world.clock.advance(MEASURE_EVERY_S + 1)
    with pytest.raises(QuotaExceeded):
        world.writer().store("packs/00/b", bytes(501))


def test_thresholds_are_told_once_each(world: World) -> None:
    writer = world.writer()
    for number in range(100):
        writer.store(f"packs/00/{number}", bytes(100))
    assert world.warnings == [f"memory: has reached {level} % of its limit of 9.8 KiB" for level in (80, 90, 95)]


def test_a_first_object_beyond_all_thresholds_gives_one_warning(world: World) -> None:
    world.writer().store("packs/00/a", bytes(9_900))
    assert world.warnings == ["memory: has reached 95 % of its limit of 9.8 KiB"]


@pytest.mark.parametrize("size", [0, -1])
def test_a_limit_that_cannot_be(size: int) -> None:
    with pytest.raises(InvalidRequest):
        World(max_size=size).writer()


def test_names_of_other_forms_and_damaged_totals_are_passed_over(world: World) -> None:
    world.writer().store("packs/00/a", bytes(1_000))
    for name in ("quota/writers/x", "quota/totals/1.2", "quota/readme"):
        world.store.store(name, b"")
    total = next(info.name for info in world.store.list("quota/totals/0"))
    world.store.store(total, b"\xff[[", overwrite=True)
    world.writer().store("packs/00/b", bytes(1_000))


# --- races ---


class LooksFirst(Quota):
    """A weaker one: it looks at the ledger before it claims."""

    def _try(self, wanted: int) -> bool:
        used = self._used(wanted)
        if used > self._max:
            return False
        self._ledger.claim(wanted, done=self._done)
        self._claimed = wanted
        return True


def race(seed: int, kind: type[Quota]) -> tuple[int, int]:
    """Two writers want the last percent; (how many got it, what then lies there)."""
    clock = Ticking()
    store = MemoryStorage(clock=clock)
    store.store("packs/00/old", bytes(9_900))

    def write(name: str) -> Any:
        def run(backend: StorageBackend) -> bool:
            with kind(backend, max_size=10_000, clock=clock, random=Numbers(f"{seed}{name}")) as quota:
                try:
                    quota.store(f"packs/00/{name}", bytes(80))
                except QuotaExceeded:
                    return False
                return True

        return run

    results = Interleaving(seed, store).run({name: write(name) for name in ("one", "two")})
    return sum(bool(result.value) for result in results.values()), size_of(store)


def test_two_writers_at_99_percent() -> None:
    """Whatever the order of their calls, one of them at most gets it, and nearly always one does."""
    got = [race(seed, Quota) for seed in range(300)]
    assert all(size == 9_900 + 80 * count <= 10_000 for count, size in got)
    assert sum(count for count, _ in got) > 270


def test_the_race_is_found_where_there_is_one() -> None:
    assert any(size > 10_000 for _, size in (race(seed, LooksFirst) for seed in range(300)))


@pytest.mark.parametrize("block", range(4))
def test_no_order_of_writers_that_come_go_and_die_exceeds_the_limit(block: int) -> None:
    refused = 0
    for seed in range(block, 400, 4):
        clock = Ticking()
        store = MemoryStorage(clock=clock)

        def write(name: str, sizes: tuple[int, ...], clock: Any = clock, seed: int = seed) -> Any:
            def run(backend: StorageBackend) -> int:
                count = 0
                for part in range(3):
                    with Quota(backend, max_size=1_000, clock=clock, random=Numbers(f"{seed}{name}{part}")) as quota:
                        for number, size in enumerate(sizes):
                            try:
                                quota.store(f"packs/{part}/{name}-{number}", bytes(size))
                            except QuotaExceeded:
                                count += 1
                return count

            return run

        def free(backend: StorageBackend) -> None:
            for _ in range(4):
                for info in list(backend.list("packs/"))[::3]:
                    backend.delete(info.name)

        actors = {"a": write("a", (120, 5, 70)), "b": write("b", (30, 200)), "c": write("c", (99, 1)), "gc": free}
        outcomes = Interleaving(
            seed, Watched(store), crash_probability=0.01, crashable={"a", "b"}, pause_probability=0.05
        ).run(actors)
        for outcome in outcomes.values():
            assert outcome.error is None or isinstance(outcome.error, CrashPoint), outcome
        refused += sum(outcome.value or 0 for outcome in outcomes.values() if isinstance(outcome.value, int))
    assert refused > 10


class Watched(FaultyBackend):
    """Fails as soon as more lies in the store than the limit allows."""

    def store(self, name: str, data: Any, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=overwrite)
        assert size_of(self.inner) <= 1_000, "the limit is exceeded"


class Numbers:
    """Random bytes that a name decides."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def __call__(self, count: int) -> bytes:
        return self._random.randbytes(count)
