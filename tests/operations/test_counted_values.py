"""Snapshots that the log of values counts on are not given up with others, and no collection runs without them."""

from __future__ import annotations

from hashlib import sha256

import pytest

from backstay.errors import CorruptedBackup
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.repair.result import RepairResult
from backstay.operations.repair.run import repair_snapshots
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.checking.values import FOLD_HINT
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.plan import CollectionPlan
from backstay.repository.format import RecordKind, drop_name, snapshot_name, values_name
from backstay.repository.logs.values import MEND_HINT
from backstay.repository.packs.stored import stored_packs
from backstay.repository.repository import Repository
from backstay.storage.mirrored import Mirrored
from tests.operations.copies import SECRET, SMALL_PACKS, Store
from tests.repository.referring import refer

SMALL, LARGE = b"small", bytes(range(251)) * 1000


def key(value: bytes) -> str:
    return "sha256:" + sha256(value).hexdigest()


@pytest.fixture
def store() -> Store:
    """With two values that a checkpoint has in its snapshot, and another snapshot beside it."""
    store = Store("here")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        cas = ContentAddressableStorage(repository)
        for value in (SMALL, LARGE):
            cas.store(value)
        refer(repository, [SMALL])
        cas.fold()
    return store


@pytest.fixture
def copy(store: Store) -> Store:
    return Store("there", store.objects())


@pytest.fixture
def counted(store: Store) -> str:
    """The snapshot that the checkpoint names."""
    with opened(store) as repository:
        (ulid,) = repository.values_log.refresh().snapshots
    return ulid


def opened(store: Store) -> Repository:
    return Repository.open(store, SECRET, environment=SMALL_PACKS)


