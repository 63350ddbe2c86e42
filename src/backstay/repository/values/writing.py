"""Values as chunks, in the session of a values snapshot: what is large, many at once, and the checkpoint's tree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

from backstay.codec.chunker import DUMPS, LISTINGS, ContentDefinedChunker, StreamCutter
from backstay.codec.deltas import MOST
from backstay.core.pipeline import Workers
from backstay.core.version import VERSION
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    ObjectFrozen,
    ObjectNotFound,
    SnapshotFenced,
    TierNotAttached,
)
from backstay.repository.blobs.contents import (
    Change,
    ContentWriter,
    MetaWriter,
    PlainStream,
    all_chunk_ids,
    chunk_ids,
    patch_of,
)
from backstay.repository.blobs.patches import PatchWriter, worthwhile
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Session
from backstay.repository.snapshots.making import all_new, chunker_info
from backstay.repository.snapshots.store import VALUES_SOURCE, Manifest
from backstay.repository.trees.listings import Totals
from backstay.repository.values.stored import StoredValue
from backstay.repository.values.tree import ValueTreeWriter

COVERS: Final = "values_covers"  # in `consistency` of a checkpoint's snapshot: the entry up to which it is the state
_CHECKPOINT: Final = 256 << 20  # bytes between two index segments of one long value
VALUES_CHUNKS: Final = DUMPS


@contextmanager
def writing_values(repository: Repository) -> Iterator[ValueWriter]:
    """A session for one values snapshot. Nothing that was stored in it counts unless its writer commits."""
    with repository.begin_session() as session, Workers(repository.environment.threads, "seal") as workers:
        session.start_heartbeat()
        repository.hide_missing_packs()
        writer = repository.writer(workers)
        try:
            yield ValueWriter(repository, session, writer)
        finally:
            writer.close()


class ValueWriter:
    """Stores chunks, and makes the snapshot that names them. One thread."""

    def __init__(self, repository: Repository, session: Session, writer: BlobWriter) -> None:
        self.session = session
        self._repository, self._writer = repository, writer
        self._ids = repository.keyring.chunk_ids
        self._chunker = ContentDefinedChunker(VALUES_CHUNKS, repository.keyring.chunker_secret)
        self._started = repository.clock.monotonic()
        self._packs: set[bytes] = set()
        self._trusted: dict[str, bool] = {}
        self._checkpointed = self._read = 0

    @property
    def chunks_added(self) -> int:
        """How many chunks were stored so far that could not be used as they lie elsewhere."""
        return self._writer.chunks_added

    # -- values

    def put(self, pieces: Iterable[bytes]) -> tuple[bytes, int, Content]:
        """Store one value: its SHA-256, its size in bytes, and what names its chunks. Memory stays within a window."""
        digest, size, cutter = sha256(), 0, StreamCutter(self._chunker)
        content = ContentWriter(self._writer, self._ids, self._repository.listing_chunker)
        waiting: list[bytes] = []
        buffered = 0
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
            buffered += len(piece)
            waiting.append(piece)
            if buffered >= self._chunker.window:
                self._store(content, cutter.feed(b"".join(waiting)))
                waiting, buffered = [], 0
        self._store(content, cutter.feed(b"".join(waiting)))
        self._store(content, cutter.finish())
        return digest.digest(), size, content.finish()

    def _store(self, content: ContentWriter, chunks: Iterator[memoryview]) -> None:
        for chunk in chunks:
            chunk_id = self._ids.of(chunk)
            self._writer.put(RecordKind.DATA_PACK, chunk_id, chunk)
            content.add(chunk_id)
            self._read += len(chunk)
        if self._read - self._checkpointed >= _CHECKPOINT:
            self._checkpointed = self._read
            self._writer.turn()
        self._index_settled()

    def carried(self, value: StoredValue, source: Manifest | None) -> Content:
        """What names the chunks of a value that another snapshot holds, or the log itself.

        Its chunks are looked up one by one, and stored again where they may go, unless its snapshot can be trusted.
        """
        if value.data is not None:
            return self.put([value.data])[2]
        if source is None or not self.trusts(source):
            self.secure(value.content)
        return value.content

    def put_changes(self, data: bytes, earlier: Content) -> Content | None:
        """What names a value as the changes of another; None if they save too little, or one is too long for it.

        However often a value changes, its changes are those of the first version that was stored as it is. What cannot
        be read is nothing to build upon.
        """
        reader = self._repository.reader
        try:
            stored = patch_of(earlier, reader).base if earlier.is_patched else earlier
            base = PlainStream(stored, reader)
            if base.reaches(MOST + 1) or (delta := worthwhile(data, base.read(0, base.size))) is None:
                return None
            self.secure(stored)
        except (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen):
            return None
        patch = PatchWriter(self._writer, self._ids, self._repository.listing_chunker)
        patch.add(Change(0, len(data), 0, base.size, self._ids.of(data), delta))
        self._read += len(data)
        return patch.finish(len(data), stored)

    def trusts(self, source: Manifest) -> bool:
        """Whether all chunks of a snapshot that is in use stay until this session has ended.

        They do if no collection is under way that did not mark it: every later one waits for this session.
        """
        known = self._trusted.get(source.id)
        if known is None:
            is_whole = bool(self._repository.findable([source]))
            known = self._trusted[source.id] = is_whole and self._repository.collections.may_build_on(source.id)
            if known:
                self._packs.update(set(source.packs) - self._repository.collections.deleted())
        return known

    def secure(self, content: Content) -> None:
        """Let every chunk of a content be there when this session has ended."""
        reader = self._repository.reader
        data = {*chunk_ids(patch_of(content, reader).base if content.is_patched else content, reader)}
        for chunk in all_chunk_ids(content, reader):
            if not self._writer.has(chunk):
                kind = RecordKind.DATA_PACK if chunk in data else RecordKind.META_PACK
                self._writer.put(kind, chunk, bytes(reader.chunk(chunk)))

    # -- the snapshot

    def tree(self, mtime_ns: int) -> ValueTreeWriter:
        return ValueTreeWriter(self.stream, mtime_ns)

    def stream(self) -> MetaWriter:
        return MetaWriter(self._writer, self._ids, self._repository.listing_chunker)

    def finish(self, tree: ValueTreeWriter, consistency: dict[str, str]) -> Manifest:
        """Make everything durable and findable that was put; the snapshot to be committed."""
        root, stat_stream = tree.finish()
        self._writer.flush()
        self._index_settled()
        return self._manifest(root, stat_stream, tree.totals, consistency)

    def _index_settled(self) -> None:
        for packs, _ in self._writer.settled():
            if packs:
                self._packs.update(pack.digest for pack in packs)
                self._repository.index.write(packs)

    def _manifest(self, root: Content, stat_stream: Content, totals: Totals, consistency: dict[str, str]) -> Manifest:
        repository = self._repository
        index, now = repository.index, repository.clock.now_ns()
        packs = self._packs | {index.pack(number).digest for number in self._writer.reused}
        return Manifest(
            id=self.session.id,
            kind="full",
            source=VALUES_SOURCE,
            host="",
            paths=(b"/",),
            name=None,
            tags=(),
            description="",
            time_ns=now,
            recorded_ns=now,
            parent=None,
            previous=None,
            previous_digest=None,
            root=root,
            stat_stream=stat_stream,
            chunkers={"files": chunker_info(VALUES_CHUNKS), "listings": chunker_info(LISTINGS)},
            stats=all_new(
                files=totals.files,
                dirs=totals.dirs,
                bytes=totals.bytes,
                bytes_read=self._read,
                bytes_added=self._writer.bytes_added,
                duration_s=repository.clock.monotonic() - self._started,
            ),
            packs=tuple(sorted(packs)),
            slots=repository.slots.digests(),
            program=f"backstay {VERSION}",
            consistency=consistency,
        )

    def commit(self, manifest: Manifest) -> None:
        """Make the snapshot exist. Raises SnapshotFenced, RepositoryBusy."""
        self._repository.confirm_lease()
        self._repository.snapshots.commit(manifest)

    def give_up(self) -> bool:
        """After a failure of unknown extent: fence this session; False if it has committed after all."""
        with contextlib.suppress(BackstayError):  # the failure itself is what is told; the lease ends this session
            return self._repository.snapshots.fence(self.session.id, 0, self._repository.clock)
        return True


@contextmanager
def deciding(writer: ValueWriter) -> Iterator[None]:
    """Around an entry that names the session's snapshot and its commit: a failure leaves it decided, if it can be."""
    with writer.session.deciding():
        try:
            yield
        except SnapshotFenced:
            raise
        except BackstayError:
            if writer.give_up():
                raise
