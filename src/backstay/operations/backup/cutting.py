"""What becomes of the bytes of files that are read in one go."""

from __future__ import annotations

from typing import Final, TypeAlias

from backstay.codec.chunker import Chunker
from backstay.codec.compression import Buffer
from backstay.codec.digest import ChunkIds, sha256
from backstay.repository.blobs.writer import SMALL

Chunks: TypeAlias = list[tuple[bytes, Buffer]]  # (id, bytes) in order

_WORTH: Final = 4 << 10  # bytes of a file from which on remembering its digest costs less than making it again
_REMEMBERED: Final = 32_768  # digests in each of two generations, 200 bytes each


class FileCutter:
    """Makes chunks of whole files, and their SHA-256; any thread may call it.

    Trees hold many files more than once. Files that are one chunk have the same bytes when that has the same id, so
    the SHA-256, which costs three times as much as the id, is not made again of those that came lately.
    """

    def __init__(self, ids: ChunkIds, chunker: Chunker) -> None:
        self._ids, self._chunker = ids, chunker
        self._digests: dict[bytes, bytes] = {}  # by chunk id
        self._older: dict[bytes, bytes] = {}

    def cut(self, data: bytes) -> tuple[bytes, Chunks]:
        """The SHA-256 of a file, and its chunks; a small one is a chunk by itself."""
        if len(data) > SMALL:
            return sha256(data), [(self._ids.of(piece), piece) for piece in self._chunker.cut(data, last=True)]
        if not data:
            return sha256(data), []
        chunk = self._ids.of(data)
        return (sha256(data) if len(data) < _WORTH else self._digest(chunk, data)), [(chunk, data)]

    def _digest(self, chunk: bytes, data: bytes) -> bytes:
        digest = self._digests.get(chunk)
        if digest is None:
            digest = self._older.get(chunk) or sha256(data)
            if len(self._digests) >= _REMEMBERED:
                self._digests, self._older = {}, self._digests
            self._digests[chunk] = digest
        return digest
