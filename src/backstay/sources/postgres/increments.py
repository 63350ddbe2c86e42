"""Files of an incremental base backup: the blocks that changed, and how long the file is now.

PostgreSQL 17's src/backend/backup/basebackup.c (`sendFile`) writes them, pg_combinebackup's reconstruct.c reads them: a
header of 32-bit numbers in the server's byte order (magic, count, truncation length in blocks, the numbers of the
blocks), zeros up to a whole block if there is any, then the blocks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from backstay.errors import BackupFailed

PREFIX: Final = b"INCREMENTAL."
BLOCK: Final = 8192  # bytes of a block, in every build that is distributed
_MAGIC: Final = 0xD3AE1F0D
_HEAD: Final = struct.Struct("=III")
_MOST: Final = (1 << 30) // BLOCK  # blocks of a file at most


@dataclass(frozen=True, slots=True)
class Changes:
    """Which blocks of a file come, in their order, and its length in blocks."""

    blocks: tuple[int, ...]
    length: int


class ChangesHeader:
    """The header of one file, out of pieces of any length."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._wanted = _HEAD.size

    def feed(self, piece: memoryview) -> tuple[Changes | None, memoryview]:
        """The header once it is there, and what of the piece comes behind it. Raises BackupFailed."""
        while len(self._bytes) < self._wanted:
            missing = self._wanted - len(self._bytes)
            self._bytes += piece[:missing]
            piece = piece[missing:]
            if len(self._bytes) < self._wanted:
                return None, piece
            self._wanted = _header_length(self._bytes)
        return _changes(self._bytes), piece


def _header_length(head: bytearray) -> int:
    magic, count, _ = _HEAD.unpack_from(head)
    if magic != _MAGIC or count > _MOST:
        raise BackupFailed("a file of the server's incremental backup cannot be read", cause="its header is wrong")
    length: int = _HEAD.size + 4 * count
    return length + -length % BLOCK if count else length


def _changes(header: bytearray) -> Changes:
    _, count, truncation = _HEAD.unpack_from(header)
    blocks = struct.unpack_from(f"={count}I", header, _HEAD.size)
    if any(later <= earlier for earlier, later in pairwise(blocks)) or truncation > _MOST:
        raise BackupFailed("a file of the server's incremental backup cannot be read", cause="its blocks go back")
    return Changes(blocks, max(truncation, blocks[-1] + 1) if blocks else truncation)
