"""What is compressed comes back, and what is decoded is never more than was promised."""

from __future__ import annotations

import random
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backstay.codec.compression import GZIP, RAW, ZSTD, Compressor, Method, decompress
from backstay.errors import CorruptedBackup, InvalidRequest

TEXT = b"the same words again and again, " * 200


@given(st.binary(max_size=2000), st.sampled_from(["zstd", "gzip", "none"]), st.booleans())
def test_everything_comes_back(data: bytes, method: Method, quick: bool) -> None:
    codec, stored = Compressor(method).compress(data, quick=quick)
    assert bytes(decompress(codec, stored, len(data))) == data
    assert len(stored) <= len(data)


@pytest.mark.parametrize(
    ("method", "level", "codec"),
    [("zstd", None, ZSTD), ("zstd", 19, ZSTD), ("gzip", None, GZIP), ("gzip", 1, GZIP), ("none", None, RAW)],
)
def test_each_method_has_its_codec(method: Method, level: int | None, codec: int) -> None:
    found, stored = Compressor(method, level).compress(TEXT)
    assert found == codec
    assert (len(stored) < len(TEXT) // 4) == (codec != RAW)


@pytest.mark.parametrize("size", [2000, 600_000])
def test_what_does_not_compress_is_stored_as_it_is(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert Compressor().compress(data) == (RAW, data)


def test_the_default_judges_data_by_all_of_it_and_a_level_by_a_sample() -> None:
    data = random.Random(1).randbytes(300_000) + TEXT * 10 + random.Random(2).randbytes(300_000)
    assert Compressor().compress(data)[0] == ZSTD
    assert Compressor("zstd", 3).compress(data) == (RAW, data)


@pytest.mark.parametrize(
    ("method", "level", "match"), [("rar", None, "unknown"), ("zstd", 20, "no level"), ("gzip", 0, "no level")]
)
def test_what_there_is_not_is_refused(method: Method, level: int | None, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        Compressor(method, level)


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("codec", "stored"),
    [
        (RAW, TEXT[1:]),
        (ZSTD, b"no frame"),
        (ZSTD, zstandard.compress(TEXT + b"more")),
        (ZSTD, zstandard.compress(TEXT)[:-1]),
        (GZIP, b"no stream"),
        (GZIP, gzipped(TEXT + b"more")),
        (GZIP, gzipped(TEXT)[:-1]),
        (GZIP, gzipped(TEXT) + b"more"),
        (GZIP, gzipped(TEXT[1:])),
        (99, TEXT),
    ],
)
def test_anything_else_than_was_promised_is_damage(codec: int, stored: bytes) -> None:
    with pytest.raises(CorruptedBackup):
        decompress(codec, stored, len(TEXT))
