"""Chunks on their way out: lookup, fetching, decoding, and the check of what came."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from backstay.codec.compression import Buffer
from backstay.errors import (
    CorruptedBackup,
    ObjectFrozen,
    ObjectNotFound,
    ObjectUnreadable,
    StorageUnavailable,
    TierNotAttached,
)
from backstay.repository.format import pack_name
from backstay.repository.index.index import Index, PackInfo, Place
from backstay.repository.keys.keyring import Keyring
from backstay.repository.packs.blobs import BlobOpener, StoredBlob
from backstay.repository.packs.pack import BlobInfo
from backstay.repository.records import HEADER_BYTES, header_epoch
from backstay.repository.tolerance import Tolerance
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import from_any_copy

DECODED_CACHE: Final = 24 << 20  # bytes of decoded blobs that a reader keeps
HEADERS: Final = 4096  # of packs, that a reader keeps

Lying: TypeAlias = tuple[StoredBlob, Buffer]  # and its bytes, as they lie in the pack


class BlobReader:
    """Reads chunks; keeps the blobs decoded last, because neighbours are asked for next. Any thread may call it."""

    def __init__(
        self,
        backend: StorageBackend,
        keyring: Keyring,
        index: Index,
        reload: Callable[[], None],
        tolerance: Tolerance | None = None,
    ) -> None:
        self._backend, self._keyring, self._index, self._reload = backend, keyring, index, reload
        self._tolerance = tolerance or Tolerance()
        self._decoded: OrderedDict[tuple[int, int], Buffer] = OrderedDict()
        self._decoded_bytes = 0
        self._headers: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def place(self, chunk: bytes) -> Place:
        """Where a chunk is. Raises CorruptedBackup when no index segment names it, and for an empty one.

        A list can name one chunk as often as it likes, and without bytes it would never come to an end.
        """
        place = self._index.find(chunk)
        if place is None:
            self._reload()
            place = self._index.search(chunk)
        if place is None:
            raise CorruptedBackup(
                f"chunk {chunk.hex()[:16]} is missing",
                cause="no index segment says where it lies",
                hint="run `backstay repair index`, then `backstay verify`",
            )
        if not place.length:
            raise CorruptedBackup("an empty chunk is listed", cause="no stream is made of such chunks")
        return place

    def chunk(self, chunk: bytes) -> Buffer:
        """The raw bytes of a chunk, checked against its id, from any pack that still has it. Raises CorruptedBackup."""
        try:
            return self._from_any_place(chunk)
        except ObjectNotFound:  # a collector moved it meanwhile
            self._reload()
        try:
            return self._from_any_place(chunk)
        except ObjectNotFound:
            raise self._pack_lost(self.place(chunk)) from None

    def _from_any_place(self, chunk: bytes) -> Buffer:
        error: CorruptedBackup | ObjectNotFound | StorageUnavailable | None = None
        for place in self._places(chunk):
            try:
                return self.slice(self.blob(place), place, chunk)
            # Tell the first failure if no other place helps.
            except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen) as failed:
                error = error or failed
                if isinstance(failed, CorruptedBackup):
                    self._index.distrust(place.pack)
        raise error or ObjectNotFound(f"chunk {chunk.hex()[:16]}")

    def _places(self, chunk: bytes) -> Iterator[Place]:
        """Where a chunk is, and then, by a search of the whole index, wherever else. Raises CorruptedBackup."""
        first = self.place(chunk)
        yield first
        yield from (place for place in self._index.find_all(chunk) if place != first)

    def slice(self, blob: Buffer, place: Place, chunk: bytes) -> Buffer:
        """The chunk's own bytes of a decoded blob. Raises CorruptedBackup when they are not what the id says."""
        data = memoryview(blob)[place.offset : place.offset + place.length]
        if not self._is(chunk, data):
            raise CorruptedBackup(
                f"chunk {chunk.hex()[:16]} holds other bytes than its id says",
                cause=f"pack {self._index.pack(place.pack).digest.hex()[:16]}",
            )
        return data

    def require(self, chunk: bytes, data: Buffer) -> None:
        """See that bytes are what an id says, wherever they come from. Raises CorruptedBackup."""
        if not self._is(chunk, data):
            raise CorruptedBackup(f"what was put together holds other bytes than its id says ({chunk.hex()[:16]})")

    def _is(self, chunk: bytes, data: Buffer) -> bool:
        return self._keyring.chunk_ids.of(data) == chunk

    def run(self, chunks: Sequence[tuple[bytes, int]], place: Place, *, lying: Lying | None = None) -> Buffer:
        """The joined bytes of chunks, given with their lengths, that follow each other in one blob; each is checked.

        `lying` is that blob, if it was read already. Where a chunk is not as it should be, all come from any pack that
        still has them. Who keeps the bytes keeps at most twice as many in memory. Raises CorruptedBackup.
        """
        try:
            blob, at = memoryview(self.blob(place, lying=lying)), place.offset
            for chunk, length in chunks:
                self.slice(blob, place._replace(offset=at, length=length), chunk)
                at += length
            found = blob[place.offset : at]
            return found if 2 * len(found) >= len(blob) else bytes(found)  # parts of a view keep all of it
        except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen):
            return b"".join(self.chunk(chunk) for chunk, _ in chunks)

    def has_decoded(self, place: Place) -> bool:
        """Whether the blob at a place is one of those decoded last."""
        return (place.pack, place.ordinal) in self._decoded

    def blob(self, place: Place, *, lying: Lying | None = None) -> Buffer:
        """The whole decoded blob at a place; `lying` is it, if it was read. Raises CorruptedBackup, ObjectNotFound."""
        key = (place.pack, place.ordinal)
        with self._lock:
            if key in self._decoded:
                self._decoded.move_to_end(key)
                return self._decoded[key]
        opened = self._opened(lying)
        blob = opened if opened is not None else self.read_blob(place.pack, place.ordinal)
        with self._lock:
            if key not in self._decoded:
                self._decoded[key] = blob
                self._decoded_bytes += len(blob)
            while self._decoded_bytes > DECODED_CACHE and len(self._decoded) > 1:
                self._decoded_bytes -= len(self._decoded.popitem(last=False)[1])
        return blob

    def _opened(self, lying: Lying | None) -> Buffer | None:
        """What was read, if it is whole; what is wrong with it shows again when it is read from all copies."""
        if lying is None:
            return None
        try:
            return self._opener(lying[0].epoch).open(*lying)
        except CorruptedBackup:
            return None

    def _opener(self, epoch: int) -> BlobOpener:
        return BlobOpener({epoch: self._keyring.key(epoch)})

    def read_blob(self, pack: int, ordinal: int) -> Buffer:
        """Fetch and decode one blob, past the cache, from any copy. Raises CorruptedBackup, ObjectNotFound."""
        info = self._index.pack(pack)
        if ordinal >= len(info.blobs):
            raise CorruptedBackup(f"pack {info.digest.hex()[:16]} has no blob {ordinal}")
        return from_any_copy(self._backend, lambda store: self._read_blob(store, pack, info, info.blobs[ordinal]))

    def fetch_blob(self, place: Place) -> tuple[StoredBlob, bytes]:
        """One blob as it is stored, to be opened elsewhere. Raises CorruptedBackup, ObjectNotFound.

        It comes from one copy and is not checked: when it cannot be opened, `chunk` asks all of them.
        """
        info, blob = self._info(place)
        return from_any_copy(self._backend, lambda store: self._fetch_blob(store, place.pack, info, blob))

    def lying_blob(self, place: Place) -> tuple[StoredBlob, int] | None:
        """One blob, and the open file that is its pack; None where packs are no files of this machine.

        The caller closes the file, and finds out as with `fetch_blob` what is wrong with it. Raises CorruptedBackup,
        ObjectNotFound.
        """
        info, blob = self._info(place)
        try:
            file = self._backend.open_file(pack_name(info.kind, info.digest))
        except ObjectUnreadable as error:
            self._tolerance.judge(error)
            raise
        if file is None:
            return None
        try:
            return StoredBlob(
                self._keep_header(place.pack, self._header(self._backend, place.pack, info)), info.epoch, blob
            ), file
        except BaseException:
            os.close(file)
            raise

    def _info(self, place: Place) -> tuple[PackInfo, BlobInfo]:
        info = self._index.pack(place.pack)
        if place.ordinal >= len(info.blobs):
            raise CorruptedBackup(f"pack {info.digest.hex()[:16]} has no blob {place.ordinal}")
        return info, info.blobs[place.ordinal]

    def _fetch_blob(self, store: StorageBackend, pack: int, info: PackInfo, blob: BlobInfo) -> tuple[StoredBlob, bytes]:
        header = self._header(store, pack, info)
        stored = self._retrieve(store, pack_name(info.kind, info.digest), blob.offset, blob.stored, info)
        return StoredBlob(self._keep_header(pack, header), info.epoch, blob), stored

    def _read_blob(self, store: StorageBackend, pack: int, info: PackInfo, blob: BlobInfo) -> Buffer:
        fetched, stored = self._fetch_blob(store, pack, info, blob)
        try:
            return self._opener(info.epoch).open(fetched, stored)
        except CorruptedBackup as error:
            with self._lock:
                self._headers.pop(pack, None)  # it may be what is damaged, and another copy's is asked for then
            name = pack_name(info.kind, info.digest)
            raise CorruptedBackup(f"{name} is damaged at blob {blob.ordinal}", cause=str(error)) from error

    def _header(self, store: StorageBackend, number: int, info: PackInfo) -> bytes:
        with self._lock:
            known = self._headers.get(number)
        if known is not None:
            return known
        name = pack_name(info.kind, info.digest)
        header = self._retrieve(store, name, 0, HEADER_BYTES, info)
        if header_epoch(header, info.kind, self._keyring.repository) != info.epoch:
            raise CorruptedBackup(f"{name} belongs to another epoch than its index says")
        return header

    def _keep_header(self, number: int, header: bytes) -> bytes:
        """Remember a header for the blobs that follow in the same pack; the same header."""
        with self._lock:
            self._headers[number] = header
            while len(self._headers) > HEADERS:
                self._headers.popitem(last=False)
        return header

    def _pack_lost(self, place: Place) -> CorruptedBackup:
        info = self._index.pack(place.pack)
        return CorruptedBackup(
            f"{pack_name(info.kind, info.digest)} is missing",
            cause="an index segment names it, but the store does not have it",
        )

    def _retrieve(self, store: StorageBackend, name: str, start: int, length: int, info: PackInfo) -> bytes:
        """Part of a pack; one that is too short is damage, not a store that does not answer."""
        try:
            return store.retrieve(name, start=start, length=length)
        except ObjectUnreadable as error:
            self._tolerance.judge(error)
            raise
        except StorageUnavailable:
            size = store.stat(name).size
            if size == info.size:
                raise
            raise CorruptedBackup(f"{name} has {size} bytes, not {info.size}") from None
