"""Who writes the files of a restore: this thread when they are few, processes when they are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias

from backstay.codec.compression import Buffer
from backstay.codec.digest import ChunkIds
from backstay.core import helper_process
from backstay.core.helper_process import MAX_FILES, HelperGone
from backstay.errors import CorruptedBackup, NotFound
from backstay.operations.restore.large_file import LargeFile, LargePart
from backstay.operations.restore.tally import Tally
from backstay.operations.restore.write_process import Failed, SmallFile, WriteProcess
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.index.index import Place
from backstay.repository.packs.blobs import BlobKeys, BlobOpener, StoredBlob
from backstay.sources.files_target import FilesTarget
from backstay.sources.twins import Twins

MANY: Final = 2000  # files from which on processes are worth their start
PROCESSES: Final = min(2, os.cpu_count() or 1)  # besides this one
FILES: Final = 1000  # in one request: what is told of each of them takes 250 bytes, more or less
DIRECTORIES: Final = MAX_FILES - 1  # and so many at most, each with its descriptor; one is that of the pack
PATIENCE_S: Final = 5.0  # for a process to finish what it is at, so that nothing half-written stays

FetchAgain: TypeAlias = Callable[[SmallFile], None]


@dataclass(frozen=True, slots=True)
class Portion:
    """Files to write together, or a piece of a larger one.

    Their bytes lie in `decoded`, in a blob as it is stored, or in a blob of a pack that is a file of this machine; or
    all of them have twins.
    """

    files: Sequence[SmallFile] = ()
    piece: tuple[LargeFile, LargePart] | None = None
    decoded: Buffer = b""
    stored: tuple[StoredBlob, bytes] | None = None
    lying: Place | None = None


@dataclass(slots=True)
class Errands:
    """How many requests for one window are under way."""

    open: int = 0


@dataclass(slots=True, eq=False)
class _Sent:
    """Files that a process was asked to write."""

    portion: Portion
    errands: Errands


@dataclass(slots=True, eq=False)
class _Writer:
    process: WriteProcess
    sent: deque[_Sent]

    def files(self) -> Iterator[Sequence[SmallFile]]:
        """What it has not answered for."""
        return (sent.portion.files for sent in self.sent)


class Writers:
    """Called by one thread. `fetch_again` writes a file whose bytes turn out not to be what its chunk's id says."""

    def __init__(
        self, target: FilesTarget, tally: Tally, keys: BlobKeys, reader: BlobReader, fetch_again: FetchAgain
    ) -> None:
        self._target, self._tally, self._keys = target, tally, keys
        self._reader, self._fetch_again = reader, fetch_again
        self._ids, self._opener = ChunkIds(keys.ids), BlobOpener(keys.epochs)
        self._writers: list[_Writer] = []
        self._twins = Twins(target)
        self._files = self._turn = 0
        self._may_start = helper_process.is_supported()

    @property
    def decode(self) -> bool:
        """Whether stored blobs are welcome: processes decode them. Until there are some, threads are faster."""
        return bool(self._writers) and all(writer.process.is_ready() for writer in self._writers)

    def expect(self, files: int) -> None:
        """So many files will be written."""
        self._files += files
        if self._may_start and self._files > MANY:
            self._start()

    def write(self, portion: Portion, errands: Errands) -> None:
        """Write whole files, or have them written until `wait_for` returns."""
        for part in _parts(portion):
            if not self._is_handed_over(part, errands):
                self._write_here(part)

    def wait_for(self, errands: Errands) -> None:
        """Until everything for one window is written."""
        while errands.open:
            for writer in list(self._writers):
                if writer.sent and writer.sent[0].errands is errands:
                    self._take_answer(writer)

    def close(self) -> None:
        """Stop all processes."""
        while self._writers:
            self._writers.pop().process.close(patience_s=PATIENCE_S)
        self._twins.close()
        self._may_start = False

    def _start(self) -> None:
        self._may_start = False
        try:
            for _ in range(PROCESSES):
                self._writers.append(_Writer(WriteProcess(self._target, self._keys), deque()))
        except HelperGone:
            self._tally.warn("no process could be started that writes files, it takes longer without")

    def _write_here(self, portion: Portion) -> None:
        if portion.piece is not None:
            large, part = portion.piece
            large.write(part)
            return
        blob = self._decoded(portion)
        for file in portion.files:
            whole = self._twins.read(file.twin, file.length) if file.twin else None
            data = blob[file.start : file.start + file.length] if whole is None else memoryview(whole)
            if self._ids.of(data) == file.chunk:
                self._tally.guard(file.path, partial(self._write_one, file, data))
            else:
                self._fetch_again(file)

    def _decoded(self, portion: Portion) -> memoryview:
        """The blob of a portion; nothing when it cannot be had: its files are then fetched one by one, and told."""
        with suppress(CorruptedBackup, NotFound):
            if portion.lying is not None:
                return memoryview(self._reader.blob(portion.lying))
            if portion.stored is not None:
                return memoryview(self._opener.open(*portion.stored))
        return memoryview(portion.decoded)

    def _write_one(self, file: SmallFile, data: Buffer) -> None:
        file.directory.write_small(file.node.name, data, file.node)
        self._tally.done(file.length)

    def _is_handed_over(self, portion: Portion, errands: Errands) -> bool:
        if portion.decoded or not self._writers:
            return False
        turn = self._turn_of(portion)
        while self._writers:
            writer = self._writers[turn % len(self._writers)]
            if not writer.process.is_ready():
                return False
            while writer in self._writers and writer.sent and not writer.process.has_room:
                self._take_answer(writer)
            if writer not in self._writers:
                continue  # it went away meanwhile
            try:
                if not self._ask(writer.process, portion):
                    return False
            except HelperGone:
                self._do_without(writer, portion.files)
                continue
            writer.sent.append(_Sent(portion, errands))
            errands.open += 1
            return True
        return False

    def _turn_of(self, portion: Portion) -> int:
        """Whose turn it is: the same process for the same blob, which it may still have decoded, and for one file."""
        self._turn += 1
        if portion.piece is not None:
            return portion.piece[0].number
        if portion.lying is not None:
            return portion.lying.ordinal
        return self._turn if portion.stored is None else portion.stored[0].info.ordinal

    def _ask(self, process: WriteProcess, portion: Portion) -> bool:
        """Send a request; false when it cannot be made. Raises HelperGone."""
        pieces = [large.piece(part) for large, part in filter(None, [portion.piece])]
        if portion.lying is None:
            return process.request(portion.files, *(portion.stored or ()), pieces=pieces)
        try:
            lying = self._reader.lying_blob(portion.lying)
        except (CorruptedBackup, NotFound):
            return False
        if lying is None:
            return False
        blob, pack = lying
        try:
            return process.request(portion.files, blob, pieces=pieces, pack=pack)
        finally:
            os.close(pack)

    def _take_answer(self, writer: _Writer) -> None:
        try:
            with writer.process.written() as written:
                sent = writer.sent.popleft()
        except HelperGone:
            self._do_without(writer)
            return
        files = sent.portion.files
        failed = {failure.at: failure for failure in written.failed}
        landed = [file.length for at, file in enumerate(files) if at not in failed]
        self._tally.done(sum(landed), entries=len(landed))
        for at, failure in failed.items():
            if at >= len(files):
                continue  # a piece
            if failure.kind:
                self._tally.guard(files[at].path, partial(_raise, failure.error()))
            else:
                self._fetch_again(files[at])
        if sent.portion.piece is not None:
            self._take_piece(*sent.portion.piece, failed.get(len(sent.portion.files)))
        for path, message in written.problems:
            self._target.report(path, message)
        sent.errands.open -= 1

    @staticmethod
    def _take_piece(large: LargeFile, part: LargePart, failure: Failed | None) -> None:
        if failure is not None and not failure.kind:
            large.write(part)
        else:
            large.landed(None if failure is None else failure.error())

    def _do_without(self, writer: _Writer, asked: Sequence[SmallFile] = ()) -> None:
        """Write here what a process that is gone did not answer for; what it wrote is replaced by the same.

        `asked` are files that it may have begun with, and that others will write.
        """
        self._writers.remove(writer)
        writer.process.close(patience_s=PATIENCE_S)
        self._tally.warn("a process that writes files is gone, the restore goes on without it")
        for directory in {file.directory for files in (asked, *writer.files()) for file in files}:
            self._tally.guard(None, partial(directory.clear_leftovers, writer.process.run))
        while writer.sent:
            sent = writer.sent.popleft()
            sent.errands.open -= 1
            self._write_here(sent.portion)


def _parts(portion: Portion) -> Iterator[Portion]:
    """The same in portions that a request has room for."""
    if len(portion.files) <= DIRECTORIES:
        yield portion
        return
    part: list[SmallFile] = []
    directories, last = 0, None
    for file in portion.files:
        directories += file.directory is not last
        if len(part) == FILES or directories > DIRECTORIES:
            yield replace(portion, files=part)
            part, directories = [], 1
        part.append(file)
        last = file.directory
    yield replace(portion, files=part)


def _raise(error: Exception) -> None:
    raise error
