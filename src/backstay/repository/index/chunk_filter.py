"""A set of chunk ids that may hold a few more than were added, never fewer: a bitmap."""

from __future__ import annotations

from typing import Final

BITS_PER_CHUNK: Final = 16  # two of them are set: one stranger in about 70 is taken for a member
_LEAST_BITS: Final = 1 << 20


class ChunkFilter:
    """Two to four bytes per expected chunk; ids are keyed hashes, so that any of their bits are as good as random."""

    __slots__ = ("_map", "_mask", "added", "capacity")

    def __init__(self, expected: int) -> None:
        bits = max(_LEAST_BITS, 1 << (max(expected, 1) * BITS_PER_CHUNK - 1).bit_length())
        self._mask = bits - 1
        self._map = bytearray(bits // 8)
        self.capacity = bits // BITS_PER_CHUNK
        self.added = 0

    def add(self, chunk: bytes) -> None:
        number = int.from_bytes(chunk[:8], "little")
        bit, other = number & self._mask, number >> 32 & self._mask
        self._map[bit >> 3] |= 1 << (bit & 7)
        self._map[other >> 3] |= 1 << (other & 7)
        self.added += 1

    def __contains__(self, chunk: bytes) -> bool:
        number = int.from_bytes(chunk[:8], "little")
        bit = number & self._mask
        if not self._map[bit >> 3] & 1 << (bit & 7):  # nearly all strangers
            return False
        other = number >> 32 & self._mask
        return bool(self._map[other >> 3] & 1 << (other & 7))
