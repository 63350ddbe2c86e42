"""Copies that somebody wrote into by itself: those with a history of their own are refused, the others go on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.core.pipeline import Workers
from backstay.errors import InvalidRequest
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.repair.run import repair_packs
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.format import RecordKind, collection_name, epoch_name
from backstay.repository.repository import Repository
from backstay.storage.crash_order import is_transient
from backstay.trust.secrets import Secret
from tests.operations.copies import (
    Store,
    back_up,
    drop_first,
    make_repository,
    make_source,
    mirror_to,
    open_alone,
    open_mirrored,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def ours(source: Path) -> Store:
    store = Store("ours")
    make_repository(store, source)
    return store


def assert_refused(ours: Store, target: Store, source: Path, told: str) -> None:
    """A copy with a history of its own is left alone, by whoever makes copies and by writers that have it as mirror."""
    before, mine = target.objects(), ours.objects()
    with open_mirrored(ours, target) as mirrored:
        for write in (lambda: mirror_to(ours, target), lambda: back_up(mirrored, source)):
            with pytest.raises(InvalidRequest, match="memory:target has a history of its own") as refused:
                write()
            assert told in str(refused.value.cause)
            assert "empty place" in str(refused.value.hint)
    assert target.objects() == before
    assert {name for name in ours.objects() if not is_transient(name)} == {
        name for name in mine if not is_transient(name)
    }


def test_a_copy_whose_keys_went_another_way_is_refused_and_left_alone(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    for store in (target, ours):
        with open_alone(store) as repository:
            repository.keyring.begin_epoch(repository.clock)
    with open_alone(ours) as repository:
        back_up(repository, source)
    assert_refused(ours, target, source, "another key")


def test_a_key_that_only_a_copy_has_seals_nothing_until_it_was_brought_back(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    with open_alone(target) as repository:
        number = repository.keyring.begin_epoch(repository.clock).number
    assert_refused(ours, target, source, f"{epoch_name(number)} is a key that memory:ours lacks")
    with open_mirrored(ours, target) as mirrored:
        heal_from_copy(mirrored, ours, target)
    with open_mirrored(ours, target) as mirrored:
        newest = back_up(mirrored, source)
    for store in (ours, target):
        with open_alone(store) as repository:
            assert repository.snapshots.get(newest).id == newest
            assert run_verify(repository, None, VerifyOptions(read_data=1)).ok


def test_a_key_of_another_repository_makes_no_history(ours: Store, source: Path) -> None:
    target, other = Store("target"), Store("other")
    mirror_to(ours, target)
    with Repository.create(other, Secret.new_keyfile()):
        target.store(epoch_name(9), other.retrieve(epoch_name(1)))
    with open_mirrored(ours, target) as mirrored:
        newest = back_up(mirrored, source)
    with open_alone(target) as repository:
        assert repository.snapshots.get(newest).id == newest


def test_a_copy_that_collected_by_itself_what_is_needed_is_refused_and_left_alone(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    with open_alone(target) as repository:
        for manifest in repository.snapshots.live():
            repository.snapshots.drop(manifest.id, "for a test", repository.clock)
        collector = Collector(repository)
        collector.execute(collector.plan(allow_empty=True))
    with open_alone(ours) as repository:
        back_up(repository, source)
    assert_refused(ours, target, source, "gc` or `backstay repair packs` ran there")


@pytest.mark.parametrize("loses", [False, True])
def test_a_copy_that_repaired_its_packs_is_refused_only_for_what_it_deleted_for_good(
    ours: Store, source: Path, loses: bool
) -> None:
    target = Store("target")
    mirror_to(ours, target)
    pack = next(info for info in target.list("packs/"))
    data = target.retrieve(pack.name)
    target.store(pack.name, bytes(len(data)) if loses else data[:-9] + b"123456789", overwrite=True)
    with open_alone(target) as repository:
        assert bool(repair_packs(repository).chunks_lost) == loses
    if not loses:
        assert_refused(ours, target, source, "repair packs` ran there")
        return
    mirror_to(ours, target)
    assert target.retrieve(pack.name) == data
    with open_alone(target) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1)).ok


def write_garbage(repository: Repository) -> None:
    """Store packs that no snapshot needs, as a backup does that fails."""
    with repository.begin_session(), Workers(1, "seal") as workers:
        writer = repository.writer(workers)
        data = random.Random(1).randbytes(100_000)
        writer.put(RecordKind.DATA_PACK, repository.keyring.chunk_ids.of(data), data)
        writer.flush()
        repository.index.write(writer.take_packs())
        writer.close()


def test_a_copy_that_collected_by_itself_what_nobody_has_is_brought_up_to_date(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    with open_alone(target) as repository:
        write_garbage(repository)
        collector = Collector(repository)
        assert collector.execute(collector.plan()).deleted_packs
    with open_alone(ours) as repository:
        newest = back_up(repository, source)
        drop_first(repository)
    mirror_to(ours, target)
    with open_alone(target) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1)).ok
        assert newest in [manifest.id for manifest in repository.snapshots.live()]


def test_a_copy_with_a_torn_key_or_marks_of_its_own_is_brought_up_to_date(ours: Store) -> None:
    target = Store("target")
    mirror_to(ours, target)
    for store in (target, ours):
        with open_alone(store) as repository:
            repository.keyring.mark_compromised(2, repository.clock)
    target.store(epoch_name(2), b"torn", overwrite=True)
    mirror_to(ours, target)
    assert target.retrieve(epoch_name(2)) == ours.retrieve(epoch_name(2))


@pytest.mark.parametrize("where", ["ours", "target"])
@pytest.mark.parametrize("data", [None, b"damaged"], ids=["gone", "damaged"])
def test_a_record_of_a_collection_that_cannot_be_read_stops_no_copy(
    ours: Store, source: Path, where: str, data: bytes | None
) -> None:
    with open_alone(ours) as repository:
        back_up(repository, source)
        drop_first(repository)
    target = Store("target")
    mirror_to(ours, target)
    store = ours if where == "ours" else target
    if data is None:
        store.delete(collection_name(1))
    else:
        store.store(collection_name(1), data, overwrite=True)
    mirror_to(ours, target)
    if where == "target":
        assert target.retrieve(collection_name(1)) == ours.retrieve(collection_name(1))
