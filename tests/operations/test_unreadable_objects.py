"""An object that its disk does not give is told as a damaged one is, and all else is verified, restored and copied."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest

from backstay.codec.digest import sha256
from backstay.errors import CorruptedBackup, HoldViolation, ObjectUnreadable, StorageUnavailable
from backstay.operations.copies.export import export_snapshots
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.reserve import check, set_aside
from backstay.repository.format import RESERVE, epoch_name, hold_name, index_name, pack_name
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import running_sessions
from backstay.repository.trees.listings import find_node
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret
from tests.crash.small_world import World, content, verified

TREE = {b"/one": content(1, 150_000), b"/two": content(2, 150_000), b"/three": content(3, 150_000)}


class BadDisk(Filesystem):
    """One that does not give some files; `number` is what it says."""

    def __init__(self, number: int = errno.EIO) -> None:
        self.bad: set[str] = set()
        self.gone, self.number = False, number

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if path in self.bad:
            raise OSError(self.number, os.strerror(self.number))
        return super().open(path, flags, mode)

    def stat(self, path: str) -> os.stat_result:
        if self.gone:
            raise OSError(self.number, os.strerror(self.number))
        return super().stat(path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The newest snapshot has all of the tree, each file in a pack of its own."""
    world = World(tmp_path / "repository")
    world.create().close()
    for number in range(1, len(TREE) + 1):
        with world.open() as repository:
            world.backup(repository, dict([*TREE.items()][:number]))
    return world


def opened(world: World, disk: BadDisk) -> Repository:
    store = LocalStorage(world.directory, filesystem=disk)
    return Repository.open(store, world.secret, environment=world.environment())


def pack_of(repository: Repository, path: bytes) -> str:
    manifest = repository.snapshots.live()[-1]
    if path == b"/":
        ids = manifest.root.ids
    else:
        node = find_node(manifest.root, path, repository.reader)
        assert node is not None
        assert node.content is not None
        ids = node.content.ids
    info = repository.index.pack(repository.reader.place(ids[:32]).pack)
    return pack_name(info.kind, info.digest)


@pytest.mark.parametrize("number", [errno.EIO, errno.EUCLEAN])
def test_the_rest_of_a_snapshot_is_verified_and_restored(world: World, tmp_path: Path, number: int) -> None:
    disk = BadDisk(number)
    with opened(world, disk) as repository:
        manifest = repository.snapshots.live()[-1]
        packs = {path: pack_of(repository, path) for path in TREE}
        name = packs[b"/two"]
    assert len(set(packs.values())) == len(TREE)
    with opened(world, disk) as repository:
        disk.bad.add(f"{world.directory}/{name}")
        report = verified(repository)
        assert isinstance(report.failure, CorruptedBackup)
        subjects = {finding.subject for finding in report.findings}
        assert {name, f"snapshot {manifest.id}: /two"} <= subjects
        assert any(os.strerror(number) in finding.message for finding in report.findings)
        result = run_restore(repository, manifest, tmp_path / "out", RestoreOptions())
    assert [item.path for item in result.errors] == ["/two"]
    for path in (b"/one", b"/three"):
        assert (tmp_path / "out" / os.fsdecode(path[1:])).read_bytes() == TREE[path]


def test_an_index_segment_that_is_not_given_is_told_and_hinders_no_reader(world: World, tmp_path: Path) -> None:
    disk = BadDisk()
    with opened(world, disk) as repository:
        manifest = repository.snapshots.live()[0]
        first = next(
            index_name(name)
            for name in repository.index.segments()
            if not set(manifest.packs).isdisjoint(repository.index.packs_of(name))
        )
        others = {index_name(name) for name in repository.index.segments()} - {first}
    disk.bad.add(f"{world.directory}/{max(others)}")
    with opened(world, disk) as repository:
        report = verified(repository)
        assert isinstance(report.failure, CorruptedBackup)
        assert max(others) in {finding.subject for finding in report.findings}
        assert not run_restore(repository, manifest, tmp_path / "out", RestoreOptions()).errors
        for repair in (repair_index, repair_packs, lambda repository: Collector(repository).plan()):
            with pytest.raises(ObjectUnreadable):
                repair(repository)
        world.backup(repository, TREE)
    disk.bad.clear()
    with opened(world, disk) as repository:
        assert {first, *others} <= {index_name(name) for name in repository.index.segments()}
        assert verified(repository).failure is None


