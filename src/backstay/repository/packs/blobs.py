"""Blobs as they are stored, which can be opened without the repository: all it takes are the keys of its epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from backstay.codec.cipher import Cipher
from backstay.codec.compression import Buffer
from backstay.errors import CorruptedBackup
from backstay.repository.packs.pack import BlobInfo, open_blob
from backstay.repository.records import open_header

_CIPHERS: Final = 4  # twice as many as packs of one kind are written at a time


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
    """Opens blobs by the keys of epochs, for one thread.

    It keeps the ciphers of the packs that it met lately: blobs of one time lie in several packs, by chance.
    """

    def __init__(self, epochs: Mapping[int, bytes]) -> None:
        self._epochs = epochs
        self._ciphers: dict[bytes, Cipher] = {}  # by the pack's header, the oldest first

    def open(self, blob: StoredBlob, stored: Buffer) -> Buffer:
        """The raw bytes; the caller checks the ids of the chunks in it. Raises CorruptedBackup."""
        cipher = self._ciphers.get(blob.header)
        if cipher is None:
            cipher = self._new_cipher(blob)
        return open_blob(cipher, blob.header, blob.info, stored)

    def _new_cipher(self, blob: StoredBlob) -> Cipher:
        key = self._epochs.get(blob.epoch)
        if key is None:
            raise CorruptedBackup(f"there is no key for epoch {blob.epoch}")
        cipher = open_header(blob.header, key)
        if len(self._ciphers) == _CIPHERS:
            del self._ciphers[next(iter(self._ciphers))]
        self._ciphers[blob.header] = cipher
        return cipher
