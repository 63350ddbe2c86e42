"""What changes while it is read is told, read as it is, or read again the next time."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from backstay.sources import metadata
from backstay.sources.entry_reader import EntryChanged
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.sources.source import NEVER_SAME
from backstay.testing.clock import FakeClock
from tests.sources.filesystem.reading import SMALL, capture, descend, opened, read_all, row, rows, tree

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
