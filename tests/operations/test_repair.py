"""Repair: the index from packs, packs from their readable blobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.errors import CollectionBusy, CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.backup.request import BackupKind
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.repair.packs import PackRepair
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.repository.collection.collector import Collector
from backstay.repository.index.index import IndexedPack, read_segment
from backstay.repository.logs.collections import CollectionRecord
from backstay.repository.packs.pack import PackTable
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Process
from tests.crash.small_world import MemorySource, World, collect, content, read_back, verified
from tests.operations.repairing import damage, objects, pack_of, second_tree, two_snapshots

NOBODY = Process("", "", "", 0, "")  # cannot tell whether other processes are dead


@pytest.fixture
def world(tmp_path: Path) -> World:
    return two_snapshots(tmp_path)


# -- the index


def test_lost_index_is_made_anew(world: World) -> None:
    for segment in objects(world, "index"):
        segment.unlink()
    with world.open() as repository:
        assert not verified(repository).ok
        packs = len(objects(world, "packs")) + len(objects(world, "meta"))
        result = repair_index(repository)
        assert (result.packs_indexed, result.findings, result.changed) == (packs, (), True)
        world.assert_kept(repository)
    world.assert_sound()


@pytest.mark.parametrize("spoil", [damage, lambda path: path.write_bytes(b""), lambda path: damage(path, 4)])
def test_damaged_segments_are_replaced(world: World, spoil: Callable[[Path], object]) -> None:
    for segment in objects(world, "index"):
        spoil(segment)
    with world.open() as repository:
        result = repair_index(repository)
        assert result.segments_removed == 2
        assert not repository.index.damaged
        world.assert_kept(repository)
    world.assert_sound()


def test_a_cached_index_does_not_hide_the_damage(world: World, tmp_path: Path) -> None:
    world.cache = tmp_path / "cache"
    with world.open() as repository:
        world.assert_kept(repository)
    damage(objects(world, "index")[0])
    with world.open() as repository:
        assert repair_index(repository).segments_removed == 1
        world.assert_kept(repository)


def test_nothing_to_repair_changes_nothing(world: World) -> None:
    before = {path: path.read_bytes() for path in objects(world, ".")}
    with world.open() as repository:
        assert not repair_index(repository).changed
        assert not repair_packs(repository).changed
        assert not repair_snapshots(repository).changed
    assert {path: path.read_bytes() for path in objects(world, ".")} == before


def test_deleted_packs_stay_out_of_the_index(world: World) -> None:
    with world.open() as repository:
        for ulid in list(world.promised)[:1]:
            world.drop(repository, ulid)
        old = {path: path.read_bytes() for path in (*objects(world, "packs"), *objects(world, "meta"))}
        collect(repository)
    back = [path for path in old if not path.exists()]
    assert back
    for path in back:  # as a restored copy of the store would bring them back
        path.write_bytes(old[path])
    for segment in objects(world, "index"):
        segment.unlink()
    with world.open() as repository:
        repair_index(repository)
        assert not {path.name for path in back} & {info.digest.hex() for _, info in repository.index.packs()}
        world.assert_kept(repository)


def test_packs_under_a_pending_collection_stay_unused_but_are_not_forgotten(world: World) -> None:
    for segment in objects(world, "index"):
        segment.unlink()
    digests = tuple(bytes.fromhex(path.name) for path in objects(world, "packs"))
    with world.open() as repository:
        marked = tuple(sorted(world.promised))
        repository.collections.refresh()
        repository.collections.create(CollectionRecord(1, 0, digests[:1], marked[:1]))
        assert repair_index(repository).packs_indexed
        number = repository.index.number(digests[0])
        assert number is not None  # it can be read, …
        chunk = next(chunk for chunk, _, _, _ in table_of(repository, digests[0]).chunks())
        assert repository.index.find_reusable(chunk) is None  # … but not be built upon
        collect(repository)  # the second snapshot was not marked, and needs the pack: it is kept
        repository.reload_index()
        assert repository.index.find_reusable(chunk) is not None
        world.assert_kept(repository)


def table_of(repository: Repository, digest: bytes) -> PackTable:
    """The table of a pack, from its segment."""
    segments = [read_segment(repository.backend, repository.keyring, name) for name in repository.index.segments()]
    return next(pack.table for segment in segments for pack in segment.packs if pack.digest == digest)


def test_an_unreadable_pack_is_a_finding(world: World) -> None:
    for segment in objects(world, "index"):
        segment.unlink()
    victims = [*objects(world, "packs"), *objects(world, "meta")][:3]
    victims[0].write_bytes(b"short")
    damage(victims[1], 4)  # its version
    damage(victims[2], victims[2].stat().st_size - 1)
    with world.open() as repository:
        result = repair_index(repository)
        assert {found.subject.rpartition("/")[2] for found in result.findings} == {victim.name for victim in victims}


def test_foreign_objects_are_left_alone_and_named(world: World) -> None:
    (world.directory / "index" / "notes").write_text("mine")
    (world.directory / "packs" / "notes").write_text("mine")
    with world.open() as repository:
        assert {finding.subject for finding in repair_index(repository).findings} == {"index/notes", "packs/notes"}
        with pytest.raises(CorruptedBackup):
            collect(repository)
    assert (world.directory / "index" / "notes").exists()


def test_missing_packs_leave_the_index_and_come_back_with_their_object(world: World) -> None:
    victim = objects(world, "packs")[0]
    data = victim.read_bytes()
    victim.unlink()
    with world.open() as repository:
        result = repair_index(repository)
        assert result.packs_removed == (victim.name,)
        assert bytes.fromhex(victim.name) not in {info.digest for _, info in repository.index.packs()}
    victim.write_bytes(data)
    with world.open() as repository:
        assert repair_index(repository).packs_indexed == 1
        world.assert_kept(repository)
    world.assert_sound()


# -- packs


def test_readable_blobs_of_a_damaged_pack_survive(world: World) -> None:
    with world.open() as repository:
        victim = pack_of(repository, max(world.promised), b"/d0/inner/large")
        table = next(info for _, info in repository.index.packs() if info.digest.hex() == victim.name).blobs
        damage(victim, table[0].offset + 5)
        result = repair_packs(repository)
        assert result.packs_removed == (victim.name,)
        assert result.chunks_lost >= 1
        assert not victim.exists()
        assert {found.check for found in verified(repository).findings} == {"completeness"}
        world.clock.advance(1)
        world.backup(repository, second_tree(), MemorySource(second_tree()))


def test_a_damaged_table_loses_nothing(world: World) -> None:
    for victim in (*objects(world, "packs"), *objects(world, "meta")):
        damage(victim, victim.stat().st_size - 20)
    with world.open() as repository:
        result = repair_packs(repository)
        assert result.chunks_lost == 0
        assert result.chunks_saved > 0
        world.assert_kept(repository)
    world.assert_sound()


def lose_a_pack(world: World, *, is_there: bool) -> Path:
    """Repair packs, one of which is lost or holds nothing readable; that one."""
    with world.open() as repository:
        victim = pack_of(repository, max(world.promised), b"/d2/new")
        if is_there:
            victim.write_bytes(bytes(victim.stat().st_size))
        else:
            victim.unlink()
        result = repair_packs(repository)
        assert result.chunks_lost >= 1
        assert not victim.exists()
        assert not verified(repository).ok
        assert not repair_packs(repository).changed
    return victim


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_the_next_backup_heals_what_was_lost(world: World, kind: BackupKind, is_there: bool) -> None:
    lose_a_pack(world, is_there=is_there)
    with world.open() as repository:
        run_backup(repository, MemorySource(second_tree()), BackupOptions(host="host", kind=kind))
        assert verified(repository).ok
        for manifest in repository.snapshots.live():
            assert read_back(repository, manifest) == world.promised.get(manifest.id, second_tree())


def test_what_was_lost_comes_back_with_its_object(world: World) -> None:
    before = {path: path.read_bytes() for path in objects(world, "packs")}
    victim = lose_a_pack(world, is_there=True)
    victim.write_bytes(before[victim])
    with world.open() as repository:
        assert repair_index(repository).packs_indexed == 1
        world.assert_kept(repository)
    world.assert_sound()


@pytest.mark.parametrize("form", ["prefix", "name", "whole"])
def test_packs_are_chosen_by_digest(world: World, form: str) -> None:
    with world.open() as repository:
        victim = objects(world, "packs")[0]
        damage(victim)
        names = {"prefix": victim.name[:12], "name": f"packs/{victim.parent.name}/{victim.name}", "whole": victim.name}
        assert repair_packs(repository, [names[form]]).packs_removed == (victim.name,)
        with pytest.raises(NotFound):
            repair_packs(repository, [victim.name])


def test_a_vague_digest_is_refused(world: World) -> None:
    with world.open() as repository:
        with pytest.raises(NotFound):
            repair_packs(repository, [""])
        for number in range(17):  # more packs than first digits
            world.backup(repository, {b"/%d" % number: content(number, 10)})
        digits = [info.digest.hex()[0] for _, info in repository.index.packs()]
        vague = max(digits, key=digits.count)
        with pytest.raises(InvalidRequest):
            repair_packs(repository, [vague])


def test_packs_wait_for_the_index(world: World) -> None:
    damage(objects(world, "index")[0])
    with world.open() as repository, pytest.raises(CorruptedBackup, match="index is damaged"):
        repair_packs(repository)


def test_packs_whose_segment_is_being_replaced_are_repaired_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = objects(world, "packs")[0]
    monkeypatch.setattr("backstay.operations.repair.packs.indexed_packs", lambda _: [])
    with world.open() as repository, pytest.raises(CollectionBusy, match="replaces the index") as caught:
        repair_packs(repository, [victim.name])
    assert "again when it has finished" in caught.value.hint
    assert victim.exists()


@pytest.mark.parametrize("loses", [False, True])
def test_a_faster_collector_makes_it_stop_before_anything_is_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch, loses: bool
) -> None:
    victim = objects(world, "packs")[0]
    whole = victim.read_bytes()
    damage(victim, len(whole) // 2 if loses else len(whole) - 20)

    def salvage(self: PackRepair, damaged: list[IndexedPack]) -> None:
        original(self, damaged)
        with world.open() as other:
            other.collections.refresh()
            other.collections.create(CollectionRecord(1, 0, (), ()))

    original = PackRepair._salvage
    monkeypatch.setattr(PackRepair, "_salvage", salvage)
    with world.open() as repository, pytest.raises(CollectionBusy):
        repair_packs(repository)
    assert victim.exists()
    monkeypatch.undo()
    with world.open() as repository:
        assert bool(repair_packs(repository).chunks_lost) == loses
        if loses:
            victim.write_bytes(whole)
            repair_index(repository)
        world.assert_kept(repository)
    world.assert_sound()


def test_a_running_backup_is_waited_for(world: World) -> None:
    victim = objects(world, "packs")[0]
    damage(victim, victim.stat().st_size - 20)
    with world.open() as writer, world.open() as repository:
        session = writer.begin_session()
        repository.process = NOBODY
        result = repair_packs(repository)
        assert (result.waiting_for, result.packs_removed, victim.exists()) == ((session.id,), (), True)
        for manifest in repository.snapshots.live():
            assert read_back(repository, manifest) == world.promised[manifest.id]
        session.close()
        collector = Collector(repository)
        collector.execute(collector.plan())
        assert not victim.exists()
    world.assert_sound()
