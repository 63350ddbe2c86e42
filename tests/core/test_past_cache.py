"""What is read past the page cache is what the file holds, wherever the read begins and ends."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.core.past_cache import PastCacheReader

DATA = random.Random(7).randbytes(3 * 4096 + 100)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """On the disk of temporary files, or wherever they lie: the fallback is tested by itself below."""
    path = tmp_path_factory.mktemp("read") / "file"
    path.write_bytes(DATA)
    with opened(path) as file:
        yield file


@pytest.fixture(scope="module")
def reader() -> PastCacheReader:
    return PastCacheReader(buffers=1)  # used again and again, with what the last read left in it


edges = st.sampled_from([0, 1, 4095, 4096, 4097, 8192, len(DATA) - 1, len(DATA), len(DATA) + 1, 5 * 4096])


@given(offset=edges | st.integers(0, len(DATA)), length=edges | st.integers(0, len(DATA)))
def test_any_part_is_what_the_file_holds_there(file: int, reader: PastCacheReader, offset: int, length: int) -> None:
    read = reader.read(file, length, offset)
    try:
        assert bytes(read.view) == DATA[offset : offset + length]
    finally:
        read.release()


def test_where_there_is_no_way_past_the_cache_it_is_read_through_it() -> None:
    file = os.memfd_create("memory")
    try:
        os.write(file, DATA)
        assert bytes(PastCacheReader(buffers=1).read(file, len(DATA) - 7, 7).view) == DATA[7:]
    finally:
        os.close(file)


def test_the_descriptor_itself_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with opened(path) as file:
        PastCacheReader(buffers=1).read(file, 100, 50)
        assert os.read(file, 10) == DATA[:10]  # its place, and no need of aligned memory


def test_the_cache_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    flags: list[int] = []
    real = os.open

    def watched(name: str, flag: int) -> int:
        flags.append(flag)
        return real(name, flag)

    with opened(path) as file:
        monkeypatch.setattr(os, "open", watched)
        PastCacheReader(buffers=1).read(file, 100)
    assert len(flags) == 1
    assert flags[0] & os.O_DIRECT


def test_what_fails_past_the_cache_and_without_is_an_error(tmp_path: Path) -> None:
    with opened(tmp_path) as directory, pytest.raises(IsADirectoryError):
        PastCacheReader(buffers=1).read(directory, 100)


def test_a_reader_waits_for_a_buffer_and_loses_none_by_an_error(tmp_path: Path, file: int) -> None:
    reader = PastCacheReader(buffers=1)
    with opened(tmp_path) as directory, pytest.raises(IsADirectoryError):
        reader.read(directory, 100)
    first = reader.read(file, 10)  # not stuck: the error gave the buffer back
    second: list[bytes] = []
    waiting = threading.Thread(target=lambda: second.append(bytes(reader.read(file, 10, 4096).view)))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    assert bytes(first.view) == DATA[:10]
    first.release()
    waiting.join(60)
    assert second == [DATA[4096:4106]]
