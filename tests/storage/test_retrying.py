"""Calls that fail for the moment are repeated, and a repeated create knows its own object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageUnavailable,
)
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.circuit import Circuit, CircuitPolicy
from backstay.storage.memory import MemoryStorage
from backstay.storage.retrying import Retrying, RetryPolicy
from backstay.testing import FakeClock, Fault, FaultyBackend, GlacierStorage, LockedStorage, StorageConformance

DATA = b"the bytes of a pack" * 100
PACK = f"packs/ab/{hashlib.sha256(DATA).hexdigest()}"
SNAPSHOT = "snapshots/01arz3ndektsv4rrffq69g5fav"


class World:
    """A store that fails by script, behind retries on a clock of its own."""

    def __init__(self, policy: RetryPolicy | None = None, **more: Any) -> None:
        self.clock = FakeClock()
        self.memory = MemoryStorage()
        self.faulty = FaultyBackend(self.memory, **more)
        self.backend = Retrying(self.faulty, policy=policy, clock=self.clock, random=lambda: 1.0)

    def script(self, kind: Any, operation: Any, **more: Any) -> None:
        self.faulty.script(Fault(kind=kind, operation=operation, **more))

    def calls(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.faulty.calls)


@pytest.fixture
def world() -> World:
    return World()


class TestRetrying(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        return World().backend


class TestRetryingOverFaults(StorageConformance):
    """The whole contract, while a tenth of all calls fails and a tenth of all answers is lost."""

    @pytest.fixture
    def backend(self) -> StorageBackend:
        rates: Any = {"error_before": 0.1, "error_after": 0.1, "incomplete_listing": 0.2}
        return World(RetryPolicy(deadline_s=10_000), seed=3, rates=rates).backend


# --- when and how often ---


def test_pauses_double_up_to_the_longest_and_end_at_the_deadline() -> None:
    world = World(RetryPolicy(first_s=1, longest_s=8, deadline_s=30))
    world.script("error_before", "retrieve", repeat=True)
    with pytest.raises(StorageUnavailable, match="tried 6 times in 23"):
        world.backend.retrieve("a")
    assert world.clock.slept == [1, 2, 4, 8, 8]


def test_the_pause_is_a_random_part_of_the_longest() -> None:
    world = World()
    chances = iter([0.5, 0.0, 0.25])
    backend = Retrying(
        world.faulty, policy=RetryPolicy(first_s=4, longest_s=100), clock=world.clock, random=lambda: next(chances)
    )
    for at in (1, 2, 3):
        world.script("error_before", "delete", at=at)
    backend.delete("a")
    assert world.clock.slept == [2.0, 0.0, 4.0]


def test_the_deadline_grows_with_the_object() -> None:
    world = World(RetryPolicy(first_s=10, longest_s=10, deadline_s=10, slowest=100))
    world.script("error_before", "store", repeat=True)
    with pytest.raises(StorageUnavailable, match="tried 2 times"):
        world.backend.store("small", b"")
    with pytest.raises(StorageUnavailable, match="tried 4 times"):
        world.backend.store("large", bytes(2000))


def asks_for(seconds: float) -> Any:
    return lambda name: StorageUnavailable(name, cause="too many requests", retry_after=seconds)


def test_the_store_is_left_alone_for_as_long_as_it_asks() -> None:
    world = World(error=asks_for(42.0))
    world.script("error_before", "stat")
    world.memory.store("a", b"x")
    assert world.backend.stat("a").size == 1
    assert world.clock.slept == [42.0]


def test_nothing_is_waited_for_that_the_deadline_forbids() -> None:
    world = World(RetryPolicy(deadline_s=60), error=asks_for(3600.0))
    world.script("error_before", "stat")
    with pytest.raises(StorageUnavailable) as caught:
        world.backend.stat("a")
    assert world.clock.slept == []
    assert caught.value.retry_after == 3600.0


@pytest.mark.parametrize(
    "error",
    [
        ObjectNotFound("a"),
        ObjectExists("a"),
        InvalidRequest("no"),
        InsufficientSpace("full"),
        StorageMissing("gone"),
        BackstayError("else"),
    ],
    ids=lambda error: error.code,
)
def test_what_will_not_change_is_told_at_once(error: BackstayError) -> None:
    world = World(error=lambda _: error)
    world.script("error_before", "store", repeat=True)
    with pytest.raises(type(error)) as caught:
        world.backend.store("a", b"")
    assert caught.value is error
    assert (world.calls("store"), world.clock.slept) == (1, [])


@pytest.mark.parametrize(("start", "length"), [(90, 20), (101, None), (0, 101)])
def test_an_object_that_is_too_short_is_told_at_once(world: World, start: int, length: int | None) -> None:
    world.memory.store("a", bytes(100))
    with pytest.raises(StorageUnavailable, match="too short"):
        world.backend.retrieve("a", start=start, length=length)
    assert world.clock.slept == []


def test_an_interrupt_is_not_repeated(world: World) -> None:
    class Pressed(StorageBackend):
        url = "test:"

        def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
            raise KeyboardInterrupt

        retrieve = delete = list = store  # type: ignore[assignment]

    with pytest.raises(KeyboardInterrupt):
        Retrying(Pressed(), clock=world.clock).store("a", b"")
    assert world.clock.slept == []


class Stumbling(MemoryStorage):
    """Cannot say at first what it can do."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        self.asked += 1
        if self.asked < 3:
            raise StorageUnavailable("the line is down")
        return Capabilities(atomic_create=False)


