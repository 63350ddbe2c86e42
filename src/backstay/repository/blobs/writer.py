"""Chunks on their way in: deduplication, bundling, packing and upload."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.codec.compression import Buffer, Compressor
from backstay.core.ids import Random
from backstay.core.memory import disk_buffer
from backstay.core.pipeline import Workers
from backstay.errors import (
    ObjectExists,
)
from backstay.repository.format import BlobKind, RecordKind, pack_name
from backstay.repository.index.index import Index
from backstay.repository.keys.keyring import Keyring
from backstay.repository.packs.pack import Member, PackBuilder, SealedBlob, StoredPack
from backstay.storage.backend import StorageBackend

PACK_TARGET: Final = 14 << 20  # bytes; a pack that reaches it is closed
SMALL: Final = 512 << 10  # chunks up to this many bytes go into bundles
BUNDLE_TARGET: Final = 2 << 20  # raw bytes of a bundle
OPEN_PACKS: Final = 2  # per kind; which one a blob goes to is random
IN_FLIGHT: Final = 12 << 20  # raw bytes being compressed at any time
UPLOAD_AHEAD: Final = 16 << 20  # bytes of packs that wait for their upload, for each upload at once
UPLOADS_AHEAD: Final = 64 << 20  # and for all of them
SPARE_PACKS: Final = 1  # buffers per kind that wait for their next pack; more of them would lie there most of the time


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

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer  # of a bytearray, which itself would copy what it is given before it takes it
        self.members: list[Member] = []
        self.size = 0

    def add(self, chunk: bytes, data: Buffer) -> None:
        end = self.size + len(data)
        self._buffer[self.size : end] = data
        self.members.append(Member(chunk, len(data)))
        self.size = end

    @property
    def data(self) -> memoryview:
        return self._buffer[: self.size]

    def release(self) -> memoryview:
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
        self._spare_bundles: list[memoryview] = []
        self._in_flight = 0
        # One list per kind: meta packs stay small, and so should their buffers.
        self._spare: dict[PackClass, list[memoryview]] = {}
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
            bundle = self._bundles[kind] = _Bundle(self._bundle_buffer())
        bundle.add(chunk, data)
        if bundle.size >= BUNDLE_TARGET:
            self._close_bundle(kind)

    def _bundle_buffer(self) -> memoryview:
        return self._spare_bundles.pop() if self._spare_bundles else memoryview(bytearray(BUNDLE_TARGET + SMALL))

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
        # An error of any of them knows this writer, with all its buffers, which must not know it in turn: nobody would
        # let go of them before cycles are searched. So nothing here gives a name to what an error may come out of.
        self._sealing.clear()
        self._uploads.clear()

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
            buffer=spare.pop() if spare else disk_buffer(self._pack_target + self._pack_target // 4),
        )

    def _append_next(self) -> None:
        pack, raw, bundle = self._sealing[0].pack, self._sealing[0].raw, self._sealing[0].bundle
        sealed = self._sealing.popleft().result.result()
        if bundle is not None:
            self._spare_bundles.append(bundle.release())
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
            self._put_by(pack)
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
            pack, size = self._uploads[0][1:]
            stored = self._uploads.popleft()[0].result()
            self._upload_bytes -= size
            self._put_by(pack)
            self.bytes_added += stored.size
            pack.generation.packs.append(stored)
            wait_for -= 1

    def _put_by(self, pack: _OpenPack) -> None:
        """Keep the buffer of a pack that is done for the next, if that is not there already."""
        spare = self._spare[pack.builder.kind]
        buffer = pack.builder.release()
        if len(spare) < SPARE_PACKS:
            spare.append(buffer)

    def _store(self, pack: _OpenPack) -> StoredPack:
        stored = pack.builder.finish()
        # A pack of this name has the same bytes: it is there when an earlier try got through.
        with contextlib.suppress(ObjectExists), pack.builder.data as data:
            self._backend.store(pack_name(stored.kind, stored.digest), data)
        return stored


def _lasting(data: Buffer) -> Buffer:
    """The same bytes, that stay as they are whatever the caller does with its memory."""
    return data if isinstance(memoryview(data).obj, bytes) else bytes(data)
