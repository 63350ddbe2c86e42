"""Write the contents of files: small ones by the blob that holds them, large ones by several workers at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from backstay.codec.compression import Buffer
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, NotFound
from backstay.operations.restore_tally import Tally
from backstay.operations.small_files import Errands, Portion, SmallFileWriters
from backstay.operations.write_process import SmallFile
from backstay.repository.blobs import SMALL, BlobReader
from backstay.repository.index import Place
from backstay.repository.nodes import Node
from backstay.repository.stored_blobs import BlobKeys
from backstay.sources.files_target import FilesTarget, PendingFile, TargetDirectory

WINDOW_FILES: Final = 2048  # files planned together, so that each bundle is decoded once for all of them
WINDOW_BYTES: Final = 16 << 20
COPIES: Final = 100  # files in one request for copies
REMEMBERED: Final = 1 << 16  # files that later ones may be copies of: about 20 MiB
WHOLE: Final = 8 << 20  # files up to this many bytes are written by one worker; larger ones by several


@dataclass(slots=True, eq=False)
class File:
    """One regular file to write into an open directory."""

    directory: TargetDirectory
    node: Node
    path: bytes
    chunks: list[bytes]

    @property
    def size(self) -> int:
        """Bytes of data, holes left out."""
        return self.node.size if self.node.extents is None else sum(length for _, length in self.node.extents)


@dataclass(slots=True)
class Window:
    """Files planned together, and what may be done only after they are written."""

    files: list[File] = field(default_factory=list)
    bytes: int = 0
    after: list[Callable[[], None]] = field(default_factory=list)

    def add(self, file: File) -> None:
        self.files.append(file)
        self.bytes += file.size

    def is_full(self) -> bool:
        return len(self.files) >= WINDOW_FILES or self.bytes >= WINDOW_BYTES or len(self.after) >= WINDOW_FILES


@dataclass(slots=True)
class _Running:
    """What is under way for a window."""

    window: Window
    portions: list[tuple[Future[Portion], list[tuple[File, Place]]]] = field(default_factory=list)
    copies: list[SmallFile] = field(default_factory=list)
    files: list[Future[None]] = field(default_factory=list)
    large: list[_LargeFile] = field(default_factory=list)
    errands: Errands = field(default_factory=Errands)


class FileWriter:
    """Works on three windows at once: one is decoded, one is written, and one is finished."""

    def __init__(self, reader: BlobReader, keys: BlobKeys, target: FilesTarget, tally: Tally, workers: Workers) -> None:
        self._reader, self._tally, self._workers = reader, tally, workers
        self._writers = SmallFileWriters(target, tally, keys, self._fetch_again)
        self._decoding = _Running(Window())
        self._writing = _Running(Window())
        self._large: list[_LargeFile] = []
        self._written = _Written()

    def write(self, window: Window) -> None:
        """Start on a window, and finish the one before the one before it."""
        following = self._submit(window)
        self._turn(following)

    def finish(self) -> None:
        """Wait for everything."""
        self._turn(_Running(Window()))
        self._turn(_Running(Window()))
        self._writers.close()

    def abandon(self) -> None:
        """Remove what several workers wrote and is not complete by now."""
        self._writers.close()
        for large in self._large:
            large.abandon()
        self._large.clear()

    def _turn(self, following: _Running) -> None:
        for portion, group in self._decoding.portions:
            self._write_group(portion, group, self._decoding.errands)
        for at in range(0, len(self._decoding.copies), COPIES):
            self._writers.write(Portion(self._decoding.copies[at : at + COPIES]), self._decoding.errands)
        self._settle(self._writing)
        self._writing, self._decoding = self._decoding, following

    def _settle(self, running: _Running) -> None:
        """Wait for all files of a window, then do what had to wait for them."""
        self._writers.wait_for(running.errands)
        for future in running.files:
            future.result()
        for large in running.large:  # while their directories are open, and before those get their times
            large.abandon()
            self._large.remove(large)
        self._written.add(running.window.files)
        for action in running.window.after:
            self._tally.guard(None, action)
        self._tally.report()

    def _submit(self, window: Window) -> _Running:
        """Start on a window: decode the blobs that hold single chunks, and write the other files."""
        running = _Running(window)
        groups: dict[tuple[int, int], list[tuple[File, Place]]] = {}
        for file in window.files:
            if len(file.chunks) == 1:
                found = self._locate(file)
                if found is not None:
                    groups.setdefault((found.pack, found.ordinal), []).append((file, found))
            elif file.size > WHOLE:
                self._submit_large(file, running)
            else:
                running.files.append(self._workers.submit(self._write_whole, file))
        self._writers.expect(sum(map(len, groups.values())))
        prepare = self._fetched if self._writers.decode else self._decoded
        for group in groups.values():
            copies = self._written.copies(group)
            if copies is not None:
                running.copies += copies
            elif group[0][1].length > SMALL:
                running.files += [self._workers.submit(self._write_whole, file) for file, _ in group]
            else:
                running.portions.append((self._workers.submit(prepare, group), group))
        return running

    def _decoded(self, group: Sequence[tuple[File, Place]]) -> Portion:
        return Portion([_small(*each) for each in group], decoded=self._reader.blob(group[0][1]))

    def _fetched(self, group: Sequence[tuple[File, Place]]) -> Portion:
        return Portion([_small(*each) for each in group], stored=self._reader.fetch_blob(group[0][1]))

    def _locate(self, file: File) -> Place | None:
        found: list[Place] = []
        self._tally.guard(file.path, lambda: found.append(self._reader.place(file.chunks[0])))
        return found[0] if found else None

    def _write_group(self, prepared: Future[Portion], group: Sequence[tuple[File, Place]], errands: Errands) -> None:
        """Write the files that lie in one blob."""
        try:
            portion = prepared.result()
        except (CorruptedBackup, NotFound):
            for file, _ in group:  # one by one, so that each is reported, or found in its new place
                self._write_whole(file)
            return
        self._writers.write(portion, errands)

    def _fetch_again(self, small: SmallFile) -> None:
        """Write one file whose bytes are not what its chunk's id says; another place may have them."""
        self._write_whole(File(small.directory, small.node, small.path, [small.chunk]))

    def _write_small(self, file: File, data: Buffer) -> None:
        file.directory.write_small(file.node.name, data, file.node)
        self._tally.done(len(data))

    def _write_whole(self, file: File) -> None:
        """Write one file, chunk after chunk."""

        def write() -> None:
            parts = [self._reader.chunk(chunk) for chunk in file.chunks]
            self._write_small(file, parts[0] if len(parts) == 1 else b"".join(parts))

        self._tally.guard(file.path, write)

    def _submit_large(self, file: File, running: _Running) -> None:
        """Write one file by several workers, out of order; the last one gives it its name."""
        pending: list[PendingFile] = []

        def begin() -> None:
            if sum(self._reader.place(chunk).length for chunk in file.chunks) != file.size:
                raise CorruptedBackup("its chunks do not add up to its size")
            pending.append(file.directory.begin_file(file.node.name, file.node.size, file.node.extents))

        self._tally.guard(file.path, begin)
        if not pending:
            return
        large = _LargeFile(file, pending[0], self._reader, self._tally)
        self._large.append(large)
        running.large.append(large)
        running.files += [self._workers.submit(large.write, piece) for piece in large.starts()]


