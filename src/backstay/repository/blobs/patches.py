"""Writes patched contents: a stream as another one that is stored, and what changed (docs/format.md, "Patches")."""

from __future__ import annotations

from typing import Final

import msgspec

from backstay.codec.chunker import Chunker
from backstay.codec.compression import Buffer
from backstay.codec.deltas import MOST, delta, undelta
from backstay.codec.digest import ChunkIds
from backstay.errors import BackupFailed
from backstay.repository.blobs.contents import CHANGE, PATCH, Change, MetaWriter, Patch, frame
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.nodes import PATCHED, Content

WORTH: Final = 8  # a change must be so many times smaller than its bytes: then it is smaller than they are compressed
_encoder: Final = msgspec.msgpack.Encoder()


def worthwhile(data: Buffer, base: Buffer) -> bytes | None:
    """The delta that makes `data` of `base`; None when it saves too little, or both are too long for one."""
    if not data or max(len(data), len(base)) > MOST:
        return None
    packed = delta(data, base)
    if len(packed) * WORTH > len(data):
        return None
    if undelta(packed, base, len(data)) != data:  # what cannot be had again must not be stored
        raise BackupFailed("the compressor made a delta that does not give its data again")
    return packed


class PatchWriter:
    """Writes the changes of one content, by their positions; none may overlap."""

    def __init__(self, writer: BlobWriter, ids: ChunkIds, chunker: Chunker) -> None:
        self._made = writer, ids, chunker
        self._changes = MetaWriter(*self._made)

    def add(self, change: Change) -> None:
        self._changes.write(frame(CHANGE, _encoder.encode(change)))

    def finish(self, size: int, base: Content) -> Content:
        """The patched content: `size` bytes, those of `base`, which is stored, but for the changes."""
        stream = MetaWriter(*self._made)
        stream.write(frame(PATCH, _encoder.encode(Patch(size, base, self._changes.finish()))))
        patch = stream.finish()
        return Content(PATCHED + patch.depth, patch.ids)
