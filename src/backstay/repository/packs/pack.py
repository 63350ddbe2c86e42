"""Packs: many sealed blobs, then a sealed table of them (docs/format.md, "Packs")."""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from backstay.codec.cipher import TAG_BYTES, Cipher
from backstay.codec.compression import Buffer, Compressor, decompress
from backstay.codec.digest import ID_BYTES, sha256
from backstay.core.ids import Random
from backstay.core.memory import disk_buffer
from backstay.errors import CorruptedBackup, MachineFault
from backstay.repository.format import MAX_BLOB, MAX_BLOBS, MAX_MEMBERS, MAX_PACK, BlobKind, RecordKind
from backstay.repository.records import (
    HEADER_BYTES,
    decode_strictly,
    new_header,
    open_body,
    open_header,
    padded_length,
    seal_body,
    sealed_length,
)

_TRAILER: Final = struct.Struct(">I4s")  # footer length, magic
TRAILER_BYTES: Final = _TRAILER.size
_END_MAGIC: Final = b"BKSE"
_BOUND: Final = struct.Struct(">BBI32s")  # kind, codec, raw length, id
NO_ID: Final = bytes(ID_BYTES)
_FIRST: Final = 4096  # bytes of a buffer that grows


class Member(NamedTuple):
    """One chunk inside a bundle."""

    id: bytes
    length: int


class BlobInfo(NamedTuple):
    """Where one blob lies in its pack, and how it is stored; lengths and offset in bytes."""

    ordinal: int
    kind: int
    codec: int
    id: bytes
    offset: int
    stored: int
    raw: int


