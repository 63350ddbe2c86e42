"""Copies of a repository, bit for bit; and snapshots in a repository with other keys."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup, InvalidRequest
from backstay.operations.copies import transfer
from backstay.operations.copies.mirror import can_be_mirror, copy_objects
from backstay.operations.copies.result import CopyResult
from backstay.operations.copies.transfer import COPIED_FROM, copy_snapshots
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Repository
from backstay.storage.backend import ObjectInfo, StorageBackend
from backstay.storage.crash_order import is_transient
from backstay.storage.mirrored import Mirrored
from backstay.testing import CrashPoint, Fault, FaultKind, FaultyBackend
from backstay.trust.secrets import Secret
from tests.operations.copies import (
    SECRET,
    SMALL_PACKS,
    Store,
    back_up,
    contents,
    damaged,
    drop_first,
    make_repository,
    make_source,
    mirror_to,
    open_alone,
    open_mirrored,
    restored,
)

OTHER = Secret.new_keyfile()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


@pytest.fixture
def ours(source: Path) -> Store:
    store = Store("ours")
    make_repository(store, source)
    return store


def before_a_collection(source: Path) -> Store:
    """Two snapshots, of which the first alone needs most of a pack that has a part of the second."""
    store = Store("ours")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        (source / "stays").write_bytes(random.Random(1).randbytes(60_000))
        (source / "goes").write_bytes(random.Random(2).randbytes(180_000))
        back_up(repository, source)
        (source / "goes").unlink()
        back_up(repository, source)
    return store


def theirs(place: str = "theirs") -> Store:
    store = Store(place)
    Repository.create(store, OTHER, environment=SMALL_PACKS).close()
    return store


def lasting(store: Store) -> dict[str, bytes]:
    return {name: data for name, data in store.objects().items() if not is_transient(name)}


def snapshots(store: Store) -> list[str]:
    with open_alone(store) as repository:
        return [manifest.id for manifest in repository.snapshots.live()]


# --- bit for bit ---


def test_an_empty_store_becomes_a_copy(ours: Store, source: Path) -> None:
    target = Store("target")
    result = mirror_to(ours, target)
    assert target.objects() == lasting(ours)
    assert (result.objects, result.bytes) == (len(lasting(ours)), sum(map(len, lasting(ours).values())))
    again = mirror_to(ours, target)
    assert (again.objects, again.bytes, again.removed) == (0, 0, 0)
    with open_alone(ours) as repository:
        back_up(repository, source)
    more = mirror_to(ours, target)
    assert 0 < more.objects < 10
    assert target.objects() == lasting(ours)


def test_a_copy_that_stops_anywhere_is_a_repository_or_none_yet(ours: Store, tmp_path: Path, source: Path) -> None:
    target = Store("target")
    for at in range(1, len(lasting(ours)), 3):
        faulty = FaultyBackend(target)
        faulty.script(Fault(kind="crash_after", operation="store", at=3))
        with pytest.raises(CrashPoint):
            mirror_to(ours, faulty)
        if target.exists("repo.json"):
            with open_alone(target) as repository:
                for manifest in repository.snapshots.live():
                    _, errors = restored(repository, manifest.id, tmp_path / f"{at}-{manifest.id}", source)
                    assert errors == []
        if len(target.objects()) > len(lasting(ours)) - 3:
            break
    mirror_to(ours, target)
    assert target.objects() == lasting(ours)


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["crash_before", "crash_after"])
def test_a_copy_that_stops_behind_a_collection_keeps_what_was_rewritten(
    tmp_path: Path, source: Path, kind: FaultKind
) -> None:
    """A verdict forbids packs whose chunks that live lie in new ones, which come first."""
    ours = before_a_collection(source)
    before = Store("copy", lasting(ours))
    with open_alone(ours) as repository:
        drop_first(repository)
        (newest,) = [manifest.id for manifest in repository.snapshots.live()]
    for at in count(1):
        copy = Store("copy", before.objects())
        faulty = FaultyBackend(copy)
        faulty.script(Fault(kind=kind, operation="store", at=at))
        try:
            mirror_to(ours, faulty)
        except CrashPoint:
            with open_alone(copy) as repository:
                found, errors = restored(repository, newest, tmp_path / str(at), source)
            assert (found, errors) == (contents(source), [])
        else:
            break
    assert at > 5


def test_a_torn_object_is_sent_again(ours: Store) -> None:
    target = Store("target")
    mirror_to(ours, target)
    name = next(name for name in target.objects() if name.startswith("packs/"))
    target.store(name, b"half", overwrite=True)
    assert mirror_to(ours, target).objects == 1
    assert target.objects() == lasting(ours)


def test_the_right_to_write_to_one_store_is_not_copied(ours: Store) -> None:
    target = Store("target")
    ours.store("lease/01arz3ndektsv4rrffq69g5fav.000000", b"another writer")
    mirror_to(ours, target)
    assert not [name for name in target.objects() if name.startswith("lease/")]
    with open_alone(target) as repository:
        assert heal_from_copy(repository, target, ours).objects_healed == ()


def test_damage_is_not_copied(ours: Store) -> None:
    target = Store("target")
    name = next(name for name in ours.objects() if name.startswith("packs/"))
    ours.store(name, damaged(ours.retrieve(name), random.Random(1)), overwrite=True)
    result = mirror_to(ours, target)
    assert [finding.subject for finding in result.findings] == [name]
    assert lasting(ours).keys() - target.objects().keys() == {name}


def test_what_collection_deleted_goes_from_the_copy_too(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    with open_alone(ours) as repository:
        repository.snapshots.drop(repository.snapshots.live()[0].id, "for a test", repository.clock)
        collector = Collector(repository)
        collector.execute(collector.plan())
        spare = next(slot.id for slot in repository.slots.list() if slot.note == "third")
        repository.slots.remove(spare, repository.clock)
    assert mirror_to(ours, target).removed > 1
    assert target.objects() == lasting(ours)
    with open_alone(target) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).ok


def test_nothing_goes_from_a_copy_that_has_snapshots_of_its_own(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    with open_alone(target) as repository:
        back_up(repository, source)
    before = target.objects()
    with open_alone(ours) as repository:
        repository.snapshots.drop(repository.snapshots.live()[0].id, "for a test", repository.clock)
        collector = Collector(repository)
        collector.execute(collector.plan())
    assert mirror_to(ours, target).removed == 0
    assert before.keys() <= target.objects().keys()


def test_what_vanishes_while_it_is_copied_begins_the_copy_anew(ours: Store) -> None:
    """As when a collector deletes meanwhile: the snapshots come after a listing that was good to its end."""
    target = Store("target")
    gone = next(name for name in ours.objects() if name.startswith("packs/"))

    class Vanishing(FaultyBackend):
        def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
            self.inner.delete(gone)
            return super().retrieve(name, start=start, length=length)

    with Repository.open(Vanishing(ours), SECRET) as repository:
        ours.store(gone, b"about to be deleted", overwrite=True)
        copy_objects(repository, target)
    assert target.objects() == lasting(ours)


@pytest.mark.parametrize("listing", [2, 3])
def test_a_collection_between_the_listings_of_a_copy_begins_it_anew(ours: Store, source: Path, listing: int) -> None:
    """The second one comes before packs are sent, the third one after them, before snapshots are."""
    target, listed = Store("target"), 0
    dropped = snapshots(ours)[-1]

    class Collected(FaultyBackend):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            nonlocal listed
            listed += not prefix
            if not prefix and listed == listing:
                with open_alone(ours) as other:
                    other.snapshots.drop(dropped, "for a test", other.clock)
                    collector = Collector(other)
                    assert collector.execute(collector.plan()).rewritten_bytes
            return super().list(prefix)

    for name in ("file-07", "file-11", "new"):  # of some packs a part stays in use, and moves
        (source / name).write_bytes(random.Random(name).randbytes(300_000))
    with open_alone(ours) as repository:
        back_up(repository, source)
    with Repository.open(Collected(ours), SECRET) as repository:
        copy_objects(repository, target)
    assert target.objects() == lasting(ours)
    assert dropped not in snapshots(target)
    with open_alone(target) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


def test_a_verdict_that_came_while_segments_were_listed_is_left_to_the_next_copy(source: Path) -> None:
    """The collector stops behind it, so that nothing vanishes; the segment of what it rewrote was not listed."""
    ours, target, is_due = before_a_collection(source), Store("target"), True

    class Collected(FaultyBackend):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            nonlocal is_due
            segments = [*self.inner.list("index/")]
            if not prefix and is_due:
                is_due = False
                stopping = FaultyBackend(ours)
                stopping.script(Fault(kind="crash_after", operation="store", prefix="gc/", at=3))
                with open_alone(stopping) as other, pytest.raises(CrashPoint):
                    drop_first(other)
                return iter([*segments, *(i for i in super().list() if not i.name.startswith("index/"))])
            return super().list(prefix)

    mirror_to(ours, target)
    with Repository.open(Collected(ours), SECRET) as repository:
        copy_objects(repository, target)
    assert not is_due
    with open_alone(target) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()
    mirror_to(ours, target)
    assert target.objects() == lasting(ours)


def test_another_repository_is_not_overwritten(ours: Store) -> None:
    target = theirs()
    before = target.objects()
    with open_alone(ours) as repository:
        assert not can_be_mirror(repository, target)
        with pytest.raises(InvalidRequest, match="cannot become a copy"):
            copy_objects(repository, target)
        with pytest.raises(InvalidRequest):
            copy_objects(repository, Store("strange", {"holiday.jpg": b"..."}))
    assert target.objects() == before


def test_a_mirror_outlives_collections_that_knew_of_one_copy_only(ours: Store, source: Path, tmp_path: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    with open_alone(ours) as repository:
        for path in sorted(source.rglob("file-*"))[::2]:  # packs with a half that is needed are rewritten
            path.unlink()
        newest = back_up(repository, source)
        while len(repository.snapshots.live()) > 1:
            drop_first(repository)
    with open_mirrored(ours, target) as repository:
        collector = Collector(repository)
        collector.execute(collector.plan())
    assert target.objects() == lasting(ours)
    with open_alone(target) as repository:
        assert run_verify(repository, None, VerifyOptions(read_data=1)).ok
        assert restored(repository, newest, tmp_path / "out", source) == (contents(source), [])


def test_a_copy_settles_what_a_mirror_left(ours: Store, source: Path) -> None:
    target = Store("target")
    mirror_to(ours, target)
    broken = FaultyBackend(target)
    broken.script(Fault(kind="error_before", operation="store", repeat=True))
    with Repository.open(Mirrored([ours, broken], quorum=1), SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, source)
        drop_first(repository)
    assert any("/deleted/snapshots/" in name for name in ours.objects())
    mirror_to(ours, target)
    assert target.objects() == lasting(ours)
    assert [name for name in ours.objects() if name.startswith("mirror/")] == ["mirror/first"]


def test_what_was_the_first_copy_becomes_a_plain_one(ours: Store, source: Path) -> None:
    other = Store("other")
    mirror_to(ours, other)
    with Repository.open(Mirrored([ours, other]), SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, source)
    with Repository.open(Mirrored([other, ours]), SECRET) as repository, pytest.raises(InvalidRequest):
        back_up(repository, source)
    mirror_to(other, ours)
    with Repository.open(Mirrored([other, ours]), SECRET, environment=SMALL_PACKS) as repository:
        back_up(repository, source)
    assert lasting(ours) == lasting(other)


# --- with other keys ---


def transfer_to(ours: StorageBackend, target: StorageBackend, *ids: str) -> CopyResult:
    with open_alone(ours) as repository, open_alone(target, OTHER) as there:
        live = repository.snapshots.live()
        return copy_snapshots(repository, there, [m for m in live if not ids or m.id in ids])


def assert_same(ours: Store, target: Store, to: Path, source: Path) -> None:
    with open_alone(ours) as here, open_alone(target, OTHER) as there:
        assert run_verify(there, None, VerifyOptions(read_data=1.0)).findings == ()
        copies = {m.consistency[COPIED_FROM].partition("/")[2]: m for m in there.snapshots.live()}
        for manifest in here.snapshots.live():
            made = copies[manifest.id]
            one, errors = restored(here, manifest.id, to / "here" / manifest.id, source)
            two, more = restored(there, made.id, to / "there" / manifest.id, source)
            assert one == two
            assert errors == more == []
            assert (made.time_ns, made.host, made.source, made.tags, made.kind, made.paths) == (
                manifest.time_ns, manifest.host, manifest.source, manifest.tags, manifest.kind, manifest.paths,
            )  # fmt: skip


def test_snapshots_are_the_same_under_other_keys(ours: Store, tmp_path: Path, source: Path) -> None:
    target = theirs()
    result = transfer_to(ours, target)
    assert len(result.copied) == 2
    assert result.bytes > 0
    assert_same(ours, target, tmp_path, source)
    ids = {chunk for name in ours.objects() for chunk in [name] if name.startswith("packs/")}
    assert not ids & target.objects().keys()


def test_what_was_copied_is_not_copied_again(ours: Store, tmp_path: Path, source: Path) -> None:
    target = theirs()
    first = transfer_to(ours, target)
    before = target.objects()
    again = transfer_to(ours, target)
    assert (again.copied, again.already, again.bytes) == ((), tuple(old for old, _ in first.copied), 0)
    assert target.objects() == before


def test_what_is_deleted_here_after_it_was_copied_keeps_no_other_from_being_copied(ours: Store, source: Path) -> None:
    target = theirs()
    transfer_to(ours, target)
    with open_alone(ours) as repository:
        newest = repository.snapshots.live()[-1].id
        (source / "deep/fresh").write_bytes(b"fresh")
        made = back_up(repository, source)
        repository.snapshots.drop(newest, "a test", repository.clock)
    assert [old for old, _ in transfer_to(ours, target).copied] == [made]


def test_only_what_is_new_is_read_and_sent(ours: Store, tmp_path: Path, source: Path) -> None:
    target = theirs()
    transfer_to(ours, target)
    (source / "deep/fresh").write_bytes(random.Random(9).randbytes(50_000))
    with open_alone(ours) as repository:
        back_up(repository, source)
    reading = FaultyBackend(ours)
    result = transfer_to(reading, target)
    assert len(result.copied) == 1
    assert 50_000 < result.bytes < 120_000
    large = [name for name, data in ours.objects().items() if name.startswith("packs/") and len(data) > 100_000]
    read = {call.name for call in reading.calls if call.operation == "retrieve"}
    assert not read & set(large), "a file that did not change is not read"
    assert_same(ours, target, tmp_path, source)


def test_parents_and_the_chain_are_those_of_the_copies(ours: Store) -> None:
    target = theirs()
    pairs = dict(transfer_to(ours, target).copied)
    with open_alone(ours) as here, open_alone(target, OTHER) as there:
        olds = {m.id: m for m in here.snapshots.live()}
        news = there.snapshots.live()
        assert [m.previous for m in news] == [None, news[0].id]
        for old in olds.values():
            new = there.snapshots.get(pairs[old.id])
            assert new.parent == (pairs.get(old.parent) if old.parent else None)


def test_a_later_backup_builds_upon_a_copied_snapshot(ours: Store, source: Path) -> None:
    target = theirs()
    transfer_to(ours, target)
    with open_alone(ours) as here, open_alone(target, OTHER) as there:
        expected = here.snapshots.get(back_up(here, source))
        newest = there.snapshots.get(back_up(there, source))
        assert (newest.kind, newest.stats.bytes_read) == ("incremental", expected.stats.bytes_read)


def test_an_interrupted_copy_sends_nothing_twice(
    ours: Store, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "CHECKPOINT", 200_000)
    target = theirs()
    faulty = FaultyBackend(target)
    faulty.script(Fault(kind="crash_before", operation="store", prefix="snapshots/"))
    with pytest.raises(CrashPoint):
        transfer_to(ours, faulty)
    stored = sum(len(data) for name, data in target.objects().items() if name.startswith("packs/"))
    assert any(name.startswith("index/") for name in target.objects())
    transfer_to(ours, target)
    after = sum(len(data) for name, data in target.objects().items() if name.startswith("packs/"))
    assert after < stored * 1.4
    assert_same(ours, target, tmp_path, source)


def test_a_damaged_snapshot_is_not_committed(ours: Store) -> None:
    target = theirs()
    for name in [name for name in ours.objects() if name.startswith("packs/")]:
        ours.delete(name)
    with pytest.raises(CorruptedBackup):
        transfer_to(ours, target)
    with open_alone(target, OTHER) as there:
        assert there.snapshots.live() == []


def test_a_snapshot_does_not_come_back_to_where_it_came_from(ours: Store) -> None:
    target = theirs()
    transfer_to(ours, target)
    with open_alone(target, OTHER) as there, open_alone(ours) as here:
        result = copy_snapshots(there, here, there.snapshots.live())
    assert result.copied == ()
    assert len(result.already) == 2


def test_only_the_snapshots_that_were_asked_for(ours: Store, tmp_path: Path, source: Path) -> None:
    target = theirs()
    with open_alone(ours) as repository:
        newest = repository.snapshots.live()[-1]
    result = transfer_to(ours, target, newest.id)
    assert [old for old, _ in result.copied] == [newest.id]
    with open_alone(target, OTHER) as there:
        found, errors = restored(there, result.copied[0][1], tmp_path / "out", source)
    assert (found, errors) == (contents(source), [])
