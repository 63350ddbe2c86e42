"""Read, hash and cut what a scan wants captured: on threads, and in processes when there is much of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final

from backstay.codec.chunker import Chunking, ContentDefinedChunker, StreamCutter, chunker_of
from backstay.codec.digest import ChunkIds
from backstay.core import helper_process
from backstay.core.helper_process import HelperGone
from backstay.core.pipeline import Workers
from backstay.operations.backup.batches import BATCH_BYTES, WHOLE, Batch, batched
from backstay.operations.backup.capture_process import LEFT, Captured, CaptureProcess, Settings
from backstay.operations.backup.cutting import FileCutter
from backstay.operations.backup.scan import Step, Take
from backstay.sources.kernel import descriptor_limit
from backstay.sources.source import Capture, Stream

MANY: Final = 512  # captures from which on a process is worth its start
READ_AHEAD: Final = 16 << 20  # bytes of files being read at any time
BLOCK: Final = 2 << 20  # bytes of a large file that are read, hashed and cut in one go, at its beginning
LARGEST_BLOCK: Final = 8 << 20  # and of a very large one: fewer blocks take less time, and several are held at once
GROWS_AFTER: Final = 64  # blocks of one size
OPEN_AHEAD: Final = 4096  # directories that the walk has left, and are open until what lies in them is stored
_PART: Final = 4  # of the files that may be open; the walk itself takes one for each level


@dataclass(slots=True, eq=False)
class _Asked:
    """A batch on its way, and who reads it; None while nobody else does."""

    batch: Batch
    reader: CaptureProcess | None = None


class Capturing:
    """The stage between a scan and the store.

    `lacks` is told (path, message) of what a process could not read of an entry that is captured all the same,
    `warn` what a person may want to know.
    """

    def __init__(
        self,
        ids: ChunkIds,
        chunker: ContentDefinedChunker,
        *,
        readers: int,
        lacks: Callable[[bytes, str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._ids, self._chunker, self._readers = ids, chunker, readers
        self._cutter = FileCutter(ids, chunker)
        self._lacks, self._warn = lacks, warn
        self._open_ahead = max(1, min(OPEN_AHEAD, descriptor_limit() // _PART))

    def run(self, steps: Iterator[Step]) -> Iterator[Batch]:
        """The same steps in batches, with captures done, in order. A batch's data is gone when the next one comes."""
        batches: Iterator[Batch] = batched(steps, most_ended=max(1, self._open_ahead // _PART))
        yield from self._on_threads(_first(batches, MANY))
        following = next(batches, None)
        if following is None:
            return
        batches = chain([following], batches)
        if helper_process.is_supported():
            yield from self._in_processes(batches)
        yield from self._on_threads(batches)

    def _on_threads(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        with Workers(self._readers, "read") as readers:
            done = readers.ordered(
                self._read_batch, batches, weigh=self._weight, limit=READ_AHEAD, inline=Batch.weighs_nothing
            )
            try:
                yield from done
            finally:
                done.close()  # type: ignore[attr-defined]

    def _weight(self, batch: Batch) -> int:
        """Directories weigh so much that READ_AHEAD limits those that are open as well."""
        return batch.weight() + batch.ended * (READ_AHEAD // self._open_ahead)

    def _in_processes(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """All batches; when a process fails, those that were asked for, and the others are left to the caller."""
        readers: deque[CaptureProcess] = deque()
        asked: deque[_Asked] = deque()
        try:
            for _ in range(self._readers):
                readers.append(CaptureProcess(self._settings()))
            yield from self._on_threads(_until(batches, lambda: all(reader.is_ready() for reader in readers)))
            for batch in batches:
                asked.append(_Asked(batch))
                while not readers[0].has_room or self._are_too_many_open(asked):
                    yield from self._oldest(asked)
                if readers[0].request(batch.small):
                    asked[-1].reader = readers[0]
                    readers.rotate(-1)
                while asked and asked[0].reader is None:
                    yield from self._oldest(asked)
            while asked:
                yield from self._oldest(asked)
        except HelperGone as error:
            self._warn(f"a process that reads files is gone, reading goes on without it: {error}")
        finally:
            for reader in readers:
                reader.close()
        for left in asked:
            yield self._read_batch(left.batch)

    def _are_too_many_open(self, asked: deque[_Asked]) -> bool:
        return len(asked) > 1 and sum(one.batch.ended for one in asked) > self._open_ahead

    def _settings(self) -> Settings:
        return Settings(self._ids.key, self._chunker.sizes, self._chunker.secret, WHOLE, BATCH_BYTES + WHOLE)

    def _oldest(self, asked: deque[_Asked]) -> Iterator[Batch]:
        batch, reader = asked[0].batch, asked[0].reader
        if reader is None:
            asked.popleft()
            yield self._read_batch(batch)
            return
        with reader.captured() as (answer, data):
            asked.popleft()
            self._fill(batch, answer.entries, data)
            for path, message in answer.problems:
                self._lacks(path, message)
            yield batch

    def _fill(self, batch: Batch, answers: Sequence[Captured], data: memoryview) -> None:
        for take, answer in zip(batch.small, chain(answers, repeat(LEFT)), strict=False):
            if answer.node is not None:
                take.capture = Capture(answer.stat or take.entry, answer.node)
                take.chunks = answer.pieces(data)
            elif answer.errno:
                take.error = OSError(answer.errno, answer.message)
            else:
                self._read(take)
        for take in batch.large:
            self._read(take)

    def _read_batch(self, batch: Batch) -> Batch:
        for take in chain(batch.small, batch.large):
            self._read(take)
        return batch

    def _read(self, take: Take) -> None:
        try:
            take.capture = take.visit.directory.capture(take.entry, small=WHOLE)
        except OSError as error:
            take.error = error
            return
        if take.capture.data is not None:
            take.capture.node.sha256, take.chunks = self._cutter.cut(take.capture.data)

    def stream(
        self, stream: Stream, digest: Callable[[bytes], None], chunking: Chunking | None = None
    ) -> Iterator[list[tuple[bytes, memoryview]]]:
        """Read, hash and cut on this thread, block by block, with the SHA-256 beside it on another."""
        cutter = StreamCutter(chunker_of(chunking, self._chunker.secret) if chunking is not None else self._chunker)
        hashed: Future[None] | None = None
        size, done = BLOCK, 0
        with Workers(1, "sha256") as hashing:
            while block := stream.read(size):
                done += len(block)
                if size < LARGEST_BLOCK and done >= GROWS_AFTER * size:
                    size *= 2
                before, hashed = hashed, hashing.submit(digest, block)
                yield [(self._ids.of(piece), piece) for piece in cutter.feed(block)]
                if before is not None:  # at most one block behind: what waits to be hashed takes memory
                    before.result()
            yield [(self._ids.of(piece), piece) for piece in cutter.finish()]
            if hashed is not None:
                hashed.result()


def _first(batches: Iterator[Batch], captures: int) -> Iterator[Batch]:
    """As many batches as it takes to hold so many captures."""
    for batch in batches:
        yield batch
        captures -= batch.captures
        if captures <= 0:
            return


def _until(batches: Iterator[Batch], is_time: Callable[[], bool]) -> Iterator[Batch]:
    """Batches until something is the case; none is taken and not given."""
    while not is_time():
        batch = next(batches, None)
        if batch is None:
            return
        yield batch
