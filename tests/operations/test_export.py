"""Snapshots on a removable medium: whole, verifiable, incremental, and back again."""

from __future__ import annotations

import random
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup, InvalidRequest, NoRepository, TierNotAttached
from backstay.operations.copies.export import ExportResult, export_snapshots, import_snapshots
from backstay.operations.copies.mirror import can_be_mirror, copy_objects
from backstay.operations.tiers.moving import plan_move, run_move, set_tier
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.testing import CrashPoint, Fault, FaultKind, FaultyBackend, Operation
from backstay.trust.secrets import Secret
from tests.operations.copies import SECRET, SMALL_PACKS, Store, back_up, contents, make_source, open_alone, restored

READ_ALL = VerifyOptions(read_data=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def ours(source: Path) -> Store:
    """Three snapshots, each with something of its own."""
    store = Store("ours")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        for number in range(3):
            (source / "own").write_bytes(random.Random(number).randbytes(400_000))
            back_up(repository, source)
    return store


def ids(store: StorageBackend) -> list[str]:
    with open_alone(store) as repository:
        return [manifest.id for manifest in repository.snapshots.live()]


def export(ours: StorageBackend, medium: StorageBackend, *chosen: str) -> ExportResult:
    with open_alone(ours) as repository:
        manifests = [m for m in repository.snapshots.live() if not chosen or m.id in chosen]
        return export_snapshots(repository, medium, manifests)


def assert_whole(medium: StorageBackend) -> None:
    with open_alone(medium) as there:
        assert run_verify(there, None, READ_ALL).findings == ()


def test_one_snapshot_becomes_a_small_whole_repository(ours: Store, source: Path, tmp_path: Path) -> None:
    last = ids(ours)[-1]
    medium = Store("medium")
    result = export(ours, medium, last)
    assert result.exported == (last,)
    assert_whole(medium)
    with open_alone(medium) as there:
        found, errors = restored(there, last, tmp_path / "out", source)
    assert not errors
    assert found == contents(source)
    objects = ours.objects()
    made = {name for name, data in medium.objects().items() if objects.get(name) != data}
    assert {name.partition("/")[0] for name in made} == {"index", "drops", "export"}
    packs = {name for name in objects if name.startswith("packs/")}
    assert {name for name in medium.objects() if name.startswith("packs/")} < packs


def test_any_choice_of_snapshots_in_any_order_is_whole(ours: Store, source: Path, tmp_path: Path) -> None:
    for seed in range(8):
        rng = random.Random(seed)
        medium = Store("medium")
        exported: set[str] = set()
        for _ in range(3):
            chosen = rng.sample(ids(ours), rng.randrange(1, 4))
            result = export(ours, medium, *chosen)
            assert set(result.exported) == set(chosen) - exported
            assert set(result.already) == set(chosen) & exported
            exported.update(chosen)
            assert ids(medium) == sorted(exported)
            assert_whole(medium)


def test_a_second_export_sends_only_what_is_new(ours: Store, source: Path) -> None:
    medium = Store("medium")
    first = export(ours, medium)
    again = export(ours, medium)
    assert (again.exported, again.objects, again.bytes) == ((), 0, 0)
    (source / "little").write_bytes(b"a little more")
    with open_alone(ours) as repository:
        back_up(repository, source)
    more = export(ours, medium)
    assert len(more.exported) == 1
    assert more.bytes < first.bytes / 10
    assert_whole(medium)


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["crash_before", "crash_after"])
def test_an_export_that_is_killed_at_any_step_goes_on(ours: Store, kind: FaultKind) -> None:
    for at in count(1):
        medium = FaultyBackend(Store("medium"))
        medium.script(Fault(kind=kind, operation="store", at=at))
        try:
            export(ours, medium)
        except CrashPoint:
            medium.heal()
            export(ours, medium)
            assert ids(medium) == ids(ours)
            assert_whole(medium)
        else:
            assert at > 10
            break


