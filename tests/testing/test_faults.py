"""The test kit tested: faults, interleavings, and that the conformance suite finds broken stores."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from backstay.core.clock import Clock
from backstay.errors import InsufficientSpace, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.testing import (
    Call,
    CrashPoint,
    FakeClock,
    Fault,
    FaultKind,
    FaultyBackend,
    Interleaving,
    Operation,
    Outcome,
    StorageConformance,
)
from backstay.testing.interleaving import Actor


class TestWithoutFaults(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        return FaultyBackend(MemoryStorage())


@pytest.fixture
def backend() -> FaultyBackend:
    store = FaultyBackend(MemoryStorage())
    store.inner.store("a", b"0123456789")
    return store


# --- the clock ---


def test_fake_clock() -> None:
    fake = FakeClock()
    clock: Clock = fake
    start, begun = clock.now(), clock.monotonic()
    clock.sleep(1.5)
    fake.advance(0.5)
    assert (clock.now() - start).total_seconds() == 2
    assert clock.monotonic() - begun == 2
    fake.jump(-3600)
    assert (clock.now() - start).total_seconds() == -3598
    assert clock.monotonic() - begun == 2
    assert fake.slept == [1.5]
    assert clock.now_ns() == int(clock.now().timestamp()) * 10**9
    with pytest.raises(ValueError, match="negative"):
        clock.sleep(-1)


# --- scripted faults ---


def test_an_error_before_the_effect(backend: FaultyBackend) -> None:
    backend.script(Fault(kind="error_before", operation="store", at=2))
    backend.store("b", b"1")
    with pytest.raises(StorageUnavailable):
        backend.store("c", b"1")
    backend.store("c", b"2")
    assert backend.retrieve("c") == b"2"
    assert backend.hits == {"error_before": 1}


def test_a_lost_acknowledgement(backend: FaultyBackend) -> None:
    backend.script(Fault(kind="error_after", operation="store"), Fault(kind="error_after", operation="delete"))
    with pytest.raises(StorageUnavailable):
        backend.store("b", b"1")
    with pytest.raises(ObjectExists):
        backend.store("b", b"1")
    with pytest.raises(StorageUnavailable):
        backend.delete("a")
    assert not backend.exists("a")


@pytest.mark.parametrize("kind", ["crash_before", "crash_after"])
def test_after_a_crash_nothing_happens_until_revived(backend: FaultyBackend, kind: FaultKind) -> None:
    backend.script(Fault(kind=kind, operation="store"))
    with pytest.raises(CrashPoint):
        backend.store("b", b"1")
    for call in (lambda: backend.retrieve("a"), lambda: backend.delete("a"), lambda: backend.exists("a")):
        with pytest.raises(CrashPoint):
            call()
    backend.revive()
    assert backend.exists("b") == (kind == "crash_after")
    assert backend.retrieve("a") == b"0123456789"


def test_a_crash_is_no_exception() -> None:
    assert not issubclass(CrashPoint, Exception)


def test_a_torn_object(backend: FaultyBackend) -> None:
    backend.script(Fault(kind="torn", operation="store"))
    with pytest.raises(StorageUnavailable):
        backend.store("b", b"0123456789")
    assert backend.retrieve("b") == b"01234"


def test_wrong_bytes(backend: FaultyBackend) -> None:
    backend.script(Fault(kind="short_read", operation="retrieve"), Fault(kind="bit_flip", operation="retrieve", at=2))
    whole = b"0123456789"
    short, flipped = backend.retrieve("a"), backend.retrieve("a")
    assert len(short) < 10
    assert whole.startswith(short)
    assert sum((left ^ right).bit_count() for left, right in zip(whole, flipped, strict=True)) == 1
    assert backend.retrieve("a") == whole


def test_an_incomplete_listing_raises(backend: FaultyBackend) -> None:
    backend.store("b", b"")
    backend.script(Fault(kind="incomplete_listing", operation="list"))
    listing = backend.list()
    next(listing)
    with pytest.raises(StorageUnavailable):
        next(listing)


def test_a_stale_listing_misses_the_newest(backend: FaultyBackend) -> None:
    backend.store("b", b"")
    backend.store("c", b"")
    backend.script(Fault(kind="stale_listing", operation="list"))
    assert [info.name for info in backend.list()] == ["a", "b"]
    assert [info.name for info in backend.list()] == ["a", "b", "c"]


def test_prefix_repeat_and_heal(backend: FaultyBackend) -> None:
    backend.script(Fault(kind="error_before", operation="store", prefix="packs/", at=2, repeat=True))
    backend.store("packs/1", b"")
    backend.store("index/1", b"")
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            backend.store("packs/2", b"")
        backend.store(f"index/{len(backend.calls)}", b"")
    backend.heal()
    backend.store("packs/2", b"")


def test_the_error_is_chosen() -> None:
    backend = FaultyBackend(MemoryStorage(), error=lambda name: InsufficientSpace(f"no room for {name}"))
    backend.script(Fault(kind="error_before", operation="store"))
    with pytest.raises(InsufficientSpace, match="no room for a"):
        backend.store("a", b"")


def test_the_log(backend: FaultyBackend) -> None:
    backend.script(Fault(kind="error_before", operation="stat"))
    with pytest.raises(StorageUnavailable):
        backend.exists("a")
    backend.retrieve("a")
    backend.delete("a")
    assert backend.calls == [
        Call("stat", "a", "error_before"),
        Call("retrieve", "a", None),
        Call("delete", "a", None),
    ]


def test_a_fault_that_cannot_happen_is_refused() -> None:
    with pytest.raises(ValueError, match="torn cannot happen to list"):
        Fault(kind="torn", operation="list")


# --- random faults ---


def _storm(seed: int) -> FaultyBackend:
    backend = FaultyBackend(MemoryStorage(), seed=seed, rates=dict.fromkeys(get_args(FaultKind), 0.1))
    rng = random.Random(1)
    for number in range(600):
        operation: Operation = rng.choice(get_args(Operation))
        name = f"x/{rng.randrange(30)}"
        calls: dict[Operation, Callable[[], object]] = {
            "store": partial(backend.store, name, b"%d" % number, overwrite=True),
            "retrieve": partial(backend.retrieve, name),
            "delete": partial(backend.delete, name),
            "list": lambda: [*backend.list("x/")],
            "stat": partial(backend.exists, name),
        }
        try:
            calls[operation]()
        except (StorageUnavailable, ObjectNotFound):
            pass
        except CrashPoint:
            backend.revive()
    return backend


def test_random_faults_all_happen_and_repeat_with_the_seed() -> None:
    first, again, other = _storm(7), _storm(7), _storm(8)
    assert set(first.hits) == set(get_args(FaultKind))
    assert first.calls == again.calls
    assert [*first.inner.list()] != []
    assert first.calls != other.calls


def test_without_a_rate_a_kind_never_happens() -> None:
    backend = FaultyBackend(MemoryStorage(), rates={"error_before": 0.5})
    for number in range(100):
        try:
            backend.store(f"x/{number}", b"data")
        except StorageUnavailable:
            assert not backend.inner.exists(f"x/{number}")
    assert set(backend.hits) == {"error_before"}


# --- interleavings ---


def _writer(number: int) -> Actor:
    def write(backend: StorageBackend) -> int:
        for step in range(6):
            backend.store(f"w{number}/{step}", b"x")
            backend.exists(f"w{1 - number}/{step}")
            [*backend.list(f"w{1 - number}/")]
        return number

    return write


def _run(seed: int, **options: float) -> tuple[list[str], list[str], list[str]]:
    log = FaultyBackend(MemoryStorage())
    interleaving = Interleaving(seed, log, **options)  # type: ignore[arg-type]
    outcomes = interleaving.run({"one": _writer(0), "two": _writer(1)})
    calls = [f"{call.operation} {call.name}" for call in log.calls]
    return interleaving.schedule, calls, [repr(outcome) for outcome in outcomes.values()]


@pytest.mark.parametrize("options", [{}, {"crash_probability": 0.05, "pause_probability": 0.1}], ids=["plain", "rough"])
def test_a_seed_is_a_schedule(options: dict[str, float]) -> None:
    runs = [_run(seed, **options) for seed in range(20)]
    assert runs == [_run(seed, **options) for seed in range(20)]
    assert len({tuple(schedule) for schedule, _, _ in runs}) > 15


def test_a_schedule_can_be_replayed() -> None:
    def lost_update(backend: StorageBackend) -> None:
        value = int(backend.retrieve("counter"))
        backend.store("counter", b"%d" % (value + 1), overwrite=True)

    def run(seed: int, replay: list[str]) -> tuple[list[str], bytes]:
        store = MemoryStorage()
        store.store("counter", b"0")
        interleaving = Interleaving(seed, store, replay=replay)
        interleaving.run({"one": lost_update, "two": lost_update})
        return interleaving.schedule, store.retrieve("counter")

    results = {seed: run(seed, []) for seed in range(40)}
    assert {value for _, value in results.values()} == {b"1", b"2"}, "both orders must be found"
    schedule, value = next(result for result in results.values() if result[1] == b"1")
    assert run(12345, schedule) == (schedule, value)


def test_a_replayed_crash_crashes() -> None:
    for seed in range(200):
        first = Interleaving(seed, MemoryStorage(), crash_probability=0.1)
        outcomes = first.run({"one": _writer(0), "two": _writer(1)})
        if any(outcome.crashed for outcome in outcomes.values()):
            again = Interleaving(0, MemoryStorage(), replay=first.schedule)
            repeated = again.run({"one": _writer(0), "two": _writer(1)})
            assert again.schedule == first.schedule
            assert [o.crashed for o in repeated.values()] == [o.crashed for o in outcomes.values()]
            return
    pytest.fail("no crash in 200 runs")


def test_a_schedule_that_does_not_fit_is_told() -> None:
    with pytest.raises(AssertionError, match="names three at step 0"):
        Interleaving(1, MemoryStorage(), replay=["three"]).run({"one": _writer(0), "two": _writer(1)})


def test_crashes_happen_before_and_after_the_effect() -> None:
    seen = set()
    for seed in range(100):
        store = MemoryStorage()
        crashed: list[str] = []

        def once(backend: StorageBackend, crashed: list[str] = crashed) -> str:
            try:
                backend.store("a", b"")
            except CrashPoint:
                try:
                    backend.delete("a")  # a dead program cleans up nothing
                except CrashPoint:
                    crashed.append("dead")
                raise
            return "done"

        outcome = Interleaving(seed, store, crash_probability=0.5).run({"one": once})["one"]
        assert outcome.crashed == bool(crashed)
        seen.add((outcome.crashed, store.exists("a")))
    assert seen == {(True, False), (True, True), (False, True)}


def test_only_the_crashable_crash() -> None:
    for seed in range(30):
        interleaving = Interleaving(seed, MemoryStorage(), crash_probability=0.5, crashable=["two"])
        outcomes = interleaving.run({"one": _writer(0), "two": _writer(1)})
        assert outcomes["one"] == Outcome(value=0)


def test_a_pause_lets_the_others_finish() -> None:
    gaps = []
    for seed in range(40):
        interleaving = Interleaving(seed, MemoryStorage(), pause_probability=0.2, pause_steps=100)
        interleaving.run({"one": _writer(0), "two": _writer(1)})
        names = "".join("1" if step == "one" else "2" for step in interleaving.schedule)
        gaps.append(max(len(run) for run in names.replace("12", "1 2").replace("21", "2 1").split()))
    assert max(gaps) >= 12


def test_errors_of_the_store_are_outcomes_others_are_raised() -> None:
    def create(backend: StorageBackend) -> None:
        backend.store("a", b"")

    def fail(backend: StorageBackend) -> None:
        backend.exists("a")
        raise AssertionError("wrong")

    outcomes = Interleaving(1, MemoryStorage()).run({"one": create, "two": create})
    assert sum(isinstance(outcome.error, ObjectExists) for outcome in outcomes.values()) == 1
    with pytest.raises(AssertionError, match="wrong") as caught:
        Interleaving(1, MemoryStorage()).run({"one": create, "two": fail})
    assert "actor two: seed 1, schedule ['" in caught.value.__notes__[0]


def test_no_actors() -> None:
    assert Interleaving(1, MemoryStorage()).run({}) == {}


def test_an_actor_without_end_is_ended() -> None:
    def forever(backend: StorageBackend) -> None:
        while True:
            backend.delete("a")

    with pytest.raises(AssertionError, match="no end after 500 steps: seed 3"):
        Interleaving(3, MemoryStorage(), max_steps=500).run({"one": forever, "two": forever})


def test_a_listing_is_not_one_moment() -> None:
    """Something stored during a listing may be in it or not, whatever was there before is."""

    def lister(backend: StorageBackend) -> frozenset[str]:
        return frozenset(info.name for info in backend.list())

    def mover(backend: StorageBackend) -> None:
        backend.store("z", b"")
        backend.store("A", b"")

    seen = set()
    for seed in range(60):
        store = MemoryStorage()
        for name in ("b", "c", "d"):
            store.store(name, b"")
        found = Interleaving(seed, store).run({"lister": lister, "mover": mover})["lister"].value
        assert isinstance(found, frozenset)
        assert {"b", "c", "d"} <= found
        seen.add(found - {"b", "c", "d"})
    assert frozenset({"z"}) in seen
    assert frozenset() in seen
    assert frozenset({"z", "A"}) in seen


def test_schedules_are_quick() -> None:
    begun = time.process_time()
    steps = 0
    for seed in range(100):
        interleaving = Interleaving(seed, MemoryStorage())
        interleaving.run({"one": _writer(0), "two": _writer(1)})
        steps += len(interleaving.schedule)
    assert steps > 4000
    assert time.process_time() - begun < 20


# --- the conformance suite finds what is broken ---


class CheckThenWrite(MemoryStorage):
    """Decides a race by looking first."""

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if not overwrite and self.exists(name):
            raise ObjectExists(name)
        time.sleep(0.001)
        super().store(name, data, overwrite=True)


class ShortRange(MemoryStorage):
    """Answers with what there is."""

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = super().retrieve(name)
        return data[start:] if length is None else data[start : start + length]


class IncompleteList(MemoryStorage):
    """Lists one page only."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for number, info in enumerate(super().list(prefix)):
            if number < 100:
                yield info


