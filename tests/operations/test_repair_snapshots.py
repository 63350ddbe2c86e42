"""Repair of snapshots: what is lost is accepted, what is left goes on, and nothing is given up unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup, NotFound
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.operations.repair.snapshots import SnapshotRepair
from backstay.repository.collection.collector import Collector
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import find_node
from tests.crash.small_world import MemorySource, World, collect, content, read_back, small_tree, verified
from tests.operations.repairing import damage, object_of, objects, pack_of, second_tree, two_snapshots


@pytest.fixture
def world(tmp_path: Path) -> World:
    return two_snapshots(tmp_path)


def test_a_vanished_snapshot_is_accepted_as_lost(world: World) -> None:
    first = min(world.promised)
    (world.directory / "snapshots" / first).unlink()
    world.dropped.add(first)
    with world.open() as repository:
        with pytest.raises(CorruptedBackup):
            collect(repository)
        assert not verified(repository).ok
        result = repair_snapshots(repository)
        assert (result.snapshots_dropped, result.lost) == ((first,), ())
        world.assert_kept(repository)
    world.assert_sound()


def test_an_unreadable_manifest_is_dropped(world: World) -> None:
    first = min(world.promised)
    damage(world.directory / "snapshots" / first, 150)
    world.dropped.add(first)
    with world.open() as repository:
        assert repair_snapshots(repository).snapshots_dropped == (first,)
        world.assert_kept(repository)
    world.assert_sound()


def test_a_damaged_record_of_a_deletion_gives_the_snapshot_back_until_it_is_deleted_again(world: World) -> None:
    with world.open() as repository:
        first, second = (manifest.id for manifest in repository.snapshots.live())
        repository.snapshots.drop(first, "for a test", repository.clock)
        (record,) = objects(world, "drops")
    record.chmod(0o600)
    damage(record)
    with world.open() as repository:
        told = repair_snapshots(repository)
        assert told.snapshots_dropped == ()
        (finding,) = told.findings
        assert (finding.subject, first in finding.hint) == (f"drops/{first}", True)
        assert set(repository.snapshots.dropped()) == set()
        repository.snapshots.drop(first, "once more", repository.clock)
    with world.open() as repository:
        assert [manifest.id for manifest in repository.snapshots.live()] == [second]
        assert repair_snapshots(repository).findings == ()


def test_snapshots_without_their_key_are_not_given_up_unasked(world: World) -> None:
    with world.open() as repository:
        repository.keyring.begin_epoch(world.clock)
        world.backup(repository, small_tree())
    newest = max(world.promised)
    epoch = objects(world, "keys/epochs")[-1]
    key = epoch.read_bytes()
    epoch.unlink()
    with world.open() as repository:
        result = repair_index(repository)
        result = repair_snapshots(repository)
        assert result.snapshots_dropped == ()
        assert f"snapshots/{newest}" in {finding.subject for finding in result.findings}
    epoch.write_bytes(key)
    with world.open() as repository:
        repair_index(repository)
        world.assert_kept(repository)
    epoch.unlink()
    with world.open() as repository:
        assert repair_snapshots(repository, [newest]).snapshots_dropped == (newest,)


@pytest.mark.parametrize("alone", [False, True])
def test_snapshots_that_need_the_key_of_an_earlier_epoch_are_not_given_up_unasked(world: World, alone: bool) -> None:
    with world.open() as repository:
        for ulid in sorted(world.promised)[:-1] if alone else ():
            world.drop(repository, ulid)
        repository.keyring.begin_epoch(world.clock)
        made = world.backup(repository, small_tree() | {b"/new": content(7, 100_000)}).snapshot
        assert made is not None
        if alone:
            world.drop(repository, min(world.promised))
            Collector(repository).execute(Collector(repository).plan())
    epoch = objects(world, "keys/epochs")[0]
    key = epoch.read_bytes()
    epoch.unlink()
    with world.open() as repository:
        result = repair_snapshots(repository)
        assert (result.snapshots_replaced, result.snapshots_dropped) == ((), ())
        assert f"snapshots/{made}" in {finding.subject for finding in result.findings}
        with pytest.raises(CorruptedBackup):
            Collector(repository).plan()
    epoch.write_bytes(key)
    with world.open() as repository:
        repair_index(repository)
        world.assert_kept(repository)
    epoch.unlink()
    with world.open() as repository:
        result = repair_snapshots(repository, [made])
        assert [old for old, _ in result.snapshots_replaced] == [made]


def test_only_the_wanted_snapshots_are_touched(world: World) -> None:
    first, second = sorted(world.promised)
    damage(world.directory / "snapshots" / first, 150)
    with world.open() as repository:
        assert not repair_snapshots(repository, [second]).changed
        with pytest.raises(NotFound):
            repair_snapshots(repository, ["0" * 26])
        assert repair_snapshots(repository, [first]).snapshots_dropped == (first,)


def test_a_snapshot_goes_on_without_its_lost_files(world: World) -> None:
    first, second = sorted(world.promised)
    with world.open() as repository:
        victim = pack_of(repository, second, b"/d2/new")
        kept_stats = repository.snapshots.get(second).stats
        victim.unlink()
        result = repair_snapshots(repository)
        new = dict(result.snapshots_replaced)
        lost = {ulid: {found.path.encode() for found in result.lost if found.snapshot == ulid} for ulid in new}
        assert b"/d2/new" in lost[second]
        manifests = {manifest.id: manifest for manifest in repository.snapshots.live()}
        assert second not in manifests
        manifest = manifests[new[second]]
        left = {path: data for path, data in second_tree().items() if path not in lost[second]}
        assert read_back(repository, manifest) == left
        assert (manifest.stats.files, manifest.stats.bytes) == (len(left), sum(map(len, left.values())))
        assert manifest.stats.dirs == kept_stats.dirs
        assert manifest.stats.errors == len(lost[second])
        assert "repaired" in manifest.tags
        assert "/d2/new" in manifest.description
        assert manifest.time_ns == world.clock.now_ns() or manifest.time_ns < manifest.recorded_ns
        assert verified(repository).ok
    promise_what_is_there(world)
    world.assert_sound()
    assert first not in world.dropped or first in new


def promise_what_is_there(world: World) -> None:
    with world.open() as repository:
        world.promised = {m.id: read_back(repository, m) for m in repository.snapshots.live()}
        world.dropped.clear()


def test_the_next_backup_reads_the_lost_files_again_and_only_those(world: World) -> None:
    with world.open() as repository:
        pack_of(repository, max(world.promised), b"/d2/new").unlink()
        result = repair_snapshots(repository)
        lost = {found.path.encode() for found in result.lost}
    read: list[bytes] = []
    with world.open() as repository:
        done = world.backup(repository, second_tree(), MemorySource(second_tree(), read.append))
        assert done.parent in dict(result.snapshots_replaced).values()
        assert {path for path in read if path in second_tree()} == lost | ({b"/d1/f01"} & set(read))
        assert read_back(repository, repository.snapshots.live()[-1]) == second_tree()
        assert verified(repository).ok


@pytest.mark.parametrize("part", ["root", "directory", "stat_stream"])
def test_lost_listings_and_stat_streams(world: World, part: str) -> None:
    newest = max(world.promised)
    with world.open() as repository:
        manifest = repository.snapshots.get(newest)
        node = find_node(manifest.root, b"/d0", repository.reader)  # as it was before: in another bundle
        assert node is not None
        assert node.content is not None
        chunk = {"root": manifest.root, "directory": node.content, "stat_stream": manifest.stat_stream}[part]
        spoil_chunk(repository, chunk.ids[:32])
        result = repair_packs(repository)
        assert result.chunks_lost >= 1
        result = repair_snapshots(repository)
        assert result.changed
        assert verified(repository).ok
        live = {manifest.id for manifest in repository.snapshots.live()}
        assert newest not in live
        if part == "root":
            assert newest in result.snapshots_dropped
        if part == "directory":
            assert {found.path for found in result.lost if found.snapshot == newest} == {"/d0/"}
            rest = read_back(repository, repository.snapshots.get(dict(result.snapshots_replaced)[newest]))
            assert not [path for path in rest if path.startswith(b"/d0/")]
            assert [path for path in rest if path.startswith(b"/d2/")]
    promise_what_is_there(world)
    with world.open() as repository:
        world.backup(repository, second_tree())
        assert read_back(repository, repository.snapshots.live()[-1]) == second_tree()
    world.assert_sound()


def spoil_chunk(repository: Repository, chunk: bytes) -> None:
    """Damage the blob that holds a chunk, and nothing else of its pack."""
    place = repository.reader.place(chunk)
    info = repository.index.pack(place.pack)
    damage(object_of(repository, Content(0, chunk)), info.blobs[place.ordinal].offset + 1)


def test_an_emptied_directory_is_not_mistaken_for_the_repaired_one(world: World) -> None:
    """A stat stream that lacks rows must not make an empty directory look unchanged."""
    newest = max(world.promised)
    with world.open() as repository:
        spoil_chunk(repository, repository.snapshots.get(newest).stat_stream.ids[:32])
        repair_packs(repository)
        repair_snapshots(repository)
    less = {path: data for path, data in second_tree().items() if path.startswith(b"/d0")}
    with world.open() as repository:
        world.backup(repository, less)
        assert read_back(repository, repository.snapshots.live()[-1]) == less
        assert verified(repository).ok


def test_a_stop_before_the_old_one_is_dropped_makes_no_second_copy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(BaseException):
        pass

    def stop(self: object, *arguments: object) -> None:
        raise Stopped

    with world.open() as repository:
        pack_of(repository, max(world.promised), b"/d2/new").unlink()
        monkeypatch.setattr(SnapshotRepair, "_drop_replaced", stop)
        with pytest.raises(Stopped):
            repair_snapshots(repository)
        monkeypatch.undo()
        before = len(repository.snapshots.live())
        repair_snapshots(repository)
        replaced = [m.consistency["repaired_from"] for m in repository.snapshots.live() if m.consistency]
        assert len(replaced) == len(set(replaced))
        assert len(repository.snapshots.live()) < before + len(world.promised)
        assert verified(repository).ok
