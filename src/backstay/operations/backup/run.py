"""Back up a source into a snapshot: scan, capture, cut, store, commit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from backstay.codec.chunker import FILES, LISTINGS, Chunking, FixedSize
from backstay.codec.compression import Buffer
from backstay.core.clock import ns_from_datetime
from backstay.core.events import EventSink, Progress, Started, Warned, finished, ignore
from backstay.core.names import printable
from backstay.core.pipeline import Workers, read_ahead
from backstay.core.version import VERSION
from backstay.errors import BackupFailed, CorruptedBackup, Interrupted
from backstay.operations.backup.assemble import Assembler, BaseUnusable
from backstay.operations.backup.capture import Capturing
from backstay.operations.backup.checkpoints import Checkpoints
from backstay.operations.backup.predecessors import earlier_snapshots, usable_base
from backstay.operations.backup.rehearsal import Rehearsal
from backstay.operations.backup.request import (
    BackupKind,
    BackupOptions,
    BackupResult,
    check_name,
    check_options,
    kind_of,
    result_of,
    source_key,
)
from backstay.operations.backup.resume import ResumeJournal
from backstay.operations.backup.scan import Enter, Kept, Left, Page, Resumed, Scan, Step, Take, Visit
from backstay.operations.backup.scarce_room import warn_of_scarce_room
from backstay.operations.backup.unchanged import is_unchanged
from backstay.operations.locks.extend import extend_after_backup
from backstay.repository.blobs.contents import ContentWriter, content_of
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Session
from backstay.repository.snapshots.making import chunker_info
from backstay.repository.snapshots.store import Manifest, Stats
from backstay.repository.trees.stat_stream import NEVER_SAME, StatCursor
from backstay.sources.changes import Changes
from backstay.sources.exhaustion import refuse_exhaustion
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.generated import GeneratedSource
from backstay.sources.refusals import words_of
from backstay.sources.source import Capture, Problem, Source, Stat, Stream

PROGRESS_EVERY_S: Final = 0.1
QUICK_FROM: Final = 64 << 20  # bytes of a file whose compression should not be what takes the time
BLOCKS_AHEAD: Final = 1  # of a large file, read and cut: packs are stored in bursts, between which it goes on
_DATA: Final = RecordKind.DATA_PACK


@dataclass(slots=True)
class _Counts:
    files_new: int = 0
    files_changed: int = 0
    bytes_read: int = 0
    seen_files: int = 0


def run_backup(
    repository: Repository,
    source: Source,
    options: BackupOptions,
    *,
    events: EventSink = ignore,
    changes: Changes | None = None,
) -> BackupResult:
    """Make one snapshot of a source. Raises BackupFailed, SnapshotFenced, InsufficientSpace and others.

    What `changes` say nothing of is taken from the snapshot that they begin with, if that is what the run builds upon.

    Order: session, packs, index segments, snapshot; each is durable before the next. A crash leaves packs and
    segments that no snapshot needs: the next run reuses them, or a collection removes them.
    """
    check_options(options, repository.clock)
    if options.dry_run:
        return _Backup(repository, source, options, None, events, changes).run(use_base=True)
    with repository.begin_session() as session:
        session.start_heartbeat()
        result = _run(repository, source, options, session, events, changes)
    if result.snapshot is None:  # nothing had changed
        return result
    # After the session: locks keep nothing from a collection that verdicts do not keep from it.
    extend_after_backup(repository, result.snapshot, events=events)
    warn_of_scarce_room(repository.backend, events)
    return result


def _run(
    repository: Repository,
    source: Source,
    options: BackupOptions,
    session: Session,
    events: EventSink,
    changes: Changes | None,
) -> BackupResult:
    backup = _Backup(repository, source, options, session, events, changes)
    try:
        return backup.run(use_base=True)
    except BaseUnusable as error:
        events(Warned(message=f"the previous snapshot cannot be used, everything is read again: {error}"))
    source.problems.clear()
    return _Backup(repository, source, options, session, events, None).run(use_base=False)


class _Backup:
    """One run; its methods are the stages in order."""

    def __init__(
        self,
        repository: Repository,
        source: Source,
        options: BackupOptions,
        session: Session | None,
        events: EventSink,
        changes: Changes | None,
    ) -> None:
        self.changes = changes
        self.repository, self.source, self.options = repository, source, options
        self.session, self.events = session, events
        self.clock = repository.clock
        self.ids = repository.keyring.chunk_ids
        self.counts = _Counts()
        self.capturing = Capturing(
            self.ids,
            repository.file_chunker,
            readers=options.read_concurrency,
            lacks=lambda path, message: source.problems.append(Problem(path, message, is_stored=True)),
            warn=lambda message: events(Warned(message=message)),
        )
        self.source_key = source_key(source, options.name)
        self.journal: ResumeJournal | None = None
        self.linked: dict[tuple[bytes | None, int], tuple[Content, bytes]] = {}  # by group and ctime of what was read
        self.chunkers = {"files": chunker_info(FILES), "listings": chunker_info(LISTINGS)}
        self.started = self.progressed = self.clock.monotonic()
        self.checkpoints = Checkpoints(repository.index, self.clock, self.started)

    def run(self, *, use_base: bool) -> BackupResult:
        history = earlier_snapshots(self.repository, self.source_key, self.options.host, events=self.events)
        reads_all = not use_base or isinstance(self.source, GeneratedSource)
        kind: BackupKind = "full" if reads_all else self.options.kind
        base, cursor = usable_base(self.repository, history, kind, events=self.events) or (None, None)
        total = history[-1].stats if history else None
        self.events(
            Started(
                operation="backup",
                total_files=total.files if total else 0,
                total_bytes=total.bytes if total else 0,
            )
        )
        if self.session is None:
            rehearsal = Rehearsal(self.source, self.options, clock=self.clock, tell=self._rehearsed)
            return rehearsal.run(base, cursor, started=self.started)
        journal = self.journal = self._journal()
        done = False
        try:
            with Workers(self.repository.environment.threads, "seal", yielding=True) as sealing:
                writer = self.repository.writer(sealing)
                try:
                    assembler = self._store(writer, cursor, base, journal)
                    manifest = self._manifest(writer, assembler, base, history)
                finally:
                    writer.close()
            if base is not None and self._is_superfluous(history[-1], manifest):
                done = True
                finished(self.events, "backup")
                result = result_of(manifest, took_s=self._took_s(), errors=self.source.problems)
                return replace(result, snapshot=None, parent=history[-1].id)
            with self.session.deciding():
                self.repository.confirm_lease()
                self.repository.snapshots.commit(manifest)
            done = True
        finally:
            if journal is not None:
                journal.close(discard=done)
        finished(self.events, "backup")
        return result_of(manifest, took_s=self._took_s(), errors=self.source.problems)

    def _is_superfluous(self, newest: Manifest, made: Manifest) -> bool:
        """Whether a snapshot that nobody wants would come of it. What was stored meanwhile is left to a collection.

        It is compared with the newest, which may be another one than the base.
        """
        reader = self.repository.reader
        return self.options.skip_unchanged and is_unchanged(self.source, newest.root, made.root, reader)

    def _took_s(self) -> float:
        return self.clock.monotonic() - self.started

    # -- before the walk

    def _journal(self) -> ResumeJournal | None:
        if self.repository.cache is None:
            return None
        key = hashlib.sha256(f"{self.options.host}\0{self.source_key}".encode()).hexdigest()[:32]
        index = self.repository.index
        return ResumeJournal(
            self.repository.cache / "resume" / key,
            self.repository.keyring.resume_key,
            lambda chunk: index.find_reusable(chunk) is not None,
        )

    # -- the walk

    def _store(
        self, writer: BlobWriter, cursor: StatCursor | None, base: Manifest | None, journal: ResumeJournal | None
    ) -> Assembler:
        repository = self.repository
        assembler = Assembler(
            writer,
            repository.reader,
            self.ids,
            repository.listing_chunker,
            base_root=base.root if base is not None else None,
        )
        resume = journal if journal is not None and not journal.empty else None
        try:
            since = self.changes.since if self.changes is not None else None
            changes = self.changes if base is not None and base.id == since else None
            for batch in self.capturing.run(Scan(self.source, cursor, resume, changes).steps()):
                for step in batch.steps:
                    self._consume(step, writer, assembler)
                self.checkpoints.make_if_due(writer, journal)
                self._report_progress(batch.steps)
        except BaseUnusable:
            raise
        except CorruptedBackup as error:
            if base is None:
                raise
            raise BaseUnusable(error.title, cause=error.cause, hint=error.hint) from error
        except Interrupted:  # comes from an event sink, between two steps: what was read until now is not read again
            self.checkpoints.make(writer, journal)
            raise
        assembler.stat_stream = assembler.finish()
        self.checkpoints.make(writer, None)
        return assembler

    # -- the consumer

    def _consume(self, step: Step, writer: BlobWriter, assembler: Assembler) -> None:
        if isinstance(step, Take):
            self._take(step, writer, assembler)
        elif isinstance(step, Page):
            assembler.page(step)
            self.counts.seen_files += len(step.rows)
        elif isinstance(step, Enter):
            self._enter(step.visit, assembler)
        elif isinstance(step, Left):
            assembler.leave(step)
            step.visit.directory.close()
        elif isinstance(step, Kept):
            assembler.kept(step)
            self.counts.seen_files += step.part.files
        elif isinstance(step, Resumed):
            self._resumed(step, writer, assembler)
        else:
            assembler.unreadable(step.entry)

    def _enter(self, visit: Visit, assembler: Assembler) -> None:
        """A directory is recorded as what was opened: another one may have had its name when that was captured."""
        known = assembler.known(visit)
        found = None if known is None else visit.directory.unlike(known)
        if found is not None:
            assembler.fresh(found.stat, found.node)
        assembler.enter(visit)

    def _take(self, take: Take, writer: BlobWriter, assembler: Assembler) -> None:
        name = take.entry[0]
        if take.error is not None or take.capture is None:
            self._problem(take.visit, name, take.error)
            assembler.failed(name)
            return
        entry, node = take.capture.stat, take.capture.node
        if take.capture.stream is not None:
            streamed = self._take_stream(take, take.capture, take.capture.stream, writer, assembler)
            if streamed is None:
                return
            entry, node = streamed
        elif take.chunks is not None:
            self._store_chunks(take.chunks, node, writer)
        assembler.fresh(entry, node)
        if node.mode & 0o170000 != 0o040000:
            self._count(take)
            if node.content is not None:
                self.checkpoints.captured(take.visit, entry, node)

    def _store_chunks(self, chunks: list[tuple[bytes, Buffer]], node: Node, writer: BlobWriter) -> None:
        for chunk, data in chunks:
            writer.put(_DATA, chunk, data)
            self.counts.bytes_read += len(data)
        if len(chunks) == 1:  # nearly all files
            node.content = Content(0, chunks[0][0])
        else:
            node.content = self._content([chunk for chunk, _ in chunks], writer)

    def _take_stream(
        self, take: Take, capture: Capture, stream: Stream, writer: BlobWriter, assembler: Assembler
    ) -> tuple[Stat, Node] | None:
        """Store a large file while it is read; None when it cannot be read to its end."""
        node = capture.node
        known = self.linked.get((node.links, capture.stat[4]))  # of another name of this inode, in this very state
        try:
            if known is None:
                known = self._store_stream(stream, capture.chunking, writer, quick=node.size >= QUICK_FROM)
            entry, node = stream.close()
        except OSError as error:
            self._problem(take.visit, take.entry[0], error)
            assembler.failed(take.entry[0])
            return None
        finally:
            stream.abandon()
        node.content, node.sha256 = known
        if node.links is not None and entry[4] != NEVER_SAME:
            self.linked[node.links, entry[4]] = known
        return entry, node

    def _store_stream(
        self, stream: Stream, chunking: Chunking | None, writer: BlobWriter, *, quick: bool
    ) -> tuple[Content, bytes]:
        digest = hashlib.sha256()
        content = ContentWriter(writer, self.ids, self.repository.listing_chunker)
        if chunking is not None:
            self.chunkers["pages" if isinstance(chunking, FixedSize) else "dumps"] = chunker_info(chunking)
        blocks = read_ahead(self.capturing.stream(stream, digest.update, chunking), depth=BLOCKS_AHEAD)
        try:
            for chunk, data in chain.from_iterable(blocks):
                writer.put(_DATA, chunk, data, quick=quick)
                content.add(chunk)
                self.counts.bytes_read += len(data)
                if self._report_progress(()):  # from time to time: a long stream that breaks off was not in vain
                    self.checkpoints.make_if_due(writer, self.journal)
        finally:
            blocks.close()  # type: ignore[attr-defined]
        return content.finish(), digest.digest()

    def _content(self, chunks: list[bytes], writer: BlobWriter) -> Content:
        return content_of(chunks, writer, self.ids, self.repository.listing_chunker)

    def _resumed(self, step: Resumed, writer: BlobWriter, assembler: Assembler) -> None:
        node = step.node
        if node.content is not None:
            for at in range(0, len(node.content.ids), 32):
                writer.has(node.content.ids[at : at + 32])  # the snapshot depends on their packs
        self.counts.files_new += 1
        assembler.fresh(step.entry, node)

    def _count(self, take: Take) -> None:
        if take.is_new:
            self.counts.files_new += 1
        else:
            self.counts.files_changed += 1

    def _problem(self, visit: Visit, name: bytes, error: Exception | None) -> None:
        if isinstance(error, OSError):
            refuse_exhaustion(visit.path_of(name), error)
        message = words_of(error) if isinstance(error, OSError) else str(error)
        self.source.problems.append(Problem(visit.path_of(name), message))
        self.events(Warned(message=message, path=printable(visit.path_of(name))))

    def _report_progress(self, steps: Sequence[Step]) -> bool:
        """Tell where the run is, unless that was told a moment ago."""
        now = self.clock.monotonic()
        if now - self.progressed < PROGRESS_EVERY_S:
            return False
        self.progressed = now
        current = printable(steps[-1].visit.directory.path) if steps else ""
        self.events(Progress(files=self.counts.seen_files, bytes=self.counts.bytes_read, current=current))
        return True

    def _rehearsed(self, step: Step, files: int) -> None:
        self.counts.seen_files = files
        self._report_progress((step,))

    # -- the end

    def _manifest(
        self, writer: BlobWriter, assembler: Assembler, base: Manifest | None, history: Sequence[Manifest]
    ) -> Manifest:
        assert self.session is not None
        if assembler.root is None or assembler.stat_stream is None:
            raise BackupFailed("the source ended in the middle", cause="its walk did not come back to the root")
        repository, options, totals = self.repository, self.options, assembler.totals
        index, now = repository.index, self.clock.now_ns()
        packs = self.checkpoints.packs | {index.pack(number).digest for number in writer.reused}
        if base is not None:
            packs |= set(base.packs) - repository.collections.deleted()
        previous = history[-1] if history else None
        return Manifest(
            id=self.session.id,
            kind=kind_of(options, base),
            source=self.source_key,
            host=options.host,
            paths=tuple(self.source.places if isinstance(self.source, FilesystemSource) else self.source.paths),
            name=options.name,
            tags=options.tags,
            description=options.description,
            time_ns=ns_from_datetime(options.time) if options.time is not None else now,
            recorded_ns=now,
            parent=base.id if base is not None else None,
            previous=previous.id if previous is not None else None,
            previous_digest=repository.snapshots.digest(previous.id) if previous is not None else None,
            root=assembler.root,
            stat_stream=assembler.stat_stream,
            chunkers=self.chunkers,
            stats=Stats(
                files=totals.files,
                dirs=totals.dirs,
                bytes=totals.bytes,
                files_new=self.counts.files_new,
                files_changed=self.counts.files_changed,
                files_unchanged=totals.files - self.counts.files_new - self.counts.files_changed,
                bytes_read=self.counts.bytes_read,
                bytes_added=writer.bytes_added,
                errors=len(self.source.problems),
                duration_ns=round(self._took_s() * 1e9),
            ),
            packs=tuple(sorted(packs)),
            slots=repository.slots.digests(),
            program=f"backstay {VERSION}",
            consistency=dict(self.source.consistency()) if isinstance(self.source, GeneratedSource) else {},
        )


__all__ = ["BackupKind", "BackupOptions", "BackupResult", "check_name", "run_backup", "source_key"]
