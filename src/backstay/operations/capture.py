"""Read, hash and cut what a scan wants captured, on threads of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from backstay.codec.chunker import Chunker, StreamCutter
from backstay.codec.digest import ChunkIds
from backstay.core.pipeline import Workers
from backstay.operations.scan import Page, Step, Take
from backstay.repository.blobs import SMALL
from backstay.repository.nodes import Node
from backstay.sources.source import Stream

WHOLE: Final = 8 << 20  # files up to this many bytes are read and cut by one reader in one go
BATCH_FILES: Final = 128  # captures in one unit of reading
BATCH_BYTES: Final = 1 << 20
BATCH_ROWS: Final = 8192  # entries of directories, which take more memory than the steps
READ_AHEAD: Final = 16 << 20  # bytes of files being read at any time


@dataclass(slots=True, eq=False)
class Batch:
    """Steps in order, with the captures among them."""

    steps: list[Step] = field(default_factory=list)
    takes: list[Take] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0

    def add(self, step: Step) -> None:
        self.steps.append(step)
        if isinstance(step, Page):
            self.rows += len(step.rows)
        if isinstance(step, Take):
            self.takes.append(step)
            self.bytes += min(step.entry[2], WHOLE)

    def is_full(self) -> bool:
        enough = len(self.takes) >= BATCH_FILES or self.bytes >= BATCH_BYTES
        return enough or self.rows >= BATCH_ROWS or len(self.steps) >= 4 * BATCH_FILES

    def weight(self) -> int:
        return self.bytes + (64 << 10)  # so that very many empty files do not run far ahead

    def is_empty(self) -> bool:
        return not self.takes


def batched(steps: Iterable[Step]) -> Iterator[Batch]:
    """Group steps so that each batch is worth a thread's while."""
    batch = Batch()
    for step in steps:
        batch.add(step)
        if batch.is_full():
            yield batch
            batch = Batch()
    yield batch


class Capturing:
    """The stage between a scan and the store."""

    def __init__(self, ids: ChunkIds, chunker: Chunker, *, threads: int) -> None:
        self._ids, self._chunker, self._threads = ids, chunker, threads

    def run(self, steps: Iterator[Step]) -> Iterator[Batch]:
        """The same steps in batches, with captures done on reader threads, in order."""
        with Workers(self._threads, "read") as readers:
            batches = readers.ordered(
                self._read_batch, batched(steps), weigh=Batch.weight, limit=READ_AHEAD, inline=Batch.is_empty
            )
            try:
                yield from batches
            finally:
                batches.close()  # type: ignore[attr-defined]

    def _read_batch(self, batch: Batch) -> Batch:
        for take in batch.takes:
            try:
                take.capture = take.visit.directory.capture(take.entry, small=WHOLE)
            except OSError as error:
                take.error = error
                continue
            if take.capture.data is not None:
                self._cut_whole(take, take.capture.node, take.capture.data)
        return batch

    def _cut_whole(self, take: Take, node: Node, data: bytes) -> None:
        node.sha256 = hashlib.sha256(data).digest()
        if len(data) <= SMALL:
            take.chunks = [(self._ids.of(data), data)] if data else []
        else:
            pieces = self._chunker.cut(data, last=True)
            take.chunks = [(self._ids.of(piece), piece) for piece in pieces]

    def stream(self, stream: Stream, digest: Callable[[bytes], None]) -> Iterator[tuple[bytes, memoryview]]:
        """Read, hash and cut on this thread, with the SHA-256 beside it on another."""
        cutter = StreamCutter(self._chunker)
        hashed: Future[None] | None = None
        with Workers(1, "sha256") as hashing:
            while block := stream.read(WHOLE):
                before, hashed = hashed, hashing.submit(digest, block)
                for piece in cutter.feed(block):
                    yield self._ids.of(piece), piece
                if before is not None:  # at most one block behind: what waits to be hashed takes memory
                    before.result()
            for piece in cutter.finish():
                yield self._ids.of(piece), piece
            if hashed is not None:
                hashed.result()
