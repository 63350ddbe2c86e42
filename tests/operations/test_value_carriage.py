"""Values go with the snapshots of graphs that refer to them: into other repositories, onto media, into copies."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from hashlib import sha256
from pathlib import Path

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import HoldViolation, ValueBusy, ValueInUse
from backstay.operations.copies.export import export_snapshots, import_snapshots
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.repair.run import repair_snapshots
from backstay.operations.retention.prune import plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from backstay.testing import MemoryStorage
from tests.operations.copies import SECRET, SMALL_PACKS
from tests.repository.referring import refer

NAMED = [b"one", b"two" * 50_000, b"three"]
OTHER = b"nobody refers to this"


def key(value: bytes) -> str:
    return "sha256:" + sha256(value).hexdigest()


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET, environment=SMALL_PACKS) as made:
        cas = ContentAddressableStorage(made)
        for number, value in enumerate([*NAMED[:2], OTHER]):
            cas.store(value, {"number": number})
        cas.fold()
        cas.store(NAMED[2], {"number": 3})
        yield made


def test_a_value_that_is_referred_to_stays(repository: Repository) -> None:
    cas = ContentAddressableStorage(repository)
    graph = refer(repository, NAMED)
    for value in NAMED:
        with pytest.raises(ValueInUse) as caught:
            cas.delete(key(value))
        assert isinstance(caught.value, HoldViolation)
        assert graph.id in str(caught.value)
    assert cas.discard([key(value) for value in (*NAMED, OTHER)]) == [key(OTHER)]
    assert cas.delete(key(NAMED[0]), force=True)
    assert [finding.subject for finding in run_verify(repository).findings] == [f"snapshot {graph.id}"]
    repository.snapshots.drop(graph.id, "test", repository.clock)
    assert cas.delete(key(NAMED[1]))
    assert run_verify(repository, options=VerifyOptions(read_data=1)).ok


def test_nothing_is_removed_while_a_reference_is_being_made(repository: Repository) -> None:
    cas = ContentAddressableStorage(repository)
    with repository.begin_session() as session:
        cas.intend(session.id)
        for refused in (lambda: cas.delete(key(OTHER)), lambda: cas.discard([key(OTHER)])):
            with pytest.raises(ValueBusy) as caught:
                refused()
            assert caught.value.transient
        assert cas.fold() is not None  # which carries the intent on
        with pytest.raises(ValueBusy):
            cas.delete(key(OTHER))
    assert cas.delete(key(OTHER))


def test_they_go_into_another_repository(repository: Repository) -> None:
    graph = refer(repository, NAMED)
    with Repository.create(MemoryStorage(), SECRET, environment=SMALL_PACKS) as other:
        there = ContentAddressableStorage(other)
        for _ in range(2):
            result = copy_snapshots(repository, other, repository.snapshots.live())
            assert len(result.copied) + len(result.already) == 1
            assert sorted(there.list()) == sorted(map(key, NAMED))
            assert [there.retrieve(key(value)) for value in NAMED] == NAMED
            assert there.info(key(NAMED[1])).metadata == {"number": 1}
        assert len(other.snapshots.shown()) == 1
        with pytest.raises(ValueInUse):
            there.delete(key(NAMED[0]))
        assert run_verify(other, options=VerifyOptions(read_data=1)).ok
    assert repository.snapshots.shown() == [graph]


def test_a_value_that_is_lost_does_not_keep_the_others(repository: Repository) -> None:
    graph = refer(repository, NAMED)
    ContentAddressableStorage(repository).delete(key(NAMED[0]), force=True)
    told: list[Event] = []
    with Repository.create(MemoryStorage(), SECRET, environment=SMALL_PACKS) as other:
        copy_snapshots(repository, other, [graph], events=told.append)
        assert sorted(ContentAddressableStorage(other).list()) == sorted(map(key, NAMED[1:]))
    assert any(isinstance(event, Warned) and key(NAMED[0]) in event.message for event in told)


def test_they_go_onto_a_medium_and_come_back(repository: Repository, tmp_path: Path) -> None:
    graph = refer(repository, NAMED)
    medium = LocalStorage(tmp_path / "medium", create=True)
    for expected in ((graph.id,), ()):
        assert export_snapshots(repository, medium, repository.snapshots.live()).exported == expected
    with repository.in_store(medium) as there:
        assert sorted(ContentAddressableStorage(there).list()) == sorted(map(key, NAMED))
        assert run_verify(there, options=VerifyOptions(read_data=1)).ok
    cas = ContentAddressableStorage(repository)
    repository.snapshots.drop(graph.id, "test", repository.clock)
    for value in NAMED:
        cas.delete(key(value))
    assert len(import_snapshots(repository, LocalStorage(tmp_path / "medium")).imported) == 1
    assert [cas.retrieve(key(value)) for value in NAMED] == NAMED


def test_a_copy_bit_for_bit_has_all_values(repository: Repository) -> None:
    cas, target = ContentAddressableStorage(repository), MemoryStorage()
    for step in range(3):
        copy_objects(repository, target)
        with repository.in_store(target) as there:
            assert [*ContentAddressableStorage(there).list()] == [*cas.list()]
            assert run_verify(there, options=VerifyOptions(read_data=1)).ok
        cas.store(b"more %d" % step)
        if step:
            cas.fold()
    assert len([*target.list("values/")]) == 1


def test_retention_does_not_look_at_them(repository: Repository) -> None:
    graph = refer(repository, NAMED)
    plan = plan_prune(repository, RetentionRules(keep_last=1), now=repository.clock.now(), zone=UTC)
    assert [decision.candidate.id for decision in plan.decisions] == [graph.id]


def test_a_collection_frees_what_was_removed(repository: Repository) -> None:
    cas = ContentAddressableStorage(repository)
    large = bytes(range(251)) * 4000
    cas.store(large)
    cas.fold()
    cas.delete(key(large))
    cas.fold()
    collector = Collector(repository)
    assert collector.execute(collector.plan()).freed_bytes > 0
    assert [cas.retrieve(key(value)) for value in (*NAMED, OTHER)] == [*NAMED, OTHER]
    assert run_verify(repository, options=VerifyOptions(read_data=1)).ok


def test_a_repair_gives_up_only_values_that_are_lost(repository: Repository) -> None:
    cas = ContentAddressableStorage(repository)
    before = {info.name for info in repository.backend.list("packs/")}
    lost = b"".join(sha256(b"%d" % number).digest() for number in range(8000))
    cas.store(lost)
    for name in {info.name for info in repository.backend.list("packs/")} - before:
        repository.backend.delete(name)
    repository.release()
    assert not run_verify(repository).ok
    repair_snapshots(repository)
    cas = ContentAddressableStorage(repository)
    assert sorted(cas.list()) == sorted(map(key, [*NAMED, OTHER]))
    assert [cas.retrieve(key(value)) for value in (*NAMED, OTHER)] == [*NAMED, OTHER]
    assert run_verify(repository).ok
