"""What a large file has the disk read leaves memory again; what was there before stays."""

from __future__ import annotations

import os
from itertools import chain, repeat
from pathlib import Path

import pytest

from backstay.sources import page_cache
from backstay.sources.page_cache import read_in_passing
from tests.sources.filesystem.reading import capture

BLOCK = 512


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(offset, length) of what the kernel was told to let go of."""
    ranges: list[tuple[int, int]] = []

    def note(fd: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            ranges.append((offset, length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    return ranges


def from_disk(monkeypatch: pytest.MonkeyPatch, *parts: float) -> None:
    """Have the disk give so much of what each of the next calls of pread reads, then everything."""
    read, total, shares = os.pread, [0], chain(parts, repeat(1))

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        total[0] += round(next(shares) * len(data) / BLOCK)
        return data

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(page_cache, "blocks_read", lambda: total[0])


@pytest.mark.parametrize(("part", "leaves"), [(0, False), (0.4, False), (0.6, True), (1, True), (1.5, True)])
def test_what_mostly_came_from_the_disk_leaves_memory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forgotten: list[tuple[int, int]],
    part: float,
    leaves: bool,
) -> None:
    place = tmp_path / "file"
    place.write_bytes(bytes(range(256)) * 64)
    from_disk(monkeypatch, part)
    fd = os.open(place, os.O_RDONLY)
    try:
        assert read_in_passing(fd, 8192, 4096) == place.read_bytes()[4096:12288]
    finally:
        os.close(fd)
    assert forgotten == ([(4096, 8192)] if leaves else [])


def test_a_large_file_goes_block_by_block_around_its_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: list[tuple[int, int]]
) -> None:
    place = tmp_path / "file"
    with place.open("wb") as file:
        file.write(b"a" * 65536)
        file.seek(1 << 20)
        file.write(b"b" * 65536)
    stream = capture(place, small=0).stream
    assert stream is not None
    try:
        from_disk(monkeypatch, 1, 0)
        data = b"".join(iter(lambda: stream.read(32768), b""))
        assert stream.close()[1].size == (1 << 20) + 65536
    finally:
        stream.abandon()
    assert data.replace(b"\0", b"") == b"a" * 65536 + b"b" * 65536
    assert forgotten[0] == (0, 32768)
    assert (32768, 32768) not in forgotten  # it was in memory
    assert forgotten[-1] == ((1 << 20) + 32768, 32768)


def test_an_empty_file_has_nothing_to_let_go_of(tmp_path: Path, forgotten: list[tuple[int, int]]) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert read_in_passing(fd, 4096, 0) == b""
    finally:
        os.close(fd)
    assert forgotten == []