def test_copies_tell_it_as_damage(world: World, tmp_path: Path) -> None:
    disk = BadDisk()
    with opened(world, disk) as repository:
        name = pack_of(repository, b"/two")
    disk.bad.add(f"{world.directory}/{name}")
    with opened(world, disk) as repository, Repository.create(MemoryStorage(), world.secret) as other:
        mirror = MemoryStorage()
        assert [finding.subject for finding in copy_objects(repository, mirror).findings] == [name]
        ours = {info.name for info in repository.backend.list() if info.name.startswith(("packs/", "meta/"))}
        assert ours - {info.name for info in mirror.list()} == {name}
        with pytest.raises(CorruptedBackup):
            copy_snapshots(repository, other, repository.snapshots.live())
        with pytest.raises(CorruptedBackup):
            export_snapshots(repository, LocalStorage(tmp_path / "medium"), repository.snapshots.live())


@pytest.mark.parametrize("path", [b"/", b"/two"])
def test_nothing_is_given_up_for_what_the_disk_may_give_again(world: World, path: bytes) -> None:
    disk = BadDisk()
    with opened(world, disk) as repository:
        name = pack_of(repository, path)
        before = {info.name: info.size for info in repository.backend.list()}
        disk.bad.add(f"{world.directory}/{name}")
        verified(repository)  # which passes it by
        with pytest.raises(StorageUnavailable):
            repair_packs(repository)
        if path == b"/":
            with pytest.raises(StorageUnavailable):
                repair_snapshots(repository)
        after = {info.name: info.size for info in repository.backend.list()}
    assert before.items() <= after.items()
    assert not [name for name in after if name.startswith("drops/")]


@pytest.mark.parametrize("kind", ["snapshots", "index"])
def test_a_record_is_told_and_the_rest_is_verified(world: World, tmp_path: Path, kind: str) -> None:
    world.cache = tmp_path / "cache"
    with world.open() as repository:
        repository.reload_index()
        name = max(info.name for info in repository.backend.list(f"{kind}/"))
        count = len(repository.snapshots.live())
    disk = BadDisk()
    disk.bad.add(f"{world.directory}/{name}")
    store = LocalStorage(world.directory, filesystem=disk)
    with Repository.open(store, world.secret, cache=world.cache, environment=world.environment()) as repository:
        report = verified(repository)
        assert report.snapshots == count - (kind == "snapshots")
        assert [finding.subject for finding in report.findings if finding.severity == "error"] == [name]
        assert isinstance(report.failure, CorruptedBackup)
        if kind == "snapshots":
            with pytest.raises(StorageUnavailable):
                repair_snapshots(repository)


def test_one_key_slot_keeps_no_other_from_opening_the_repository(world: World) -> None:
    other, disk = Secret.new_keyfile(), BadDisk()
    with world.open() as repository:
        first = list(repository.backend.list("keys/slots/"))
        disk.bad = {f"{world.directory}/{info.name}" for info in first}
        header = sha256(repository.backend.retrieve("repo.json"))
        repository.slots.add(other, header, note="", created="2026-01-01T00:00:00Z")
    with pytest.raises(ObjectUnreadable):
        opened(world, disk)
    store = LocalStorage(world.directory, filesystem=disk)
    with Repository.open(store, other, environment=world.environment()) as repository:
        findings = verified(repository).findings
    assert {f"{world.directory}/{finding.subject}" for finding in findings} == disk.bad


def test_the_record_of_a_deletion_deletes_nothing_while_it_is_unreadable(world: World) -> None:
    disk, oldest = BadDisk(), min(world.promised)
    with world.open() as repository:
        world.drop(repository, oldest)
    disk.bad.add(f"{world.directory}/drops/{oldest}")
    with opened(world, disk) as repository:
        assert [manifest.id for manifest in repository.snapshots.live()] == sorted({*world.promised, oldest})
        assert [finding.subject for finding in verified(repository).findings] == [f"drops/{oldest}"]
    disk.bad.clear()
    with opened(world, disk) as repository:
        assert oldest not in {manifest.id for manifest in repository.snapshots.live()}


def test_a_disk_that_is_gone_is_no_damage(world: World) -> None:
    disk = BadDisk()
    with opened(world, disk) as repository:
        disk.bad.add(f"{world.directory}/{pack_of(repository, b'/two')}")
        disk.gone = True
        with pytest.raises(StorageUnavailable) as caught:
            verified(repository)
    assert not isinstance(caught.value, ObjectUnreadable)


