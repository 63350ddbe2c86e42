"""Writing restored items: nothing leaves the target, no half file has a name, attributes survive, errors are typed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InsufficientSpace,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    RestoreFailed,
)
from backstay.sources import files_target
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory
from tests.sources.files_target.nodes import MTIME, file_node, needs_root, no_leftovers, node

# Where a restore may go


def test_a_good_place_is_not_changed_by_looking(tmp_path: Path) -> None:
    FilesTarget(tmp_path / "a/b").check()
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotFound):
        FilesTarget(tmp_path / "a/b").open_root(create=False)


def test_places_that_cannot_take_a_restore(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, error in (
        ("/", InvalidRequest),
        (tmp_path / "file", InvalidRequest),
        (tmp_path / "file/below", InvalidRequest),
        ("/proc/nope", RestoreFailed),
        ("/proc", RestoreFailed),
        ("/sys/x", RestoreFailed),
    ):
        with pytest.raises(error):
            FilesTarget(Path(place)).check()
    FilesTarget(Path("/"), allow_root=True).check()


@needs_root
def test_read_only_and_full_file_systems(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        root = FilesTarget(tmp_path / "out").open_root(create=True)
        with pytest.raises(InsufficientSpace):
            root.begin_file(b"large", 64 << 20, None)
        with pytest.raises(InsufficientSpace):
            root.write_small(b"large", bytes(2 << 20), file_node(bytes(2 << 20)))
        with root.begin_file(b"sparse", 64 << 20, ((0, 2 << 20),)) as pending, pytest.raises(InsufficientSpace):
            pending.write_at(0, bytes(2 << 20))
        assert root.names() == []
        root.close()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        with pytest.raises(RestoreFailed, match="read-only"):
            FilesTarget(tmp_path / "out").check()
        root = FilesTarget(tmp_path / "out").open_root(create=False)
        with pytest.raises(RestoreFailed) as caught:
            root.write_small(b"x", b"", file_node(b""))
        assert "may write" in caught.value.hint
        root.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_symlink_to_the_target_is_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "link").symlink_to("one")
    target = FilesTarget(tmp_path / "link")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("two")
    target.open_root(create=True).write_small(b"x", b"", file_node(b""))
    assert (tmp_path / "one/x").exists()


def test_new_targets_are_private(root: TargetDirectory, out: Path) -> None:
    root.child(b"d", create=True)
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((out / "d").stat().st_mode) == 0o700


def test_sync(target: FilesTarget, root: TargetDirectory) -> None:
    root.write_small(b"x", b"1", file_node(b"1"))
    target.sync()


@needs_root
def test_each_file_system_that_was_written_to_is_synced_once(
    target: FilesTarget, root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [out / "mounted", out / "unused"]
    for place in places:
        place.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False).returncode:
            pytest.skip("cannot mount here")
    try:
        synced: list[int] = []
        monkeypatch.setattr(files_target, "sync_filesystem", lambda fd: synced.append(os.fstat(fd).st_dev))
        for name in (b"mounted", b"beside", b"mounted"):
            root.child(name, create=True).write_small(b"x", b"1", file_node(b"1"))
        target.sync()
        assert sorted(synced) == sorted([out.stat().st_dev, places[0].stat().st_dev])
    finally:
        for place in places:
            subprocess.run(["umount", "-l", place], check=False)


# Names

BAD_NAMES = [b"", b".", b"..", b"a/b", b"/abs", b"../x", b"a\0b", b"x" * 256, b"a//b", b"trailing/", b"x" * 4096]
ODD_NAMES = [
    b"C:\\x",
    b"a\\..\\b",
    b"x:ads",
    b"CON",
    b"dot.",
    b"space ",
    b"\xff\xfe",
    b"\x1b[31m",
    "\u202e".encode(),
    b"new\nline",
    b"...",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_names_are_refused(root: TargetDirectory, out: Path, name: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: root.write_small(name, b"", file_node(b"")),
        lambda: root.child(name, create=True),
        lambda: root.begin_file(name, 0, None),
        lambda: root.make_symlink(name, node(mode=stat.S_IFLNK | 0o777, target=b"x")),
        lambda: root.make_special(name, node(mode=stat.S_IFIFO | 0o600)),
        lambda: root.link(name, root, b"x"),
        lambda: root.link(b"x", root, name),
        lambda: root.remove(name),
        lambda: root.set_aside(name),
        lambda: root.lstat(name),
    ]
    for call in calls:
        with pytest.raises(CorruptedBackup):
            call()
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_kept(root: TargetDirectory, name: bytes) -> None:
    root.write_small(name, name, file_node(name))
    assert root.names() == [name]
    assert existing_equals(root, name, file_node(name))


# Escapes


@pytest.mark.parametrize("lead", ["../outside", "/absolute", "dangling", "self"])
def test_symlinks_in_the_target_are_never_followed(root: TargetDirectory, out: Path, tmp_path: Path, lead: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o750)
    (outside / "file").write_bytes(b"mine")
    aim = {"../outside": "../outside", "/absolute": str(outside), "dangling": "../outside/new", "self": "link"}[lead]
    (out / "link").symlink_to(aim)
    with pytest.raises(RestoreConflict) as caught:
        root.child(b"link", create=True)
    assert caught.value.paths == ("link",)
    with pytest.raises(RestoreConflict):
        root.child(b"link", create=False)
    root.write_small(b"link", b"new", file_node(b"new"))
    assert (out / "link").read_bytes() == b"new"
    assert not (out / "link").is_symlink()
    (out / "link").unlink()
    (out / "link").symlink_to(aim)
    with root.begin_file(b"link", 3, None) as pending:
        pending.write_at(0, b"big")
        pending.commit(file_node(b"big", mode=stat.S_IFREG | 0o777))
    (out / "link").unlink()
    (out / "link").symlink_to(aim)
    inner = root.child(b"link", create=True, replace_nondir=True)
    inner.write_small(b"file", b"new", file_node(b"new"))
    inner.finish(node(mode=stat.S_IFDIR | 0o777))
    assert [(path.name, path.read_bytes()) for path in outside.iterdir()] == [("file", b"mine")]
    assert outside.stat().st_mode == stat.S_IFDIR | 0o750


def test_removal_does_not_follow_symlinks(root: TargetDirectory, out: Path, tmp_path: Path) -> None:
    (tmp_path / "outside/sub").mkdir(parents=True)
    (tmp_path / "outside/file").touch()
    (out / "d/e").mkdir(parents=True)
    (out / "d/e/up").symlink_to("../../../outside")
    (out / "d/abs").symlink_to(tmp_path / "outside")
    (out / "link").symlink_to("../outside")
    root.remove(b"d")
    root.remove(b"link")
    root.remove(b"never there")
    assert not list(out.iterdir())
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["file", "sub"]


def test_links_are_made_to_symlinks_themselves(root: TargetDirectory, out: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (out / "sym").symlink_to("../secret")
    root.link(b"hard", root, b"sym")
    assert (out / "hard").is_symlink()
    assert (tmp_path / "secret").stat().st_nlink == 1


def test_a_symlink_swapped_in_during_the_restore_redirects_nothing(
    root: TargetDirectory, out: Path, tmp_path: Path
) -> None:
    """Somebody exchanges a directory for a symlink as fast as they can while files are written below it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    stop = threading.Event()

    def move_away() -> None:
        (out / "d").rename(out / f"was-{os.urandom(4).hex()}")

    def put_link() -> None:
        (out / "d").symlink_to(outside)

    def take_link() -> None:
        (out / "d").unlink()

    def swap() -> None:
        while not stop.is_set():
            for step in (move_away, put_link, take_link):
                with contextlib.suppress(FileNotFoundError, FileExistsError, IsADirectoryError):
                    step()

    thread = threading.Thread(target=swap)
    thread.start()
    written = 0
    try:
        for number in range(1500):
            try:
                inner = root.child(b"d", create=True, replace_nondir=bool(number % 2))
                inner.write_small(b"f%d" % number, b"x", file_node(b"x", mode=stat.S_IFREG | 0o777))
                with inner.begin_file(b"g", 1, None) as pending:
                    pending.write_at(0, b"y")
                    pending.commit(file_node(b"y"))
                inner.make_symlink(b"s", node(mode=stat.S_IFLNK | 0o777, target=b"t"))
                inner.make_special(b"p", node(mode=stat.S_IFIFO | 0o777))
                inner.remove(b"p")
                inner.finish(node(mode=stat.S_IFDIR | 0o755))
                inner.close()
                written += 1
                if number % 10 == 0:
                    root.remove(b"d")
            except (RestoreConflict, RestoreFailed):
                continue
    finally:
        stop.set()
        thread.join()
    assert written
    assert not list(outside.iterdir())
    assert outside.stat().st_mtime_ns != MTIME


