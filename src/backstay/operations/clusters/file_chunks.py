"""Stores one file of a cluster chunk by chunk: each as it is, or as what changed in that of the earlier snapshot."""

from __future__ import annotations

from typing import Final, Protocol

from backstay.operations.clusters.stored_files import UNREADABLE, StoredChunk, StoredFile
from backstay.repository.blobs.contents import Change, content_of
from backstay.repository.blobs.patches import PatchWriter, worthwhile
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import EMPTY, Content
from backstay.repository.repository import Repository

_IN_VAIN: Final = 8  # after so many deltas in a row that saved too little, only each eighth chunk is tried


class Store(Protocol):
    """What contents are made with."""

    writer: BlobWriter
    repository: Repository


class Chunks:
    """Chunks of one file, which come in order."""

    def __init__(self, store: Store, earlier: StoredFile, reader: BlobReader) -> None:
        self._made = store.writer, store.repository.keyring.chunk_ids, store.repository.listing_chunker
        self._writer, self._ids, _ = self._made
        self._earlier, self._reader = earlier, reader
        self._found: list[bytes] = []
        self._changes: PatchWriter | None = None
        self._size = 0
        self._in_vain = 0  # deltas in a row that saved too little

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """The next chunk of the file."""
        chunk = self._ids.of(data)
        if not self._writer.has(chunk) and self._put_change(chunk, data):
            return
        self._writer.put(RecordKind.DATA_PACK, chunk, data)
        self._add(chunk, len(data))

    def keep(self, length: int) -> bool:
        """Take the next chunk as the earlier snapshot has it; false if it does not have it any more."""
        old = self._earlier.chunk(len(self._found))
        if old is None or not self._writer.has(old.chunk):
            return False
        self._add(old.chunk, length, old.change)
        return True

    def _put_change(self, chunk: bytes, data: bytes | bytearray | memoryview) -> bool:
        """Store a chunk as what changed, if that is little."""
        try:
            old = self._earlier.chunk(len(self._found))
            # With another length, what is behind it would lie elsewhere in the base.
            if old is None or old.length != len(data) or not self._writer.has(old.chunk):
                return False
            change = self._change(old, chunk, data)
        except UNREADABLE:  # nothing to build upon: the chunk is stored as it is, and `verify` tells
            return False
        if change is not None:
            self._add(old.chunk, len(data), change)
        return change is not None

    def _change(self, old: StoredChunk, chunk: bytes, data: bytes | bytearray | memoryview) -> Change | None:
        if old.change is not None and old.change.chunk == chunk:
            return old.change
        if self._in_vain >= _IN_VAIN and len(self._found) % _IN_VAIN:
            return None
        packed = worthwhile(data, self._reader.chunk(old.chunk))
        if packed is None:
            self._in_vain += 1
            return None
        self._in_vain = 0
        return Change(self._size, len(data), self._size, len(data), chunk, packed)

    def _add(self, chunk: bytes, length: int, change: Change | None = None) -> None:
        if change is not None:
            if self._changes is None:
                self._changes = PatchWriter(*self._made)
            self._changes.add(change)
        self._found.append(chunk)
        self._size += length

    def content(self) -> Content:
        if not self._found:
            return EMPTY
        content = content_of(self._found, *self._made)
        return content if self._changes is None else self._changes.finish(self._size, content)
