"""Chunks in and out: deduplication, bundling, packing and upload on one side, lookup and decoding on the other."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.codec.compression import Buffer, Compressor
from backstay.core.ids import Random
from backstay.core.pipeline import Workers
from backstay.errors import (
    CorruptedBackup,
    ObjectExists,
    ObjectFrozen,
    ObjectNotFound,
    StorageUnavailable,
    TierNotAttached,
)
from backstay.repository.format import BlobKind, RecordKind, pack_name
from backstay.repository.index import Index, PackInfo, Place
from backstay.repository.keyring import Keyring
from backstay.repository.pack import BlobInfo, Member, PackBuilder, SealedBlob, StoredPack, new_buffer
from backstay.repository.records import HEADER_BYTES, header_epoch
from backstay.repository.stored_blobs import BlobOpener, StoredBlob
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import from_any_copy

PACK_TARGET: Final = 14 << 20  # bytes; a pack that reaches it is closed
SMALL: Final = 512 << 10  # chunks up to this many bytes go into bundles
BUNDLE_TARGET: Final = 2 << 20  # raw bytes of a bundle
OPEN_PACKS: Final = 2  # per kind; which one a blob goes to is random
IN_FLIGHT: Final = 12 << 20  # raw bytes being compressed at any time
UPLOAD_AHEAD: Final = 16 << 20  # bytes of packs that wait for their upload, for each upload at once
UPLOADS_AHEAD: Final = 64 << 20  # and for all of them
DECODED_CACHE: Final = 24 << 20  # bytes of decoded blobs that a reader keeps
HEADERS: Final = 4096  # of packs, that a reader keeps

PackClass: TypeAlias = RecordKind  # DATA_PACK or META_PACK


@dataclass(slots=True)
class _Generation:
    """What is stored between two checkpoints; `note` is the caller's."""

    chunks: set[bytes] = field(default_factory=set)
    begun: int = 0  # packs; counted by the calling thread alone
    packs: list[StoredPack] = field(default_factory=list)  # stored
    note: object = None

    @property
    def is_durable(self) -> bool:
        return len(self.packs) == self.begun


@dataclass(slots=True, eq=False)
class _OpenPack:
    builder: PackBuilder
    generation: _Generation
    waiting_raw: int = 0  # raw bytes reserved and not yet appended


class _Bundle:
    """Small chunks side by side, in a buffer that is used again and again: fresh memory costs more than copying."""

    __slots__ = ("_buffer", "members", "size")

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self.members: list[Member] = []
        self.size = 0

    def add(self, chunk: bytes, data: Buffer) -> None:
        end = self.size + len(data)
        self._buffer[self.size : end] = data
        self.members.append(Member(chunk, len(data)))
        self.size = end

    @property
    def data(self) -> memoryview:
        return memoryview(self._buffer)[: self.size]

    def release(self) -> bytearray:
        """Give up the buffer, for the next bundle."""
        return self._buffer


@dataclass(slots=True, eq=False)
class _Sealing:
    """A blob on its way into its pack."""

    pack: _OpenPack
    result: Future[SealedBlob]
    raw: int  # bytes
    bundle: _Bundle | None


