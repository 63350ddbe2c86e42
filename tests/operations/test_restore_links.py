"""Hard links are those of the snapshot or are told: never a name for something else."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from backstay.core.clock import SystemClock
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore.in_place import InPlaceResult, restore_in_place
from backstay.operations.restore.request import Conflict
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.operations.snapshots.walk import EVERYTHING, Chooser
from backstay.repository.repository import Repository
from backstay.sources import entry_reader, kernel
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters, Selection
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from tests.sources.filesystem.reading import LateClock

Way: TypeAlias = Callable[[Repository, Path, Path, Conflict], RestoreResult | InPlaceResult]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two names of one file, in a directory each."""
    place = tmp_path / "tree"
    (place / "d").mkdir(parents=True)
    (place / "a").write_bytes(b"new content")
    (place / "d/b").hardlink_to(place / "a")
    return place


@pytest.fixture
def repository(tmp_path: Path, tree: Path) -> Iterator[Repository]:
    with Repository.create(LocalStorage(tmp_path / "repository"), Secret.new_keyfile()) as repository:
        back_up(repository, tree)
        yield repository


def back_up(repository: Repository, tree: Path) -> None:
    source = FilesystemSource([bytes(tree)], filters=Filters([]), clock=SystemClock())
    run_backup(repository, source, BackupOptions(host="host"))


def restored(repository: Repository, tree: Path, out: Path, conflict: Conflict) -> RestoreResult:
    newest = repository.snapshots.live()[-1]
    return run_restore(repository, newest, out, RestoreOptions(path=bytes(tree), conflict=conflict))


def lose_data(tmp_path: Path) -> None:
    for pack in (tmp_path / "repository/packs").rglob("*"):
        if pack.is_file():
            pack.unlink()


def test_no_link_to_what_was_not_restored(repository: Repository, tree: Path, tmp_path: Path) -> None:
    lose_data(tmp_path)
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "a").write_bytes(b"old content")
    (out / "d/b").write_bytes(b"another one")
    result = restored(repository, tree, out, "overwrite")
    assert sorted(item.path for item in result.errors) == [f"{tree}/a", f"{tree}/d/b"]
    assert "was not restored" in next(item.message for item in result.errors if item.path.endswith("b"))
    assert (out / "a").read_bytes() == b"old content"
    assert (out / "d/b").read_bytes() == b"another one"
    assert result.files == 0


def test_a_name_whose_file_is_lost_is_told_by_its_path(repository: Repository, tree: Path, tmp_path: Path) -> None:
    lose_data(tmp_path)
    result = restored(repository, tree, tmp_path / "out", "fail")
    assert sorted(item.path for item in result.errors) == [f"{tree}/a", f"{tree}/d/b"]
    assert not (tmp_path / "out/d/b").exists()


def in_place(repository: Repository, tree: Path, out: Path, conflict: Conflict) -> InPlaceResult:
    newest = repository.snapshots.live()[-1]
    return restore_in_place(repository, newest, RestoreOptions(path=bytes(tree), conflict=conflict), target=out)


WAYS = pytest.mark.parametrize("way", [restored, in_place])


@WAYS
@pytest.mark.parametrize("conflict", ["fail", "overwrite"])
@pytest.mark.parametrize("lost", ["a", "d/b", ""])
def test_equal_names_of_one_file_become_one_again(
    repository: Repository, tree: Path, tmp_path: Path, lost: str, conflict: Conflict, way: Way
) -> None:
    out = tmp_path / "out"
    restored(repository, tree, out, "fail")
    (out / (lost or "a")).unlink()
    if not lost:
        (out / "a").write_bytes(b"new content")
    way(repository, tree, out, conflict)
    assert (out / "a").stat().st_ino == (out / "d/b").stat().st_ino
    again = way(repository, tree, out, conflict)
    assert (again.files, again.unchanged) == (0, 2)


@WAYS
@pytest.mark.parametrize("conflict", ["skip", "newer"])
def test_names_that_are_equal_files_stay_so_where_what_is_there_may_stay(
    repository: Repository, tree: Path, tmp_path: Path, conflict: Conflict, way: Way
) -> None:
    out = tmp_path / "out"
    restored(repository, tree, out, "fail")
    (out / "a").unlink()
    way(repository, tree, out, conflict)
    assert (out / "a").stat().st_ino != (out / "d/b").stat().st_ino


