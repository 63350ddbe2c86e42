"""Files of a cluster as a snapshot has them: read chunk by chunk, with what changed in them since they were stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from backstay.codec.compression import Buffer
from backstay.errors import BackstayError, CorruptedBackup, ObjectFrozen, ObjectNotFound, TierNotAttached
from backstay.repository.blobs.contents import Change, changes_of, chunk_ids, patch_of
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import EMPTY, Node

CHUNK: Final = 32 << 10  # bytes: four blocks, so that a changed block costs little and a file is not too many chunks
UNREADABLE: Final = (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen)


class StoredChunk(NamedTuple):
    """A chunk of a file: what is stored, what was changed in it since, and how many bytes it has."""

    chunk: bytes
    change: Change | None
    length: int

    def read(self, reader: BlobReader) -> Buffer:
        """Its bytes. Raises CorruptedBackup."""
        data = reader.chunk(self.chunk)
        if len(data) != self.length:
            raise CorruptedBackup("it is not cut as files of a cluster are")
        return data if self.change is None else self.change.apply_to(data, reader)

    @property
    def id(self) -> bytes:
        """The id that its bytes have."""
        return self.chunk if self.change is None else self.change.chunk


class StoredFile:
    """A file of a cluster as a snapshot has it, asked for chunk by chunk, in order.

    Once its changes could not be read, it says so for every chunk that follows: without them the base looks whole.
    """

    def __init__(self, node: Node | None, reader: BlobReader) -> None:
        self._size = node.size if node is not None else 0
        content = (node.content or EMPTY) if node is not None else EMPTY
        changes: Iterator[Change] = iter(())
        if content.is_patched:
            patch = patch_of(content, reader)
            content, changes = patch.base, changes_of(patch, reader)
        self._ids = chunk_ids(content, reader)
        self._at, self._id = -1, b""  # the chunk that was asked for last
        self._changes = changes
        self._failure: BackstayError | None = None
        self._next = self._change()

    def chunk(self, number: int) -> StoredChunk | None:
        """The chunk of a number that is not less than the one before; None behind the end. Raises CorruptedBackup."""
        start = number * CHUNK
        if start >= self._size:
            return None
        while self._next is not None and self._next.at + self._next.length <= start:
            self._next = self._change()
        change = self._next if self._next is not None and self._next.at < start + CHUNK else None
        length = min(CHUNK, self._size - start)
        chunk = self._chunk_id(number)
        if not chunk or (change is not None and _range(change) != (start, length, start, length)):
            raise CorruptedBackup("it is not cut as files of a cluster are")
        return StoredChunk(chunk, change, length)

    def _chunk_id(self, number: int) -> bytes:
        """The id of a chunk that is stored; nothing behind the last."""
        while self._at < number:
            self._at, self._id = self._at + 1, next(self._ids, b"")
        return self._id

    def _change(self) -> Change | None:
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._changes, None)
        except UNREADABLE as error:
            self._failure = error
            raise


def _range(change: Change) -> tuple[int, int, int, int]:
    return change.at, change.length, change.base_at, change.base_length
