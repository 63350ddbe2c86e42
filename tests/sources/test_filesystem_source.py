"""Listing and capturing real directories: odd names, holes, changes meanwhile, permissions, depth and size."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.core.names import printable
from backstay.errors import InvalidRequest, NotFound
from backstay.sources import extents, filesystem, metadata
from backstay.sources.entry_reader import EntryChanged
from backstay.sources.filesystem import CACHE_SIGNATURE, FilesystemSource, OpenDirectory
from backstay.sources.filters import Filters
from backstay.sources.source import NEVER_SAME, PAGE_ENTRIES, Capture, Stat
from backstay.testing.clock import FakeClock

SMALL = 128 << 10
LATER = 3600 * 10**9

HOSTILE_NAMES = [
    *(b"plain", b"with space", b"-rf", b"new\nline", b"\xff\xfe", b"back\\slash", b"*?[x]", b"x" * 255, b"\x1b[31mred"),
    *(b"..data", b"...", b"\x7f", b" ", b"C:\\x"),
    *(text.encode() for text in ("\u00e9", "e\u0301", "\u6f22\U0001f642", "\u202egpj.exe")),
]


class LateClock(SystemClock):
    """An hour ahead, so that nothing counts as changed a moment ago."""

    def now_ns(self) -> int:
        return super().now_ns() + LATER


def source(*paths: Path | bytes, **options: object) -> FilesystemSource:
    patterns = options.pop("patterns", ())
    filters = Filters(patterns, **options)  # type: ignore[arg-type]
    return FilesystemSource([os.fsencode(path) for path in paths], filters=filters, clock=LateClock())


def rows(directory: OpenDirectory) -> list[Stat]:
    return [entry for page in directory.pages() for entry in page]


def names(directory: OpenDirectory) -> list[bytes]:
    return [entry[0] for entry in rows(directory)]


def row(directory: OpenDirectory, name: bytes) -> Stat:
    return next(entry for entry in rows(directory) if entry[0] == name)


def descend(directory: OpenDirectory, path: Path | bytes) -> OpenDirectory:
    for name in os.fsencode(path).strip(b"/").split(b"/"):
        directory = directory.enter(row(directory, name))
    return directory


def opened(path: Path, **options: object) -> OpenDirectory:
    return descend(source(path, **options).root(), path)


def capture(path: Path, *, small: int = SMALL) -> Capture:
    directory = opened(path.parent)
    return directory.capture(row(directory, os.fsencode(path.name)), small=small)


def walk(directory: OpenDirectory) -> Iterator[bytes]:
    for entry in rows(directory):
        yield directory.path.rstrip(b"/") + b"/" + entry[0]
        if stat.S_ISDIR(entry[1]):
            yield from walk(directory.enter(entry))


def below(root: Path, found: FilesystemSource) -> list[str]:
    """Every path of the source that lies below `root`, relative to it."""
    prefix = os.fsencode(root) + b"/"
    return sorted(os.fsdecode(path.removeprefix(prefix)) for path in walk(found.root()) if path.startswith(prefix))


def tree(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(path.encode())


# Which paths


def test_the_root_shows_only_what_leads_to_the_paths(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/1", "a/c/2", "a/d/3", "e")
    found = source(tmp_path / "a/b", tmp_path / "a/c")
    assert below(tmp_path, found) == ["a", "a/b", "a/b/1", "a/c", "a/c/2"]
    assert names(found.root()) == [os.fsencode(tmp_path.parts[1])]
    way = descend(found.root(), tmp_path)
    assert row(way, b"a")[5] == (tmp_path / "a").stat().st_ino
    assert way.capture(row(way, b"a"), small=0).node.mtime_ns == (tmp_path / "a").stat().st_mtime_ns


def test_nested_and_repeated_paths_collapse(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/1", "a/2")
    found = source(tmp_path / "a/b", tmp_path / "a", tmp_path / "a/b/../b/", tmp_path / "a")
    assert below(tmp_path, found) == ["a", "a/2", "a/b", "a/b/1"]
    assert list(found.paths) == [os.fsencode(tmp_path / "a/b"), os.fsencode(tmp_path / "a")]


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a/1")
    monkeypatch.chdir(tmp_path / "a")
    assert source(b".").paths == (os.fsencode(tmp_path / "a"),)
    assert source(b"//etc/../etc").paths == (b"/etc",)


def test_the_root_itself(tmp_path: Path) -> None:
    found = source(b"/")
    assert set(names(found.root())) == {os.fsencode(name) for name in os.listdir("/")}
    assert found.root().path == b"/"


def test_a_single_file_and_a_symlink_are_paths_too(tmp_path: Path) -> None:
    tree(tmp_path, "dir/1")
    (tmp_path / "link").symlink_to("dir")
    assert below(tmp_path, source(tmp_path / "dir/1", tmp_path / "link")) == ["dir", "dir/1", "link"]
    assert capture(tmp_path / "link").node.target == b"dir"


def test_symlinks_on_the_way_are_resolved(tmp_path: Path) -> None:
    tree(tmp_path, "real/1")
    (tmp_path / "link").symlink_to("real")
    found = source(tmp_path / "link/1")
    assert below(tmp_path, found) == ["real", "real/1"]
    assert found.paths == (os.fsencode(tmp_path / "link/1"),)


def test_missing_paths(tmp_path: Path) -> None:
    tree(tmp_path, "1")
    found = source(tmp_path / "1", tmp_path / "missing", tmp_path / "1/below")
    assert [problem.path for problem in found.problems] == [
        os.fsencode(tmp_path / "missing"),
        os.fsencode(tmp_path / "1/below"),
    ]
    assert below(tmp_path, found) == ["1"]
    with pytest.raises(NotFound, match="missing"):
        source(tmp_path / "missing")
    for nothing in ([], [b""], [b"a\0b"]):
        with pytest.raises(InvalidRequest):
            FilesystemSource(nothing, filters=Filters([]), clock=SystemClock())


def test_a_named_path_that_vanishes_is_a_problem(tmp_path: Path) -> None:
    tree(tmp_path, "1")
    found = source(tmp_path / "1")
    (tmp_path / "1").unlink()
    assert below(tmp_path, found) == []
    assert [problem.path for problem in found.problems] == [os.fsencode(tmp_path / "1")]


# Listing


def test_names_are_bytes_in_order_and_stats_are_whole(tmp_path: Path) -> None:
    for name in HOSTILE_NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    (tmp_path / "dir").mkdir()
    listed = rows(opened(tmp_path))
    assert [entry[0] for entry in listed] == sorted([*HOSTILE_NAMES, b"dir"])
    for name, mode, size, mtime, ctime, inode in listed:
        info = os.lstat(os.fsencode(tmp_path) + b"/" + name)
        assert (mode, mtime, ctime, inode) == (info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
        assert size == (0 if name == b"dir" else len(name))


@pytest.mark.parametrize("count", [0, 1, PAGE_ENTRIES - 1, PAGE_ENTRIES, PAGE_ENTRIES + 1])
def test_pages_hold_every_entry_once(tmp_path: Path, count: int) -> None:
    for number in range(count):
        os.mknod(tmp_path / f"{number * 7919 % 100_003:06d}")
    pages = list(opened(tmp_path).pages())
    assert all(len(page) <= PAGE_ENTRIES for page in pages)
    assert [entry[0] for page in pages for entry in page] == sorted(map(os.fsencode, os.listdir(tmp_path)))


def test_a_large_directory_does_not_fill_the_memory(memory_directory: Path) -> None:
    first = memory_directory / "seed"
    first.touch()
    for group in range(4):  # links, because they are made faster than files
        seed = memory_directory / f"seed{group}"
        seed.touch()
        for number in range(50_000):
            os.link(seed, memory_directory / f"entry-{group}-{number:06d}")
    directory = opened(memory_directory)
    tracemalloc.start()
    try:
        count = sum(len(page) for page in directory.pages())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200_005
    assert peak < 200_000 * 90, "names alone, and one page of stats"


@pytest.fixture
def memory_directory(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    place = shared / f"backstay-test-{os.getpid()}"
    place.mkdir()
    try:
        yield place
    finally:
        subprocess.run(["rm", "-rf", place], check=True)


@pytest.fixture
def bottomless(tmp_path: Path) -> Iterator[Path]:
    """A place for trees so deep that Python's own clean-up cannot remove them."""
    yield tmp_path
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_trees_deeper_than_any_path(bottomless: Path) -> None:
    depth, tmp_path = 3000, bottomless
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("level", dir_fd=fd)
        inner = os.open("level", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    found = source(tmp_path)
    way = [descend(found.root(), tmp_path)]
    for _ in range(depth):
        way.append(way[-1].enter(row(way[-1], b"level")))
    assert names(way[-1]) == [b"leaf"]
    assert way[-1].capture(row(way[-1], b"leaf"), small=SMALL).data == b""
    assert len(way[-1].path) > depth * 6
    for directory in way:
        directory.close()
        directory.close()
    assert not found.problems


def test_entries_that_vanish_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, *(f"{number:05d}" for number in range(PAGE_ENTRIES + 10)))
    directory = opened(tmp_path)
    pages = directory.pages()
    first = next(pages)
    assert len(first) == PAGE_ENTRIES
    for number in range(PAGE_ENTRIES, PAGE_ENTRIES + 5):
        (tmp_path / f"{number:05d}").unlink()
    assert [entry[0] for page in pages for entry in page] == [
        b"%05d" % n for n in range(PAGE_ENTRIES + 5, PAGE_ENTRIES + 10)
    ]


