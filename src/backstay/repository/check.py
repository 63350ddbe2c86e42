"""Check one stored pack from its name to the last chunk in it."""

from __future__ import annotations

from backstay.codec.cipher import Cipher
from backstay.codec.digest import ChunkIds, sha256
from backstay.errors import CorruptedBackup
from backstay.repository.format import BlobKind, pack_name
from backstay.repository.index import PackInfo
from backstay.repository.keyring import Keyring
from backstay.repository.pack import NO_ID, TRAILER_BYTES, PackTable, open_blob, open_table, read_footer_length
from backstay.repository.records import HEADER_BYTES, header_epoch, open_header


def check_pack(data: bytes, info: PackInfo, keyring: Keyring) -> None:
    """The name, the table, every blob and every chunk of a pack's bytes. Raises CorruptedBackup."""
    name = pack_name(info.kind, info.digest)
    if sha256(data) != info.digest:
        raise CorruptedBackup(f"{name} was changed", cause="its bytes do not match its name")
    header = data[:HEADER_BYTES]
    key = keyring.key(header_epoch(header, info.kind, keyring.repository))
    footer = read_footer_length(data[-TRAILER_BYTES:], len(data))
    table = open_table(header, data[-TRAILER_BYTES - footer : -TRAILER_BYTES], len(data), key)
    if not _same_blobs(table, info.table):
        raise CorruptedBackup(f"{name} holds other blobs than the index says")
    check_blobs(data, open_header(header, key), keyring.chunk_ids, table)


def _same_blobs(table: PackTable, indexed: PackTable) -> bool:
    return (table.kinds, table.ids, table.stored, table.raw) == (
        indexed.kinds,
        indexed.ids,
        indexed.stored,
        indexed.raw,
    )


def check_blobs(data: bytes, cipher: Cipher, ids: ChunkIds, table: PackTable) -> None:
    """Decode every blob and compare every id. Raises CorruptedBackup."""
    header, view = data[:HEADER_BYTES], memoryview(data)
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
