"""A backup stores nothing that a restore then refuses: what is beyond a limit is told, and the rest is there."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backstay.operations.backup import scan
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.snapshots import walk
from backstay.operations.verify import walking
from backstay.operations.verify.run import VerifyReport, run_verify
from backstay.repository.nodes import EARLIEST, LATEST, storable_time
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import decode_node, encode_node
from backstay.repository.trees.stat_stream import encode_page
from backstay.sources import metadata
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from tests.operations.copies import SECRET, SMALL_PACKS, Store, open_alone
from tests.sources.filesystem.reading import LateClock, capture

MEMORY = Path("/dev/shm")  # its file system keeps every time


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def store() -> Store:
    store = Store("here")
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    return store


def back_up(store: Store, *paths: Path) -> tuple[BackupResult, list[str]]:
    """And what it told."""
    source = FilesystemSource([bytes(path) for path in paths], filters=Filters([]), clock=LateClock())
    with open_alone(store) as repository:
        result = run_backup(repository, source, BackupOptions(host="host"))
    return result, [f"{Path(os.fsdecode(problem.path)).name}: {problem.message}" for problem in source.problems]


def restore(store: Store, to: Path) -> list[str]:
    with open_alone(store) as repository:
        newest = max(repository.snapshots.live(), key=lambda manifest: manifest.id)
        return [item.path for item in run_restore(repository, newest, to, RestoreOptions(verify=True)).errors]


def verify(store: Store) -> VerifyReport:
    with open_alone(store) as repository:
        return run_verify(repository)


SECOND = 10**9
TIMES = {
    "earlier": EARLIEST - 10 * SECOND,
    "earliest": EARLIEST + SECOND,
    "moon": -14_182_940 * SECOND,
    "far": (1 << 63) - 1,
    "farther": (1 << 63) + 1,
    "latest": LATEST,
    "later": LATEST + 10 * SECOND,
    "latest of all": (1 << 40) * SECOND,
}


def test_no_time_of_a_file_makes_a_snapshot_that_cannot_be_restored(store: Store, place: Path) -> None:
    tree = place / "tree"
    tree.mkdir()
    held = {}
    for name, ns in TIMES.items():
        for kind in ("file", "directory", "link"):
            item = tree / f"{name} {kind}"
            item.touch() if kind == "file" else item.mkdir() if kind == "directory" else item.symlink_to("x")
            os.utime(item, ns=(ns, ns), follow_symlinks=False)
            held[item.name] = item.lstat().st_mtime_ns
    (tree / "large").write_bytes(bytes(5 << 20))
    os.utime(tree / "large", ns=(TIMES["later"], TIMES["later"]))
    held["large"] = (tree / "large").stat().st_mtime_ns
    os.utime(tree, ns=(TIMES["later"], TIMES["later"]))
    held["tree"] = tree.stat().st_mtime_ns
    result, told = back_up(store, tree)
    outside = sorted(name for name, ns in held.items() if ns != storable_time(ns))
    if held["later file"] == TIMES["later"]:
        assert len(outside) == 11, "the file system keeps them, so they must be told"
    assert result.files_new == 2 * len(TIMES) + 1
    assert sorted(line.partition(":")[0] for line in told) == outside
    assert all("out of range, and stored as " in line for line in told)
    assert restore(store, place / "out") == []
    below = place / f"out/{tree}"
    for name, ns in held.items():
        item = below if name == "tree" else below / name
        assert item.lstat().st_mtime_ns == storable_time(ns), name
    assert verify(store).ok
    again, told_again = back_up(store, tree)
    assert sorted(told_again) == sorted(told), "as long as they are not stored as they are"
    assert again.files_new == 0
    assert again.files_changed == sum(not (tree / name).is_dir() for name in outside if name != "tree")


@given(st.integers(-(1 << 66), 1 << 66))
@example(EARLIEST - 1)
@example(LATEST + 1)
def test_every_time_that_a_file_can_have_is_read_back(ns: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as made:
        path = Path(made) / "file"
        path.touch()
        try:
            os.utime(path, ns=(ns, ns))
        except (OverflowError, OSError):
            return
        held = path.stat().st_mtime_ns
        got = capture(path)
        assert decode_node(encode_node(got.node)[5:]).mtime_ns == storable_time(held)
        assert encode_page([got.stat])


def test_a_tree_that_is_too_deep_is_told_and_the_rest_is_stored(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = 12
    deepest = place / "tree" / "/".join("abcdefghijkl")
    deepest.mkdir(parents=True)
    (place / "tree/top").write_bytes(b"top")
    limit = len(place.parts) + depth  # down to the last of the letters
    for module in (scan, walk, walking):
        monkeypatch.setattr(module, "MAX_DEPTH", limit)
    _, told = back_up(store, place / "tree")
    assert told == [f"l: {limit} directories lie below each other, this is the last"]
    assert restore(store, place / "out") == []
    assert (place / f"out/{place}/tree/top").read_bytes() == b"top"
    assert (place / f"out/{deepest}").parent.is_dir()
    assert verify(store).ok


def test_a_snapshot_that_is_too_deep_is_told_by_a_verification_as_well(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "a/b/c").mkdir(parents=True)
    back_up(store, place / "a")
    for module in (walk, walking):
        monkeypatch.setattr(module, "MAX_DEPTH", len(place.parts) + 1)
    assert ["too deeply" in finding.message for finding in verify(store).findings] == [True]
    assert restore(store, place / "out") == [str(place / "a/b/c")]


def test_attributes_that_are_too_large_are_left_out_and_told(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "tree").mkdir()
    for name, size in (("fits", 900), ("exceeds", 1100)):
        (place / "tree" / name).write_bytes(b"x")
        try:
            os.setxattr(place / "tree" / name, "user.x", bytes(size))
        except OSError:
            pytest.skip("not supported here")
    monkeypatch.setattr(metadata, "MAX_XATTRS", 1000)
    _, told = back_up(store, place / "tree")
    assert told == ["exceeds: its extended attributes are left out: they have more than 0 MiB"]
    assert restore(store, place / "out") == []
    below = place / f"out/{place}/tree"
    assert [len(os.listxattr(below / name)) for name in ("fits", "exceeds")] == [1, 0]
    assert (below / "exceeds").read_bytes() == b"x"


def test_attributes_that_could_not_be_read_once_are_read_by_the_next_backup(
    store: Store, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = place / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "small").write_bytes(b"x")
    (tree / "large").write_bytes(bytes(5 << 20))
    (tree / "link").symlink_to("x")
    listed = os.listxattr
    items = ["directory", "large", "link", "small", "tree"]

    def broken(item: int | bytes, *, follow_symlinks: bool = True) -> list[str]:
        del follow_symlinks
        where = Path(f"/proc/self/fd/{item}").readlink() if isinstance(item, int) else os.fsdecode(item)
        name = Path(where).name
        if name in items:
            raise OSError(errno.EIO, "Input/output error")
        return listed(item)

    with monkeypatch.context() as once:
        once.setattr(os, "listxattr", broken)
        first, told = back_up(store, tree)
    assert sorted(told) == [f"{name}: its extended attributes are left out: input/output error" for name in items]
    assert all(problem.is_stored for problem in first.errors)
    second, told = back_up(store, tree)
    assert (second.files_changed, told) == (3, [])
    third, _ = back_up(store, tree)
    assert third.files_changed == 0


def test_a_user_whose_name_is_no_text_goes_by_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ("m\udce4x", "x", 4242, 4242, "", "/", "/bin/sh")
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: pwd.struct_passwd(known))
    monkeypatch.setattr("grp.getgrgid", lambda _gid: grp.struct_group(("g\udcff", "x", 4242, [])))
    owners = metadata.Owners()
    assert (owners.user(4242), owners.group(4242)) == ("", "")
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: pwd.struct_passwd(("mäx", *known[1:])))
    assert metadata.Owners().user(4242) == "mäx"