def test_entries_that_cannot_be_examined_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, *(f"{number:05d}" for number in range(PAGE_ENTRIES + 10)))
    found = source(tmp_path)
    directory = descend(found.root(), tmp_path)
    real = os.stat

    def broken(path: object, **options: object) -> os.stat_result:
        if path == b"00007":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", broken)
    assert len(rows(directory)) == PAGE_ENTRIES + 9
    assert [(problem.path, problem.message) for problem in found.problems] == [
        (os.fsencode(tmp_path / "00007"), "input/output error")
    ]


def test_excludes(tmp_path: Path) -> None:
    tree(tmp_path, "a/x.tmp", "a/y", "cache/z", "b/cache/q", "b/w", "b/.git/config")
    found = source(tmp_path, patterns=[b"*.tmp", os.fsencode(tmp_path) + b"/cache", b".git/"])
    assert below(tmp_path, found) == ["a", "a/y", "b", "b/cache", "b/cache/q", "b/w"]


def test_excludes_in_a_large_directory(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{number:05d}.{number % 2}" for number in range(PAGE_ENTRIES * 2)))
    assert len(rows(opened(tmp_path, patterns=[b"*.1"]))) == PAGE_ENTRIES


def test_what_is_named_is_never_excluded(tmp_path: Path) -> None:
    tree(tmp_path, "tmp/a", "tmp/keep/b", "tmp/keep/tmp/c")
    found = source(tmp_path / "tmp", tmp_path / "tmp/keep", patterns=[b"tmp", b"keep"])
    assert below(tmp_path, found) == ["tmp", "tmp/a", "tmp/keep", "tmp/keep/b"]


def test_caches_keep_only_their_tag(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "cache/x",
        "cache/CACHEDIR.TAG",
        "cache/sub/y",
        "fake/x",
        "fake/CACHEDIR.TAG",
        "odd/x",
        "odd/CACHEDIR.TAG/z",
    )
    (tmp_path / "cache/CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE + b"\n# made by a test\n")
    kept = [
        "cache",
        "cache/CACHEDIR.TAG",
        "fake",
        "fake/CACHEDIR.TAG",
        "fake/x",
        "odd",
        "odd/CACHEDIR.TAG",
        "odd/CACHEDIR.TAG/z",
        "odd/x",
    ]
    assert below(tmp_path, source(tmp_path)) == kept
    assert "cache/x" in below(tmp_path, source(tmp_path, cachedir_tags=False))
    assert "cache/x" in below(tmp_path, source(tmp_path / "cache")), "what is named is no cache"


def test_a_fifo_as_cache_tag_does_not_block(tmp_path: Path) -> None:
    tree(tmp_path, "d/x")
    os.mkfifo(tmp_path / "d/CACHEDIR.TAG")
    assert below(tmp_path, source(tmp_path)) == ["d", "d/CACHEDIR.TAG", "d/x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_other_file_systems(tmp_path: Path) -> None:
    tree(tmp_path, "a/1")
    (tmp_path / "mnt").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "mnt"], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        tree(tmp_path, "mnt/x/2", "mnt/y")
        everything = ["a", "a/1", "mnt", "mnt/x", "mnt/x/2", "mnt/y"]
        assert below(tmp_path, source(tmp_path)) == everything
        assert below(tmp_path, source(tmp_path, one_file_system=True)) == ["a", "a/1", "mnt"]
        assert below(tmp_path, source(tmp_path, tmp_path / "mnt", one_file_system=True)) == everything
        assert below(tmp_path, source(tmp_path, tmp_path / "mnt/x", one_file_system=True)) == [
            "a",
            "a/1",
            "mnt",
            "mnt/x",
            "mnt/x/2",
        ]
        same_inode = [capture(tmp_path / "mnt/y").node, capture(tmp_path / "a/1").node]
        assert [node.links for node in same_inode] == [None, None]
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)


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


def read_all(got: Capture, size: int = 100_000) -> bytes:
    assert got.stream is not None
    return b"".join(iter(lambda: got.stream.read(size), b""))  # type: ignore[union-attr]


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


# Changes meanwhile


def test_a_file_that_vanished(tmp_path: Path) -> None:
    tree(tmp_path, "file", "dir/")
    directory = opened(tmp_path)
    listed = rows(directory)
    (tmp_path / "file").unlink()
    (tmp_path / "dir").rmdir()
    for entry in listed:
        with pytest.raises(FileNotFoundError):
            directory.capture(entry, small=SMALL)
    with pytest.raises(FileNotFoundError):
        directory.enter(listed[0])


def _symlink(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(path))


@pytest.mark.parametrize("replacement", [_symlink, Path.mkdir, os.mkfifo, _socket])
@pytest.mark.parametrize("small", [0, SMALL])
def test_a_file_that_became_something_else(tmp_path: Path, replacement: Callable[[Path], None], small: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"secret")
    directory = opened(tmp_path)
    entry = row(directory, b"file")
    path.unlink()
    replacement(path)
    with pytest.raises(EntryChanged, match="was a file"):
        directory.capture(entry, small=small)


@pytest.mark.parametrize("replacement", [_symlink, Path.touch, os.mkfifo])
def test_a_directory_that_became_something_else(tmp_path: Path, replacement: Callable[[Path], None]) -> None:
    (tmp_path / "dir").mkdir()
    directory = opened(tmp_path)
    entry = row(directory, b"dir")
    (tmp_path / "dir").rmdir()
    replacement(tmp_path / "dir")
    with pytest.raises(EntryChanged, match="was a directory"):
        directory.enter(entry)
    with pytest.raises(EntryChanged, match="was a directory"):
        directory.capture(entry, small=0)


def test_a_fifo_in_place_of_a_file_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    directory = opened(tmp_path)
    entry = row(directory, b"file")
    path.unlink()
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b"for somebody else")
    with pytest.raises(EntryChanged):
        directory.capture(entry, small=SMALL)
    assert os.read(fd, 100) == b"for somebody else"
    os.close(fd)