# Files


def test_a_file_comes_back_whole(root: TargetDirectory, out: Path) -> None:
    root.write_small(b"f", b"data", file_node(b"data", mode=stat.S_IFREG | 0o444))
    info = (out / "f").stat()
    assert (out / "f").read_bytes() == b"data"
    assert (info.st_mtime_ns, stat.S_IMODE(info.st_mode)) == (MTIME, 0o444)
    root.write_small(b"f", b"", file_node(b""))
    assert (out / "f").read_bytes() == b""
    assert no_leftovers(out)


@pytest.mark.parametrize("ns", [-(10**18), -1, 0, 4_102_444_800_123_456_789])
def test_times_long_ago_and_far_ahead(root: TargetDirectory, out: Path, ns: int) -> None:
    root.write_small(b"f", b"", file_node(b"", mtime_ns=ns))
    root.make_symlink(b"l", node(mode=stat.S_IFLNK | 0o777, target=b"x", mtime_ns=ns))
    root.child(b"d", create=True).finish(node(mode=stat.S_IFDIR | 0o755, mtime_ns=ns))
    assert [os.lstat(out / name).st_mtime_ns for name in "fld"] == [ns] * 3


def test_impossible_times_and_owners_are_problems(target: FilesTarget, root: TargetDirectory) -> None:
    root.write_small(b"f", b"", file_node(b"", mtime_ns=1 << 100, uid=1 << 70))
    root.make_symlink(b"l", node(mode=stat.S_IFLNK | 0o777, target=b"x", mtime_ns=1 << 100, uid=1 << 70))
    assert {problem.path for problem in target.problems} == {b"f", b"l"}
    assert len(root.names()) == 2