@pytest.mark.parametrize("number", [1, 2])
def test_a_key_epoch_keeps_nothing_of_other_epochs_from_being_verified_and_restored(
    world: World, tmp_path: Path, number: int
) -> None:
    with world.open() as repository:
        repository.keyring.begin_epoch(repository.clock)
        other = world.backup(repository, {b"/new": content(4, 150_000)}).snapshot
        assert other is not None
        older = set(world.promised) - {other}
    lost, kept = ([*older], [other]) if number == 1 else ([other], [*older])
    disk, name = BadDisk(), epoch_name(number)
    disk.bad.add(f"{world.directory}/{name}")
    with opened(world, disk) as repository:
        report = verified(repository)
        found = {finding.subject for finding in report.findings}
        assert {name, *(f"snapshots/{ulid}" for ulid in lost)} <= found
        assert not found & {f"snapshots/{ulid}" for ulid in kept}
        assert isinstance(report.failure, CorruptedBackup)
        for ulid in kept:
            result = run_restore(repository, repository.snapshots.get(ulid), tmp_path / ulid, RestoreOptions())
            assert not result.errors
        with pytest.raises(ObjectUnreadable):
            repository.snapshots.get(lost[0])


@pytest.mark.parametrize("number", [1, 2])
def test_nothing_is_given_up_for_a_key_that_the_disk_may_give_again(world: World, number: int) -> None:
    with world.open() as repository:
        repository.keyring.begin_epoch(repository.clock)
        world.backup(repository, {b"/new": content(4, 150_000)})
        before = {info.name for info in repository.backend.list()}
    disk = BadDisk()
    disk.bad.add(f"{world.directory}/{epoch_name(number)}")
    for repair in (repair_index, repair_packs, repair_snapshots, lambda repository: Collector(repository).plan()):
        with opened(world, disk) as repository, pytest.raises(ObjectUnreadable):
            repair(repository)
    with world.open() as repository:
        after = {info.name for info in repository.backend.list()}
        assert before <= after
        assert verified(repository).failure is None


def test_a_reserve_is_told_and_set_aside_anew(world: World) -> None:
    disk = BadDisk()
    with opened(world, disk) as repository:
        assert set_aside(repository)
        disk.bad.add(f"{world.directory}/{RESERVE}")
        report = run_verify(repository, options=VerifyOptions(reserve=True))
        assert [finding.subject for finding in report.findings] == [RESERVE]
        assert set_aside(repository)
    with world.open() as repository:
        check(repository.backend)


@pytest.fixture
def recorded(world: World) -> World:
    """The same after a collection, with a hold, the mark of a graph, and a writer that is at work."""
    with world.open() as repository:
        oldest, newest = min(world.promised), max(world.promised)
        world.drop(repository, oldest)
        collector = Collector(repository, lease=timedelta(0))
        collector.execute(collector.plan())
        repository.snapshots.hold(newest, "audit", repository.clock)
        repository.snapshots.graph_deletions.mark(min(world.promised), "expired", repository.clock)
    return world


@pytest.mark.parametrize("prefix", ["gc/00000001", "gc/00000001.done", "gc/00000001.sessions", "holds/", "graphs/"])
def test_a_record_is_told_and_everything_is_read_on(recorded: World, tmp_path: Path, prefix: str) -> None:
    disk = BadDisk()
    with recorded.open() as repository:
        name = next(name for name in sorted(info.name for info in repository.backend.list(prefix)))
    disk.bad.add(f"{recorded.directory}/{name}")
    with opened(recorded, disk) as repository:
        report = verified(repository)
        assert [finding.subject for finding in report.findings if finding.severity == "error"] == [name]
        assert isinstance(report.failure, CorruptedBackup)
        for manifest in repository.snapshots.live():
            assert not run_restore(repository, manifest, tmp_path / manifest.id, RestoreOptions()).errors


def test_a_hold_that_the_disk_does_not_give_still_holds(recorded: World) -> None:
    disk, newest = BadDisk(), max(recorded.promised)
    disk.bad.add(f"{recorded.directory}/{hold_name(newest, 1)}")
    with opened(recorded, disk) as repository, pytest.raises(HoldViolation):
        repository.snapshots.drop(newest, "no more", repository.clock)


def test_nothing_is_built_upon_or_collected_past_a_verdict_that_the_disk_does_not_give(recorded: World) -> None:
    disk = BadDisk()
    disk.bad.add(f"{recorded.directory}/gc/00000001.done")
    with opened(recorded, disk) as repository, pytest.raises(ObjectUnreadable):
        repository.begin_session()
    for repair in (repair_index, lambda repository: Collector(repository).plan()):
        with opened(recorded, disk) as repository, pytest.raises(ObjectUnreadable):
            repair(repository)


def test_a_writer_whose_record_the_disk_does_not_give_is_one_of_which_nothing_is_known(recorded: World) -> None:
    disk = BadDisk()
    with recorded.open() as repository, repository.begin_session() as session:
        disk.bad = {f"{recorded.directory}/{info.name}" for info in repository.backend.list("sessions/")}
        assert disk.bad
        with opened(recorded, disk) as other:
            (found,) = running_sessions(other.backend, other.keyring)
        assert (found.id, found.record) == (session.id, None)