def test_a_file_changed_after_listing_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    directory = opened(tmp_path)
    entry = row(directory, b"file")
    path.write_bytes(b"new content")
    got = directory.capture(entry, small=SMALL)
    assert (got.data, got.node.size) == (b"new content", 11)
    assert got.stat == row(directory, b"file")


def test_a_file_that_outgrew_small_comes_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    directory = opened(tmp_path)
    entry = row(directory, b"file")
    path.write_bytes(b"n" * 1000)
    got = directory.capture(entry, small=100)
    assert read_all(got) == b"n" * 1000


def test_a_file_that_changes_at_every_read_is_never_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0")
    directory = opened(tmp_path)
    entry = row(directory, b"file")
    real = os.pread

    times = iter(range(1, 100))

    def restless(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        os.utime(path, ns=(0, next(times)))
        return data

    monkeypatch.setattr(os, "pread", restless)
    got = directory.capture(entry, small=SMALL)
    assert got.data == b"0"
    assert got.stat[4] == NEVER_SAME
    assert got.node.mtime_ns == got.stat[3] == next(times) - 1


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_large_file_that_changes_while_it_is_read(tmp_path: Path, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 1_000_000)
    got = capture(path)
    assert got.stream is not None
    data = got.stream.read(400_000)
    if change == "grow":
        with path.open("ab") as file:
            file.write(b"more")
    elif change == "shrink":
        os.truncate(path, 500_000)
    else:
        with path.open("r+b") as file:
            file.write(b"b")
    data += read_all(got)
    entry, node = got.stream.close()
    assert entry[4] == NEVER_SAME
    assert node.size == len(data) == (500_000 if change == "shrink" else 1_000_000)


def test_a_sparse_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"a" * 4096)
        file.seek(10 << 20)
        file.write(b"b" * 4096)
    got = capture(path, small=0)
    assert got.stream is not None
    data = got.stream.read(10)
    os.truncate(path, 100)
    data += read_all(got)
    entry, node = got.stream.close()
    assert entry[4] == NEVER_SAME
    assert node.extents == ((0, len(data)),)
    assert node.size == len(data) == 100


