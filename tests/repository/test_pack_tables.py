"""The table of a pack, and its end, are refused where they contradict themselves, before anything is read by them."""

from __future__ import annotations

import struct

import msgspec
import pytest

from backstay.codec.compression import Compressor
from backstay.errors import CorruptedBackup
from backstay.repository.format import MAX_BLOB, MAX_MEMBERS, MAX_PACK, BlobKind, RecordKind
from backstay.repository.packs.pack import (
    TRAILER_BYTES,
    Member,
    PackBuilder,
    PackTable,
    column,
    numbers,
    open_table,
    read_footer_length,
)
from backstay.repository.records import HEADER_BYTES

KEY = bytes(32)


def made() -> tuple[bytes, PackTable]:
    """A pack of a chunk and a bundle of two, and its table."""
    builder = PackBuilder(RecordKind.DATA_PACK, repository=bytes(16), epoch=1, key=KEY)
    builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, b"c" * 32, b"chunk", (), Compressor()))
    members = [Member(b"1" * 32, 2), Member(b"2" * 32, 4)]
    builder.append(builder.seal(builder.reserve(), BlobKind.BUNDLE, b"b" * 32, b"bundle", members, Compressor()))
    table = builder.finish().table
    with builder.data as data:
        return bytes(data), table


GOOD, TABLE = made()
BLOBS = len(TABLE.kinds)  # with the padding


def put(name: str, at: int, value: int) -> dict[str, bytes]:
    """A column with another number in it."""
    values = list(numbers(getattr(TABLE, name)))
    values[at] = value
    return {name: column(values)}


def test_a_table_that_fits_together_is_good() -> None:
    TABLE.check()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"kinds": TABLE.kinds[:-1]}, "different lengths"),
        ({"codecs": TABLE.codecs + b"\0"}, "different lengths"),
        ({"ids": TABLE.ids[:-1]}, "different lengths"),
        ({"stored": TABLE.stored[:-4]}, "different lengths"),
        ({"raw": TABLE.raw + bytes(4)}, "different lengths"),
        ({"members": TABLE.members[:-4]}, "different lengths"),
        ({"member_ids": TABLE.member_ids[:-32]}, "different lengths"),
        ({"member_ids": TABLE.member_ids + b"\0"}, "different lengths"),
        ({"member_lengths": TABLE.member_lengths + bytes(4), "member_ids": TABLE.member_ids + bytes(32)}, "number of"),
        (put("members", 1, MAX_MEMBERS + 1), "number of members"),
        (put("members", 1, 1), "number of members"),
        (put("raw", 0, MAX_BLOB + 1), "absurd"),
        (put("raw", 1, 7), "do not fill"),
        (put("member_lengths", 0, 3), "do not fill"),
        ({"members": column([2, 0, *[0] * (BLOBS - 2)])}, "do not fill"),
        ({"kinds": bytes([BlobKind.CHUNK]) * BLOBS}, "do not fill"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(changed: dict[str, bytes], says: str) -> None:
    with pytest.raises(CorruptedBackup, match=says):
        msgspec.structs.replace(TABLE, **changed).check()


def trailer(length: int, magic: bytes = b"BKSE") -> bytes:
    return struct.pack(">I4s", length, magic)


@pytest.mark.parametrize(
    ("end", "size"),
    [
        (b"", 0),
        (trailer(100)[1:], 10_000),
        (b"\0" + trailer(100), 10_000),
        (trailer(100, b"BKSF"), 10_000),
        (trailer(100), MAX_PACK + 1),
        (trailer(15), 10_000),
        (trailer(10_000 - HEADER_BYTES - TRAILER_BYTES + 1), 10_000),
    ],
)
def test_an_end_that_no_pack_has_is_refused(end: bytes, size: int) -> None:
    assert read_footer_length(trailer(100), 10_000) == 100
    with pytest.raises(CorruptedBackup, match="cut short"):
        read_footer_length(end, size)


@pytest.mark.parametrize("off", [-1, 1, 4096])
def test_a_table_that_leaves_bytes_unnamed_is_refused(off: int) -> None:
    length = read_footer_length(GOOD[-TRAILER_BYTES:], len(GOOD))
    header, footer = GOOD[:HEADER_BYTES], GOOD[-TRAILER_BYTES - length : -TRAILER_BYTES]
    assert open_table(header, footer, len(GOOD), KEY) == TABLE
    with pytest.raises(CorruptedBackup, match="does not name"):
        open_table(header, footer, len(GOOD) + off, KEY)