def spoil(store: Store, name: str) -> None:
    data = bytearray(store.retrieve(name))
    data[len(data) // 2] ^= 1
    store.store(name, bytes(data), overwrite=True)


def drop(store: Store, ulid: str) -> None:
    """As another program may have done."""
    with opened(store) as repository:
        repository.snapshots.accept_loss(ulid, "test", repository.clock)


def collect(store: Store) -> None:
    with opened(store) as repository:
        collector = Collector(repository)
        collector.execute(collector.plan())


def heal(store: Store, copy: Store) -> RepairResult:
    with Repository.open(Mirrored([store, copy]), SECRET, environment=SMALL_PACKS) as repository:
        return heal_from_copy(repository, store, copy)


def assert_whole(store: Store) -> None:
    collect(store)
    with opened(store) as repository:
        assert run_verify(repository, options=VerifyOptions(read_data=1)).ok
        cas = ContentAddressableStorage(repository)
        assert [cas.retrieve(key(value)) for value in (SMALL, LARGE)] == [SMALL, LARGE]


@pytest.mark.parametrize("by_name", [False, True])
def test_values_in_an_unreadable_snapshot_come_back_from_a_copy_after_a_repair(
    store: Store, copy: Store, counted: str, *, by_name: bool
) -> None:
    spoil(store, snapshot_name(counted))
    with opened(store) as repository:
        result = repair_snapshots(repository, [counted] if by_name else None)
        assert (result.snapshots_dropped, result.snapshots_replaced) == ((), ())
        assert [(found.subject, found.hint) for found in result.findings] == [(snapshot_name(counted), MEND_HINT)]
    assert heal(store, copy).findings == ()
    assert_whole(store)


def test_an_unreadable_snapshot_may_go_when_its_values_were_given_up(store: Store, counted: str) -> None:
    spoil(store, snapshot_name(counted))
    with opened(store) as repository:
        ContentAddressableStorage(repository).fold(accept_loss=True)
        assert repair_snapshots(repository).snapshots_dropped == (counted,)
    collect(store)


def test_an_unreadable_snapshot_stays_while_the_log_of_values_may_name_it(
    store: Store, copy: Store, counted: str
) -> None:
    with opened(store) as repository:
        last = values_name(repository.values_log.refresh().last)
    for name in (snapshot_name(counted), last):
        spoil(store, name)
    with opened(store) as repository:
        result = repair_snapshots(repository)
        assert result.snapshots_dropped == ()
        assert [found.hint for found in result.findings] == [MEND_HINT]
    heal(store, copy)
    assert_whole(store)


def test_damaged_values_are_not_given_up_while_others_may_come_back(store: Store, copy: Store, counted: str) -> None:
    before = {info.name for info in store.list("packs/")}
    with opened(store) as repository:
        cas = ContentAddressableStorage(repository)
        lost = cas.store(LARGE[::-1])
        (_, other) = repository.values_log.refresh().snapshots
    for name in {info.name for info in store.list("packs/")} - before:
        store.delete(name)
    spoil(store, snapshot_name(counted))
    with opened(store) as repository:
        result = repair_snapshots(repository)
        assert [found.subject for found in result.findings if found.hint == MEND_HINT] == [
            snapshot_name(counted),
            snapshot_name(other),
        ]
        assert result.lost == ()
        assert repository.values_log.refresh().snapshots[0] == counted
    heal(store, copy)
    with opened(store) as repository:
        assert [found.path for found in repair_snapshots(repository).lost] == [f"/{lost[7:9]}/{lost[7:]}"]
    assert_whole(store)


def test_a_snapshot_that_counts_as_deleted_while_values_are_in_it_is_found_and_stops_collections(
    store: Store, counted: str
) -> None:
    drop(store, counted)
    with opened(store) as repository:
        findings = run_verify(repository).findings
        assert [(found.check, found.hint) for found in findings] == [("completeness", FOLD_HINT)]
        assert counted in findings[0].message
    with pytest.raises(CorruptedBackup, match="counts as deleted") as refused:
        collect(store)
    assert refused.value.hint == FOLD_HINT


def test_a_fold_saves_values_from_a_snapshot_that_counts_as_deleted(store: Store, counted: str) -> None:
    drop(store, counted)
    with opened(store) as repository:
        cas = ContentAddressableStorage(repository)
        folded = cas.fold()
        assert folded is not None
        assert folded.values == 2
        assert cas.fold() is None
    assert_whole(store)
    assert snapshot_name(counted) not in store.objects()


def test_a_fold_does_not_rely_on_packs_of_a_snapshot_that_counts_as_deleted(store: Store, counted: str) -> None:
    with opened(store) as repository:
        collector = Collector(repository)
        number = collector.plan().number
        packs = {digest: found for digest, found in stored_packs(store) if found[0] == RecordKind.DATA_PACK}
        collector.condemn(CollectionPlan(number, marked=(counted,), dead=packs))  # as one that overlooked its values
        collector.finish(number)
        collector.sweep()
    drop(store, counted)
    with opened(store) as repository, pytest.raises(CorruptedBackup):
        ContentAddressableStorage(repository).fold()


@pytest.mark.parametrize("step", ["decide", "remove dropped"])
def test_a_collection_under_way_stops_too(store: Store, counted: str, step: str) -> None:
    with opened(store) as repository:
        gone = refer(repository, [LARGE]).id
        repository.snapshots.drop(gone, "test", repository.clock)
        collector = Collector(repository)
        plan = collector.plan()
        if step == "decide":
            collector.condemn(plan)
        drop(store, counted)
        with pytest.raises(CorruptedBackup, match="counts as deleted"):
            collector.finish(plan.number) if step == "decide" else collector.execute(plan)
    assert snapshot_name(counted) in store.objects()


def test_a_snapshot_of_values_that_is_missing_stops_collections(store: Store, counted: str) -> None:
    store.delete(snapshot_name(counted))
    with pytest.raises(CorruptedBackup, match="a snapshot of values is missing") as refused:
        collect(store)
    assert refused.value.hint == MEND_HINT
    with opened(store) as repository:
        assert ("values", MEND_HINT) in [(found.subject, found.hint) for found in run_verify(repository).findings]


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_copy_brings_the_object_of_a_deleted_snapshot_back_and_says_that_it_stays_deleted(
    store: Store, copy: Store, counted: str, *, is_gone: bool
) -> None:
    drop(store, counted)
    if is_gone:
        store.delete(snapshot_name(counted))
    else:
        spoil(store, snapshot_name(counted))
    result = heal(store, copy)
    assert result.objects_healed == (snapshot_name(counted),)
    (finding,) = result.findings
    assert (finding.severity, finding.subject, finding.hint) == ("error", snapshot_name(counted), FOLD_HINT)
    assert drop_name(counted) in finding.message
    with opened(store) as repository:
        ContentAddressableStorage(repository).fold()
    assert_whole(store)


def test_of_another_deleted_snapshot_whose_object_is_back_a_copy_warns(store: Store) -> None:
    with opened(store) as repository:
        other = refer(repository, [LARGE]).id
    copy = Store("there", store.objects())
    drop(store, other)
    spoil(store, snapshot_name(other))
    assert [(found.severity, found.subject) for found in heal(store, copy).findings] == [
        ("warning", snapshot_name(other))
    ]