class PackTable(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The blobs of a pack in order, by columns; numbers are unsigned 32-bit little-endian.

    Blobs follow each other from the end of the header, members fill their bundle from its start: offsets are sums,
    so that gaps and overlaps cannot be written down.
    """

    kinds: bytes
    codecs: bytes
    ids: bytes
    stored: bytes
    raw: bytes
    members: bytes  # how many each blob has
    member_ids: bytes
    member_lengths: bytes

    def check(self) -> None:
        """Raises CorruptedBackup unless all columns agree and all sizes are sane."""
        count = len(self.kinds)
        columns = (len(self.codecs), len(self.ids) / ID_BYTES, len(self.stored) / 4, len(self.raw) / 4)
        if count > MAX_BLOBS or any(n != count for n in columns) or len(self.members) != 4 * count:
            raise CorruptedBackup("a pack table has columns of different lengths")
        members = numbers(self.members)
        if sum(members) > MAX_MEMBERS or sum(members) * 4 != len(self.member_lengths):
            raise CorruptedBackup("a pack table has the wrong number of members")
        if len(self.member_ids) * 4 != len(self.member_lengths) * ID_BYTES:
            raise CorruptedBackup("a pack table has columns of different lengths")
        raw, lengths = numbers(self.raw), numbers(self.member_lengths)
        if any(n > MAX_BLOB for n in raw):
            raise CorruptedBackup("a pack table declares an absurd blob size")
        at = 0
        for kind, size, held in zip(self.kinds, raw, members, strict=True):
            if (held and kind != BlobKind.BUNDLE) or (kind == BlobKind.BUNDLE and sum(lengths[at : at + held]) != size):
                raise CorruptedBackup("a pack table has members that do not fill their bundle")
            at += held

    def blobs(self) -> Iterator[BlobInfo]:
        """Each blob with its place."""
        stored, raw = numbers(self.stored), numbers(self.raw)
        offsets = accumulate(stored, initial=HEADER_BYTES)
        for ordinal, (kind, codec, offset) in enumerate(zip(self.kinds, self.codecs, offsets, strict=False)):
            at = ordinal * ID_BYTES
            yield BlobInfo(ordinal, kind, codec, self.ids[at : at + ID_BYTES], offset, stored[ordinal], raw[ordinal])

    def chunks(self) -> Iterator[tuple[bytes, int, int, int]]:
        """(chunk id, blob ordinal, offset in the blob, length) of everything that can be asked for."""
        raw, counts, lengths = numbers(self.raw), numbers(self.members), numbers(self.member_lengths)
        at = 0
        for ordinal, kind in enumerate(self.kinds):
            if kind == BlobKind.CHUNK:
                yield self.ids[ordinal * ID_BYTES : (ordinal + 1) * ID_BYTES], ordinal, 0, raw[ordinal]
            elif kind == BlobKind.BUNDLE:
                offset = 0
                for member in range(at, at + counts[ordinal]):
                    yield self.member_ids[member * ID_BYTES : (member + 1) * ID_BYTES], ordinal, offset, lengths[member]
                    offset += lengths[member]
                at += counts[ordinal]

    def end(self) -> int:
        """Offset of the first byte behind the blobs."""
        return HEADER_BYTES + sum(numbers(self.stored))


def numbers(column: bytes) -> array[int]:
    """A column of unsigned 32-bit little-endian numbers."""
    values = array("I")
    values.frombytes(column)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def column(values: Sequence[int]) -> bytes:
    """The inverse of `numbers`."""
    packed = array("I", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


@dataclass(frozen=True, slots=True)
class StoredPack:
    """What the index must know of a pack: its SHA-256, kind, size in bytes, key epoch and table."""

    digest: bytes
    kind: RecordKind
    size: int
    epoch: int
    table: PackTable


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A blob ready to be appended to the pack that it was sealed for."""

    kind: BlobKind
    codec: int
    id: bytes
    raw: int
    stored: bytes
    members: Sequence[Member]


class _Row(NamedTuple):
    """One blob as the table names it."""

    kind: int
    codec: int
    id: bytes
    stored: int
    raw: int
    members: Sequence[Member]


class PackBuilder:
    """One pack in memory. `reserve` and `append` belong to one thread and go in the same order; `seal` to any."""

    def __init__(
        self,
        kind: RecordKind,
        *,
        repository: bytes,
        epoch: int,
        key: bytes,
        random: Random = os.urandom,
        buffer: memoryview | None = None,
    ) -> None:
        self.kind = kind
        self.epoch = epoch
        self.header, self._cipher = new_header(kind, repository, epoch, key, random)
        self.size = 0
        self.reserved = 0
        self._rows: list[_Row] = []
        # A buffer that was used before needs no new pages from the system, which cost more than the copying.
        self._buffer = buffer if buffer is not None else disk_buffer(_FIRST)
        self._write(self.header)

    @property
    def data(self) -> memoryview:
        """What is written so far; not to be kept beyond `release`."""
        return self._buffer[: self.size]

    def _write(self, data: Buffer) -> None:
        end = self.size + len(data)
        if end > len(self._buffer):
            larger = disk_buffer(max(end, 2 * len(self._buffer)))
            larger[: self.size] = self._buffer[: self.size]
            self._buffer = larger
        self._buffer[self.size : end] = data
        self.size = end

    def release(self) -> memoryview:
        """Give up the buffer, for the next pack."""
        self.size = 0
        return self._buffer

    @property
    def appended(self) -> int:
        return len(self._rows)

    def reserve(self) -> int:
        """The ordinal of the next blob, which fixes its nonce."""
        self.reserved += 1
        return self.reserved - 1

    def seal(
        self,
        ordinal: int,
        kind: BlobKind,
        blob_id: bytes,
        raw: Buffer,
        members: Sequence[Member],
        compressor: Compressor,
        *,
        quick: bool = False,
    ) -> SealedBlob:
        """Compress and encrypt one blob, then decode it again: faulty memory shows here and not at a restore."""
        codec, packed = compressor.compress(raw, quick=quick)
        bound = _blob_bound(self.header, kind, codec, len(raw), blob_id)
        stored = self._cipher.seal(_blob_nonce(ordinal), packed, bound)
        try:
            is_good = _is_same(decompress(codec, self._cipher.open(_blob_nonce(ordinal), stored, bound), len(raw)), raw)
        except CorruptedBackup:
            is_good = False
        if not is_good:
            raise MachineFault(
                "a blob does not decode to what was encoded", cause="memory or processor of this machine make errors"
            )
        return SealedBlob(kind, codec, blob_id, len(raw), stored, members)

    def append(self, blob: SealedBlob) -> None:
        """Add the blob whose turn it is."""
        self._write(blob.stored)
        self._rows.append(_Row(blob.kind, blob.codec, blob.id, len(blob.stored), blob.raw, blob.members))

    def finish(self) -> StoredPack:
        """Pad, seal the table, and name the pack; its bytes are `data`."""
        self._pad()
        table = _table(self._rows)
        footer = seal_body(self._cipher, self.header, msgspec.msgpack.encode(table))
        self._write(footer)
        self._write(_TRAILER.pack(len(footer), _END_MAGIC))
        with self.data as data:
            digest = sha256(data)
        return StoredPack(digest, self.kind, self.size, self.epoch, table)

    def _pad(self) -> None:
        """A blob of zeros, so that the length of a pack says little about what lies in it."""
        ordinal, length = self.reserve(), 0
        for _ in range(3):  # the padding's own length may change the footer's by a few bytes
            padding = _Row(BlobKind.PADDING, 0, NO_ID, length + TAG_BYTES, length, ())
            table = msgspec.msgpack.encode(_table([*self._rows, padding]))
            base = self.size + TAG_BYTES + sealed_length(table) + TRAILER_BYTES
            wanted = padded_length(base) - base
            if wanted == length:
                break
            length = wanted
        bound = _blob_bound(self.header, BlobKind.PADDING, 0, length, NO_ID)
        stored = self._cipher.seal(_blob_nonce(ordinal), bytes(length), bound)
        self.append(SealedBlob(BlobKind.PADDING, 0, NO_ID, length, stored, ()))


def _is_same(back: Buffer, raw: Buffer) -> bool:
    # `==` on a memoryview goes byte by byte, which takes 30 times as long and holds the interpreter lock.
    return len(back) == len(raw) and bytes(back).startswith(raw)


def _table(rows: Sequence[_Row]) -> PackTable:
    members = [member for row in rows for member in row.members]
    return PackTable(
        kinds=bytes(row.kind for row in rows),
        codecs=bytes(row.codec for row in rows),
        ids=b"".join(row.id for row in rows),
        stored=column([row.stored for row in rows]),
        raw=column([row.raw for row in rows]),
        members=column([len(row.members) for row in rows]),
        member_ids=b"".join(member.id for member in members),
        member_lengths=column([member.length for member in members]),
    )


def _blob_nonce(ordinal: int) -> bytes:
    return b"\x01" + ordinal.to_bytes(11, "big")


def _blob_bound(header: bytes, kind: int, codec: int, raw: int, blob_id: bytes) -> bytes:
    return header + _BOUND.pack(kind, codec, raw, blob_id)


def open_blob(cipher: Cipher, header: bytes, info: BlobInfo, stored: Buffer) -> Buffer:
    """The raw bytes of one blob; the caller checks the id. Raises CorruptedBackup."""
    bound = _blob_bound(header, info.kind, info.codec, info.raw, info.id)
    return decompress(info.codec, cipher.open(_blob_nonce(info.ordinal), stored, bound), info.raw)


def read_footer_length(trailer: bytes, size: int) -> int:
    """Length of the sealed table, from the last bytes of a pack of `size` bytes. Raises CorruptedBackup."""
    if len(trailer) != TRAILER_BYTES:
        raise CorruptedBackup("a pack is cut short")
    length, magic = _TRAILER.unpack(trailer)
    if magic != _END_MAGIC or size > MAX_PACK or not TAG_BYTES <= length <= size - HEADER_BYTES - TRAILER_BYTES:
        raise CorruptedBackup("a pack does not end as it should", cause="it is cut short or was changed")
    return int(length)


def open_table(header: bytes, footer: bytes, size: int, epoch_key: bytes) -> PackTable:
    """The table of a pack of `size` bytes, checked against that size. Raises CorruptedBackup."""
    raw = open_body(open_header(header, epoch_key), header[:HEADER_BYTES], footer)
    table = decode_strictly(raw, PackTable)
    table.check()
    if table.end() + len(footer) + TRAILER_BYTES != size:
        raise CorruptedBackup("a pack holds bytes that its table does not name")
    return table
