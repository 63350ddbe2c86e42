"""What is in the place of a restored item goes only when that item is there."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

import pytest

from backstay.errors import StorageUnavailable
from backstay.operations.restore.contents import FileWriter
from backstay.operations.restore.request import Conflict
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.repository.repository import Environment, Repository
from backstay.sources import target_directory
from tests.crash.small_world import SECRET
from tests.operations.in_place_world import InPlaceWorld, write


@pytest.fixture
def world(tmp_path: Path) -> InPlaceWorld:
    found = InPlaceWorld(tmp_path)
    write(found.origin / "a", "held")
    (found.origin / "b").hardlink_to(found.origin / "a")
    found.snapshot()
    return found


def restored(world: InPlaceWorld, conflict: Conflict = "overwrite") -> RestoreResult:
    options = RestoreOptions(path=os.fsencode(world.origin), conflict=conflict)
    return run_restore(world.repository, world.manifest, world.place / "out", options)


def lose_data(world: InPlaceWorld) -> None:
    for info in list(world.repository.backend.list("packs/")):
        world.repository.backend.delete(info.name)
    world.repository = Repository.open(world.repository.backend, SECRET, environment=Environment(threads=1))


def there(world: InPlaceWorld) -> list[str]:
    out = world.place / "out"
    return sorted(str(path.relative_to(out)) for path in out.rglob("*"))


def test_a_directory_gives_way_to_a_file(world: InPlaceWorld) -> None:
    for name in ("a/old", "b/in/old"):
        write(world.place / "out" / name, "old")
    result = restored(world)
    assert (result.errors, result.problems, there(world)) == ((), (), ["a", "b"])
    assert (world.place / "out/a").samefile(world.place / "out/b")


MOVED: Final = pytest.mark.parametrize("conflict", ["overwrite", "rename"])


@MOVED
def test_a_directory_stays_where_the_file_cannot_be_restored(world: InPlaceWorld, conflict: Conflict) -> None:
    lose_data(world)
    for name in ("a/old", "b/in/old"):
        write(world.place / "out" / name, "old")
    assert len(restored(world, conflict).errors) == 2
    assert there(world) == ["a", "a/old", "b", "b/in", "b/in/old"]


def test_a_file_that_would_be_renamed_stays_where_the_new_one_cannot_be_restored(world: InPlaceWorld) -> None:
    lose_data(world)
    write(world.place / "out/a", "old")
    result = restored(world, "rename")
    assert (len(result.errors), result.renamed) == (2, 0)
    assert there(world) == ["a"]
    assert (world.place / "out/a").read_text() == "old"


def test_a_file_that_would_be_renamed_stays_where_the_directory_cannot_be_made(
    world: InPlaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(world.origin / "d/file", "held")
    world.snapshot()
    write(world.place / "out/d", "old")

    def fails(*_: object) -> bool:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    monkeypatch.setattr(target_directory, "make_directory", fails)
    result = restored(world, "rename")
    assert (result.errors[0].path, result.renamed) == (f"{world.origin}/d", 0)
    assert (world.place / "out/d").read_text() == "old"


def test_what_is_renamed_is_counted_once_the_new_item_is_there(world: InPlaceWorld) -> None:
    write(world.origin / "d/file", "held")
    world.snapshot()
    for name in ("a", "b/old", "d"):
        write(world.place / "out" / name, "old")
    assert restored(world, "rename").renamed == 3
    aside = ["a.backstay-old", "b.backstay-old", "b.backstay-old/old", "d.backstay-old"]
    assert there(world) == sorted(["a", "b", "d", "d/file", *aside])


@MOVED
@pytest.mark.parametrize("old", ["a", "a/old"])
def test_what_was_moved_is_back_when_the_restore_ends_too_early(
    world: InPlaceWorld, monkeypatch: pytest.MonkeyPatch, conflict: Conflict, old: str
) -> None:
    write(world.place / "out" / old, "old")

    def unreachable(*_: object) -> None:
        raise StorageUnavailable("the store is out of reach")

    monkeypatch.setattr(FileWriter, "write", unreachable)
    with pytest.raises(StorageUnavailable):
        restored(world, conflict)
    assert there(world) == (["a"] if old == "a" else ["a", "a/old"])


@pytest.mark.parametrize("conflict", ["fail", "overwrite", "newer", "rename"])
def test_nothing_gives_way_to_a_socket(world: InPlaceWorld, conflict: Conflict) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(os.fsencode(world.origin / "s"))
        other.bind(os.fsencode(world.origin / "t"))
        world.snapshot()
    write(world.place / "out/s/old", "old")
    write(world.place / "out/t", "old")
    result = restored(world, conflict)
    assert there(world) == ["a", "b", "s", "s/old", "t"]
    assert [(problem.path, "sockets" in problem.message) for problem in result.problems] == [(b"s", True), (b"t", True)]


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
def test_nothing_gives_way_to_a_device_that_only_root_may_make(
    world: InPlaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.mknod(world.origin / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    world.snapshot()
    write(world.place / "out/dev/old", "old")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = restored(world)
    assert there(world) == ["a", "b", "dev", "dev/old"]
    assert [problem.message for problem in result.problems] == ["device nodes are restored by root only"]
    monkeypatch.undo()
    monkeypatch.setattr(os, "mknod", _no_permission)
    assert len(restored(world).problems) == 1
    assert there(world) == ["a", "b", "dev", "dev/old"]


def _no_permission(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")
