"""Blobs that are read a moment before they are wanted, past the page cache, where packs are files of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Semaphore
from typing import Final, TypeAlias

from backstay.core.past_cache import Bytes, PastCacheReader
from backstay.core.pipeline import Workers
from backstay.errors import BackstayError
from backstay.repository.blobs.reader import BlobReader, Lying
from backstay.repository.index.index import Place
from backstay.repository.packs.blobs import StoredBlob

AT_ONCE: Final = 4  # reads under way: one that is done waits for its turn on the processors, and the disk must not
BUFFERS: Final = 16  # blobs that are read and not taken yet

_Read: TypeAlias = tuple[StoredBlob, Bytes]
Ahead: TypeAlias = Future[_Read | None]


class BlobsAhead:
    """Whatever it cannot read is left to the ordinary way, where it shows again and is told."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self._files = PastCacheReader(BUFFERS)
        self._spare = Semaphore(BUFFERS)  # never waited for: who asks is who makes room
        self._workers = Workers(AT_ONCE, "ahead")

    def ask(self, place: Place) -> Ahead | None:
        """Have a blob read; None if it is at hand already, or too many wait to be taken. Give the answer to `taken`."""
        if self._reader.has_decoded(place) or not self._spare.acquire(blocking=False):
            return None
        return self._workers.submit(self._read, place)

    @contextmanager
    def taken(self, ahead: Ahead | None) -> Iterator[Lying | None]:
        """Wait for a blob that was asked for; its memory is used again afterwards."""
        read = ahead.result() if ahead is not None else None
        try:
            yield (read[0], read[1].view) if read is not None else None
        finally:
            if read is not None:
                read[1].release()
            if ahead is not None:
                self._spare.release()

    def close(self) -> None:
        """Read no more; what was asked for and not taken is gone."""
        self._workers.close()

    def _read(self, place: Place) -> _Read | None:
        try:
            lying = self._reader.lying_blob(place)
            if lying is None:
                return None
            blob, file = lying
            try:
                return blob, self._files.read(file, blob.info.stored, blob.info.offset)
            finally:
                os.close(file)
        except (BackstayError, OSError):
            return None
