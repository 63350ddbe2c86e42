"""Whole files: their chunks and their digests, however often the same bytes come."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.codec.chunker import CdcSizes, ContentDefinedChunker
from backstay.codec.digest import ChunkIds
from backstay.operations.backup import cutting
from backstay.operations.backup.cutting import FileCutter
from backstay.repository.blobs.writer import SMALL

IDS = ChunkIds(b"k" * 32)
CHUNKER = ContentDefinedChunker(CdcSizes(least=64 << 10, average=128 << 10, greatest=512 << 10), 7)
SIZES = (0, 1, 4095, 4096, 5000, SMALL, SMALL + 1, 3 * SMALL)


def file_of(number: int) -> bytes:
    """One of a few files of all sizes; different numbers have different bytes."""
    return random.Random(number).randbytes(SIZES[number % len(SIZES)] + number // len(SIZES))


def check(cutter: FileCutter, data: bytes) -> None:
    digest, chunks = cutter.cut(data)
    assert digest == hashlib.sha256(data).digest()
    assert b"".join(bytes(piece) for _, piece in chunks) == data
    assert [chunk for chunk, _ in chunks] == [IDS.of(bytes(piece)) for _, piece in chunks]
    assert len(chunks) == bool(data) or len(data) > SMALL


@given(numbers=st.lists(st.integers(0, 40), max_size=60), remembered=st.integers(1, 4))
def test_each_file_gets_its_own_digest_and_chunks_however_often_it_comes(numbers: list[int], remembered: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "_REMEMBERED", remembered)
        cutter = FileCutter(IDS, CHUNKER)
        for number in numbers:
            check(cutter, file_of(number))


def test_threads_may_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_REMEMBERED", 3)
    cutter = FileCutter(IDS, CHUNKER)
    files = [file_of(random.Random(at).randrange(40)) for at in range(400)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: check(cutter, data), files))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what a SHA-256 is made of."""
    lengths: list[int] = []

    def sha256(data: bytes) -> bytes:
        lengths.append(len(data))
        return hashlib.sha256(data).digest()

    monkeypatch.setattr(cutting, "sha256", sha256)
    return lengths


def test_the_same_bytes_are_hashed_once(hashed: list[int]) -> None:
    cutter = FileCutter(IDS, CHUNKER)
    for _ in range(3):
        check(cutter, bytes(5000))
        check(cutter, bytes(6000))
    assert hashed == [5000, 6000]


def test_only_so_many_digests_are_remembered_and_those_that_are_asked_for_stay(
    hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "_REMEMBERED", 4)
    cutter = FileCutter(IDS, CHUNKER)
    for size in range(5000, 5100):
        check(cutter, bytes(size))
        check(cutter, bytes(4999))  # comes all the time
    assert hashed.count(4999) == 1
    hashed.clear()
    check(cutter, bytes(5000))  # came long ago
    assert hashed == [5000]