@pytest.mark.crash
@pytest.mark.parametrize("operation", ["store", "delete"])
@pytest.mark.parametrize("kind", ["crash_before", "crash_after"])
def test_a_snapshot_that_was_left_out_is_never_missing(ours: Store, kind: FaultKind, operation: Operation) -> None:
    """It is on record as left out until it is there: a medium that is taken away in between is whole."""
    begun = Store("medium")
    export(ours, begun, ids(ours)[-1])
    for at in count(1):
        medium = Store("medium", begun.objects())
        faulty = FaultyBackend(medium)
        faulty.script(Fault(kind=kind, operation=operation, at=at))
        with suppress(CrashPoint):
            export(ours, faulty)
        assert_whole(medium)
        if not faulty.hits:
            assert ids(medium) == ids(ours)
            break
    assert at > 1


def test_a_torn_pack_on_the_medium_is_sent_again(ours: Store) -> None:
    medium = Store("medium")
    export(ours, medium, ids(ours)[0])
    torn = next(name for name in medium.objects() if name.startswith("packs/"))
    medium.store(torn, b"torn", overwrite=True)
    export(ours, medium)
    assert_whole(medium)
    medium.delete(torn)
    assert export(ours, medium).objects == 1
    assert_whole(medium)


def test_what_was_deleted_and_collected_comes_back(ours: Store, source: Path, tmp_path: Path) -> None:
    first, *_ = ids(ours)
    medium = Store("medium")
    export(ours, medium)
    with open_alone(ours) as repository:
        before, _ = restored(repository, first, tmp_path / "before", source)
        repository.snapshots.drop(first, "for a test", repository.clock)
        collector = Collector(repository)
        collector.execute(collector.plan())
    with open_alone(ours) as repository:
        result = import_snapshots(repository, medium)
        ((old, new),) = result.imported
        assert old == first
        assert len(result.already) == 2
        found, errors = restored(repository, new, tmp_path / "after", source)
        assert not errors
        assert found == before
        again = import_snapshots(repository, medium)
        assert again.imported == ()
        assert len(again.already) == 3
    assert_whole(ours)


def test_a_copy_of_the_repository_gets_what_it_lacks(ours: Store, source: Path, tmp_path: Path) -> None:
    copy = Store("copy")
    with open_alone(ours) as repository:
        copy_objects(repository, copy)
        (source / "newer").write_bytes(random.Random(7).randbytes(200_000))
        last = back_up(repository, source)
    medium = Store("medium")
    export(ours, medium, last)
    with open_alone(copy) as repository:
        ((_, new),) = import_snapshots(repository, medium, [last]).imported
        found, errors = restored(repository, new, tmp_path / "out", source)
    assert not errors
    assert found == contents(source)
    assert_whole(copy)


def test_the_medium_of_another_repository_is_refused_and_told_how(ours: Store, source: Path) -> None:
    other = Store("other")
    secret = Secret.new_keyfile()
    Repository.create(other, secret, environment=SMALL_PACKS).close()
    medium = Store("medium")
    export(ours, medium)
    with open_alone(other, secret) as repository:
        with pytest.raises(InvalidRequest, match="another repository") as caught:
            import_snapshots(repository, medium)
        assert "backstay copy" in caught.value.hint
        with pytest.raises(NoRepository):
            import_snapshots(repository, Store("nothing"))
        with pytest.raises(InvalidRequest, match="no place to export to"):
            export_snapshots(repository, medium, [])


def test_a_whole_copy_is_not_exported_to_and_a_medium_not_copied_to(ours: Store) -> None:
    copy, medium, junk = Store("copy"), Store("medium"), Store("junk", {"something": b"else"})
    with open_alone(ours) as repository:
        copy_objects(repository, copy)
    export(ours, medium)
    with pytest.raises(InvalidRequest, match="whole copy"):
        export(ours, copy)
    with pytest.raises(InvalidRequest, match="no place"):
        export(ours, junk)
    with open_alone(ours) as repository, pytest.raises(InvalidRequest, match="holds exported snapshots"):
        can_be_mirror(repository, medium)


