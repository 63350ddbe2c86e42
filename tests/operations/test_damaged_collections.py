"""Records of collections that cannot be read: data stays readable, and `repair index` lets writers in again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.repository.collection.collector import Collector
from backstay.repository.logs.collections import CollectionRecord, VerdictRecord, WaitingRecord
from backstay.repository.repository import Repository
from tests.crash.small_world import World, collect, content, small_tree, verified
from tests.operations.repairing import damage

VERDICT, ANNOUNCED, WAITING = "gc/00000001.done", "gc/00000001", "gc/00000001.sessions"


def other_kind(path: Path) -> None:
    path.write_bytes((path.parent / "00000001").read_bytes())


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two snapshots of which one was dropped, and collected."""
    world = World(tmp_path / "repository")
    world.create().close()
    for tree in (small_tree(), small_tree() | {b"/d1/f01": content(7, 900), b"/d2/new": content(8, 200_000)}):
        with world.open() as repository:
            world.backup(repository, tree)
    with world.open() as repository:
        world.drop(repository, min(world.promised))
        collect(repository)
    return world


def spoil(world: World, *names: str, by: Callable[[Path], None] = damage) -> None:
    for name in names:
        by(world.directory / name)


def subjects(repository: Repository) -> set[str]:
    return {finding.subject for finding in verified(repository).findings}


@pytest.mark.parametrize("by", [damage, other_kind, lambda path: path.write_bytes(b"")])
def test_what_is_stored_can_be_read_without_a_verdict(world: World, by: Callable[[Path], None]) -> None:
    spoil(world, VERDICT, by=by)
    with world.open() as repository:
        assert subjects(repository) == {VERDICT}
        assert repository.collections.damaged.keys() == {VERDICT}
        assert repository.snapshots.live()
        repair_index(repository)
        world.assert_kept(repository)
    world.assert_sound()


def test_writers_and_collectors_refuse_and_name_object_and_command(world: World) -> None:
    spoil(world, VERDICT)
    refused: list[Callable[[Repository], object]] = [
        Repository.begin_session,
        lambda repository: Collector(repository).plan(),
        repair_packs,
    ]
    for use in refused:
        with world.open() as repository, pytest.raises(CorruptedBackup, match=VERDICT) as caught:
            use(repository)
        assert "repair index" in caught.value.hint
    assert not [*(world.directory / "sessions").glob("*")]


@pytest.mark.parametrize("name", [ANNOUNCED, WAITING])
def test_a_record_that_its_verdict_makes_superfluous_is_told_and_hinders_nobody(world: World, name: str) -> None:
    spoil(world, name)
    with world.open() as repository:
        assert subjects(repository) == {name}
        world.backup(repository, small_tree())
        assert repair_index(repository).collections_mended == (name,)
        world.assert_kept(repository)
    world.assert_sound()


def test_a_verdict_that_was_lost_is_decided_anew(world: World) -> None:
    with world.open() as repository:
        repository.collections.refresh()
        was = repository.collections.deleted()
    assert was
    spoil(world, VERDICT)
    with world.open() as repository:
        result = repair_index(repository)
        assert (result.collections_mended, result.changed) == ((VERDICT,), True)
        assert repository.collections.deleted() == was  # they are gone, so that they were deleted
        assert not repository.collections.condemned()


def test_a_condemned_pack_that_is_still_there_is_kept_when_the_verdict_was_lost(world: World) -> None:
    packs = [bytes.fromhex(path.name) for path in (world.directory / "packs").rglob("*") if path.is_file()]
    with world.open() as repository:
        repository.collections.refresh()
        log = repository.collections
        log.create(CollectionRecord(2, 0, tuple(sorted(packs)), ()))
        log.wait_for(WaitingRecord(2, ()))
        log.decide(VerdictRecord(2, 0, (), tuple(packs)))
    spoil(world, "gc/00000002.done")
    with world.open() as repository:
        number = repository.index.number(packs[0])
        assert number is not None
        assert set(packs) <= repository.collections.exclusions()[1]  # nobody builds upon them meanwhile
        repair_index(repository)
        assert not repository.collections.deleted() & set(packs)
        world.assert_kept(repository)
    world.assert_sound()


@pytest.mark.parametrize("name", ["gc/00000002", "gc/00000002.sessions"])
def test_an_open_collection_of_which_a_record_is_lost_deletes_nothing(world: World, name: str) -> None:
    packs = [bytes.fromhex(path.name) for path in (world.directory / "packs").rglob("*") if path.is_file()]
    record = CollectionRecord(2, 0, tuple(sorted(packs)), ())
    sleeping = world.open()
    sleeping.collections.refresh()
    sleeping.collections.create(record)
    sleeping.collections.wait_for(WaitingRecord(2, ()))
    spoil(world, name)
    with world.open() as repository:
        assert repair_index(repository).collections_mended == (name,)
        assert not verified(repository).findings
    late = sleeping.collections.decide(VerdictRecord(2, 0, tuple(packs), ()))
    assert not late.deleted  # the collector that wakes up takes the verdict that it finds
    sleeping.close()
    world.assert_sound()


def test_all_records_of_a_collection_may_be_lost(world: World) -> None:
    spoil(world, VERDICT, ANNOUNCED, WAITING)
    with world.open() as repository:
        assert subjects(repository) == {VERDICT, ANNOUNCED, WAITING}
        repair_snapshots(repository)  # which begins with the index
        assert not verified(repository).findings
    world.assert_sound()


def test_a_program_that_knew_the_verdict_takes_the_one_that_replaced_it(world: World) -> None:
    with world.open() as long_lived:
        long_lived.reload_index()
        assert long_lived.collections.deleted()
        spoil(world, ANNOUNCED, VERDICT)
        with world.open() as repository:
            repair_index(repository)
        long_lived.reload_index()
        assert not long_lived.collections.deleted()  # what was condemned is not known any more


def test_a_verification_keeps_what_it_found_when_a_key_is_damaged(world: World) -> None:
    with world.open() as repository:
        repository.keyring.begin_epoch(world.clock)
    spoil(world, "keys/epochs/00000001")
    with world.open() as repository:
        assert {"keys/epochs/00000001", VERDICT} <= subjects(repository)


@pytest.mark.parametrize("damaged", [(), (WAITING,), (VERDICT,)], ids=["rest gone", "rest damaged", "verdict damaged"])
def test_an_announcement_that_is_gone_is_told_and_mended(world: World, damaged: tuple[str, ...]) -> None:
    (world.directory / ANNOUNCED).unlink()
    if VERDICT not in damaged:
        (world.directory / VERDICT).unlink()
    spoil(world, *damaged)
    with world.open() as repository:
        assert subjects(repository) == {ANNOUNCED, *damaged}
        with pytest.raises(CorruptedBackup, match="gc/00000001") as caught:
            world.backup(repository, small_tree())
        assert "repair index" in caught.value.hint
    with world.open() as repository:
        assert set(repair_index(repository).collections_mended) == {ANNOUNCED, *damaged}
        assert not verified(repository).findings
        world.backup(repository, small_tree() | {b"/d1/f02": content(9, 500)})
        collect(repository)
        world.assert_kept(repository)
    world.assert_sound()
