"""A file that is written chunk by chunk, by several workers at once and in any order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from backstay.errors import BackstayError, CorruptedBackup
from backstay.operations.restore.tally import Tally
from backstay.operations.restore.write_process import Piece
from backstay.repository.blobs.reader import BlobReader, Lying
from backstay.repository.index.index import Place
from backstay.repository.nodes import Node
from backstay.sources.pending_file import PendingFile

AHEAD: Final = 8 << 20  # bytes that wait to be written


class LargePart(NamedTuple):
    """Chunks, with their lengths, that follow each other both in the file and in one blob of the repository.

    `offset` is that of the first in the file's data, holes left out; `place` is where all of them lie.
    """

    chunks: tuple[tuple[bytes, int], ...]
    offset: int
    place: Place


class LargeFile:
    """Whoever does its last part gives it its name. Any thread may call it."""

    def __init__(
        self,
        number: int,
        node: Node,
        path: bytes,
        chunks: Iterable[bytes],
        pending: PendingFile,
        reader: BlobReader,
        tally: Tally,
    ) -> None:
        """Files that are written at the same time have different numbers."""
        self.number = number
        self._node, self._path, self._chunks = node, path, chunks
        self._pending, self._reader, self._tally = pending, reader, tally
        self._open = 1  # parts that have not landed, and the listing of parts itself
        self._failed = False
        self._turns = threading.Condition()
        self._waiting: deque[tuple[LargePart, memoryview | None]] = deque()  # None for what could not be read
        self._waiting_bytes = 0
        self._is_writing = False

    @property
    def size(self) -> int:
        return self._node.size

    def parts(self) -> Iterator[LargePart]:
        """All chunks in order; the index knows where they lie, and their lengths. None once one has failed."""
        offset = 0
        places = self._places()
        for chunks, place in _together(places):
            if self._failed:
                return
            with self._turns:
                self._open += 1
            yield LargePart(tuple(chunks), offset, place)
            offset += place.length
        if not self._failed and offset != self._node.data_size:
            self._refuse(wrong_size())
        self._landed()

    def _places(self) -> Iterator[tuple[bytes, Place]]:
        """Where each chunk lies, up to the first that no index knows, or that goes on behind the end of the file."""
        left = self._node.data_size
        try:
            for chunk in self._chunks:
                place = self._reader.place(chunk)
                left -= place.length
                if left < 0:
                    raise wrong_size()
                yield chunk, place
        except BackstayError as error:
            self._refuse(error)

    def write(self, part: LargePart, *, lying: Lying | None = None) -> None:
        """Have a part written, from any place that has it; `lying` is its blob, if that was read already.

        A file system lets one write into a file at a time, and whoever waits for that burns a processor. So a worker
        that finds another one writing leaves its bytes to that one, and goes on.
        """
        data: list[memoryview | None] = []
        self._tally.guard(self._path, lambda: data.append(self._read(part, lying)))
        with self._turns:
            while self._waiting_bytes > AHEAD and self._is_writing:
                self._turns.wait()
            self._waiting.append((part, data[0] if data else None))
            self._waiting_bytes += part.place.length
            if self._is_writing:
                return
            self._is_writing = True
        self._write_waiting()

    def piece(self, part: LargePart) -> Piece:
        """What another process must know to write a part, who then tells `landed`."""
        writes = [*spans(self._node.extents, part.offset, part.place.length)]
        return Piece(self._pending.fd, self._path, part.chunks, part.place.offset, writes)

    def landed(self, error: BackstayError | None = None) -> None:
        """Another process has written a part, or could not."""
        if error is not None:
            self._refuse(error)
        self._landed()

    def abandon(self) -> None:
        """Remove what is not complete; nothing happens to a file that is."""
        self._pending.abandon()

    def _read(self, part: LargePart, lying: Lying | None) -> memoryview | None:
        """The bytes of a part; None for a file that has failed already."""
        if not self._failed:
            try:
                data = memoryview(self._reader.run(part.chunks, part.place, lying=lying))
                if len(data) != part.place.length:
                    raise CorruptedBackup("a chunk has another length than its index says")
                return data
            except BackstayError as error:
                self._fail(error)
        return None

    def _write_waiting(self) -> None:
        """Write what is waiting, and what comes meanwhile."""
        while True:
            with self._turns:
                if not self._waiting:
                    self._is_writing = False
                    return
                part, data = self._waiting.popleft()
                self._waiting_bytes -= part.place.length
                self._turns.notify_all()
            try:
                if data is not None and not self._failed:
                    self._tally.guard(self._path, partial(self._write, part, data))
                self._landed()
            except BaseException:
                with self._turns:
                    self._is_writing = False
                    self._turns.notify_all()
                raise

    def _write(self, part: LargePart, data: memoryview) -> None:
        try:
            for at, start, length in spans(self._node.extents, part.offset, len(data)):
                self._pending.write_at(at, data[start : start + length])
        except BackstayError as error:
            self._fail(error)

    def _fail(self, error: BackstayError) -> None:
        """Give up the file; its first error is raised, so that it is told once."""
        with self._turns:
            already, self._failed = self._failed, True
        if not already:
            raise error

    def _refuse(self, error: BackstayError) -> None:
        """The same, told here."""
        self._tally.guard(self._path, lambda: self._fail(error))

    def _landed(self) -> None:
        with self._turns:
            self._open -= 1
            last = self._open == 0
        if last and not self._failed:
            self._tally.guard(self._path, self._complete)

    def _complete(self) -> None:
        self._pending.commit(self._node)
        self._tally.done(self._node.size)


def _together(places: Iterator[tuple[bytes, Place]]) -> Iterator[tuple[list[tuple[bytes, int]], Place]]:
    """Chunks that lie behind each other in one blob, and the place of all of them."""
    chunks: list[tuple[bytes, int]] = []
    whole: Place | None = None
    for chunk, place in places:
        if whole is not None and place[:3] == (whole.pack, whole.ordinal, whole.offset + whole.length):
            whole = whole._replace(length=whole.length + place.length)
        else:
            if whole is not None:
                yield chunks, whole
            chunks, whole = [], place
        chunks.append((chunk, place.length))
    if whole is not None:
        yield chunks, whole


def wrong_size() -> CorruptedBackup:
    """What is told of a file whose size is not that of its content."""
    return CorruptedBackup("its chunks do not add up to its size")


def spans(extents: Sequence[tuple[int, int]] | None, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(offset in the file, offset in the chunk, length) of a chunk that lies at `offset` of the joined data."""
    if extents is None:
        yield offset, 0, length
        return
    done = 0
    for start, size in extents:
        low, high = max(offset, done), min(offset + length, done + size)
        if low < high:
            yield start + low - done, low - offset, high - low
        done += size
