"""Checks and repairs while collections and deletions run beside them: what goes on purpose is no damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest

from backstay.errors import CollectionBusy
from backstay.operations.repair import packs as pack_repair
from backstay.operations.repair.packs import PackRepair
from backstay.operations.repair.run import repair_index, repair_packs, repair_snapshots
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.snapshots.rewrite import DamageSurvey
from backstay.operations.verify.run import VerifyOptions, VerifyReport, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.format import pack_name
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.storage.backend import ObjectInfo, StorageBackend
from backstay.testing import FaultyBackend
from tests.operations.copies import SECRET, SMALL_PACKS, Store, back_up, make_repository, make_source, open_alone


class Meanwhile(FaultyBackend):
    """Something happens just before an operation on a name that begins so, the `at`-th since it was told."""

    def __init__(self, inner: StorageBackend) -> None:
        super().__init__(inner)
        self.awaited, self.left = ("", ""), 0
        self.act: Callable[[], None] = self.close

    def before(self, operation: str, prefix: str, act: Callable[[], None], at: int = 1) -> None:
        self.awaited, self.left, self.act = (operation, prefix), at, act

    def _come(self, operation: str, name: str) -> None:
        if operation == self.awaited[0] and name.startswith(self.awaited[1]):
            self.left -= 1
            if not self.left:
                self.act()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._come("list", prefix)
        return super().list(prefix)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._come("retrieve", name)
        return super().retrieve(name, start=start, length=length)

    def stat(self, name: str) -> ObjectInfo:
        self._come("stat", name)
        return super().stat(name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three snapshots of files that change."""
    source, made = make_source(tmp_path / "source"), Store("store")
    make_repository(made, source)
    for name in ("file-07", "file-11", "new"):
        (source / name).write_bytes(random.Random(name).randbytes(300_000))
    with open_alone(made) as repository:
        back_up(repository, source)
    return made


def delete_and_collect(store: Store) -> None:
    """One snapshot goes, and with it packs; what others need of them moves."""
    with open_alone(store) as repository:
        repository.snapshots.drop(repository.snapshots.live()[-2].id, "for a test", repository.clock)
        collector = Collector(repository)
        done = collector.execute(collector.plan())
        assert done.deleted_packs
        assert done.rewritten_bytes


@pytest.mark.parametrize(
    ("operation", "prefix", "at"),
    [
        ("retrieve", "index/", 1),  # segments were listed
        ("list", "packs/", 1),  # packs are about to be
        ("stat", "packs/", 1),  # packs are about to be read
        ("retrieve", "meta/", 1),  # snapshots are about to be walked, or packs read
        ("retrieve", "meta/", 3),
    ],
)
@pytest.mark.parametrize(
    "options", [VerifyOptions(read_data=1.0), VerifyOptions(), VerifyOptions(checks=("completeness",))]
)
def test_a_verification_finds_nothing_wrong(
    store: Store, operation: str, prefix: str, at: int, options: VerifyOptions
) -> None:
    backend = Meanwhile(store)
    with Repository.open(backend, SECRET, environment=SMALL_PACKS) as repository:
        assert repository.index.segments()
        backend.before(operation, prefix, lambda: delete_and_collect(store), at)
        assert run_verify(repository, None, options).findings == ()


@pytest.mark.parametrize(("prefix", "at"), [("packs/", 1), ("meta/", 1), ("index/", 1)])
def test_the_repair_of_an_index_misses_no_pack(store: Store, prefix: str, at: int) -> None:
    backend = Meanwhile(store)
    with Repository.open(backend, SECRET, environment=SMALL_PACKS) as repository:
        backend.before("list", prefix, lambda: delete_and_collect(store), at)
        result = repair_index(repository)
        assert (result.packs_removed, result.findings) == ((), ())
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


def collect_and_stop(repository: Repository) -> None:
    """A collection that condemns, and then waits."""
    collector = Collector(repository)
    collector.condemn(collector.plan())


def test_a_collection_whose_packs_another_deletes_says_so(store: Store) -> None:
    def collect() -> None:
        with open_alone(store) as other:
            faster = Collector(other)
            assert faster.execute(faster.plan()).rewritten_bytes

    backend = Meanwhile(store)
    with Repository.open(backend, SECRET, environment=SMALL_PACKS) as repository:
        repository.snapshots.drop(repository.snapshots.live()[-2].id, "for a test", repository.clock)
        collector = Collector(repository)
        plan = collector.plan()
        [(digest, (kind, *_)), *_] = plan.sparse.items()
        backend.before("retrieve", pack_name(kind, digest), collect)
        with pytest.raises(CollectionBusy, match="another collector was faster"):
            collector.execute(plan)
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


@pytest.mark.parametrize("collected", [False, True])
def test_a_snapshot_that_is_deleted_while_rules_are_applied_is_done(store: Store, collected: bool) -> None:
    with open_alone(store) as repository:
        plan = plan_prune(repository, RetentionRules(keep_last=1), now=repository.clock.now(), zone=UTC)
        first, *more = sorted(one.candidate.id for one in plan.dropped)
        assert more
        with open_alone(store) as other:
            other.snapshots.drop(first, "for a test", other.clock)
            if collected:
                collector = Collector(other)
                collector.execute(collector.plan())
        assert sorted(execute_prune(repository, plan).dropped) == [first, *more]
        assert len(repository.snapshots.live()) == 1


def test_the_repair_of_packs_goes_on_with_what_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs that were found damaged, and that a collection then deleted, are nothing to repair."""

    def verified(*args: object, **options: object) -> VerifyReport:
        report = run_verify(*args, **options)  # type: ignore[arg-type]
        delete_and_collect(store)
        return report

    with open_alone(store) as repository:
        for _, info in repository.index.packs():
            name = f"packs/{info.digest.hex()[:2]}/{info.digest.hex()}"
            if store.exists(name):
                store.store(name, store.retrieve(name)[:-1], overwrite=True)  # the tables, which the index has too
        monkeypatch.setattr(pack_repair, "run_verify", verified)
        result = repair_packs(repository)
        left = {name.rpartition("/")[2] for name in store.objects() if name.startswith("packs/")}
        assert result.packs_removed
        assert result.findings == ()
        assert not left.intersection(result.packs_removed)
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


def test_what_a_collection_condemned_does_not_count_as_damaged(store: Store) -> None:
    with open_alone(store) as repository:
        repository.snapshots.drop(repository.snapshots.live()[-2].id, "for a test", repository.clock)
        collect_and_stop(repository)
    with open_alone(store) as repository:
        result = PackRepair(repository, lambda _: None).run(None)
        assert (result.packs_removed, result.findings, result.waiting_for) == ((), (), ())
        assert not repository.collections.open_numbers()


def test_the_repair_of_snapshots_leaves_a_deleted_one_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = DamageSurvey.of
    done: list[str] = []

    def surveyed(self: DamageSurvey, manifest: Manifest) -> object:
        if not done:
            done.append(manifest.id)
            with open_alone(store) as other:
                for one in other.snapshots.live():
                    other.snapshots.drop(one.id, "for a test", other.clock)
                collector = Collector(other)
                collector.execute(collector.plan(allow_empty=True))
        return survey(self, manifest)

    monkeypatch.setattr(DamageSurvey, "of", surveyed)
    with open_alone(store) as repository:
        result = repair_snapshots(repository)
        assert (result.snapshots_replaced, result.snapshots_dropped, result.lost) == ((), (), ())
        assert repository.snapshots.live() == []
