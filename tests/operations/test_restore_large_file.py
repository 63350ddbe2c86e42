"""Several workers write one file, one of them at a time: it is whole or absent, and its error is told once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from backstay.core.events import ignore
from backstay.errors import CorruptedBackup, InsufficientSpace
from backstay.operations.restore import large_file as restore_large_file
from backstay.operations.restore.large_file import LargeFile, LargePart
from backstay.operations.restore.tally import Tally
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.index.index import Place
from backstay.repository.nodes import Node
from backstay.sources.files_target import FilesTarget
from backstay.sources.pending_file import PendingFile

WORKERS = 6


class Chunks:
    """What a reader knows, in a dictionary; `lost` chunks cannot be read."""

    def __init__(self, parts: list[bytes]) -> None:
        self.ids = [b"%d" % number for number in range(len(parts))]
        self._parts = dict(zip(self.ids, parts, strict=True))
        self.lost: set[bytes] = set()

    def place(self, chunk: bytes) -> Place:
        """Seven of them lie behind each other in one blob."""
        number = int(chunk)
        before = self.ids[number - number % 7 : number]
        return Place(0, number // 7, sum(len(self._parts[other]) for other in before), len(self._parts[chunk]))

    def run(self, chunks: Sequence[tuple[bytes, int]], place: Place, *, lying: None) -> bytes:
        assert lying is None
        joined = b"".join(self.chunk(chunk) for chunk, _ in chunks)
        assert len(joined) == place.length
        return joined

    def chunk(self, chunk: bytes) -> bytes:
        if chunk in self.lost:
            raise CorruptedBackup("this chunk is lost")
        return self._parts[chunk]


class File:
    """A file of 60 chunks with a hole in it, begun in an empty directory."""

    def __init__(self, place: Path) -> None:
        rng = random.Random(5)
        self.chunks = Chunks([rng.randbytes(rng.randrange(1, 5000)) for _ in range(60)])
        self.data = b"".join(map(self.chunks.chunk, self.chunks.ids))
        self.tally = Tally(ignore)
        self.path = place / "out" / "file"
        half = len(self.data) // 2
        extents = ((0, half), (half + 4096, len(self.data) - half))
        self.expected = self.data[:half] + bytes(4096) + self.data[half:]
        size = len(self.expected)
        node = Node(b"file", 0o100644, os.geteuid(), os.getegid(), "", "", size, 1, extents=extents)
        self.directory = FilesTarget(place / "out").open_root(create=True)
        self.pending = self.directory.begin_file(b"file", size, extents)
        reader = cast("BlobReader", self.chunks)
        self.large = LargeFile(0, node, b"/file", self.chunks.ids, self.pending, reader, self.tally)

    def write(self) -> None:
        parts: list[LargePart] = [*self.large.parts()]
        random.Random(6).shuffle(parts)
        with ThreadPoolExecutor(WORKERS) as pool:
            for future in [pool.submit(self.large.write, part) for part in parts]:
                future.result(timeout=60)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> File:
    monkeypatch.setattr(restore_large_file, "AHEAD", 8000)  # so that workers have to wait, too
    return File(tmp_path)


def test_one_worker_writes_at_a_time_and_the_file_is_whole(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    write_at, inside = PendingFile.write_at, threading.Lock()

    def alone(self: PendingFile, offset: int, data: Any) -> None:
        assert inside.acquire(blocking=False), "two write at once"
        time.sleep(0.002)  # others come meanwhile
        write_at(self, offset, data)
        inside.release()

    monkeypatch.setattr(PendingFile, "write_at", alone)
    file.write()
    assert file.path.read_bytes() == file.expected
    assert file.tally.errors == []
    assert file.tally.counts["bytes"] == len(file.expected)


@pytest.mark.parametrize("lost", [1, 7, 60])
def test_a_file_with_lost_chunks_is_told_once_and_leaves_nothing(file: File, lost: int) -> None:
    file.chunks.lost = set(random.Random(lost).sample(file.chunks.ids, lost))
    file.write()
    file.large.abandon()
    assert [error.path for error in file.tally.errors] == ["/file"]
    assert os.listdir(file.path.parent) == []


def test_chunks_that_are_too_few_for_the_size_are_told(file: File) -> None:
    file.large._chunks = file.chunks.ids[:-1]
    file.write()
    file.large.abandon()
    assert "add up" in file.tally.errors[0].message
    assert os.listdir(file.path.parent) == []


@pytest.mark.parametrize("off", [-1, 1])
def test_chunks_of_another_length_than_the_index_says_are_told(
    file: File, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    """They would be written over what lies behind them, or leave a gap before it."""
    monkeypatch.setattr(Chunks, "run", lambda _self, _chunks, place, *, lying: bytes(place.length + off))  # noqa: ARG005
    file.write()
    file.large.abandon()
    assert ["another length" in error.message for error in file.tally.errors] == [True]
    assert os.listdir(file.path.parent) == []


def test_a_full_disk_ends_it_and_nobody_waits_for_ever(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise InsufficientSpace("the disk is full")

    monkeypatch.setattr(PendingFile, "write_at", full)
    with pytest.raises(InsufficientSpace):
        file.write()
    file.large.abandon()
    assert os.listdir(file.path.parent) == []
