"""Writing restored items: nothing leaves the target, no half file has a name, attributes survive, errors are typed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
from backstay.repository.nodes import Node
from backstay.sources import attributes, files_target, kernel
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory

MTIME = 1_600_000_000_123_456_789
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")


def node(name: bytes = b"name", mode: int = stat.S_IFREG | 0o640, **fields: Any) -> Node:
    base = {"uid": os.getuid(), "gid": os.getgid(), "user": "", "group": "", "size": 0, "mtime_ns": MTIME}
    return Node(name, mode, **{**base, **fields})


def file_node(data: bytes, **fields: Any) -> Node:
    return node(**{"size": len(data), "sha256": hashlib.sha256(data).digest(), **fields})


@pytest.fixture
def target(tmp_path: Path) -> FilesTarget:
    return FilesTarget(tmp_path / "out")


@pytest.fixture
def root(target: FilesTarget) -> Iterator[TargetDirectory]:
    directory = target.open_root(create=True)
    yield directory
    directory.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def no_leftovers(place: Path) -> bool:
    return not [name for _, dirs, files in os.walk(place) for name in dirs + files if name.startswith(".backstay-")]


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


# Other kinds


def test_directories(root: TargetDirectory, out: Path) -> None:
    inner = root.child(b"d", create=True)
    assert inner.path == b"d"
    deeper = inner.child(b"e", create=True)
    assert deeper.path == b"d/e"
    deeper.write_small(b"f", b"", file_node(b""))
    for directory, mode in ((deeper, 0o500), (inner, 0o2711)):
        directory.finish(node(mode=stat.S_IFDIR | mode))
        directory.close()
        directory.close()
    assert [stat.S_IMODE((out / name).stat().st_mode) for name in ("d/e", "d")] == [0o500, 0o2711]
    assert [(out / name).stat().st_mtime_ns for name in ("d/e", "d")] == [MTIME, MTIME]
    assert root.child(b"d", create=True).names() == [b"e"]
    with pytest.raises(NotFound):
        root.child(b"missing", create=False)
    (out / "file").touch()
    with pytest.raises(RestoreConflict):
        root.child(b"file", create=True)
    with pytest.raises(RestoreFailed):
        inner.names()


def test_symlinks_are_data(root: TargetDirectory, out: Path) -> None:
    for name, aim in ((b"abs", b"/etc/passwd"), (b"up", b"../../.."), (b"self", b"self"), (b"odd", b"\xff\n")):
        root.make_symlink(name, node(mode=stat.S_IFLNK | 0o777, target=aim))
        assert (out / name.decode()).readlink() == Path(os.fsdecode(aim))
        assert (out / name.decode()).lstat().st_mtime_ns == MTIME
        assert existing_equals(root, name, node(mode=stat.S_IFLNK | 0o777, target=aim))
        assert not existing_equals(root, name, node(mode=stat.S_IFLNK | 0o777, target=aim + b"x"))
    for bad in (None, b"", b"a\0b"):
        with pytest.raises(CorruptedBackup):
            root.make_symlink(b"bad", node(mode=stat.S_IFLNK | 0o777, target=bad))
    with pytest.raises(RestoreFailed):
        root.make_symlink(b"long", node(mode=stat.S_IFLNK | 0o777, target=b"x" * 5000))
    assert no_leftovers(out)


def test_fifos(root: TargetDirectory, out: Path) -> None:
    assert root.make_special(b"fifo", node(mode=stat.S_IFIFO | 0o666))
    info = (out / "fifo").lstat()
    assert (info.st_mode, info.st_mtime_ns) == (stat.S_IFIFO | 0o666, MTIME)
    assert existing_equals(root, b"fifo", node(mode=stat.S_IFIFO))
    assert not existing_equals(root, b"fifo", file_node(b"")), "and looking does not block"


def test_sockets_and_unwanted_devices_are_problems(tmp_path: Path) -> None:
    target = FilesTarget(tmp_path / "out", specials=False)
    root = target.open_root(create=True)
    assert not root.make_special(b"socket", node(mode=stat.S_IFSOCK | 0o600))
    assert not root.make_special(b"null", node(mode=stat.S_IFCHR | 0o600, device=os.makedev(1, 3)))
    assert [problem.path for problem in target.problems] == [b"socket", b"null"]
    assert root.names() == []


@needs_root
def test_devices(root: TargetDirectory, out: Path) -> None:
    device = node(mode=stat.S_IFCHR | 0o666, device=os.makedev(1, 3), uid=12, gid=34)
    assert root.make_special(b"null", device)
    info = (out / "null").lstat()
    assert (info.st_mode, info.st_rdev, info.st_uid, info.st_gid) == (stat.S_IFCHR | 0o666, os.makedev(1, 3), 12, 34)
    assert existing_equals(root, b"null", device)
    assert not existing_equals(root, b"null", node(mode=stat.S_IFCHR, device=os.makedev(1, 5)))


def test_hard_links(root: TargetDirectory, out: Path) -> None:
    inner = root.child(b"d", create=True)
    root.write_small(b"one", b"1", file_node(b"1"))
    inner.link(b"two", root, b"one")
    (out / "three").write_bytes(b"something else")
    root.link(b"three", inner, b"two")
    root.link(b"three", inner, b"two")
    assert {(out / name).stat().st_ino for name in ("one", "d/two", "three")} == {(out / "one").stat().st_ino}
    assert (out / "one").stat().st_nlink == 3
    with pytest.raises(RestoreFailed):
        root.link(b"x", root, b"missing")
    with pytest.raises(RestoreFailed):
        root.link(b"x", root, b"d")
    (out / "dir").mkdir()
    with pytest.raises(RestoreConflict):
        root.link(b"dir", root, b"one")
    assert no_leftovers(out)


def test_set_aside(root: TargetDirectory, out: Path) -> None:
    for expected in (b"f.backstay-old", b"f.backstay-old-2", b"f.backstay-old-3"):
        (out / "f").mkdir()
        assert root.set_aside(b"f") == expected
    long = b"x" * 255
    root.write_small(long, b"", file_node(b""))
    assert root.set_aside(long) == b"x" * 242 + b".backstay-old"
    with pytest.raises(RestoreFailed):
        root.set_aside(b"missing")


def test_set_aside_where_the_kernel_cannot_promise(
    root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(kernel, "_call", missing)
    for expected in (b"f.backstay-old", b"f.backstay-old-2"):
        (out / "f").touch()
        assert root.set_aside(b"f") == expected
    root.begin_file(b"large", 2 << 20, None).abandon()


def test_removing_deep_and_wide_trees(root: TargetDirectory, out: Path) -> None:
    directory = root.child(b"d", create=True)
    for number in range(50):
        directory.child(b"%d" % number, create=True).write_small(b"f", b"", file_node(b""))
    way = [directory]
    for _ in range(3000):
        way.append(way[-1].child(b"level", create=True))
    assert len(way[-1].path) > 3000 * 6
    way[-1].write_small(b"leaf", b"x", file_node(b"x"))
    for level in reversed(way):
        level.finish(node(mode=stat.S_IFDIR | 0o700))
        level.close()
    assert (out / "d").stat().st_mtime_ns == MTIME
    root.remove(b"d")
    assert root.names() == []


@needs_root
def test_removal_stops_at_mounts(root: TargetDirectory, out: Path) -> None:
    (out / "d/mnt").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", out / "d/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        (out / "d/mnt/precious").touch()
        with pytest.raises(RestoreFailed, match="mounted"):
            root.remove(b"d")
        assert (out / "d/mnt/precious").exists()
    finally:
        subprocess.run(["umount", out / "d/mnt"], check=True)


# Attributes


@needs_root
def test_owners_and_special_bits(root: TargetDirectory, out: Path) -> None:
    owned: dict[str, Any] = {"uid": 1234, "gid": 4321}
    root.write_small(b"f", b"x", file_node(b"x", mode=stat.S_IFREG | 0o6751, **owned))
    with root.begin_file(b"g", 1, None) as pending:
        pending.write_at(0, b"x")
        pending.commit(file_node(b"x", mode=stat.S_IFREG | 0o4711, **owned))
    root.make_symlink(b"l", node(mode=stat.S_IFLNK | 0o777, target=b"f", **owned))
    root.child(b"d", create=True).finish(node(mode=stat.S_IFDIR | 0o3775, **owned))
    for name, mode in (("f", 0o6751), ("g", 0o4711), ("l", 0o777), ("d", 0o3775)):
        info = os.lstat(out / name)
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1234, 4321, mode)


@needs_root
def test_owners_go_by_name_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "_uid_of", {"ann": 2000}.get)
    monkeypatch.setattr(attributes, "_gid_of", {"staff": 3000}.get)
    for numeric, user, group, expected in (
        (False, "ann", "staff", (2000, 3000)),
        (False, "bob", "", (1001, 1002)),
        (True, "ann", "staff", (1001, 1002)),
    ):
        root = FilesTarget(tmp_path / "out", numeric_ids=numeric).open_root(create=True)
        root.write_small(b"f", b"", file_node(b"", uid=1001, gid=1002, user=user, group=group))
        info = (tmp_path / "out/f").stat()
        assert (info.st_uid, info.st_gid) == expected


def test_special_rights_do_not_pass_to_another_owner(tmp_path: Path) -> None:
    root = FilesTarget(tmp_path / "out", owners=False).open_root(create=True)
    root.write_small(b"foreign", b"", file_node(b"", mode=stat.S_IFREG | 0o6755, uid=os.getuid() + 1))
    root.write_small(b"own", b"", file_node(b"", mode=stat.S_IFREG | 0o4755))
    assert [stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) for name in ("foreign", "own")] == [0o755, 0o4755]


@needs_root
def test_owners_that_cannot_be_set_are_problems(
    target: FilesTarget, root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", forbidden)
    root.write_small(b"f", b"", file_node(b"", mode=stat.S_IFREG | 0o4755, uid=5))
    assert [problem.message for problem in target.problems] == ["owner: operation not permitted"]
    assert stat.S_IMODE((out / "f").stat().st_mode) == 0o755


def test_extended_attributes(target: FilesTarget, root: TargetDirectory, out: Path) -> None:
    (out / "probe").touch()
    try:
        os.setxattr(out / "probe", "user.x", b"")
    except OSError:
        pytest.skip("no user attributes here")
    xattrs = ((b"user.a\xff", b""), (b"user.b", b"\0\xff" * 500))
    root.write_small(b"f", b"", file_node(b"", xattrs=xattrs, mode=stat.S_IFREG | 0o400))
    root.child(b"d", create=True).finish(node(mode=stat.S_IFDIR | 0o555, xattrs=xattrs))
    for name in ("f", "d"):
        assert {(os.fsencode(key), os.getxattr(out / name, key)) for key in os.listxattr(out / name)} == set(xattrs)
    assert not target.problems
    root.write_small(b"g", b"", file_node(b"", xattrs=((b"nonsense.x", b""), (b"a\0b", b""), (b"user.ok", b"1"))))
    assert os.getxattr(out / "g", "user.ok") == b"1"
    assert len(target.problems) == 2


@needs_root
def test_capabilities_and_access_lists(root: TargetDirectory, out: Path, target: FilesTarget) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    entries = ("01000600ffffffff", "02000400d2040000", "04000400ffffffff", "10000400ffffffff", "20000000ffffffff")
    acl = bytes.fromhex("02000000" + "".join(entries))
    (out / "probe").touch()
    try:
        os.setxattr(out / "probe", "security.capability", capability)
        os.setxattr(out / "probe", "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("not supported here")
    mode = stat.S_IFREG | 0o4640
    xattrs = ((b"security.capability", capability), (b"system.posix_acl_access", acl))
    root.write_small(b"f", b"x", file_node(b"x", uid=77, gid=88, mode=mode, xattrs=xattrs))
    assert (out / "f").stat().st_mode == mode
    assert {os.fsencode(key): os.getxattr(out / "f", key) for key in os.listxattr(out / "f")} == dict(xattrs)
    assert not target.problems


# What is there already


def test_existing_content(root: TargetDirectory, out: Path) -> None:
    (out / "f").write_bytes(b"data")
    (out / "d").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(out / "s"))
    same, other, shorter = file_node(b"data"), file_node(b"atad"), file_node(b"dat")
    assert existing_equals(root, b"f", same)
    assert not existing_equals(root, b"f", other)
    assert existing_equals(root, b"f", other, read_sha256=False)
    assert not existing_equals(root, b"f", shorter, read_sha256=False)
    assert not existing_equals(root, b"f", node(size=4)), "no digest proves nothing"
    assert not existing_equals(root, b"missing", same)
    assert not existing_equals(root, b"d", same)
    assert not existing_equals(root, b"f", node(mode=stat.S_IFDIR))
    assert existing_equals(root, b"d", node(mode=stat.S_IFDIR | 0o700))
    assert existing_equals(root, b"s", node(mode=stat.S_IFSOCK))
    (out / "l").symlink_to("f")
    assert not existing_equals(root, b"l", same), "a symlink to the same bytes is something else"


_AS_NOBODY = """
import os, stat, sys
from pathlib import Path
from backstay.errors import BackstayError
from backstay.repository.nodes import Node
from backstay.sources.files_target import FilesTarget
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
for where in ("closed", "closed/x"):
    try:
        FilesTarget(place / where).check()
    except BackstayError as error:
        print(error.code)