class BlobWriter:
    """Stores chunks that the repository does not have yet. One thread calls it; it works on several.

    Chunks belong to generations: `turn` ends one, and `settled` gives it back once all of its packs are durable, so
    that they can be written to an index segment. Nothing is referenced before that: a crash leaves packs that nobody
    names, and collection removes them.
    """

    def __init__(
        self,
        backend: StorageBackend,
        keyring: Keyring,
        index: Index,
        workers: Workers,
        *,
        compressor: Compressor,
        random: Random = os.urandom,
        pack_target: int = PACK_TARGET,
    ) -> None:
        self._backend, self._keyring, self._index = backend, keyring, index
        self._workers, self._compressor, self._random = workers, compressor, random
        self._pack_target = pack_target
        self._upload = Workers(backend.parallel, "upload")
        self._upload_ahead = min(UPLOAD_AHEAD * backend.parallel, UPLOADS_AHEAD)
        self._uploads: deque[tuple[Future[StoredPack], _OpenPack, int]] = deque()
        self._upload_bytes = 0
        self._generations: deque[_Generation] = deque([_Generation()])
        self._open: dict[PackClass, list[_OpenPack]] = {}
        self._bundles: dict[PackClass, _Bundle] = {}
        self._sealing: deque[_Sealing] = deque()
        self._spare_bundles: list[bytearray] = []
        self._in_flight = 0
        # One list per kind: meta packs stay small, and so should their buffers.
        self._spare: dict[PackClass, list[mmap.mmap]] = {}
        self._raw = self._stored = 1
        self.reused: set[int] = set()  # numbers of packs that hold chunks found by `has`
        self.bytes_added = self.chunks_added = 0

    def has(self, chunk: bytes) -> bool:
        """Whether the repository holds this chunk; if so, the snapshot being made depends on its pack."""
        for generation in self._generations:
            if chunk in generation.chunks:
                return True
        place = self._index.find_reusable(chunk)
        if place is None:
            return False
        self.reused.add(place.pack)
        return True

    def put(self, kind: PackClass, chunk: bytes, data: Buffer, *, quick: bool = False) -> None:
        """Store a copy of one chunk under its id, unless it is there. May wait for room in the pipeline.

        `quick` is for parts of large files (`Compressor.compress`).
        """
        if self.has(chunk):
            return
        self.chunks_added += 1
        self._generations[-1].chunks.add(chunk)
        if quick or len(data) > SMALL:
            self._submit(kind, BlobKind.CHUNK, chunk, _lasting(data), None, quick=quick)
            return
        bundle = self._bundles.get(kind)
        if bundle is None:
            spare = self._spare_bundles
            bundle = self._bundles[kind] = _Bundle(spare.pop() if spare else bytearray(BUNDLE_TARGET + SMALL))
        bundle.add(chunk, data)
        if bundle.size >= BUNDLE_TARGET:
            self._close_bundle(kind)

    def turn(self, note: object = None) -> None:
        """End a generation without waiting for it."""
        for kind in list(self._bundles):
            self._close_bundle(kind)
        open_packs = [pack for packs in self._open.values() for pack in packs]
        self._open.clear()
        for pack in open_packs:
            self._finish_if_complete(pack)
        self._generations[-1].note = note
        self._generations.append(_Generation())

    def settled(self) -> Iterator[tuple[list[StoredPack], object]]:
        """The generations, in order, whose packs are all durable, with their notes.

        The caller writes the packs to an index segment before it asks for the next: only then are their chunks found
        without this writer.
        """
        self._collect_uploads(wait_for=0)
        while len(self._generations) > 1 and self._generations[0].is_durable:
            generation = self._generations[0]
            yield generation.packs, generation.note
            self._generations.popleft()

    def take_packs(self) -> list[StoredPack]:
        """The packs of all settled generations, to be indexed before anything else is asked of this writer."""
        return [pack for packs, _ in self.settled() for pack in packs]

    def flush(self, note: object = None) -> None:
        """End a generation and wait until everything put so far is durable in packs."""
        self.turn(note)
        while self._sealing:
            self._append_next()
        self._collect_uploads(wait_for=len(self._uploads))

    def close(self) -> None:
        """Stop; what was not flushed is lost."""
        for sealing in self._sealing:
            sealing.result.cancel()
        self._upload.close()

    def _close_bundle(self, kind: PackClass) -> None:
        bundle = self._bundles.pop(kind)
        self._submit(kind, BlobKind.BUNDLE, None, bundle.data, bundle)

    def _submit(
        self,
        kind: PackClass,
        blob: BlobKind,
        blob_id: bytes | None,
        raw: Buffer,
        bundle: _Bundle | None,
        *,
        quick: bool = False,
    ) -> None:
        """Have a blob sealed; without an id, it gets that of its bytes."""
        members = bundle.members if bundle is not None else ()
        ids, compressor = self._keyring.chunk_ids, self._compressor
        pack = self._choose(kind)
        ordinal = pack.builder.reserve()
        pack.waiting_raw += len(raw)

        def seal(job: Buffer) -> SealedBlob:
            return pack.builder.seal(ordinal, blob, blob_id or ids.of(job), job, members, compressor, quick=quick)

        future = self._workers.submit(seal, raw)
        self._sealing.append(_Sealing(pack, future, len(raw), bundle))
        self._in_flight += len(raw)
        while self._sealing and (self._in_flight > IN_FLIGHT or self._sealing[0].result.done()):
            self._append_next()

    def _choose(self, kind: PackClass) -> _OpenPack:
        packs = self._open.setdefault(kind, [])
        if len(packs) < OPEN_PACKS:
            packs.append(_OpenPack(self._new_builder(kind), self._generations[-1]))
            self._generations[-1].begun += 1
        return packs[self._random(1)[0] % len(packs)]

    def _new_builder(self, kind: PackClass) -> PackBuilder:
        epoch = self._keyring.current
        spare = self._spare.setdefault(kind, [])
        return PackBuilder(
            kind,
            repository=self._keyring.repository,
            epoch=epoch.number,
            key=epoch.key,
            random=self._random,
            buffer=spare.pop() if spare else new_buffer(self._pack_target + self._pack_target // 4),
        )

    def _append_next(self) -> None:
        sealing = self._sealing.popleft()
        pack, raw, sealed = sealing.pack, sealing.raw, sealing.result.result()
        if sealing.bundle is not None:
            self._spare_bundles.append(sealing.bundle.release())
        self._in_flight -= raw
        pack.builder.append(sealed)
        pack.waiting_raw -= raw
        self._raw += raw
        self._stored += len(sealed.stored)
        packs = self._open.get(pack.builder.kind, [])
        expected = pack.builder.size + pack.waiting_raw * self._stored // self._raw
        if pack in packs and expected >= self._pack_target:
            packs.remove(pack)  # takes no more blobs, but may still wait for some
        if pack not in packs:
            self._finish_if_complete(pack)

    def _finish_if_complete(self, pack: _OpenPack) -> None:
        """Upload a pack that takes no more blobs and waits for none; durable before any index names it."""
        if not pack.builder.reserved:  # opened for a choice that fell on the other one
            pack.generation.begun -= 1
            self._spare[pack.builder.kind].append(pack.builder.release())
            return
        if pack.builder.appended < pack.builder.reserved:
            return
        size = pack.builder.size
        while self._uploads and self._upload_bytes + size > self._upload_ahead:
            self._collect_uploads(wait_for=1)
        self._upload_bytes += size
        self._uploads.append((self._upload.submit(self._store, pack), pack, size))

    def _collect_uploads(self, *, wait_for: int) -> None:
        """Take note of uploads that are done, the first ones at any rate; an upload's error is raised here."""
        while self._uploads and (wait_for > 0 or self._uploads[0][0].done()):
            future, pack, size = self._uploads.popleft()
            stored = future.result()
            self._upload_bytes -= size
            self._spare[stored.kind].append(pack.builder.release())
            self.bytes_added += stored.size
            pack.generation.packs.append(stored)
            wait_for -= 1

    def _store(self, pack: _OpenPack) -> StoredPack:
        stored = pack.builder.finish()
        # A pack of this name has the same bytes: it is there when an earlier try got through.
        with contextlib.suppress(ObjectExists), pack.builder.data as data:
            self._backend.store(pack_name(stored.kind, stored.digest), data)
        return stored


def _lasting(data: Buffer) -> Buffer:
    """The same bytes, that stay as they are whatever the caller does with its memory."""
    return data if isinstance(memoryview(data).obj, bytes) else bytes(data)


class BlobReader:
    """Reads chunks; keeps the blobs decoded last, because neighbours are asked for next. Any thread may call it."""

    def __init__(self, backend: StorageBackend, keyring: Keyring, index: Index, reload: Callable[[], None]) -> None:
        self._backend, self._keyring, self._index, self._reload = backend, keyring, index, reload
        self._decoded: OrderedDict[tuple[int, int], Buffer] = OrderedDict()
        self._decoded_bytes = 0
        self._headers: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def place(self, chunk: bytes) -> Place:
        """Where a chunk is. Raises CorruptedBackup when no index segment names it."""
        place = self._index.find(chunk)
        if place is None:
            self._reload()
            place = self._index.find(chunk)
        if place is None:
            raise CorruptedBackup(
                f"chunk {chunk.hex()[:16]} is missing",
                cause="no index segment says where it lies",
                hint="run `backstay repair index`, then `backstay verify`",
            )
        return place

    def chunk(self, chunk: bytes) -> Buffer:
        """The raw bytes of a chunk, checked against its id, from any pack that still has it. Raises CorruptedBackup."""
        self.place(chunk)
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
        for place in self._index.find_all(chunk):
            try:
                return self.slice(self.blob(place), place, chunk)
            # Tell the first failure if no other place helps.
            except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen) as failed:
                error = error or failed
                if isinstance(failed, CorruptedBackup):
                    self._index.distrust(place.pack)
        raise error or ObjectNotFound(f"chunk {chunk.hex()[:16]}")

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

    def run(self, chunks: Sequence[tuple[bytes, int]], place: Place) -> Buffer:
        """The joined bytes of chunks, given with their lengths, that follow each other in one blob; each is checked.

        Where one is not as it should be, all come from any pack that still has them. Raises CorruptedBackup.
        """
        try:
            blob, at = memoryview(self.blob(place)), place.offset
            for chunk, length in chunks:
                self.slice(blob, place._replace(offset=at, length=length), chunk)
                at += length
            return blob[place.offset : at]
        except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen):
            return b"".join(self.chunk(chunk) for chunk, _ in chunks)

    def blob(self, place: Place) -> Buffer:
        """The whole decoded blob at a place. Raises CorruptedBackup, ObjectNotFound."""
        key = (place.pack, place.ordinal)
        with self._lock:
            if key in self._decoded:
                self._decoded.move_to_end(key)
                return self._decoded[key]
        blob = self.read_blob(place.pack, place.ordinal)
        with self._lock:
            if key not in self._decoded:
                self._decoded[key] = blob
                self._decoded_bytes += len(blob)
            while self._decoded_bytes > DECODED_CACHE and len(self._decoded) > 1:
                self._decoded_bytes -= len(self._decoded.popitem(last=False)[1])
        return blob

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
        file = self._backend.open_file(pack_name(info.kind, info.digest))
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
        stored = _retrieve(store, pack_name(info.kind, info.digest), blob.offset, blob.stored, info)
        return StoredBlob(self._keep_header(pack, header), info.epoch, blob), stored

    def _read_blob(self, store: StorageBackend, pack: int, info: PackInfo, blob: BlobInfo) -> Buffer:
        fetched, stored = self._fetch_blob(store, pack, info, blob)
        try:
            return BlobOpener({info.epoch: self._keyring.key(info.epoch)}).open(fetched, stored)
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
        header = _retrieve(store, name, 0, HEADER_BYTES, info)
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


def _retrieve(store: StorageBackend, name: str, start: int, length: int, info: PackInfo) -> bytes:
    """Part of a pack; one that is too short is damage, not a store that does not answer."""
    try:
        return store.retrieve(name, start=start, length=length)
    except StorageUnavailable:
        size = store.stat(name).size
        if size == info.size:
            raise
        raise CorruptedBackup(f"{name} has {size} bytes, not {info.size}") from None
