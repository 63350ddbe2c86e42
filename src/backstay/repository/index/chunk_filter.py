"""A set of chunk ids that may hold a few more than were added, never fewer: a bitmap."""

from __future__ import annotations

from typing import Final

BITS_PER_CHUNK: Final = 32  # one stranger in about 32 is taken for a member
_LEAST_BITS: Final = 1 << 20


class ChunkFilter:
    """Four bytes per expected chunk; ids are keyed hashes, so that any of their bits are as good as random."""

    __slots__ = ("_map", "_mask", "added", "capacity")

    def __init__(self, expected: int) -> None:
        bits = max(_LEAST_BITS, 1 << (max(expected, 1) * BITS_PER_CHUNK - 1).bit_length())
        self._mask = bits - 1
        self._map = bytearray(bits // 8)
        self.capacity = bits // BITS_PER_CHUNK
        self.added = 0

    def add(self, chunk: bytes) -> None:
        bit = int.from_bytes(chunk[:8], "little") & self._mask
        self._map[bit >> 3] |= 1 << (bit & 7)
        self.added += 1

    def __contains__(self, chunk: bytes) -> bool:
        bit = int.from_bytes(chunk[:8], "little") & self._mask
        return bool(self._map[bit >> 3] & 1 << (bit & 7))
