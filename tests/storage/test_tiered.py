"""Two tiers: what is where, at each step of a move, and while one of them is away."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backstay.errors import (
    CorruptedBackup,
    InvalidRequest,
    ObjectFrozen,
    ObjectNotFound,
    StorageMissing,
    StorageUnavailable,
    TierNotAttached,
)
from backstay.storage.backend import StorageBackend
from backstay.storage.cold_store import MARK, ColdStore
from backstay.storage.local import LocalStorage
from backstay.storage.tiered import Tiered
from backstay.testing import (
    CrashPoint,
    FakeClock,
    Fault,
    FaultKind,
    FaultyBackend,
    GlacierStorage,
    MemoryStorage,
    Operation,
    StorageConformance,
)

UUID = "00" * 16
OTHER = "11" * 16


def pack(seed: int, size: int = 5000) -> tuple[str, bytes]:
    data = random.Random(seed).randbytes(size)
    digest = hashlib.sha256(data).hexdigest()
    return f"packs/{digest[:2]}/{digest}", data


@dataclass
class Drawer:
    """A cold store that can be taken away."""

    store: StorageBackend = field(default_factory=MemoryStorage)
    attached: bool = True

    def open(self, address: str, create: bool) -> StorageBackend:
        if not self.attached:
            raise InvalidRequest(f"cannot open {address}", cause="it is in a drawer")
        return self.store


def admit_any(store: StorageBackend) -> None:
    del store


def tiers(hot: StorageBackend, drawer: Drawer) -> Tiered:
    cold = ColdStore("memory:cold", UUID, drawer.open)
    if drawer.attached:
        cold.establish(admit_any)
    return Tiered(hot, cold)


def moved(*seeds: int) -> tuple[MemoryStorage, Drawer, Tiered]:
    """Two tiers, with packs in the cold one."""
    hot, drawer = MemoryStorage(), Drawer()
    tiered = tiers(hot, drawer)
    for seed in seeds:
        tiered.store(*pack(seed))
        tiered.move(pack(seed)[0])
    return hot, drawer, tiered


class TestTiered(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        return tiers(MemoryStorage(), Drawer())


def test_a_moved_pack_reads_as_before() -> None:
    hot, _, tiered = moved(1, 2)
    name, data = pack(1)
    assert not hot.exists(name)
    assert tiered.exists(name)
    assert tiered.retrieve(name) == data
    assert tiered.retrieve(name, start=7, length=100) == data[7:107]
    assert tiered.stat(name).size == len(data)
    assert {info.name: info.size for info in tiered.list()} == {pack(n)[0]: len(pack(n)[1]) for n in (1, 2)}


def test_only_data_packs_are_looked_for_in_the_cold_tier() -> None:
    _, drawer, tiered = moved()
    drawer.store.store("snapshots/x", b"not ours")
    with pytest.raises(ObjectNotFound):
        tiered.retrieve("snapshots/x")
    assert list(tiered.list()) == []


def test_the_listing_is_complete_while_the_cold_tier_is_away() -> None:
    hot, _, _ = moved(1, 2, 3)
    away = tiers(hot, Drawer(attached=False))
    away.store(*pack(4))
    for prefix in ("", "packs/", pack(1)[0][:9]):
        expected = {pack(n)[0] for n in (1, 2, 3, 4) if pack(n)[0].startswith(prefix)}
        assert {info.name for info in away.list(prefix)} == expected
    assert away.stat(pack(1)[0]).size == 5000
    assert away.exists(pack(1)[0])


def test_a_tier_that_is_away_never_looks_like_no_such_object() -> None:
    hot, _, _ = moved(1)
    away = tiers(hot, Drawer(attached=False))
    for call in (lambda: away.retrieve(pack(1)[0]), lambda: away.delete(pack(1)[0])):
        with pytest.raises(TierNotAttached, match="memory:cold is not attached"):
            call()
    with pytest.raises(ObjectNotFound):  # this one was never stored, and the hot tier knows
        away.retrieve(pack(2)[0])


def test_an_empty_mount_point_is_not_the_tier(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    hot = MemoryStorage()
    tiered = Tiered(hot, ColdStore(str(place), UUID, lambda url, create: LocalStorage(url, create=create)))
    tiered.cold.establish(admit_any)
    tiered.store(*pack(1))
    tiered.move(pack(1)[0])
    place.rename(tmp_path / "away")

    again = Tiered(hot, ColdStore(str(place), UUID, lambda url, create: LocalStorage(url, create=create)))
    with pytest.raises(TierNotAttached):  # no directory
        again.retrieve(pack(1)[0])
    place.mkdir()
    with pytest.raises(TierNotAttached, match="empty mount point"):
        again.retrieve(pack(1)[0])
    place.rmdir()
    (tmp_path / "away").rename(place)
    assert again.retrieve(pack(1)[0]) == pack(1)[1]
    place.rename(tmp_path / "away")  # pulled while it was in use
    with pytest.raises((TierNotAttached, StorageUnavailable)):
        again.retrieve(pack(1)[0])


def test_the_tier_of_another_repository_is_refused() -> None:
    drawer = Drawer()
    ColdStore("memory:cold", OTHER, drawer.open).establish(admit_any)
    with pytest.raises(InvalidRequest, match="another repository"):
        ColdStore("memory:cold", UUID, drawer.open).establish(admit_any)
    with pytest.raises(TierNotAttached, match="not attached"):
        ColdStore("memory:cold", UUID, drawer.open).open()
    assert drawer.store.retrieve(MARK) == b'{"cold_tier_of":"' + OTHER.encode() + b'"}'


def test_deleting_takes_a_pack_out_of_both_tiers() -> None:
    hot, drawer, tiered = moved(1)
    hot.store(*pack(1))  # brought back
    tiered.delete(pack(1)[0])
    tiered.delete(pack(1)[0])
    assert list(hot.list()) == []
    assert [info.name for info in drawer.store.list()] == [MARK]


def test_a_delete_while_the_tier_is_away_is_done_when_it_is_repeated() -> None:
    hot, drawer, tiered = moved(1)
    away = tiers(hot, Drawer(drawer.store, attached=False))
    with pytest.raises(TierNotAttached):
        away.delete(pack(1)[0])
    assert away.exists(pack(1)[0])
    tiered.delete(pack(1)[0])
    assert not tiered.exists(pack(1)[0])


def test_a_recall_leaves_the_cold_copy() -> None:
    hot, drawer, tiered = moved(1)
    assert tiered.recall(pack(1)[0]) == 5000
    assert hot.retrieve(pack(1)[0]) == drawer.store.retrieve(pack(1)[0]) == pack(1)[1]
    assert tiered.only_cold() == {}
    assert tiers(hot, Drawer(attached=False)).retrieve(pack(1)[0]) == pack(1)[1]


def test_a_damaged_pack_is_not_moved_and_not_brought_back() -> None:
    hot, drawer, tiered = moved(1)
    name, data = pack(2)
    hot.store(name, data[:-1] + b"?")
    with pytest.raises(CorruptedBackup, match="not moved"):
        tiered.move(name)
    assert hot.exists(name)
    drawer.store.store(pack(1)[0], b"rotten", overwrite=True)
    with pytest.raises(CorruptedBackup, match="damaged in the cold tier"):
        tiered.recall(pack(1)[0])
    assert not hot.exists(pack(1)[0])


@pytest.mark.parametrize("kind", ["torn", "error_after", "error_before"])
def test_a_failed_move_is_finished_by_the_next(kind: FaultKind) -> None:
    hot, cold = MemoryStorage(), FaultyBackend(MemoryStorage())
    tiered = tiers(hot, Drawer(cold))
    tiered.store(*pack(1))
    cold.script(Fault(kind=kind, operation="store", prefix="packs/"))
    with pytest.raises(StorageUnavailable):
        tiered.move(pack(1)[0])
    assert tiered.retrieve(pack(1)[0]) == pack(1)[1]
    tiered.move(pack(1)[0])
    assert not hot.exists(pack(1)[0])
    assert tiered.retrieve(pack(1)[0]) == pack(1)[1]


@pytest.mark.parametrize("kind", ["bit_flip", "short_read"])
def test_what_does_not_come_back_from_the_cold_tier_stays_hot(kind: FaultKind) -> None:
    hot, cold = MemoryStorage(), FaultyBackend(MemoryStorage())
    tiered = tiers(hot, Drawer(cold))
    tiered.store(*pack(1))
    cold.script(Fault(kind=kind, operation="retrieve", prefix="packs/", repeat=True))
    with pytest.raises(StorageUnavailable, match="does not prove"):
        tiered.move(pack(1)[0])
    assert hot.retrieve(pack(1)[0]) == pack(1)[1]


Step = Callable[[Tiered], object]
STEPS: list[tuple[str, Step]] = [
    ("move", lambda tiered: tiered.move(pack(1)[0])),
    ("recall", lambda tiered: tiered.recall(pack(2)[0])),
]
CRASHES: list[tuple[FaultKind, Operation]] = [
    ("crash_before", "store"),
    ("crash_after", "store"),
    ("crash_before", "retrieve"),
    ("crash_before", "delete"),
    ("crash_after", "delete"),
    ("crash_before", "list"),
]


@pytest.mark.crash
@pytest.mark.parametrize(("word", "step"), STEPS, ids=[word for word, _ in STEPS])
@pytest.mark.parametrize("where", ["hot", "cold"])
@pytest.mark.parametrize(("kind", "operation"), CRASHES)
@pytest.mark.parametrize("at", [1, 2])
def test_a_crash_at_any_step_leaves_every_pack_in_a_tier(
    word: str, step: Step, where: str, kind: FaultKind, operation: Operation, at: int
) -> None:
    hot, cold = FaultyBackend(MemoryStorage()), FaultyBackend(MemoryStorage())
    tiered = tiers(hot, Drawer(cold))
    tiered.store(*pack(1))
    tiered.store(*pack(2))
    tiered.move(pack(2)[0])
    (hot if where == "hot" else cold).script(Fault(kind=kind, operation=operation, at=at))
    try:
        step(tiered)
    except CrashPoint:
        crashed = True
    else:
        crashed = False
    hot.heal()
    cold.heal()
    for tier in (tiered, tiers(hot, Drawer(cold))):
        for seed in (1, 2):
            assert tier.retrieve(pack(seed)[0]) == pack(seed)[1]
        assert {info.name for info in tier.list("packs/")} == {pack(1)[0], pack(2)[0]}
    if crashed:  # running it again finishes it
        again = tiers(hot, Drawer(cold))
        try:
            step(again)
        except ObjectNotFound:
            assert word == "move"
    last = tiers(hot, Drawer(cold))
    assert set(last.only_cold()) == ({pack(1)[0], pack(2)[0]} if word == "move" else set())


def test_a_mover_and_a_recaller_cannot_lose_a_pack_in_any_order() -> None:
    """Whatever each has seen before: one of them deletes from the hot tier only, the other deletes nothing."""
    hot, drawer, tiered = moved(1)
    other = tiers(hot, drawer)
    tiered.recall(pack(1)[0])
    other.move(pack(1)[0])
    tiered.recall(pack(1)[0])
    tiered.move(pack(1)[0])
    assert tiered.retrieve(pack(1)[0]) == other.retrieve(pack(1)[0]) == pack(1)[1]


def test_random_moves_recalls_and_deletes_agree_with_a_dictionary() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        hot, drawer, tiered = moved()
        expected: dict[str, bytes] = {}
        for _ in range(60):
            name, data = pack(rng.randrange(6), 300)
            action = rng.choice(["store", "move", "recall", "delete", "reopen"])
            if action == "store" and name not in expected:
                tiered.store(name, data)
                expected[name] = data
            elif action == "move" and hot.exists(name):
                tiered.move(name)
            elif action == "recall" and name in expected and name in tiered.noted():
                tiered.recall(name)
            elif action == "delete":
                tiered.delete(name)
                expected.pop(name, None)
            elif action == "reopen":
                tiered = tiers(hot, drawer)
            assert {info.name for info in tiered.list("packs/")} == expected.keys()
        assert {name: tiered.retrieve(name) for name in expected} == expected


def test_what_freezes_at_once_is_proved_by_the_checksum_of_the_store() -> None:
    clock = FakeClock()
    hot, glacier = MemoryStorage(), GlacierStorage(clock=clock)
    tiered = tiers(hot, Drawer(glacier))
    tiered.store(*pack(1))
    tiered.move(pack(1)[0])
    with pytest.raises(ObjectFrozen):
        tiered.retrieve(pack(1)[0])
    assert not hot.exists(pack(1)[0])

    glacier.store(pack(2)[0], b"torn")  # an interrupted move
    tiered.store(*pack(2))
    tiered.move(pack(2)[0])
    assert glacier.stored(pack(2)[0]) == pack(2)[1]


def test_a_cold_store_that_vanishes_while_it_is_read_is_away() -> None:
    _, drawer, tiered = moved(1)
    tiered.retrieve(pack(1)[0])
    drawer.store = FaultyBackend(drawer.store, error=StorageMissing)
    tiered = tiers(tiered.inner, drawer)
    tiered.cold.open()
    drawer.store.script(Fault(kind="error_before", operation="retrieve", prefix="packs/"))
    with pytest.raises(TierNotAttached):
        tiered.retrieve(pack(1)[0])