def test_what_a_store_can_do_is_asked_with_retries_and_not_before_it_is_wanted() -> None:
    store = Stumbling()
    backend = Retrying(store, clock=FakeClock())
    assert store.asked == 0
    assert backend.capabilities == Capabilities(atomic_create=False)
    assert store.asked == 3


# --- lost acknowledgements ---


@pytest.mark.parametrize("name", [PACK, SNAPSHOT, "sessions/x.000000", "gc/00000001", "repo.json"])
def test_a_create_whose_answer_was_lost_succeeds(world: World, name: str) -> None:
    world.script("error_after", "store")
    world.backend.store(name, DATA)
    assert world.memory.retrieve(name) == DATA


def test_a_create_that_lost_a_race_after_a_failure_does_not_succeed(world: World) -> None:
    world.script("error_before", "store")
    world.memory.store(SNAPSHOT, b"the fence of a collector")
    with pytest.raises(ObjectExists):
        world.backend.store(SNAPSHOT, b"the manifest of a writer")
    assert world.memory.retrieve(SNAPSHOT) == b"the fence of a collector"


def test_equal_bytes_of_another_are_not_ours_without_a_failure(world: World) -> None:
    world.memory.store(SNAPSHOT, DATA)
    with pytest.raises(ObjectExists):
        world.backend.store(SNAPSHOT, DATA)
    world.memory.store(PACK, DATA)
    with pytest.raises(ObjectExists):
        world.backend.store(PACK, DATA)


def test_a_torn_pack_is_replaced(world: World) -> None:
    world.script("torn", "store")
    world.backend.store(PACK, DATA)
    assert world.memory.retrieve(PACK) == DATA


def test_a_torn_object_under_another_name_is_left_to_whoever_can_tell(world: World) -> None:
    world.script("torn", "store")
    with pytest.raises(ObjectExists):
        world.backend.store(SNAPSHOT, DATA)


def test_bytes_that_contradict_their_name_replace_nothing(world: World) -> None:
    world.memory.store(PACK, DATA)
    world.script("error_before", "store")
    with pytest.raises(ObjectExists):
        world.backend.store(PACK, b"not what the name says")
    assert world.memory.retrieve(PACK) == DATA


def test_the_read_back_is_repeated_as_well(world: World) -> None:
    world.script("error_after", "store")
    world.script("error_before", "retrieve", at=1)
    world.backend.store(SNAPSHOT, DATA)
    assert world.calls("store") == 3


def test_an_object_deleted_before_the_read_back_is_created_again(world: World) -> None:
    """Its first try was answered by nobody, so that nobody can have relied on it."""

    class Deleting(FaultyBackend):
        def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
            self.inner.delete(name)
            return super().retrieve(name, start=start, length=length)

    faulty = Deleting(world.memory)
    faulty.script(Fault(kind="error_after", operation="store"))
    Retrying(faulty, clock=world.clock).store("a", b"x")
    assert world.memory.retrieve("a") == b"x"


# --- listings ---


