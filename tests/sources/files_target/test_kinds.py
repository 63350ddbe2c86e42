"""Every kind of entry comes back, and what cannot is a problem that is told."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from backstay.errors import (
    CorruptedBackup,
    NotFound,
    RestoreConflict,
    RestoreFailed,
)
from backstay.sources import kernel, target_directory
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory
from tests.sources.files_target.nodes import MTIME, file_node, needs_root, no_leftovers, node

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


def test_a_fifo_that_the_disk_does_not_take_fails_and_a_device_node_is_a_problem(
    target: FilesTarget, root: TargetDirectory, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM: a file system has no FIFOs; a container may not make device nodes (mknod(2))."""

    def refused(*_: object, **_of: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "mknod", refused)
    with pytest.raises(RestoreFailed, match="fifo"):
        root.make_special(b"fifo", node(mode=stat.S_IFIFO | 0o666))
    if os.geteuid() == 0:  # nobody else tries
        assert not root.make_special(b"null", node(mode=stat.S_IFCHR | 0o666, device=os.makedev(1, 3)))
        assert [problem.path for problem in target.problems] == [b"null"]
    assert no_leftovers(out)


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

    monkeypatch.setattr(kernel, "call", missing)
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
@pytest.mark.parametrize("is_tmpfs", [True, False])
def test_removal_stops_at_mounts(
    root: TargetDirectory, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tmpfs: bool
) -> None:
    (out / "d/mnt").mkdir(parents=True)
    (out / "d/before").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    kind = ["-t", "tmpfs", "tmpfs"] if is_tmpfs else ["--bind", outside]
    if subprocess.run(["mount", *kind, out / "d/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        (out / "d/mnt/precious").touch()
        with pytest.raises(RestoreFailed, match="mounted"):
            root.remove(b"d")
        assert sorted(os.listdir(out / "d")) == ["before", "mnt"]
        monkeypatch.setattr(target_directory, "mounted_within", lambda _: [])  # it was mounted a moment ago
        with pytest.raises(RestoreFailed, match="mounted"):
            root.remove(b"d")
        assert (out / "d/mnt/precious").exists()
    finally:
        subprocess.run(["umount", "-l", out / "d/mnt"], check=True)
