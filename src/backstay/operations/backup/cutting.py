"""What becomes of the bytes of a file that is read in one go."""

from __future__ import annotations

from typing import TypeAlias

from backstay.codec.chunker import Chunker
from backstay.codec.compression import Buffer
from backstay.codec.digest import ChunkIds, sha256
from backstay.repository.blobs.writer import SMALL

Chunks: TypeAlias = list[tuple[bytes, Buffer]]  # (id, bytes) in order


def cut_whole(data: bytes, ids: ChunkIds, chunker: Chunker) -> tuple[bytes, Chunks]:
    """The SHA-256 of a file, and its chunks; a small one is a chunk by itself."""
    if len(data) <= SMALL:
        return sha256(data), [(ids.of(data), data)] if data else []
    return sha256(data), [(ids.of(piece), piece) for piece in chunker.cut(data, last=True)]