@WAYS
def test_names_that_were_read_with_other_bytes_are_files_of_their_own(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """Somebody writes between the two readings, and puts the time back."""
    read, times = entry_reader._read_small, iter(range(1000))

    def written_between(fd: int, size: int) -> bytes:
        if next(times) == 1:
            before = (tree / "a").stat()
            (tree / "a").write_bytes(b"NEW CONTENT")
            os.utime(tree / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        return read(fd, size)

    monkeypatch.setattr(entry_reader, "_read_small", written_between)
    out = tmp_path / "out"
    with Repository.create(LocalStorage(tmp_path / "other"), Secret.new_keyfile()) as repository:
        source = FilesystemSource([bytes(tree)], filters=Filters([]), clock=LateClock())
        run_backup(repository, source, BackupOptions(host="host"))
        monkeypatch.undo()
        out.mkdir()
        for _ in range(2):
            way(repository, tree, out, "overwrite")
            assert [(out / name).read_bytes() for name in ("a", "d/b")] == [b"new content", b"NEW CONTENT"]


def test_few_open_files_are_enough_for_many_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tree"
    for number in range(600):
        inside = place / f"d{number}"
        inside.mkdir(parents=True)
        (inside / "f").write_bytes(b"%d" % number)
    with Repository.create(LocalStorage(tmp_path / "repository"), Secret.new_keyfile()) as repository:
        source = FilesystemSource([bytes(place)], filters=Filters([]), clock=SystemClock())
        run_backup(repository, source, BackupOptions(host="host"))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        few = len(os.listdir("/proc/self/fd")) + 250
        monkeypatch.setattr(kernel, "MAX_DESCRIPTORS", few)  # nobody raises it
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
        try:
            result = restored(repository, place, tmp_path / "out", "fail")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (result.files, result.errors) == (600, ())


def test_both_names_of_a_socket_are_told(repository: Repository, tree: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(bytes(tree / "s"))
    (tree / "s2").hardlink_to(tree / "s")
    back_up(repository, tree)
    result = restored(repository, tree, tmp_path / "out", "overwrite")
    assert (result.errors, [problem.path for problem in result.problems]) == ((), [b"s", b"s2"])


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
@pytest.mark.parametrize("is_root", [True, False])
def test_a_device_that_is_not_made_is_linked_to_nothing(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_root: bool
) -> None:
    try:
        os.mknod(tree / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    (tree / "dev2").hardlink_to(tree / "dev")
    back_up(repository, tree)
    out = tmp_path / "out"
    out.mkdir()
    (out / "dev").write_text("a file of somebody else")
    if is_root:
        monkeypatch.setattr(os, "mknod", refuse)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = restored(repository, tree, out, "overwrite")
    assert (result.errors, len(result.problems)) == ((), 2)
    assert sorted(os.listdir(out)) == ["a", "d", "dev"]
    assert (out / "dev").read_text() == "a file of somebody else"


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A tree with more directories below each other than Python lets calls nest, and a file with two names in it."""
    place = here = tmp_path / "deep"
    here.mkdir()
    for _ in range(1200):
        here /= "d"
        here.mkdir()
    (here / "first").write_bytes(b"content")
    (place / "e").mkdir()
    (place / "e/second").hardlink_to(here / "first")
    yield place
    subprocess.run(["rm", "-rf", place, tmp_path / "out"], check=True)  # what pytest calls nests


@pytest.mark.parametrize("chooser", [EVERYTHING, Selection([b"first", b"second"])])
def test_depth_does_not_matter(repository: Repository, deep: Path, tmp_path: Path, chooser: Chooser) -> None:
    back_up(repository, deep)
    out = tmp_path / "out"
    newest = repository.snapshots.live()[-1]
    result = run_restore(repository, newest, out, RestoreOptions(path=bytes(deep), chooser=chooser))
    assert (result.errors, result.files) == ((), 2)
    assert (out / "e/second").stat().st_nlink == 2
