"""Captures entries in a process of its own, so that reading files does not wait for this one's interpreter lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EIO
from itertools import accumulate, groupby
from operator import attrgetter
from typing import Final

import msgspec

from backstay.codec.chunker import CdcSizes, ContentDefinedChunker
from backstay.codec.digest import ChunkIds
from backstay.core.clock import SystemClock
from backstay.core.helper_process import ANSWER, BODY, MAX_FILES, Handler, HelperGone, HelperProcess
from backstay.operations.backup.cutting import Chunks, FileCutter
from backstay.operations.backup.scan import Take
from backstay.repository.nodes import Node
from backstay.sources.disk_reads import DiskReads, read_soon
from backstay.sources.entry_reader import EntryReader
from backstay.sources.metadata import Owners, Volume
from backstay.sources.source import Lent, Stat

_visit: Final = attrgetter("visit")
_PLACE: Final = "backstay.operations.backup.capture_process:answering"


class Settings(msgspec.Struct, array_like=True):
    """What the process needs to know of the repository."""

    id_key: bytes
    sizes: CdcSizes
    chunker_secret: int
    small: int  # bytes; files above are left to the asker
    room: int  # bytes of data that an answer can hold


class Wanted(msgspec.Struct, array_like=True):
    """Entries of the directory whose descriptor comes in the same place."""

    path: bytes
    volume: Volume
    entries: list[Stat]


class Captured(msgspec.Struct, array_like=True, gc=False):
    """One entry; with `node` None it could not be read (`errno`), or (0) is left to the asker."""

    stat: Stat | None = None  # None when it is as it was asked for
    node: Node | None = None
    chunks: list[tuple[bytes, int]] | None = None  # (id, length) in order; None for what has no data
    start: int = 0  # of the data, from the start of the room for it
    errno: int = 0
    message: str = ""

    def pieces(self, data: memoryview) -> Chunks | None:
        """The chunks, as parts of the room for data."""
        if self.chunks is None:
            return None
        if len(self.chunks) == 1:  # nearly all files
            chunk, length = self.chunks[0]
            return [(chunk, data[self.start : self.start + length])]
        ends = accumulate((length for _, length in self.chunks), initial=self.start)
        return [(chunk, data[at : at + length]) for (chunk, length), at in zip(self.chunks, ends, strict=False)]


LEFT: Final = Captured()


class Answer(msgspec.Struct, array_like=True):
    """The entries in the order in which they were asked for, and what else went wrong: (path, message)."""

    entries: list[Captured]
    problems: list[tuple[bytes, str]]


class CaptureProcess(HelperProcess):
    """The asking side."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(_PLACE, msgspec.msgpack.encode(settings), room=settings.room)
        self._answers = msgspec.msgpack.Decoder(Answer)

    def request(self, takes: Sequence[Take]) -> bool:
        """Ask for entries; false if this is nothing that a process can do. Raises HelperGone."""
        files: list[int] = []
        wanted: list[Wanted] = []
        for visit, group in groupby(takes, key=_visit):
            lent = visit.directory.lend()
            if lent is None or len(files) == MAX_FILES:
                return False
            files.append(lent.fd)
            wanted.append(Wanted(lent.path, lent.volume, [take.entry for take in group]))
        body = msgspec.msgpack.encode(wanted)
        if len(body) > BODY:
            return False
        self.ask(body, files)
        return True

    @contextmanager
    def captured(self) -> Iterator[tuple[Answer, memoryview]]:
        """The answer to the oldest request, and the data, which is gone afterwards. Raises HelperGone."""
        with self.answer() as (body, data):
            try:
                answer = self._answers.decode(body)
            except msgspec.MsgspecError as error:
                raise HelperGone(f"it answered nonsense: {error}") from error
            yield answer, data


# -- the process


def answering(settings: bytes) -> Handler[list[Wanted]]:
    """What answers requests by these settings."""
    return _Answering(msgspec.msgpack.decode(settings, type=Settings))


class _Answering:
    """Reads, hashes and cuts what is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._small = settings.small
        chunker = ContentDefinedChunker(settings.sizes, settings.chunker_secret)
        self._cutter = FileCutter(ChunkIds(settings.id_key), chunker)
        self._owners, self._clock = Owners(), SystemClock()
        self._requests = msgspec.msgpack.Decoder(list[Wanted])
        self._problems: list[tuple[bytes, str]] = []
        self._ahead, self._here = DiskReads(), DiskReads()  # by the thread that prepares, and the one that answers

    def prepare(self, request: memoryview, files: list[int]) -> list[Wanted]:
        """Lets the disk read meanwhile what will be asked of it, for as long as it is asked for much."""
        wanted = self._requests.decode(request)
        if self._ahead.were_many or self._here.were_many:
            with self._ahead.watched(_count(wanted)):
                for directory, fd in zip(wanted, files, strict=True):
                    read_soon(fd, directory.entries)
        return wanted

    def answer(self, wanted: list[Wanted], files: list[int], room: memoryview) -> bytes:
        with self._here.watched(_count(wanted)):
            return self._answer(wanted, files, room)

    def _answer(self, wanted: list[Wanted], files: list[int], room: memoryview) -> bytes:
        self._problems = []
        entries: list[Captured] = []
        used = 0
        for directory, fd in zip(wanted, files, strict=True):
            reader = self._reader(Lent(fd, directory.path, directory.volume))
            for stat in directory.entries:
                captured, length = self._capture(reader, stat, room, used)
                entries.append(captured)
                used += length
        body = msgspec.msgpack.encode(Answer(entries, self._problems))
        if len(body) <= ANSWER:
            return body
        return msgspec.msgpack.encode(Answer([], []))  # very many or large attributes: all is left to the asker

    def _reader(self, lent: Lent) -> EntryReader:
        return EntryReader(
            lent.fd,
            lent.path,
            volume=lent.volume,
            owners=self._owners,
            clock=self._clock,
            lacks=lambda path, message: self._problems.append((path, message)),
        )

    def _capture(self, reader: EntryReader, stat: Stat, room: memoryview, used: int) -> tuple[Captured, int]:
        """One entry, and how many bytes of the room its data takes."""
        try:
            capture = reader.capture(stat, small=self._small)
        except OSError as error:
            return Captured(errno=error.errno or EIO, message=error.strerror or str(error)), 0
        data = capture.data
        if capture.stream is not None:
            capture.stream.abandon()
            return LEFT, 0
        row = None if capture.stat == stat else capture.stat
        if data is None:
            return Captured(row, capture.node), 0
        end = used + len(data)
        if end > len(room):
            return LEFT, 0
        room[used:end] = data
        capture.node.sha256, chunks = self._cutter.cut(data)
        cuts = [(chunk, len(piece)) for chunk, piece in chunks]
        return Captured(row, capture.node, cuts, used), len(data)


def _count(wanted: list[Wanted]) -> int:
    return sum(len(directory.entries) for directory in wanted)
