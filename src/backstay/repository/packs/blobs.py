"""Blobs as they are stored, which can be opened without the repository: all it takes are the keys of its epochs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from backstay.codec.cipher import Cipher
from backstay.codec.compression import Buffer
from backstay.errors import CorruptedBackup
from backstay.repository.packs.pack import BlobInfo, open_blob
from backstay.repository.records import open_header


class BlobKeys(msgspec.Struct, array_like=True, frozen=True):
    """What opens blobs and names chunks: the data keys by epoch, and the id key."""

    epochs: dict[int, bytes]
    ids: bytes


class StoredBlob(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One blob of a pack, its bytes left out; `header` is that of the pack."""

    header: bytes
    epoch: int
    info: BlobInfo


class BlobOpener:
    """Opens blobs by the keys of epochs; keeps the cipher of the pack that it met last, since neighbours follow."""

    def __init__(self, epochs: Mapping[int, bytes]) -> None:
        self._epochs = epochs
        self._last: tuple[bytes, Cipher] | None = None

    def open(self, blob: StoredBlob, stored: Buffer) -> Buffer:
        """The raw bytes; the caller checks the ids of the chunks in it. Raises CorruptedBackup."""
        if self._last is None or self._last[0] != blob.header:
            key = self._epochs.get(blob.epoch)
            if key is None:
                raise CorruptedBackup(f"there is no key for epoch {blob.epoch}")
            self._last = blob.header, open_header(blob.header, key)
        return open_blob(self._last[1], blob.header, blob.info, stored)
