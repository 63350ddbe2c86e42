"""What comes of one file of a cluster: all of it, the blocks that changed, or a label, of which a part is left out."""

from __future__ import annotations

from typing import Protocol

from backstay.codec.digest import sha256
from backstay.errors import BackupFailed
from backstay.operations.clusters.file_chunks import Chunks, Store
from backstay.operations.clusters.stored_files import CHUNK, StoredFile
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Content
from backstay.sources.postgres.increments import BLOCK, Changes, ChangesHeader


class Body(Protocol):
    size: int  # bytes of the file, once it is finished

    def data(self, piece: memoryview) -> None: ...

    def finish(self) -> tuple[Content, bytes | None]:
        """The content, and the SHA-256 of the file if it is known already."""
        ...


class Whole:
    """A file that comes from its beginning to its end."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._buffer = bytearray()
        self.size = 0

    def data(self, piece: memoryview) -> None:
        self.size += len(piece)
        if self._buffer:
            piece = self._fill(piece)
        while len(piece) >= CHUNK:  # as a server sends them
            self._chunks.put(piece[:CHUNK])
            piece = piece[CHUNK:]
        self._buffer += piece

    def _fill(self, piece: memoryview) -> memoryview:
        """Complete the chunk that was begun; what is left."""
        missing = CHUNK - len(self._buffer)
        self._buffer += piece[:missing]
        if len(self._buffer) == CHUNK:
            self._chunks.put(self._buffer)
            self._buffer = bytearray()
        return piece[missing:]

    def finish(self) -> tuple[Content, bytes | None]:
        if self._buffer:
            self._chunks.put(self._buffer)
        return self._chunks.content(), None


class Patched:
    """A file of which only the blocks come that changed; they come in order, and so do the chunks."""

    def __init__(self, path: bytes, chunks: Chunks, old: StoredFile, reader: BlobReader) -> None:
        self._path, self._chunks, self._old, self._reader = path, chunks, old, reader
        self._header = ChangesHeader()
        self._blocks: Changes | None = None
        self._block = bytearray()
        self._next_block = 0  # index of the block that comes next
        self._chunk = 0  # number of the chunk that is being made
        self._new: dict[int, bytes] = {}  # its blocks that came
        self.size = 0

    def data(self, piece: memoryview) -> None:
        if self._blocks is None:
            self._blocks, piece = self._header.feed(piece)
            if self._blocks is None:
                return
            self.size = self._blocks.length * BLOCK
        while piece:
            missing = BLOCK - len(self._block)
            self._block += piece[:missing]
            piece = piece[missing:]
            if len(self._block) == BLOCK:
                self._take(bytes(self._block))
                self._block.clear()

    def _take(self, data: bytes) -> None:
        assert self._blocks is not None
        if self._next_block >= len(self._blocks.blocks):
            raise BackupFailed(f"the server sent more of {self._path!r} than it said")
        block = self._blocks.blocks[self._next_block]
        self._next_block += 1
        self._finish_chunks(before=block * BLOCK // CHUNK)
        self._new[block] = data

    def finish(self) -> tuple[Content, bytes | None]:
        if self._blocks is None or self._block or self._next_block < len(self._blocks.blocks):
            raise BackupFailed(f"the server sent less of {self._path!r} than it said")
        self._finish_chunks(before=-(-self.size // CHUNK))
        return self._chunks.content(), None

    def _finish_chunks(self, *, before: int) -> None:
        while self._chunk < before:
            self._finish_chunk()
            self._chunk += 1
            self._new = {}

    def _finish_chunk(self) -> None:
        start = self._chunk * CHUNK
        length = min(CHUNK, self.size - start)
        old = self._old.chunk(self._chunk)
        if not self._new and old is not None and length == old.length and self._chunks.keep(length):
            return
        data = bytearray(length)
        if old is not None and len(self._new) * BLOCK < length:
            data[: min(length, old.length)] = old.read(self._reader)[:length]
        for block, new in self._new.items():
            at = block * BLOCK - start
            data[at : at + BLOCK] = new
        self._chunks.put(data)


class Label:
    """backup_label without the lines that make a server refuse to start from a file that is whole again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bytes = bytearray()
        self.size = 0

    def data(self, piece: memoryview) -> None:
        self._bytes += piece

    def finish(self) -> tuple[Content, bytes | None]:
        lines = bytes(self._bytes).splitlines(keepends=True)
        kept = b"".join(line for line in lines if not line.startswith(b"INCREMENTAL FROM"))
        self.size = len(kept)
        return made(self._store, kept)


def made(store: Store, data: bytes) -> tuple[Content, bytes]:
    """Store a file that is made here; its content and SHA-256."""
    whole = Whole(Chunks(store, StoredFile(None, store.repository.reader), store.repository.reader))
    whole.data(memoryview(data))
    return whole.finish()[0], sha256(data)
