"""Deltas give their data again with their base, and never more than was declared."""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backstay.codec.compression import Compressor
from backstay.codec.deltas import MOST, delta, undelta
from backstay.errors import CorruptedBackup


@given(base=st.binary(max_size=5000), edits=st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=20))))
def test_a_delta_with_its_base_gives_the_data(base: bytes, edits: list[tuple[int, bytes]]) -> None:
    data = bytearray(base)
    for at, new in edits:
        data[at:at] = new
    data += b"!"
    assert undelta(delta(data, base), base, len(data)) == data


@pytest.mark.parametrize("size", [1 << 10, 32 << 10, 1 << 20, MOST])
def test_what_is_equal_is_found_wherever_it_lies(size: int) -> None:
    base = random.Random(size).randbytes(size - 1)
    data = base[: size // 3] + b"!" + base[size // 3 :]
    packed = delta(data, base)
    assert len(packed) < 1000
    assert undelta(packed, base, len(data)) == data


BASE = random.Random(1).randbytes(1000)
DATA = BASE[:500] + b"!" + BASE[500:]


@pytest.mark.parametrize(
    ("packed", "length"),
    [
        (delta(DATA, BASE), len(DATA) - 1),
        (delta(DATA, BASE), len(DATA) + 1),
        (delta(DATA, BASE) + b"x", len(DATA)),
        (delta(DATA, BASE)[:-1], len(DATA)),
        (zstandard.ZstdCompressor(write_content_size=False).compress(DATA), len(DATA)),
        (zstandard.compress(bytes(100 << 20)), 1000),  # a bomb
        (b"", 0),
        (b"no frame at all", len(DATA)),
    ],
)
def test_what_declares_something_else_is_refused(packed: bytes, length: int) -> None:
    with pytest.raises(CorruptedBackup):
        undelta(packed, BASE, length)


def test_another_base_is_refused_or_gives_other_bytes() -> None:
    packed = delta(DATA, BASE)
    for base in (b"", BASE[:-1], random.Random(2).randbytes(1000)):
        try:
            assert undelta(packed, base, len(DATA)) != DATA
        except CorruptedBackup:
            continue


def test_a_page_with_hints_is_smaller_as_a_delta_than_compressed() -> None:
    rng = random.Random(3)
    rows = [rng.randbytes(16).hex().encode() + b"%8d" % number for number in range(800)]
    page = b"".join(b"\x00\x08" + row for row in rows)
    hinted = b"".join(b"\x00\x09" + row for row in rows)
    assert len(delta(hinted, page)) * 8 < len(Compressor().compress(hinted)[1])