def test_a_file_changed_a_moment_ago_is_read_again_next_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    clock = FakeClock()
    found = FilesystemSource([os.fsencode(tmp_path)], filters=Filters([]), clock=clock)
    directory = descend(found.root(), tmp_path)
    entry = row(directory, b"file")
    for small in (0, SMALL):
        for late_ns, settled in ((0, False), (metadata.FINE - 1, False), (metadata.COARSE + 1, True)):
            clock.advance((entry[4] + late_ns - clock.now_ns()) / 1e9)
            clock.advance((entry[4] + late_ns - clock.now_ns()) / 1e9)
            got = directory.capture(entry, small=small)
            seen = got.stream.close()[0] if got.stream else got.stat
            assert (seen[4] == entry[4]) is settled
            assert seen[:4] == entry[:4]


@pytest.mark.parametrize(
    ("coarse", "mtime", "ctime", "racy"),
    [
        (False, 0, -metadata.FINE + 1, True),
        (False, 0, -metadata.FINE - 1, False),
        (False, 10**18, -metadata.FINE - 1, False),
        (False, 0, 10**9 + 1, True),
        (False, 0, -(10**9), True),
        (False, 0, -3 * 10**9, False),
        (True, 0, -metadata.COARSE + 1, True),
        (True, 0, -metadata.COARSE - 1, True),
        (True, -metadata.COARSE - 1, -metadata.COARSE - 1, False),
        (True, 10**18, -metadata.COARSE - 1, True),
    ],
)
def test_which_timestamps_prove_nothing(coarse: bool, mtime: int, ctime: int, racy: bool) -> None:
    now = 1_700_000_000_000_000_000
    volume = metadata.Volume(b"", coarse=coarse)
    assert volume.may_change_unseen(now + mtime, now + ctime, now) is racy