class Breaking(MemoryStorage):
    """Gives a part of its listing, then fails, a number of times."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for count, info in enumerate(super().list(prefix)):
            if count == 3 and self.failures:
                self.failures -= 1
                raise StorageUnavailable("the connection was lost")
            yield info


def test_a_listing_that_breaks_off_is_whole_and_without_doubles_in_the_end() -> None:
    inner = Breaking(failures=2)
    for number in range(10):
        inner.store(f"a/{number}", b"")
    names = [info.name for info in Retrying(inner, clock=FakeClock()).list("a/")]
    assert names == [f"a/{number}" for number in range(10)]


def test_a_listing_that_breaks_off_for_ever_gives_nothing() -> None:
    inner = Breaking(failures=10_000)
    for number in range(10):
        inner.store(f"a/{number}", b"")
    with pytest.raises(StorageUnavailable):
        Retrying(inner, clock=FakeClock()).list("a/")


# --- the circuit ---


def broken() -> World:
    world = World(RetryPolicy(deadline_s=0, circuit=CircuitPolicy(failures=2, open_s=30)))
    world.script("error_before", "stat", repeat=True)
    world.memory.store("a", b"x")
    for _ in range(2):
        with pytest.raises(StorageUnavailable, match="did not answer"):
            world.backend.stat("a")
    return world


def test_after_some_failed_operations_the_endpoint_is_left_alone() -> None:
    world = broken()
    world.clock.advance(10)
    with pytest.raises(
        StorageUnavailable, match=r"2 operations in a row failed there; it is tried again in 20\.0 s"
    ) as caught:
        world.backend.retrieve("a")
    assert caught.value.retry_after == 20
    assert world.calls("retrieve") == 0


def test_after_the_pause_one_operation_may_try() -> None:
    world = broken()
    world.clock.advance(30)
    with pytest.raises(StorageUnavailable, match="did not answer"):
        world.backend.stat("a")
    assert world.calls("stat") == 3
    with pytest.raises(StorageUnavailable, match="is not asked for the moment"):
        world.backend.stat("a")
    world.faulty.heal()
    world.clock.advance(30)
    assert world.backend.stat("a").size == 1
    assert world.backend.retrieve("a") == b"x"


def test_only_one_operation_tries_at_a_time() -> None:
    clock = FakeClock()
    circuit = Circuit(CircuitPolicy(failures=1, open_s=5), clock)
    circuit.failed()
    clock.advance(5)
    assert circuit.admit("u") == "probe"
    with pytest.raises(StorageUnavailable, match="as soon as the one try under way has ended"):
        circuit.admit("u")
    circuit.ended("probe")  # by an interrupt
    assert circuit.admit("u") == "probe"
    circuit.succeeded()
    assert circuit.admit("u") == "normal"


def test_an_answer_of_any_kind_closes_the_circuit() -> None:
    world = World(RetryPolicy(deadline_s=0, circuit=CircuitPolicy(failures=2)))
    for _ in range(5):
        world.script("error_before", "stat")
        with pytest.raises(StorageUnavailable):
            world.backend.stat("a")
        with pytest.raises(ObjectNotFound):
            world.backend.stat("a")


def test_backends_of_one_endpoint_share_what_is_known_of_it() -> None:
    world = World()
    circuit = Circuit(CircuitPolicy(failures=1), world.clock)
    policy = RetryPolicy(deadline_s=0)
    one, two = (Retrying(world.faulty, policy=policy, clock=world.clock, circuit=circuit) for _ in range(2))
    world.script("error_before", "delete")
    with pytest.raises(StorageUnavailable, match="did not answer"):
        one.delete("a")
    with pytest.raises(StorageUnavailable, match="is not asked"):
        two.delete("a")


# --- what interrupted stores left ---


def test_a_sweep_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(RetryPolicy(first_s=1, deadline_s=30))
    failures = [StorageUnavailable("not now") for _ in range(2)]

    def sweep(older_than_s: float) -> int:
        if failures:
            raise failures.pop()
        return int(older_than_s)

    monkeypatch.setattr(world.faulty, "sweep_temporaries", sweep)
    assert world.backend.sweep_temporaries(7) == 7


# --- locks ---


def _stumble(thing: Any, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three calls of these methods fail for the moment."""
    refusals = [StorageUnavailable("not now") for _ in range(3)]

    def stumbling(call: Any) -> Any:
        def stumble(*args: Any, **more: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return call(*args, **more)

        return stumble

    for name in names:
        monkeypatch.setattr(thing, name, stumbling(getattr(thing, name)))


def test_calls_about_locks_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    store = LockedStorage(clock=clock)
    store.store("packs/a", b"x")
    inner = store.retention()
    _stumble(inner, ("extend", "hold", "state"), monkeypatch)
    monkeypatch.setattr(store, "retention", lambda: inner)
    locks = Retrying(store, clock=clock, random=lambda: 1.0).retention()
    assert locks is not None
    locks.extend("packs/a", clock.now() + timedelta(days=90))
    assert len(clock.slept) == 3
    locks.hold("packs/a", on=True)
    assert locks.days == store.days
    assert locks.state("packs/a") == store.lock_state("packs/a")
    with pytest.raises(ObjectNotFound):
        locks.state("packs/none")
    assert Retrying(MemoryStorage(), clock=clock).retention() is None


@pytest.mark.parametrize("call", ["thaw", "thaw_state", "holds"])
def test_calls_about_thawing_are_repeated(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    store = GlacierStorage(clock=clock)
    store.store(PACK, DATA)
    inner = store.archive()
    _stumble(inner, (call,), monkeypatch)
    monkeypatch.setattr(store, "archive", lambda: inner)
    archive = Retrying(store, clock=clock, random=lambda: 1.0).archive()
    assert archive is not None
    archive.thaw(iter([PACK]), days=7)
    assert archive.thaw_state(PACK) == "thawing"
    assert archive.holds(PACK, DATA)
    assert len(clock.slept) == 3
    assert store.batches == [(PACK,)]
    assert Retrying(MemoryStorage(), clock=clock).archive() is None
