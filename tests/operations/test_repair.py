"""Repair: the index from packs, packs from their readable blobs, snapshots from what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.errors import CollectionBusy, CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.repair.packs import PackRepair
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.operations.repair.snapshots import SnapshotRepair
from backstay.repository.collection.collector import Collector
from backstay.repository.format import RecordKind
from backstay.repository.index.index import IndexedPack, read_segment
from backstay.repository.logs.collections import CollectionRecord
from backstay.repository.nodes import Content
from backstay.repository.packs.pack import PackTable
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Process
from backstay.repository.trees.listings import find_node
from tests.crash.small_world import MemorySource, World, collect, content, read_back, small_tree, verified

NOBODY = Process("", "", "", 0, "")  # cannot tell whether other processes are dead


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two snapshots, the second with a changed and a new file."""
    world = World(tmp_path / "repository")
    world.create().close()
    with world.open() as repository:
        world.backup(repository, small_tree())
    with world.open() as repository:
        world.backup(repository, second_tree())
    return world


def second_tree() -> dict[bytes, bytes]:
    return small_tree() | {b"/d1/f01": content(7, 900), b"/d2/new": content(8, 200_000)}


def objects(world: World, below: str) -> list[Path]:
    return sorted(path for path in (world.directory / below).rglob("*") if path.is_file())


def damage(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)


def pack_of(repository: Repository, ulid: str, path: bytes) -> Path:
    """The object that holds the first chunk of a file."""
    node = find_node(repository.snapshots.get(ulid).root, path, repository.reader)
    assert node is not None
    assert node.content is not None
    return object_of(repository, node.content)


def object_of(repository: Repository, holds: Content) -> Path:
    place = repository.reader.place(holds.ids[:32])
    info = repository.index.pack(place.pack)
    text = info.digest.hex()
    kind = "packs" if info.kind is RecordKind.DATA_PACK else "meta"
    return Path(repository.backend.url) / kind / text[:2] / text


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


def test_a_full_backup_heals_what_was_lost(world: World) -> None:
    with world.open() as repository:
        victim = pack_of(repository, max(world.promised), b"/d2/new")
        victim.unlink()
        repair_packs(repository)
        assert not verified(repository).ok
    with world.open() as repository:
        run_backup(repository, MemorySource(second_tree()), BackupOptions(host="host", kind="full"))
        assert verified(repository).ok
        for manifest in repository.snapshots.live():
            assert read_back(repository, manifest) == world.promised.get(manifest.id, second_tree())


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


def test_a_faster_collector_makes_it_stop_before_anything_is_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = objects(world, "packs")[0]
    damage(victim, victim.stat().st_size - 20)

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
        repair_packs(repository)
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


# -- snapshots


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
