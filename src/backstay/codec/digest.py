"""Content ids (keyed BLAKE3) and SHA-256."""

from __future__ import annotations

import hashlib
from typing import Final

from blake3 import blake3

ID_BYTES: Final = 32


class ChunkIds:
    """Names chunks by BLAKE3-256 keyed with the repository's id key, so that ids confirm nothing to a stranger."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key

    def of(self, data: bytes | bytearray | memoryview) -> bytes:
        """The 32-byte id of a chunk."""
        return blake3(data, key=self.key).digest()


def sha256(data: bytes | bytearray | memoryview) -> bytes:
    """The 32-byte SHA-256 (FIPS 180-4)."""
    return hashlib.sha256(data).digest()