class WholeComponents(MemoryStorage):
    """Takes a prefix for a directory."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix):
            if prefix in ("", info.name) or info.name.startswith(f"{prefix.rstrip('/')}/"):
                yield info


class Replacing(MemoryStorage):
    """Ignores that objects are written once."""

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        super().store(name, data, overwrite=True)


class HalfOverwrite(MemoryStorage):
    """Shows an object while it is being written."""

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        if overwrite:
            super().store(name, bytes(data)[: len(data) // 2], overwrite=True)
            time.sleep(0.001)
        super().store(name, data, overwrite=overwrite)


class Careless(LocalStorage):
    """Believes that a path is a name."""

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        return (self._root / name).read_bytes()


SUITE = StorageConformance
BROKEN: list[tuple[Callable[[], StorageBackend], Callable[[StorageBackend], None]]] = [
    (CheckThenWrite, SUITE().test_of_racing_stores_exactly_one_succeeds),
    (ShortRange, SUITE().test_a_range_past_the_end_is_an_error),
    (IncompleteList, SUITE().test_a_long_listing_is_complete),
    (WholeComponents, SUITE().test_a_prefix_is_the_beginning_of_the_name),
    (Replacing, SUITE().test_an_object_is_written_once),
    (HalfOverwrite, SUITE().test_readers_see_the_old_or_the_new_object),
]


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_the_suite_finds(broken: Callable[[], StorageBackend], check: Callable[[StorageBackend], None]) -> None:
    check(MemoryStorage())
    with pytest.raises(AssertionError):
        check(broken())


def test_the_suite_finds_a_way_out(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, OSError, ValueError)):
        SUITE().test_bad_names_are_refused(Careless(tmp_path))
