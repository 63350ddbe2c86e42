"""Checks and repairs while collections and deletions run beside them: what goes on purpose is no damage."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.operations.repair.run import repair_index
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Repository
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