def test_parts_may_come_in_any_order_from_several_threads(root: TargetDirectory, out: Path) -> None:
    data = os.urandom(2_000_003)
    pending = root.begin_file(b"f", len(data), None)
    assert not (out / "f").exists()

    def write(start: int) -> None:
        for offset in range(start * 10_000, len(data), 40_000):
            pending.write_at(offset, memoryview(data)[offset : offset + 10_000])

    threads = [threading.Thread(target=write, args=(n,)) for n in (3, 1, 0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pending.commit(file_node(data))
    assert (out / "f").read_bytes() == data
    assert existing_equals(root, b"f", file_node(data))
    pending.abandon()
    assert (out / "f").exists()


def test_short_writes_are_completed(root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_pwrite, real_write = os.pwrite, os.write
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_pwrite(fd, bytes(data)[:7], at))
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:3]))
    root.write_small(b"small", b"0123456789" * 9, file_node(b"0123456789" * 9))
    with root.begin_file(b"large", 90, None) as pending:
        pending.write_at(0, b"0123456789" * 9)
        pending.commit(file_node(b"0123456789" * 9))
    assert (out / "small").read_bytes() == (out / "large").read_bytes() == b"0123456789" * 9


def test_an_abandoned_file_leaves_nothing(root: TargetDirectory, out: Path) -> None:
    pending = root.begin_file(b"f", 10, None)
    pending.write_at(0, b"x")
    pending.abandon()
    pending.abandon()
    with pytest.raises(KeyError), root.begin_file(b"f", 10, None):
        raise KeyError
    assert not list(out.iterdir())


