"""What the index does not tell any more, or tells wrongly of packs, is nothing that a backup builds upon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import CorruptedBackup
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.repair.run import repair_index
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.collection.collector import Collector
from backstay.repository.format import RecordKind, index_name
from backstay.repository.repository import Repository
from tests.crash.small_world import MemorySource, Tree, content, read_back
from tests.operations.copies import SECRET, SMALL_PACKS, Store
from tests.operations.segments import split_by_kind

TREE: Tree = {path: path * 1000 for path in (b"/f/one", b"/d/two", b"/f/three", b"/d/x")}
VALUE = bytes(range(251)) * 1000


def opened(store: Store) -> Repository:
    return Repository.open(store, SECRET, environment=SMALL_PACKS)


def back_up(store: Store, tree: Tree = TREE) -> tuple[BackupResult, list[str]]:
    """By a program that has seen nothing yet; what was done, and the warnings."""
    told: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Warned):
            told.append(event.message)

    with opened(store) as repository:
        return run_backup(repository, MemorySource(tree), BackupOptions(host="host"), events=hear), told


@pytest.fixture
def store() -> Store:
    store = Store("here")
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    return store


@pytest.fixture
def segment(store: Store) -> str:
    """The index segment of the second of three backups."""
    segments: list[set[str]] = []
    for files in (1, 2, 4):
        back_up(store, dict([*TREE.items()][:files]))
        segments.append({info.name for info in store.list("index/")})
    (second,) = segments[1] - segments[0]
    return second


def cut(store: Store, name: str) -> None:
    store.store(name, store.retrieve(name)[:100], overwrite=True)


def emptied(store: Store, name: str) -> None:
    store.store(name, b"", overwrite=True)


def gone(store: Store, name: str) -> None:
    store.delete(name)


def packs_of(store: Store, segment: str) -> list[str]:
    with opened(store) as repository:
        digests = {digest.hex() for digest in repository.index.packs_of(bytes.fromhex(segment[-64:]))}
    return [info.name for info in store.list() if info.name[-64:] in digests and not info.name.startswith("index/")]


def assert_whole(store: Store) -> None:
    with opened(store) as repository:
        assert read_back(repository, repository.snapshots.shown()[-1]) == TREE


@pytest.mark.parametrize("spoil", [cut, gone])
def test_what_a_lost_segment_named_is_stored_again(
    store: Store, segment: str, spoil: Callable[[Store, str], None]
) -> None:
    spoil(store, segment)
    result, (message,) = back_up(store)
    assert result.bytes_read == sum(map(len, TREE.values()))
    assert "run `backstay repair index`" in message
    assert "everything is read" in message
    assert_whole(store)


@pytest.mark.parametrize("spoil", [cut, emptied, gone])
def test_what_packs_of_a_wrong_length_held_is_stored_again(
    store: Store, segment: str, spoil: Callable[[Store, str], None]
) -> None:
    packs = packs_of(store, segment)
    for name in packs:
        spoil(store, name)
    result, (message,) = back_up(store)
    assert result.bytes_read == sum(map(len, TREE.values()))
    assert message.startswith(f"{len(packs)} packs are missing from the repository, or cut short: everything is read")
    assert_whole(store)


def test_the_backup_after_that_builds_upon_it(store: Store, segment: str) -> None:
    gone(store, segment)
    back_up(store)
    result, told = back_up(store)
    assert (result.bytes_read, told) == (0, [])


def test_the_index_made_anew_makes_all_earlier_snapshots_good_to_build_upon(store: Store, segment: str) -> None:
    cut(store, segment)
    with opened(store) as repository:
        repair_index(repository)
    result, told = back_up(store)
    assert (result.bytes_read, told) == (0, [])


def test_packs_that_a_collection_deleted_are_not_missed(store: Store, segment: str) -> None:
    tree = {path: data for path, data in TREE.items() if path != b"/d/two"}
    back_up(store, tree)
    with opened(store) as repository:
        for manifest in repository.snapshots.live()[:-1]:
            repository.snapshots.drop(manifest.id, "test", repository.clock)
        collector = Collector(repository)
        collector.execute(collector.plan())
        assert index_name(bytes.fromhex(segment[-64:])) not in store.objects()
        assert set(repository.snapshots.live()[-1].packs) & repository.collections.deleted()
    result, told = back_up(store, tree)
    assert (result.bytes_read, told) == (0, [])


def test_what_a_collection_put_elsewhere_is_stored_again_when_the_segment_that_tells_is_damaged(store: Store) -> None:
    stays, goes = content(1, 40_000), content(2, 100_000)
    first, _ = back_up(store, {b"/stays": stays, b"/goes": goes})
    back_up(store, {b"/stays": stays})
    with opened(store) as repository:
        assert first.snapshot is not None
        repository.snapshots.drop(first.snapshot, "test", repository.clock)
        before = set(repository.index.segments())
        collector = Collector(repository)
        assert collector.execute(collector.plan()).rewritten_bytes >= len(stays)
        repository.reload_index()
        named = set(repository.snapshots.live()[-1].packs)
        after = set(repository.index.segments()) - before
        (moved,) = [name for name in after if named.isdisjoint(repository.index.packs_of(name))]
    cut(store, index_name(moved))
    result, (message,) = back_up(store, {b"/stays": stays})
    assert result.bytes_read == len(stays)
    assert message.startswith(f"{index_name(moved)} of the index cannot be read: everything is read")
    with opened(store) as repository:
        assert read_back(repository, repository.snapshots.live()[-1]) == {b"/stays": stays}


@pytest.mark.usefixtures("segment")
def test_a_foreign_object_in_the_index_makes_nothing_be_read_again(store: Store) -> None:
    store.store("index/.DS_Store", b"")
    result, told = back_up(store)
    assert (result.bytes_read, told) == (0, [])


@pytest.mark.usefixtures("segment")
def test_a_snapshot_of_another_writer_whose_segment_came_meanwhile_is_built_upon(store: Store) -> None:
    with opened(store) as early:
        assert early.index.segments()
        back_up(store, {**TREE, b"/f/one": b"1"})
        (newest,) = early.snapshots.live()[-1:]
        assert not early.index.finds_all(newest.packs)
        early.hide_missing_packs()
        assert early.findable([newest]) == [newest]


@pytest.mark.usefixtures("segment")
def test_what_is_readable_of_a_pack_that_was_cut_is_still_read(store: Store) -> None:
    with opened(store) as repository:
        number, pack = next(iter(repository.index.packs()))
        chunk = next(iter(pack.table.chunks()))[0]
        name = next(info.name for info in store.list() if info.name.endswith(pack.digest.hex()))
        store.store(name, store.retrieve(name)[:-1], overwrite=True)
        assert repository.hide_missing_packs() == {pack.digest}
        assert repository.index.find_reusable(chunk) is None
        place = repository.index.find(chunk)
        assert place is not None
        assert place.pack == number


@pytest.fixture
def value_segments(store: Store) -> dict[RecordKind, str]:
    """Of a value in a snapshot of its own: the segment of what it is, and that of what names it."""
    with opened(store) as repository:
        ContentAddressableStorage(repository).store(VALUE)
        return split_by_kind(repository)


@pytest.mark.parametrize("spoil", [cut, gone])
def test_a_fold_takes_over_no_value_whose_segment_was_lost(
    store: Store, value_segments: dict[RecordKind, str], spoil: Callable[[Store, str], None]
) -> None:
    spoil(store, value_segments[RecordKind.DATA_PACK])
    with opened(store) as repository:
        cas = ContentAddressableStorage(repository)
        with pytest.raises(CorruptedBackup):
            cas.fold()
        key = cas.store(VALUE)
        assert cas.fold() is not None
        assert cas.retrieve(key) == VALUE
