"""Entries are captured whole: contents, holes, attributes."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from backstay.operations.backup.batches import WHOLE
from backstay.sources import extents
from backstay.sources.source import NEVER_SAME
from tests.sources.filesystem.reading import SMALL, capture, descend, opened, read_all, row, source, tree

# Capturing


def test_a_small_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o4751)
    os.utime(path, ns=(1, 1_600_000_000_000_000_001))
    got = capture(path)
    info = path.stat()
    assert got.data == b"content"
    assert got.stream is None
    assert got.stat == (b"file", info.st_mode, 7, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
    node = got.node
    assert (node.name, node.mode, node.size, node.mtime_ns) == (
        b"file",
        stat.S_IFREG | 0o4751,
        7,
        1_600_000_000_000_000_001,
    )
    assert (node.uid, node.gid, node.links, node.xattrs, node.extents, node.content) == (
        info.st_uid,
        info.st_gid,
        None,
        None,
        None,
        None,
    )
    if info.st_uid == 0:
        assert (node.user, node.group) == ("root", "root")


@pytest.mark.parametrize("size", [SMALL, SMALL + 1, 3 * SMALL])
def test_a_file_that_holds_more_than_its_size_says_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """As files of /proc do."""
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    directory = opened(tmp_path)
    entry = row(directory, b"file")
    fstat = os.fstat

    def claiming_nothing(fd: int) -> os.stat_result:
        info = fstat(fd)
        facts = {name: getattr(info, name) for name in dir(info) if name.startswith("st_")}
        return os.stat_result((*info[:6], 0, *info[7:]), facts)

    monkeypatch.setattr(os, "fstat", claiming_nothing)
    got = directory.capture((*entry[:2], 0, *entry[3:]), small=SMALL)
    if got.stream is None:
        assert (got.data, got.node.size) == (data, size)
        return
    assert read_all(got) == data
    stat_row, node = got.stream.close()
    assert (node.size, stat_row[2], stat_row[4]) == (size, size, NEVER_SAME)


def test_files_of_the_kernel_that_hand_out_no_large_piece() -> None:
    """As those of /proc/sys do, which take the memory for all that is asked for."""
    place = Path("/proc/sys/kernel/ostype")
    directory = opened(place.parent)
    assert directory.capture(row(directory, b"ostype"), small=WHOLE).data == place.read_bytes()


def test_a_small_file_is_read_with_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(WHOLE - 1))
    calls: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, at: int) -> bytes:
        calls.append(size)
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", counted)
    got = opened(tmp_path)
    assert len(got.capture(row(got, b"file"), small=WHOLE).data or b"") == WHOLE - 1
    assert calls == [WHOLE]


@pytest.mark.parametrize("ns", [-(10**18), -1, 0, 1, 4_102_444_800_123_456_789])
def test_times_long_ago_and_far_ahead(tmp_path: Path, ns: int) -> None:
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", ns=(ns, ns))
    got = capture(tmp_path / "file")
    assert got.node.mtime_ns == ns == got.stat[3]
    assert got.stat[4] != NEVER_SAME, "a time set by hand says nothing about the last change"


@pytest.mark.skipif(os.geteuid() != 0, reason="foreign owners need root")
def test_unknown_owners_have_no_names(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 123_456, 654_321)
    node = capture(tmp_path / "file").node
    assert (node.uid, node.gid, node.user, node.group) == (123_456, 654_321, "", "")


def test_reading_does_not_touch_the_access_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    os.utime(tmp_path / "file", ns=(1, 1))
    capture(tmp_path / "file")
    assert (tmp_path / "file").stat().st_atime_ns == 1


def test_other_kinds(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o640)
    (tmp_path / "dir").mkdir()
    os.symlink(b"no\xff/such", os.fsencode(tmp_path) + b"/dangling")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(tmp_path / "socket"))
    kinds = {"fifo": stat.S_ISFIFO, "dir": stat.S_ISDIR, "dangling": stat.S_ISLNK, "socket": stat.S_ISSOCK}
    for name, is_kind in kinds.items():
        got = capture(tmp_path / name)
        assert is_kind(got.node.mode)
        assert (got.data, got.stream, got.node.size, got.node.device) == (None, None, 0, None)
        assert got.node.target == (b"no\xff/such" if name == "dangling" else None)
        assert got.stat == row(opened(tmp_path), name.encode())


@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")
def test_device_nodes(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    assert capture(tmp_path / "null").node.device == os.makedev(1, 3)


def test_xattrs_of_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "dir").mkdir()
    try:
        os.setxattr(tmp_path / "file", "user.b", b"\0\xff")
        os.setxattr(tmp_path / "file", b"user.a\xff", b"")
        os.setxattr(tmp_path / "dir", "user.long", bytes(3000))
    except OSError:
        pytest.skip("no user attributes here")
    assert capture(tmp_path / "file").node.xattrs == ((b"user.a\xff", b""), (b"user.b", b"\0\xff"))
    assert capture(tmp_path / "file", small=0).stream is not None
    assert capture(tmp_path / "dir").node.xattrs == ((b"user.long", bytes(3000)),)


def test_xattrs_that_cannot_be_read_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    found = source(tmp_path)
    directory = descend(found.root(), tmp_path)
    for code, problems in ((errno.ENOTSUP, 0), (errno.EIO, 1)):

        def broken(*_: object, code: int = code, **__: object) -> list[str]:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "listxattr", broken)
        assert directory.capture(row(directory, b"file"), small=SMALL).data == b"x"
        assert len(found.problems) == problems


def test_names_of_one_inode_have_one_group(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b/other", "single")
    os.link(tmp_path / "a/1", tmp_path / "b/2")
    os.link(tmp_path / "b/other", tmp_path / "b/twin")
    os.symlink("x", tmp_path / "sym")
    os.link(tmp_path / "sym", tmp_path / "b/sym", follow_symlinks=False)
    group = {
        name: capture(tmp_path / name).node.links
        for name in ("a/1", "b/2", "b/other", "b/twin", "single", "sym", "b/sym", "a")
    }
    assert group["a/1"] == group["b/2"] != group["b/other"] == group["b/twin"]
    assert group["sym"] == group["b/sym"] is not None
    assert group["single"] is group["a"] is None
    assert len(group["a/1"] or b"") == 16
    (tmp_path / "a/1").chmod(0o600)
    assert capture(tmp_path / "b/2").node.links == group["a/1"]


def test_a_large_file_is_a_stream(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(1_000_001)
    (tmp_path / "file").write_bytes(data)
    got = capture(tmp_path / "file")
    assert got.data is None
    assert got.stream is not None
    assert got.stream.extents is None
    assert read_all(got) == data
    entry, node = got.stream.close()
    assert (entry, node.size) == (row(opened(tmp_path), b"file"), len(data))
    assert got.stream.close() == (entry, node)
    got.stream.abandon()
    got.stream.abandon()


LAYOUTS: list[tuple[int, list[tuple[int, bytes]]]] = [
    (1 << 20, []),
    (1 << 40, []),
    (1 << 40, [(1 << 39, b"island")]),
    (1 << 20, [(0, b"start")]),
    (1 << 20, [((1 << 20) - 3, b"end")]),
    (1 << 20, [(0, b"a" * 5000), (300_000, b"b"), (700_001, b"c" * 9999)]),
    (100_000, [(50_000, b"small file")]),
    (100_000, []),
]


@pytest.mark.parametrize(("size", "islands"), LAYOUTS)
@pytest.mark.parametrize("small", [0, 1 << 20])
def test_files_with_holes(tmp_path: Path, size: int, islands: list[tuple[int, bytes]], small: int) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
        for offset, island in islands:
            file.seek(offset)
            file.write(island)
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("no holes on this file system")
    got = capture(path, small=small)
    data = read_all(got, 777) if got.stream else got.data
    node = got.stream.close()[1] if got.stream else got.node
    assert data is not None
    assert node.extents is not None
    assert bool(node.extents) == bool(islands)
    assert node.size == size
    assert len(data) == sum(length for _, length in node.extents)
    for offset, expected in islands:
        assert _at(node.extents, data, offset, len(expected)) == expected
    if size < 1 << 30:
        whole = bytearray(size)
        done = 0
        for start, length in node.extents:
            whole[start : start + length] = data[done : done + length]
            done += length
        assert bytes(whole) == path.read_bytes()


def _at(found: Sequence[tuple[int, int]], data: bytes, offset: int, size: int) -> bytes:
    done = 0
    for start, length in found:
        if start <= offset < start + length:
            return data[done + offset - start :][:size]
        done += length
    raise AssertionError(f"offset {offset} lies in a hole")


def test_countless_holes_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "MAX_EXTENTS", 8)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        for number in range(100):
            file.seek(number * 512 * 1024)
            file.write(b"%03d" % number)
    fd = os.open(path, os.O_RDONLY)
    found = extents.data_extents(fd, 64 << 20)
    assert found is not None
    assert 0 < len(found) <= 8
    assert list(found) == sorted(found)
    held = b"".join(os.pread(fd, length, start) for start, length in found)
    assert held.replace(b"\0", b"") == b"".join(b"%03d" % number for number in range(100))
    os.close(fd)


def test_file_systems_that_do_not_tell_of_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 50_000)
    for code, outcome in ((errno.EINVAL, None), (errno.EIO, OSError)):

        def broken(*_: object, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "lseek", broken)
        if outcome is None:
            got = capture(path)
            assert (got.data, got.node.extents) == (bytes(50_000), None)
        else:
            with pytest.raises(outcome):
                capture(path)


def on_another_device(info: os.stat_result) -> os.stat_result:
    facts = {name: getattr(info, name) for name in dir(info) if name.startswith("st_")}
    return os.stat_result((*info[:2], info.st_dev + 1, *info[3:]), facts)


def test_names_of_one_inode_keep_their_group_when_its_disk_gets_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "a")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    before = capture(tmp_path / "a").node.links
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: on_another_device(fstat(fd)))
    assert capture(tmp_path / "b").node.links == before is not None


def test_names_on_a_copy_of_a_file_system_are_no_names_of_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same inodes and times, and lies on another device in another place."""
    tree(tmp_path, "original/a", "copy/")
    for place in ("original/b", "copy/a"):
        (tmp_path / place).hardlink_to(tmp_path / "original/a")
    fstat = os.fstat

    def split(fd: int) -> os.stat_result:
        info = fstat(fd)
        return on_another_device(info) if "/copy" in str(Path(f"/proc/self/fd/{fd}").readlink()) else info

    def links(place: bytes) -> bytes | None:
        inside = walked.enter(row(walked, place.partition(b"/")[0]))
        return inside.capture(row(inside, place.partition(b"/")[2]), small=SMALL).node.links

    monkeypatch.setattr(os, "fstat", split)
    walked = descend(source(tmp_path).root(), tmp_path)
    assert links(b"original/a") == links(b"original/b") != links(b"copy/a")