def collect(medium: Store, *dropped: str) -> None:
    """Delete snapshots on a medium, and free their space there."""
    with open_alone(medium) as there:
        for ident in dropped:
            there.snapshots.drop(ident, "for a test", there.clock)
        collector = Collector(there)
        assert collector.execute(collector.plan(allow_empty=True)).deleted_packs


def test_what_was_deleted_and_freed_on_a_medium_can_be_exported_to_it_again(
    ours: Store, source: Path, tmp_path: Path
) -> None:
    medium = Store("medium")
    export(ours, medium)
    collect(medium, *ids(medium))
    assert export(ours, medium).exported == tuple(ids(ours))
    assert_whole(medium)
    with open_alone(medium) as there:
        assert restored(there, ids(ours)[-1], tmp_path / "out", source) == (contents(source), [])
    held = medium.objects()
    assert export(ours, medium).objects == 0
    assert medium.objects() == held


def test_a_snapshot_that_needs_what_a_medium_freed_is_exported_whole(ours: Store, source: Path) -> None:
    medium = Store("medium")
    first, *rest = ids(ours)
    export(ours, medium, first)
    collect(medium, first)
    assert export(ours, medium, *rest).exported == tuple(rest)
    assert_whole(medium)
    with open_alone(ours) as repository:
        newest = back_up(repository, source)
    done = export(ours, medium, newest)
    assert done.exported == (newest,)
    assert done.bytes < 100_000  # what was sent in other packs is not sent once more
    assert_whole(medium)


def test_a_medium_whose_keys_went_another_way_is_refused_and_left_alone(ours: Store, source: Path) -> None:
    medium = Store("medium")
    export(ours, medium)
    for store in (medium, ours):
        with open_alone(store) as repository:
            repository.keyring.begin_epoch(repository.clock)
    with open_alone(ours) as repository:
        back_up(repository, source)
    before = medium.objects()
    with pytest.raises(InvalidRequest, match="memory:medium has a history of its own"):
        export(ours, medium)
    assert medium.objects() == before


def test_a_secret_that_was_removed_does_not_open_the_medium(ours: Store) -> None:
    second = Secret.new_keyfile()
    medium = Store("medium")
    with open_alone(ours) as repository:
        created = repository.clock.now().isoformat()
        slot = repository.slots.add(second, repository.header_digest, note="second", created=created)
    export(ours, medium)
    open_alone(medium, second).close()
    with open_alone(ours) as repository:
        repository.slots.remove(slot, repository.clock)
    export(ours, medium)
    assert sum(name.startswith("keys/slots/") for name in medium.objects()) == 1


def test_a_damaged_pack_stops_the_export_before_its_snapshot(ours: Store) -> None:
    name = max((info.size, info.name) for info in ours.list("packs/"))[1]
    ours.store(name, b"x" + ours.retrieve(name)[1:], overwrite=True)
    medium = Store("medium")
    with pytest.raises(CorruptedBackup, match="not exported"):
        export(ours, medium)
    assert not [found for found in medium.objects() if found.startswith("snapshots/")]


def test_an_export_asks_for_the_cold_tier_before_it_writes(ours: Store) -> None:
    cold = MemoryStorage()
    attached = True

    def open_cold(address: str, create: bool) -> StorageBackend:
        if not attached:
            raise InvalidRequest(f"cannot open {address}", cause="it is in a drawer")
        return cold

    environment = Environment(pack_target=256 << 10, threads=2, open_cold=open_cold)
    with Repository.open(ours, SECRET, environment=environment) as repository:
        set_tier(repository, "memory:drawer", 0)
    with Repository.open(ours, SECRET, environment=environment) as repository:
        run_move(repository, plan_move(repository))
    medium = Store("medium")
    attached = False
    with Repository.open(ours, SECRET, environment=environment) as repository:
        with pytest.raises(TierNotAttached, match="packs with"):
            export_snapshots(repository, medium, repository.snapshots.live())
        assert medium.objects() == {}
    attached = True
    with Repository.open(ours, SECRET, environment=environment) as repository:
        export_snapshots(repository, medium, repository.snapshots.live())
    assert_whole(medium)
    assert not [name for name in medium.objects() if name.startswith(("cold/", "tiers/"))]