def test_a_fifo_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = threading.Event()

    def look() -> None:
        directory = opened(tmp_path)
        directory.capture(row(directory, b"fifo"), small=SMALL)
        done.set()

    threading.Thread(target=look, daemon=True).start()
    assert done.wait(10)


def test_capture_from_several_threads(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"{number:03d}").write_bytes(b"%d" % number)
    directory = opened(tmp_path)
    listed = rows(directory)
    wrong: list[bytes] = []

    def read(part: Sequence[Stat]) -> None:
        wrong.extend(e[0] for e in part if directory.capture(e, small=SMALL).data != b"%d" % int(e[0]))

    threads = [threading.Thread(target=read, args=(listed[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_children_stay_usable_when_their_parent_is_closed(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/c")
    parent = opened(tmp_path)
    child = parent.enter(row(parent, b"a"))
    parent.close()
    assert names(child.enter(row(child, b"b"))) == [b"c"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        rows(parent)


_AS_NOBODY = """
import os, sys
from backstay.core.clock import SystemClock
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
source = FilesystemSource([sys.argv[1].encode()], filters=Filters([]), clock=SystemClock())
directory = source.root()
for name in sys.argv[1].encode().strip(b"/").split(b"/"):
    directory = directory.enter(next(e for page in directory.pages() for e in page if e[0] == name))
for page in directory.pages():
    for entry in page:
        try:
            got = directory.capture(entry, small=1000)
            print(entry[0].decode(), got.data)
            if got.data is None:
                directory.enter(entry)
        except OSError as error:
            print(entry[0].decode(), type(error).__name__)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_rights(memory_directory: Path) -> None:
    memory_directory.chmod(0o755)
    tree(memory_directory, "open", "closed", "shut/x")
    (memory_directory / "closed").chmod(0)
    (memory_directory / "shut").chmod(0)
    packages = os.pathsep.join([str(Path(filesystem.__file__).parents[2]), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, memory_directory],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": packages},
    )
    assert run.stdout.splitlines() == ["closed PermissionError", "open b'open'", "shut None", "shut PermissionError"], (
        run.stderr
    )


def test_an_unchanged_directory_lists_the_same(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "b", "c/d/e")
    assert rows(opened(tmp_path)) == rows(opened(tmp_path))
    assert list(walk(opened(tmp_path))) == list(walk(opened(tmp_path)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name", "plain name"),
        ("é漢🙂".encode(), "é漢🙂"),
        (b"a\nb\tc\rd", "a\\nb\\tc\\rd"),
        (b"\x1b[31mred\x7f\0", "\\x1b[31mred\\x7f\\x00"),
        (b"\xff\xc3", "\\xff\\xc3"),
        (b"\\n", "\\\\n"),
        ("\u202egpj\u200b\ufeff".encode(), "\\u202egpj\\u200b\\ufeff"),
        ("\x85\u2028\U000e0041".encode(), "\\u0085\\u2028\\U000e0041"),
    ],
)
def test_printable_names(name: bytes, shown: str) -> None:
    assert printable(name) == shown


def test_different_names_never_look_the_same() -> None:
    generator = random.Random(7)
    seen: dict[str, bytes] = {}
    for _ in range(3000):
        name = bytes(generator.choices(b"\\nx0\xff\n\x1b\xc3\xa9u", k=4))
        assert seen.setdefault(printable(name), name) == name
