"""Listing and capturing real directories: odd names, holes, changes meanwhile, permissions, depth and size."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backstay.core.names import printable
from backstay.sources import filesystem
from backstay.sources.filesystem import CACHE_SIGNATURE
from backstay.sources.source import PAGE_ENTRIES, Stat
from tests.sources.filesystem.reading import (
    SMALL,
    below,
    capture,
    descend,
    names,
    opened,
    row,
    rows,
    source,
    tree,
    walk,
)

HOSTILE_NAMES = [
    *(b"plain", b"with space", b"-rf", b"new\nline", b"\xff\xfe", b"back\\slash", b"*?[x]", b"x" * 255, b"\x1b[31mred"),
    *(b"..data", b"...", b"\x7f", b" ", b"C:\\x"),
    *(text.encode() for text in ("\u00e9", "e\u0301", "\u6f22\U0001f642", "\u202egpj.exe")),
]


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


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        ([b"b"], ["a", "a/1", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/f"]),
        ([b"b/"], ["a", "a/1", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/f"]),
        ([b"b", b"d"], ["a", "a/1", "a/b", "a/b/c"]),
        ([b"b", b"!other"], ["a", "a/1", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/f"]),
    ],
)
def test_of_what_is_excluded_only_what_is_named_below_it_is_there(
    tmp_path: Path, patterns: list[bytes], kept: list[str]
) -> None:
    tree(tmp_path, "a/1", "a/b/secret", "a/b/other/f", "a/b/c/d/f")
    found = source(tmp_path / "a", tmp_path / "a/b/c", patterns=patterns)
    assert below(tmp_path, found) == kept
    assert not found.problems


def test_of_a_cache_only_what_is_named_below_it_is_there(tmp_path: Path) -> None:
    tree(tmp_path, "a/1", "a/cache/x/secret", "a/cache/x/other/f", "a/cache/x/y/z", "a/cache/other")
    (tmp_path / "a/cache/CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE)
    held = ["a", "a/1", "a/cache", "a/cache/CACHEDIR.TAG", "a/cache/x", "a/cache/x/y", "a/cache/x/y/z"]
    paths = tmp_path / "a", tmp_path / "a/cache/x/y"
    assert below(tmp_path, source(*paths, exclude_caches=True)) == held
    assert "a/cache/x/secret" in below(tmp_path, source(*paths))
    assert "a/cache/x/secret" in below(tmp_path, source(*paths, tmp_path / "a/cache", exclude_caches=True))


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
    assert below(tmp_path, source(tmp_path, exclude_caches=True)) == kept
    assert "cache/x" in below(tmp_path, source(tmp_path)), "nothing is left out unless somebody asks for that"
    assert "cache/x" in below(tmp_path, source(tmp_path / "cache", exclude_caches=True)), "what is named is no cache"


def test_a_fifo_as_cache_tag_does_not_block(tmp_path: Path) -> None:
    tree(tmp_path, "d/x")
    os.mkfifo(tmp_path / "d/CACHEDIR.TAG")
    assert below(tmp_path, source(tmp_path, exclude_caches=True)) == ["d", "d/CACHEDIR.TAG", "d/x"]


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


def test_a_fifo_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = threading.Event()

    def look() -> None:
        directory = opened(tmp_path)
        directory.capture(row(directory, b"fifo"), small=SMALL)
        done.set()

    threading.Thread(target=look, daemon=True).start()
    assert done.wait(60)


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
source = FilesystemSource([path.encode() for path in sys.argv[1:]], filters=Filters([]), clock=SystemClock())
directory = source.root()
for name in sys.argv[1].encode().strip(b"/").split(b"/"):
    directory = directory.enter(next(e for page in directory.pages() for e in page if e[0] == name))
for page in directory.pages():
    for entry in page:
        try:
            got = directory.capture(entry, small=1000)
            print(entry[0].decode(), got.data)
            if got.data is None:
                for page in directory.enter(entry).pages():
                    print(*(below[0].decode() for below in page))
        except OSError as error:
            print(entry[0].decode(), type(error).__name__)
print(*(os.path.basename(problem.path.decode()) + ": " + problem.message for problem in source.problems))
"""


def seen_by_nobody(place: Path, *more: Path) -> tuple[list[str], str]:
    """What a user without rights gets of a directory, and what was wrong."""
    packages = os.pathsep.join([str(Path(filesystem.__file__).parents[2]), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, place, *more],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": packages},
    )
    return run.stdout.strip().splitlines(), run.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_rights(memory_directory: Path) -> None:
    memory_directory.chmod(0o755)
    tree(memory_directory, "open", "closed", "shut/x")
    (memory_directory / "closed").chmod(0)
    (memory_directory / "shut").chmod(0)
    lines, err = seen_by_nobody(memory_directory)
    assert lines == ["closed PermissionError", "open b'open'", "shut None", "shut PermissionError"], err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_what_was_named_is_found_in_a_directory_that_cannot_be_listed(memory_directory: Path) -> None:
    memory_directory.chmod(0o755)
    tree(memory_directory, "open", "shut/named", "shut/other")
    (memory_directory / "shut").chmod(0o711)
    lines, err = seen_by_nobody(memory_directory, memory_directory / "shut/named")
    assert lines == ["open b'open'", "shut None", "named", "shut: permission denied"], err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_who_may_only_pass_through_a_directory_above_can_back_up_what_is_below(memory_directory: Path) -> None:
    memory_directory.chmod(0o711)
    tree(memory_directory, "home/open")
    lines, err = seen_by_nobody(memory_directory / "home")
    assert lines == ["open b'home/open'"], err
    (memory_directory / "home").chmod(0o711)
    lines, err = seen_by_nobody(memory_directory / "home")
    assert lines == []
    assert "PermissionError" in err


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


class ListsTwice:
    """As some file systems list what is renamed meanwhile: under its name, and later once more."""

    def __init__(self, fd: int) -> None:
        with scandir(fd) as entries:
            self._entries = list(entries)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return iter([*self._entries, *self._entries[:2]])

    def __exit__(self, *error: object) -> None:
        del error


scandir = os.scandir


@pytest.mark.parametrize("page", [PAGE_ENTRIES, 3])
def test_what_is_listed_twice_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    tree(tmp_path, "a", "b", "c", "d/e")
    monkeypatch.setattr(filesystem, "PAGE_ENTRIES", page)
    monkeypatch.setattr(os, "scandir", ListsTwice)
    assert names(descend(source(tmp_path).root(), tmp_path)) == [b"a", b"b", b"c", b"d"]
