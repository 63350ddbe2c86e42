"""The program ends, or the power goes, at every change that storing, folding and deleting values makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from unittest.mock import patch

import pytest

from backstay.errors import BackstayError
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.repository import Repository
from backstay.repository.sessions import session as sessions_module
from backstay.repository.values import fold as fold_module
from backstay.storage.filesystem_seam import Filesystem
from backstay.testing import CrashPoint, FaultyFilesystem
from backstay.testing.filesystem import MUTATIONS
from tests.crash.scenarios import sample
from tests.crash.small_world import World, collect, content, verified
from tests.crash.test_stops import NeverSynced
from tests.crash.test_stops import cut_power as _cut_power
from tests.crash.test_stops import end_after as _end_after
from tests.crash.test_stops import end_before as _end_before

pytestmark = pytest.mark.crash
POINTS = 4  # for each deed and way to stop
BEFORE = [b"kept", content(1, 200_000), b"folded"]


@dataclass
class Books:
    """What was acknowledged, and what may be either way."""

    there: set[bytes] = field(default_factory=set)
    perhaps: set[bytes] = field(default_factory=set)


Act = Callable[[ContentAddressableStorage, Books], None]


def _store(cas: ContentAddressableStorage, books: Books) -> None:
    for value in (b"small", content(2, 180_000)):
        books.perhaps.add(value)
        cas.store(value)
        books.there.add(value)
        books.perhaps.discard(value)


def _batch(cas: ContentAddressableStorage, books: Books) -> None:
    values = {b"of a batch", content(3, 90_000), content(4, 90_000)}
    books.perhaps |= values
    with cas.batch() as batch:
        for value in sorted(values):
            batch.store(value)
    books.there |= values
    books.perhaps -= values


def _delete(cas: ContentAddressableStorage, books: Books) -> None:
    for value in BEFORE[:2]:
        books.there.discard(value)
        books.perhaps.add(value)
        assert cas.delete(_key(value))
        books.perhaps.discard(value)


def _fold(cas: ContentAddressableStorage, _books: Books) -> None:
    assert cas.fold() is not None


ACTS: dict[str, Act] = {"store": _store, "batch": _batch, "delete": _delete, "fold": _fold}


def _key(value: bytes) -> str:
    return sha256(value).hexdigest()


@dataclass(frozen=True)
class Deed:
    """A scenario of `test_stops`: one act on a repository with a fold, a large value and entries behind it."""

    run: Act
    books: Books

    def act(self, world: World, filesystem: Filesystem) -> None:
        with world.open(filesystem) as repository:
            self.run(ContentAddressableStorage(repository), self.books)


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    """Writers of an earlier life are known to be dead."""
    with patch.object(sessions_module, "LEASE", timedelta(0)), patch.object(fold_module, "MANY_ENTRIES", 1000):
        yield


@pytest.mark.parametrize("stop", [_end_before, _end_after, _cut_power])
@pytest.mark.parametrize("name", ACTS)
def test_acknowledged_values_survive(name: str, stop: Callable[..., None], tmp_path: Path) -> None:
    base = _prepared(tmp_path)
    filesystem = FaultyFilesystem()
    Deed(ACTS[name], Books()).act(base.copy(tmp_path / "counted"), filesystem)
    total = sum(1 for operation, _ in filesystem.calls if operation in MUTATIONS)
    for point in sample(total, POINTS, f"{name} {stop.__name__}"):
        world, books = base.copy(tmp_path / f"{point}"), Books(set(BEFORE))
        with suppress(CrashPoint):
            stop(world, Deed(ACTS[name], books), point)
        _assert_kept(world, books)


def _prepared(place: Path) -> World:
    world = World(place / "base")
    world.directory.mkdir()
    with world.create() as repository:
        cas = ContentAddressableStorage(repository)
        cas.store(BEFORE[2])
        cas.fold()
        for value in BEFORE[:2]:
            cas.store(value)
    return world


def _assert_kept(world: World, books: Books) -> None:
    """At once, and after the next fold and collection; then nothing is left over."""
    for step in range(3):
        with world.open() as repository:
            cas = ContentAddressableStorage(repository)
            there = {cas.retrieve(key) for key in cas.list()}
            assert books.there <= there <= books.there | books.perhaps
            assert verified(repository).ok
            if step == 0:
                cas.store(b"something to fold")
                books.there.add(b"something to fold")
            if step == 1:
                assert cas.fold() is not None
                collect(repository)
    names = {info.name.partition("/")[0] for info in world.storage().list()}
    assert "sessions" not in names
    assert len([*world.storage().list("values/")]) == 1
    assert len([*world.storage().list("snapshots/")]) - _fences(world) == 1


def _fences(world: World) -> int:
    with world.open() as repository:
        return len(repository.snapshots.taken()) - len(repository.snapshots.live())


def test_a_disk_that_is_never_waited_for_loses_values(tmp_path: Path) -> None:
    """The test of the test: some point shows that files were not synced."""
    base = _prepared(tmp_path)

    def kept(point: int) -> bool:
        world, books = base.copy(tmp_path / f"{point}"), Books(set(BEFORE))
        _cut_power(world, Deed(_store, books), point, NeverSynced)  # type: ignore[arg-type]
        try:
            _assert_kept(world, books)
        except (AssertionError, BackstayError):
            return False
        return True

    assert not all(kept(point) for point in range(1, 40))


_STORER = """
import sys
from backstay import ContentAddressableStorage, Repository
with Repository.open(sys.argv[1], password="x") as repository:
    cas = ContentAddressableStorage(repository)
    for number in range(100_000):
        value = b"%d" % number * (40_000 if number % 5 == 4 else 1)
        print(cas.store(value), flush=True)
"""


def test_killed_programs_have_stored_what_they_told(tmp_path: Path) -> None:
    Repository.create(str(tmp_path / "r"), password="x").close()
    told: list[str] = []
    for lines in (7, 23):
        program = subprocess.Popen([sys.executable, "-c", _STORER, tmp_path / "r"], stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        told += [program.stdout.readline().strip() for _ in range(lines)]
        program.kill()
        told += [line.strip() for line in program.stdout if len(line.strip()) == 71]
        program.wait()
        program.stdout.close()
    with Repository.open(tmp_path / "r", password="x") as repository:
        cas = ContentAddressableStorage(repository)
        assert cas.missing(told) == []
        assert cas.fold() is not None
        assert all(cas.retrieve(key) for key in told)
        assert verified(repository).ok
