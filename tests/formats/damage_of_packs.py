"""Forged packs, and index segments that lie about them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
import zstandard

from backstay.codec.compression import GZIP, RAW, ZSTD
from backstay.codec.digest import sha256
from backstay.repository import format as stored
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.index.index import IndexedPack, read_segment
from backstay.repository.nodes import Content
from backstay.repository.packs.pack import BlobInfo, PackBuilder, SealedBlob, column, numbers
from tests.formats.forge import (
    HELLO,
    HUGE,
    PLAIN,
    Change,
    Damage,
    Forge,
    Objects,
    forged,
    names,
    zeros,
)


def _moved_border(forge: Forge) -> Objects:
    _, record = forge.index_record()
    sizes = list(numbers(record.packs[0].table.stored))
    sizes[0], sizes[1] = sizes[0] + 16, sizes[1] - 16
    return forge.with_table(stored=column(sizes))


def _swapped_ids(forge: Forge) -> Objects:
    _, record = forge.index_record()
    pack = next(pack for pack in record.packs if len(pack.table.member_ids) > 64)
    ids = pack.table.member_ids
    table = msgspec.structs.replace(pack.table, member_ids=ids[32:64] + ids[:32] + ids[64:])
    name, _ = forge.index_record()
    forge.storage.delete(name)
    forge.segment([msgspec.structs.replace(p, table=table) if p is pack else p for p in record.packs])
    return forge.objects


def _reversed_packs(forge: Forge) -> Objects:
    """One segment of all packs, in the wrong order."""
    packs: list[IndexedPack] = []
    for name in names(forge.objects, "index segment"):
        packs += read_segment(forge.storage, forge.keyring, bytes.fromhex(name.rpartition("/")[2])).packs
        forge.storage.delete(name)
    forge.segment(sorted({pack.digest: pack for pack in packs}.values(), key=lambda pack: pack.digest, reverse=True))
    return forge.objects


def _grown_pack(**changes: Any) -> Change:
    def make(forge: Forge) -> Objects:
        name, record = forge.index_record()
        forge.storage.delete(name)
        forge.segment([msgspec.structs.replace(record.packs[0], **changes), *record.packs[1:]])
        return forge.objects

    return forged(make)


def _column(name: str, value: Callable[[bytes], bytes]) -> Change:
    def make(forge: Forge) -> Objects:
        _, record = forge.index_record()
        return forge.with_table(**{name: value(getattr(record.packs[0].table, name))})

    return forged(make)


def _lying_footer(forge: Forge) -> Objects:
    """A pack whose own table names a byte less than there is."""
    epoch = forge.keyring.current
    builder = PackBuilder(
        RecordKind.DATA_PACK,
        repository=forge.keyring.repository,
        epoch=epoch.number,
        key=epoch.key,
        random=forge.random,
    )
    sealed = builder.seal(builder.reserve(), BlobKind.CHUNK, forge.keyring.chunk_ids.of(HELLO), HELLO, (), PLAIN)
    builder.append(SealedBlob(sealed.kind, sealed.codec, sealed.id, sealed.raw, sealed.stored + b"\0", ()))
    table = builder.finish().table
    data = bytes(builder.data)
    info: BlobInfo = next(table.blobs())
    shorter = data[: info.offset + info.stored - 1] + data[info.offset + info.stored :]
    digest = sha256(shorter)
    forge.put(stored.pack_name(RecordKind.DATA_PACK, digest), shorter)
    forge.segment([IndexedPack(digest, int(RecordKind.DATA_PACK), len(shorter), epoch.number, table)])
    return forge.objects


def _bomb(codec: int, packed: bytes, raw_length: int, chunk: bytes = HELLO) -> Change:
    """A file whose one chunk is packed like this."""

    def make(forge: Forge) -> Objects:
        content = Content(0, forge.packed_chunk(chunk, codec, packed, raw_length))
        return forge.tree([forge.file(content=content, size=len(chunk), sha256=sha256(chunk))])

    return forged(make)


def _zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _wide_window() -> bytes:
    """A frame that declares its size and a window of 128 MiB (RFC 8878 section 3.1.1.1)."""
    head = b"\x28\xb5\x2f\xfd\x80" + bytes([17 << 3]) + len(HELLO).to_bytes(4, "little")
    return head + (len(HELLO) << 3 | 1).to_bytes(3, "little") + HELLO


def _sizeless() -> bytes:
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return packer.compress(HELLO) + packer.flush()


def _lying(bomb: bytes) -> bytes:
    """The frame with another content size in its header (RFC 8878 section 3.1.1)."""
    size = (1 << 30).to_bytes(4, "little")
    assert size in bomb[:18]
    return bomb.replace(size, len(HELLO).to_bytes(4, "little"), 1)


def _packs() -> list[Damage]:
    bomb = zeros(1 << 30)
    return [
        Damage("index: a border between blobs moved", forged(_moved_border), says="footer"),
        Damage("index: two members swapped", forged(_swapped_ids), says="footer"),
        Damage("index: a blob of 4 GiB", _column("stored", lambda c: HUGE + c[4:]), says="footer"),
        Damage("index: raw bytes of 4 GiB", _column("raw", lambda c: HUGE + c[4:]), says="impossible"),
        Damage("index: a column cut", _column("codecs", lambda c: c[:-1]), says="column"),
        Damage("index: half a number", _column("raw", lambda c: c[:-1]), says="column"),
        Damage("index: another codec", _column("codecs", lambda c: b"\x09" * len(c)), says="footer"),
        Damage("index: members without end", _column("members", lambda c: HUGE + c[4:]), says="members"),
        Damage("index: half a member", _column("member_lengths", lambda c: c + b"\0"), says="column"),
        Damage("index: another epoch", _grown_pack(epoch=2), says="footer"),
        Damage("index: an epoch that never was", _grown_pack(epoch=77), says="footer"),
        Damage("index: an epoch below zero", _grown_pack(epoch=-1), says="footer"),
        Damage("index: an epoch beyond counting", _grown_pack(epoch=1 << 60), says="footer"),
        Damage("index: a pack of no size", _grown_pack(size=0), says="impossible"),
        Damage("index: a pack of absurd size", _grown_pack(size=1 << 40), says="impossible"),
        Damage("index: a pack of another kind", _grown_pack(kind=4), says="impossible"),
        Damage("index: packs out of order", forged(_reversed_packs), says="order", engine=False),
        Damage("index: a pack that never was", _grown_pack(digest=bytes(32))),
        Damage("pack: its table names a byte too many", forged(_lying_footer), engine=False, says="does not name"),
        Damage("blob: zip bomb that tells its size", _bomb(ZSTD, bomb, len(HELLO)), says="zstd"),
        Damage("blob: zip bomb that lies about its size", _bomb(ZSTD, _lying(bomb), len(HELLO))),
        Damage("blob: zstd without a size", _bomb(ZSTD, _sizeless(), len(HELLO)), says="zstd"),
        Damage("blob: zstd with a huge window", _bomb(ZSTD, _wide_window(), len(HELLO)), says="zstd"),
        Damage("blob: two zstd frames", _bomb(ZSTD, _zstd(HELLO) + _zstd(HELLO), len(HELLO))),
        Damage("blob: zstd and something after it", _bomb(ZSTD, _zstd(HELLO) + b"\0", len(HELLO))),
        Damage("blob: zstd cut short", _bomb(ZSTD, _zstd(HELLO)[:-1], len(HELLO))),
        Damage("blob: zstd that is none", _bomb(ZSTD, b"\x28\xb5\x2f\xfd" + bytes(9), len(HELLO))),
        Damage("blob: gzip bomb", _bomb(GZIP, _gzip(bytes(64 << 20)), len(HELLO)), says="gzip"),
        Damage("blob: two gzip members", _bomb(GZIP, _gzip(HELLO) + _gzip(HELLO), len(HELLO)), says="gzip"),
        Damage("blob: gzip cut short", _bomb(GZIP, _gzip(HELLO)[:-1], len(HELLO)), says="gzip"),
        Damage("blob: unknown codec", _bomb(9, HELLO, len(HELLO)), says="codec"),
        Damage("blob: other bytes than its id says", _bomb(RAW, b"HELLO", len(HELLO)), says="id"),
        Damage("blob: raw bytes of another length", _bomb(RAW, HELLO, 6), says="declared"),
    ]


OF_PACKS: Final = _packs()
