"""Chunks joined are the data, however it arrives; cuts depend on what is there, not on where it lies."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.codec.chunker import CdcSizes, Chunker, ContentDefinedChunker, FixedChunker, StreamCutter

SIZES = CdcSizes(least=2048, average=8192, greatest=32768)
DATA = random.Random(9).randbytes(300_000)


def cut(chunker: Chunker, data: bytes, pieces: list[int]) -> list[bytes]:
    cutter, at = StreamCutter(chunker), 0
    chunks: list[bytes] = []
    for piece in [*pieces, len(data)]:
        chunks += map(bytes, cutter.feed(data[at : at + piece]))
        at += piece
    return [*chunks, *map(bytes, cutter.finish())]


@pytest.mark.parametrize("chunker", [ContentDefinedChunker(SIZES), FixedChunker(4096)])
@given(size=st.integers(0, len(DATA)), pieces=st.lists(st.integers(1, 100_000), max_size=6))
def test_the_same_chunks_however_the_data_arrives(chunker: Chunker, size: int, pieces: list[int]) -> None:
    data = DATA[:size]
    chunks = cut(chunker, data, pieces)
    assert b"".join(chunks) == data
    assert chunks == [bytes(chunk) for chunk in chunker.cut(data, last=True)]
    assert all(chunks)


@pytest.mark.parametrize("chunker", [ContentDefinedChunker(SIZES), FixedChunker(4096)])
@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_a_piece_may_end_beside_the_end_of_a_chunk(chunker: Chunker, beyond: int) -> None:
    chunks = [bytes(chunk) for chunk in chunker.cut(DATA, last=True)]
    for end in accumulate(map(len, chunks[:20])):
        assert cut(chunker, DATA, [end + beyond, 60_000]) == chunks


def test_fixed_chunks_have_one_length_but_for_the_last() -> None:
    assert [len(chunk) for chunk in cut(FixedChunker(4096), DATA[:10_000], [777])] == [4096, 4096, 1808]


def test_a_byte_in_front_moves_only_the_first_cuts() -> None:
    chunker = ContentDefinedChunker(SIZES)
    before, after = set(cut(chunker, DATA, [])), set(cut(chunker, b"x" + DATA, []))
    assert len(before & after) > len(before) * 0.8


def test_a_secret_moves_the_cuts() -> None:
    one, two = ContentDefinedChunker(SIZES, 1), ContentDefinedChunker(SIZES, 2)
    assert not set(cut(one, DATA, [])[:-1]) & set(cut(two, DATA, [])[:-1])