def _small(file: File, at: Place, twin: bytes = b"") -> SmallFile:
    return SmallFile(file.directory, file.node, file.path, file.chunks[0], at.offset, at.length, twin)


class _Written:
    """Where chunks were written as whole files, for as many files as memory is set aside for.

    A file that the snapshot holds more than once costs a whole bundle each time that it is decoded; the copy that was
    written before costs a read.
    """

    def __init__(self) -> None:
        self._paths: OrderedDict[bytes, bytes] = OrderedDict()

    def add(self, files: Sequence[File]) -> None:
        """Take note of files that are complete, or could not be written."""
        for file in files:
            if len(file.chunks) == 1 and file.node.extents is None:
                above, name = file.directory.path, file.node.name
                self._paths[file.chunks[0]] = above + b"/" + name if above else name
        while len(self._paths) > REMEMBERED:
            self._paths.popitem(last=False)

    def copies(self, group: Sequence[tuple[File, Place]]) -> list[SmallFile] | None:
        """All files of a group as copies of others; None when one of them must be decoded, which serves all."""
        paths = [self._paths.get(file.chunks[0]) for file, _ in group]
        if None in paths:
            return None
        return [_small(file, at, path or b"") for (file, at), path in zip(group, paths, strict=True)]


class _LargeFile:
    """One file written by several workers."""

    def __init__(self, file: File, pending: PendingFile, reader: BlobReader, tally: Tally) -> None:
        self._file, self._pending, self._reader, self._tally = file, pending, reader, tally
        self._left = len(file.chunks)
        self._failed = False
        self._lock = threading.Lock()

    def starts(self) -> Iterator[tuple[bytes, int]]:
        """(chunk, offset in the file's data) of each chunk; the index knows their lengths."""
        offset = 0
        for chunk in self._file.chunks:
            yield chunk, offset
            offset += self._reader.place(chunk).length

    def write(self, piece: tuple[bytes, int]) -> None:
        """Write one chunk; the worker that does the last one gives the file its name."""
        self._tally.guard(self._file.path, lambda: self._write(*piece))
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last and not self._failed:
            self._tally.guard(self._file.path, self._complete)

    def _write(self, chunk: bytes, offset: int) -> None:
        if self._failed:
            return
        try:
            data = memoryview(self._reader.chunk(chunk))
            for at, start, length in pieces(self._file.node.extents, offset, len(data)):
                self._pending.write_at(at, data[start : start + length])
        except BaseException:
            self._failed = True
            raise

    def _complete(self) -> None:
        self._pending.commit(self._file.node)
        self._tally.done(self._file.node.size)

    def abandon(self) -> None:
        """Remove what is not complete; nothing happens to a file that is."""
        self._pending.abandon()


def pieces(extents: Sequence[tuple[int, int]] | None, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
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
