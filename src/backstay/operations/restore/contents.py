"""Write the contents of files: small ones by the blob that holds them, larger ones chunk by chunk."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from backstay.codec.compression import Buffer
from backstay.codec.digest import ID_BYTES, ChunkIds
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, InsufficientSpace, NotFound
from backstay.operations.restore.large_file import LargeFile, LargePart, spans, wrong_size
from backstay.operations.restore.tally import Tally
from backstay.operations.restore.write_process import SmallFile
from backstay.operations.restore.writers import Errands, Portion, Writers
from backstay.repository.blobs.ahead import Ahead, BlobsAhead
from backstay.repository.blobs.contents import NeededChunks, chunk_ids, patch_of, read_content, summed
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import SMALL
from backstay.repository.index.index import Place
from backstay.repository.nodes import EMPTY, Node
from backstay.repository.packs.blobs import BlobKeys
from backstay.sources.files_target import FilesTarget
from backstay.sources.kernel import descriptor_limit
from backstay.sources.pending_file import PendingFile
from backstay.sources.target_directory import TargetDirectory

WINDOW_FILES: Final = 2048  # files planned together, so that each bundle is decoded once for all of them
WINDOW_BYTES: Final = 16 << 20
WINDOWS: Final = 4  # under way at once, the one that is planned included
OTHERS_OPEN: Final = 120  # files that may be open besides the directories of windows
TOGETHER: Final = 100  # files in one request that need no blob
REMEMBERED: Final = 1 << 16  # files that later ones may be copies of: about 20 MiB
WHOLE: Final = 8 << 20  # without processes, files up to this many bytes are written by one worker
ONE_PROCESS: Final = (
    32 << 20
)  # files up to this many bytes are written by one process, larger ones by threads of this one


class File:
    """One regular file to write into an open directory; `chunk` is the id of its only one, nothing if it has more."""

    __slots__ = ("chunk", "content", "directory", "node", "path")

    def __init__(self, directory: TargetDirectory, node: Node, path: bytes) -> None:
        self.directory, self.node, self.path = directory, node, path
        content = self.content = node.content or EMPTY
        self.chunk = content.ids if content.depth == 0 and len(content.ids) == ID_BYTES else b""


def _directories() -> int:
    """How many may wait for the end of a window: they are open, and so are those of the windows before it."""
    return max(8, min(WINDOW_FILES, (descriptor_limit() - OTHERS_OPEN) // WINDOWS))


@dataclass(slots=True)
class Window:
    """Files planned together, and what may be done only after they are written, by the path that it concerns."""

    files: list[File] = field(default_factory=list)
    size: int = 0  # bytes
    after: list[tuple[bytes, Callable[[], None]]] = field(default_factory=list)
    closing: int = 0  # directories, at its end
    most_closing: int = field(default_factory=_directories)

    def add(self, file: File) -> None:
        self.files.append(file)
        self.size += max(file.node.data_size, len(file.content.ids))

    def close_after(self, path: bytes, action: Callable[[], None]) -> None:
        """The last thing that is done in a directory."""
        self.after.append((path, action))
        self.closing += 1

    def is_full(self) -> bool:
        return (
            len(self.files) >= WINDOW_FILES
            or self.size >= WINDOW_BYTES
            or len(self.after) >= WINDOW_FILES
            or self.closing >= self.most_closing
        )


@dataclass(slots=True)
class _Running:
    """What is under way for a window."""

    window: Window
    portions: list[tuple[Callable[[], Portion], list[tuple[File, Place]]]] = field(default_factory=list)
    blobless: list[SmallFile] = field(default_factory=list)  # empty, or copies of others
    files: list[Future[None]] = field(default_factory=list)
    larger: list[File] = field(default_factory=list)
    large: list[LargeFile] = field(default_factory=list)
    errands: Errands = field(default_factory=Errands)


class FileWriter:
    """Works on three windows at once: one is decoded, one is written, and one is finished."""

    def __init__(self, reader: BlobReader, keys: BlobKeys, target: FilesTarget, tally: Tally, workers: Workers) -> None:
        self._reader, self._tally, self._workers = reader, tally, workers
        self._writers = Writers(target, tally, keys, reader, self._fetch_again)
        self._ahead = BlobsAhead(reader)
        self._nothing = ChunkIds(keys.ids).of(b"")
        self._is_here: bool | None = None  # whether packs are files of this machine, once that is known
        self._decoding = _Running(Window())
        self._writing = _Running(Window())
        self._large: list[LargeFile] = []
        self._begun = 0
        self._written = _Written()

    def write(self, window: Window) -> None:
        """Start on a window, and finish the one before the one before it."""
        following = self._submit(window)
        self._turn(following)

    def finish(self) -> None:
        """Wait for everything."""
        self._turn(_Running(Window()))
        self._turn(_Running(Window()))
        self._close()

    def abandon(self) -> None:
        """Remove what several workers wrote and is not complete by now."""
        self._close()
        for large in self._large:
            large.abandon()
        self._large.clear()

    def _close(self) -> None:
        self._writers.close()
        self._ahead.close()

    def _turn(self, following: _Running) -> None:
        for prepared, group in self._decoding.portions:
            self._write_group(prepared, group, self._decoding.errands)
        for at in range(0, len(self._decoding.blobless), TOGETHER):
            self._writers.write(Portion(self._decoding.blobless[at : at + TOGETHER]), self._decoding.errands)
        for file in self._decoding.larger:
            self._write_larger(file, self._decoding)
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
        for path, action in running.window.after:
            self._tally.guard(path, action)
        self._tally.report()

    def _submit(self, window: Window) -> _Running:
        """Start on a window: have the blobs fetched, or decoded, that hold single chunks."""
        running = _Running(window)
        self._writers.expect(len(window.files))
        groups: dict[tuple[int, int], list[tuple[File, Place]]] = {}
        for file in window.files:
            if file.content.is_patched:
                running.files.append(self._workers.submit(self._write_patched, file))
            elif file.chunk:
                found = self._locate(file)
                if found is not None:
                    groups.setdefault((found.pack, found.ordinal), []).append((file, found))
            elif file.content == EMPTY:
                running.blobless.append(SmallFile(file.directory, file.node, file.path, self._nothing, 0, 0))
            elif file.node.data_size > WHOLE or self._writers.decode:
                running.larger.append(file)
            else:
                running.files.append(self._workers.submit(self._write_whole, file))
        for group in groups.values():
            copies = self._written.copies(group)
            if copies is not None:
                running.blobless += copies
            elif group[0][1].length > SMALL and not self._writers.decode:
                running.files += [self._workers.submit(self._write_whole, file) for file, _ in group]
            else:
                running.portions.append((self._prepare(group), group))
        return running

    def _prepare(self, group: Sequence[tuple[File, Place]]) -> Callable[[], Portion]:
        """Have the blob of a group fetched, unless the processes can read it by themselves, and decode it else."""
        if not self._writers.decode:
            return self._workers.submit(self._decoded, group).result
        if self._lies_here(group[0][1]):
            return lambda: Portion([_small(*each) for each in group], lying=group[0][1])
        return self._workers.submit(self._fetched, group).result

    def _lies_here(self, place: Place) -> bool:
        if self._is_here is None:
            try:
                lying = self._reader.lying_blob(place)
            except (CorruptedBackup, NotFound):
                return False  # says nothing about others
            self._is_here = lying is not None
            if lying is not None:
                os.close(lying[1])
        return self._is_here

    def _decoded(self, group: Sequence[tuple[File, Place]]) -> Portion:
        return Portion([_small(*each) for each in group], decoded=self._reader.blob(group[0][1]))

    def _fetched(self, group: Sequence[tuple[File, Place]]) -> Portion:
        return Portion([_small(*each) for each in group], stored=self._reader.fetch_blob(group[0][1]))

    def _locate(self, file: File) -> Place | None:
        try:
            return self._reader.place(file.chunk)
        except (CorruptedBackup, NotFound) as error:
            self._tally.note(file.path, error)
            return None

    def _write_group(
        self, prepared: Callable[[], Portion], group: Sequence[tuple[File, Place]], errands: Errands
    ) -> None:
        """Write the files that lie in one blob."""
        try:
            portion = prepared()
        except (CorruptedBackup, NotFound):
            for file, _ in group:  # one by one, so that each is reported, or found in its new place
                self._write_whole(file)
            return
        self._writers.write(portion, errands)

    def _fetch_again(self, small: SmallFile) -> None:
        """Write one file whose bytes are not what its chunk's id says; another place may have them."""
        self._write_whole(File(small.directory, small.node, small.path))

    def _write_small(self, file: File, data: Buffer) -> None:
        file.directory.write_small(file.node.name, data, file.node)
        self._tally.done(len(data))

    def _write_whole(self, file: File) -> None:
        """Write one file, chunk after chunk."""

        def write() -> None:
            self._write_small(file, self._whole(file))

        self._tally.guard(file.path, write)

    def _whole(self, file: File) -> Buffer:
        if file.chunk:
            return self._reader.chunk(file.chunk)
        joined = bytearray()
        for piece in read_content(file.content, self._reader):
            joined += piece  # not at the end: each keeps in memory the blob that it is a small part of
            if len(joined) > file.node.data_size:
                raise wrong_size()
        return joined

    def _write_patched(self, file: File) -> None:
        """Write a file that is another one with changes, from its beginning to its end."""

        def write() -> None:
            node, at = file.node, 0
            if patch_of(file.content, self._reader).size != node.data_size:
                raise wrong_size()
            with file.directory.begin_file(node.name, node.size, node.extents) as pending:
                for piece in read_content(file.content, self._reader):
                    for to, start, length in spans(node.extents, at, len(piece)):
                        pending.write_at(to, memoryview(piece)[start : start + length])
                    at += len(piece)
                if at != node.data_size:
                    raise wrong_size()
                pending.commit(node)
            self._tally.done(node.size)

        self._tally.guard(file.path, write)

    def _write_larger(self, file: File, running: _Running) -> None:
        """Write one file part by part, out of order; whoever does the last one gives it its name."""
        begun: list[PendingFile] = []

        def begin() -> None:
            try:
                begun.append(file.directory.begin_file(file.node.name, file.node.size, file.node.extents))
            except InsufficientSpace:
                self._check_size(file)  # no disk has room for what a damaged file may claim
                raise

        self._tally.guard(file.path, begin)
        if not begun:
            return
        self._begun += 1
        chunks = chunk_ids(file.content, self._reader)
        large = LargeFile(self._begun, file.node, file.path, chunks, begun[0], self._reader, self._tally)
        self._large.append(large)
        running.large.append(large)
        portions = self._workers.ordered(
            self._part, self._parts(large), weigh=_size, limit=WINDOW_BYTES, inline=self._needs_no_thread
        )
        for portion in portions:
            if portion is not None:
                self._writers.write(portion, running.errands)

    def _check_size(self, file: File) -> None:
        """Raises CorruptedBackup when its content has another size than it claims."""

        def lengths(ids: list[bytes]) -> int:
            return sum([self._reader.place(chunk).length for chunk in ids])

        if summed(NeededChunks(self._reader).of(file.content), lengths) != file.node.data_size:
            raise wrong_size()

    def _parts(self, large: LargeFile) -> Iterator[_Work]:
        """Each part of a file; the blobs of those that threads of this process write are read from now on."""
        in_process = large.size <= ONE_PROCESS and self._writers.decode
        for part in large.parts():
            here = self._lies_here(part.place)
            yield _Work(large, part, in_process, self._ahead.ask(part.place) if here and not in_process else None)

    def _needs_no_thread(self, work: _Work) -> bool:
        return work.in_process and self._lies_here(work.part.place)

    def _part(self, work: _Work) -> Portion | None:
        """One part for a process to write; None when it was written here."""
        piece = (work.large, work.part)
        if work.in_process and self._is_here:
            return Portion(piece=piece, lying=work.part.place)
        if work.in_process:
            try:
                return Portion(piece=piece, stored=self._reader.fetch_blob(work.part.place))
            except (CorruptedBackup, NotFound):
                pass  # another place may have it, or else it is told
        with self._ahead.taken(work.ahead) as lying:
            work.large.write(work.part, lying=lying)
        return None


class _Work(NamedTuple):
    """One part of a larger file, whether a process may write it, and else its blob, which is being read."""

    large: LargeFile
    part: LargePart
    in_process: bool
    ahead: Ahead | None


def _size(work: _Work) -> int:
    return work.part.place.length


def _small(file: File, at: Place, twin: bytes = b"") -> SmallFile:
    return SmallFile(file.directory, file.node, file.path, file.chunk, at.offset, at.length, twin)


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
            if file.chunk and file.node.extents is None:
                above, name = file.directory.path, file.node.name
                self._paths[file.chunk] = above + b"/" + name if above else name
        while len(self._paths) > REMEMBERED:
            self._paths.popitem(last=False)

    def copies(self, group: Sequence[tuple[File, Place]]) -> list[SmallFile] | None:
        """All files of a group as copies of others; None when one of them must be decoded, which serves all."""
        paths = [self._paths.get(file.chunk) for file, _ in group]
        if None in paths:
            return None
        return [_small(file, at, path or b"") for (file, at), path in zip(group, paths, strict=True)]