target = FilesTarget(place / "mine/out")
target.check()
root = target.open_root(create=True)
made = lambda mode, **fields: Node(b"n", mode, 0, 0, "root", "root", 0, 1, **fields)
for mode in (0o500, 0o000):
    for _ in range(2):
        child = root.child(b"d", create=True)
        child.write_small(b"f", b"", made(stat.S_IFREG | 0o4400))
        child.finish(made(stat.S_IFDIR | mode))
print(oct((place / "mine/out/d").stat().st_mode))
print(root.make_special(b"dev", made(stat.S_IFCHR | 0o600, device=259)))
print(root.make_special(b"fifo", made(stat.S_IFIFO | 0o600)))
try:
    root.child(b"d", create=False)
except BackstayError as error:
    print(error.code)
root.remove(b"d")
print(root.names(), [p.message for p in target.problems])
"""


@needs_root
def test_without_rights() -> None:
    place = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"backstay-nobody-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        (place / "closed").mkdir(mode=0o755)
        (place / "mine").mkdir()
        os.chown(place / "mine", 65534, 65534)
        packages = os.pathsep.join([str(Path(files_target.__file__).parents[2]), *filter(None, sys.path)])
        run = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, place],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": packages},
        )
        assert run.stdout.splitlines() == [
            "RestoreFailed",
            "RestoreFailed",
            "0o40000",
            "False",
            "True",
            "RestoreFailed",
            "[b'fifo'] ['device nodes are restored by root only']",
        ], run.stderr
    finally:
        subprocess.run(["rm", "-rf", place], check=True)
