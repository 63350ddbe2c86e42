"""Check one stored pack from its name to the last chunk in it; or read its table alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from backstay.codec.cipher import Cipher
from backstay.codec.compression import Buffer
from backstay.codec.digest import ChunkIds, sha256
from backstay.errors import CorruptedBackup
from backstay.repository.format import BlobKind, RecordKind, pack_name
from backstay.repository.index.index import PackInfo
from backstay.repository.keys.keyring import Keyring
from backstay.repository.packs.pack import (
    NO_ID,
    TRAILER_BYTES,
    PackTable,
    StoredPack,
    open_blob,
    open_table,
    read_footer_length,
)
from backstay.repository.records import HEADER_BYTES, header_epoch, open_header
from backstay.storage.backend import StorageBackend

TAIL: Final = 64 << 10  # bytes at the end of a pack in which its table usually lies


class Expected(msgspec.Struct, array_like=True, frozen=True):
    """What the index says of a pack: which blobs it holds, by columns."""

    kind: RecordKind
    digest: bytes
    size: int
    columns: tuple[bytes, bytes, bytes, bytes]

    @classmethod
    def of(cls, info: PackInfo) -> Expected:
        return cls(info.kind, info.digest, info.size, _columns(info.table))

    @property
    def name(self) -> str:
        return pack_name(self.kind, self.digest)


def check_pack(
    data: Buffer, expected: Expected, repository: bytes, ids: ChunkIds, epoch_key: Callable[[int], bytes]
) -> None:
    """The name, the table, every blob and every chunk of a pack's bytes. Raises CorruptedBackup."""
    if sha256(data) != expected.digest:
        raise CorruptedBackup(f"{expected.name} was changed", cause="its bytes do not match its name")
    view = memoryview(data)
    header = bytes(view[:HEADER_BYTES])
    key = epoch_key(header_epoch(header, expected.kind, repository))
    table = _table_within(view, header, key)
    if _columns(table) != expected.columns:
        raise CorruptedBackup(f"{expected.name} holds other blobs than the index says")
    _check_blobs(view, header, open_header(header, key), ids, table)


def table_within(data: memoryview, keyring: Keyring, kind: RecordKind) -> StoredPack:
    """What the bytes of a pack say of themselves, under whatever name. Raises CorruptedBackup, UnsupportedFormat."""
    header = bytes(data[:HEADER_BYTES])
    epoch = header_epoch(header, kind, keyring.repository)
    table = _table_within(data, header, keyring.key(epoch))
    return StoredPack(sha256(data), kind, len(data), epoch, table)


def _table_within(view: memoryview, header: bytes, epoch_key: bytes) -> PackTable:
    footer = read_footer_length(bytes(view[-TRAILER_BYTES:]), len(view))
    return open_table(header, bytes(view[-TRAILER_BYTES - footer : -TRAILER_BYTES]), len(view), epoch_key)


def read_table(backend: StorageBackend, keyring: Keyring, kind: RecordKind, digest: bytes, size: int) -> StoredPack:
    """A pack's own table, by reading its two ends. Raises CorruptedBackup, ObjectNotFound, UnsupportedFormat."""
    if size < HEADER_BYTES + TRAILER_BYTES:
        raise CorruptedBackup("a pack is cut short", cause=f"it has {size} bytes")
    name, tail_bytes = pack_name(kind, digest), min(size, TAIL)
    header = backend.retrieve(name, start=0, length=HEADER_BYTES)
    epoch = header_epoch(header, kind, keyring.repository)
    tail = backend.retrieve(name, start=size - tail_bytes, length=tail_bytes)
    wanted = read_footer_length(tail[-TRAILER_BYTES:], size) + TRAILER_BYTES
    if wanted > len(tail):
        tail = backend.retrieve(name, start=size - wanted, length=wanted)
    table = open_table(header, tail[-wanted:-TRAILER_BYTES], size, keyring.key(epoch))
    return StoredPack(digest, kind, size, epoch, table)


def _columns(table: PackTable) -> tuple[bytes, bytes, bytes, bytes]:
    return table.kinds, table.ids, table.stored, table.raw


def _check_blobs(view: memoryview, header: bytes, cipher: Cipher, ids: ChunkIds, table: PackTable) -> None:
    """Decode every blob and compare every id. Raises CorruptedBackup."""
    chunks = iter(table.chunks())
    following = next(chunks, None)
    for blob in table.blobs():
        raw = memoryview(open_blob(cipher, header, blob, view[blob.offset : blob.offset + blob.stored]))
        if blob.id != (NO_ID if blob.kind == BlobKind.PADDING else ids.of(raw)):
            raise CorruptedBackup(f"blob {blob.ordinal} holds other bytes than its id says")
        while following is not None and following[1] == blob.ordinal:
            chunk, _, offset, length = following
            if blob.kind == BlobKind.BUNDLE and ids.of(raw[offset : offset + length]) != chunk:
                raise CorruptedBackup(f"blob {blob.ordinal} holds other bytes than its member's id says")
            following = next(chunks, None)
