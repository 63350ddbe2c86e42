"""Which chunks are in use: a walk over every listing, remembered in a bitmap that may only err on the safe side."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from backstay.repository.blobs import BlobReader
from backstay.repository.contents import all_chunk_ids
from backstay.repository.nodes import Content
from backstay.repository.snapshots import Manifest
from backstay.repository.trees import read_listing

BITS_PER_CHUNK: Final = 32  # one dead chunk in about 32 passes for a live one
_LEAST_BITS: Final = 1 << 20


class LiveChunks:
    """A set of chunk ids that may hold a few more than were added, never fewer; four bytes per chunk."""

    def __init__(self, expected: int) -> None:
        self._bits = max(_LEAST_BITS, 1 << (expected * BITS_PER_CHUNK - 1).bit_length())
        self._map = bytearray(self._bits // 8)

    def add(self, chunk: bytes) -> None:
        bit = int.from_bytes(chunk[:8], "little") & (self._bits - 1)
        self._map[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, chunk: bytes) -> bool:
        bit = int.from_bytes(chunk[:8], "little") & (self._bits - 1)
        return bool(self._map[bit >> 3] & 1 << (bit & 7))


def mark(snapshots: Iterable[Manifest], reader: BlobReader, live: LiveChunks) -> None:
    """Add every chunk that the snapshots need. Raises CorruptedBackup when a listing cannot be read."""
    seen: set[bytes] = set()
    for snapshot in snapshots:
        for chunk in all_chunk_ids(snapshot.stat_stream, reader):
            live.add(chunk)
        _mark_listings(snapshot.root, reader, live, seen)


def _mark_listings(root: Content, reader: BlobReader, live: LiveChunks, seen: set[bytes]) -> None:
    waiting = [root]
    while waiting:
        content = waiting.pop()
        key = blake2b(content.ids, digest_size=12).digest()
        if key in seen:
            continue
        seen.add(key)
        for chunk in all_chunk_ids(content, reader):
            live.add(chunk)
        for node in read_listing(content, reader):
            if node.content is None:
                continue
            if node.is_dir:
                waiting.append(node.content)
            else:
                for chunk in all_chunk_ids(node.content, reader):
                    live.add(chunk)