@pytest.mark.parametrize("call", ["utime", "chmod", "rename", "write"])
def test_a_failing_call_leaves_nothing_under_the_name(
    target: FilesTarget, root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, broken)
    if call in ("utime", "chmod"):
        root.write_small(b"f", b"1", file_node(b"1"))
        assert [problem.message for problem in target.problems] == [
            f"{'time' if call == 'utime' else 'mode'}: input/output error"
        ]
        return
    with pytest.raises(RestoreFailed, match="cannot write f: input/output error"):
        root.write_small(b"f", b"1", file_node(b"1"))
    if call == "rename":
        with pytest.raises(RestoreFailed):
            root.make_symlink(b"l", node(mode=stat.S_IFLNK, target=b"x"))
        with pytest.raises(RestoreFailed):
            root.begin_file(b"f", 0, None).commit(node())
    monkeypatch.undo()
    assert root.names() == []


def test_lies_about_sizes_are_refused(root: TargetDirectory, out: Path) -> None:
    with pytest.raises(CorruptedBackup):
        root.begin_file(b"f", -1, None)
    with pytest.raises(CorruptedBackup):
        root.begin_file(b"f", 10, ((5, 6),))
    with pytest.raises(CorruptedBackup):
        root.begin_file(b"f", 10, ((-5, 6),))
    with pytest.raises(BackstayError):
        root.begin_file(b"f", 1 << 63, ())
    with pytest.raises(BackstayError):
        root.begin_file(b"f", 1 << 80, None)
    with pytest.raises(CorruptedBackup):
        root.write_small(b"f", b"123", node(size=4))
    with pytest.raises(CorruptedBackup):
        root.write_small(b"f", b"123", node(size=10, extents=((0, 2),)))
    with root.begin_file(b"f", 10, None) as pending:
        for offset, data in ((9, b"12"), (-1, b"1"), (1 << 70, b"")):
            with pytest.raises(CorruptedBackup):
                pending.write_at(offset, data)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    "extents", [(), ((0, 4),), ((1 << 29, 5),), (((1 << 30) - 3, 3),), ((0, 1), (4096, 10), (1 << 28, 100))]
)
def test_holes_stay_holes(root: TargetDirectory, out: Path, extents: tuple[tuple[int, int], ...]) -> None:
    data = b"".join(bytes([65 + n]) * length for n, (_, length) in enumerate(extents))
    sparse = node(size=1 << 30, extents=extents, sha256=hashlib.sha256(data).digest())
    root.write_small(b"small", data, sparse)
    with root.begin_file(b"large", 1 << 30, extents) as pending:
        done = 0
        for start, length in extents:
            pending.write_at(start, data[done : done + length])
            done += length
        pending.commit(sparse)
    for name in (b"small", b"large"):
        info = (out / name.decode()).stat()
        assert info.st_size == 1 << 30
        assert info.st_blocks * 512 < 1 << 20
        assert existing_equals(root, name, sparse)
    with (out / "small").open("r+b") as file:
        file.seek((1 << 27) + 1)
        file.write(b"!")
    assert not existing_equals(root, b"small", sparse), "what lies in a hole counts"


def test_a_directory_in_the_way_of_a_file_is_a_conflict(root: TargetDirectory, out: Path) -> None:
    (out / "d").mkdir()
    with pytest.raises(RestoreConflict):
        root.write_small(b"d", b"", file_node(b""))
    with pytest.raises(RestoreConflict):
        root.make_symlink(b"d", node(mode=stat.S_IFLNK, target=b"x"))
    with pytest.raises(RestoreConflict), root.begin_file(b"d", 0, None) as pending:
        pending.commit(file_node(b""))
    assert no_leftovers(out)
