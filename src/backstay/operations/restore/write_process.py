"""Decodes blobs and writes what is in them into files, in a process of its own, which waits for no interpreter lock."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from backstay.codec.compression import Buffer
from backstay.codec.digest import ChunkIds
from backstay.core.helper_process import ANSWER, BODY, MAX_FILES, Handler, HelperGone, HelperProcess
from backstay.core.past_cache import Bytes, PastCacheReader
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, NotFound, RestoreConflict, RestoreFailed
from backstay.repository.nodes import Node
from backstay.repository.packs.blobs import BlobKeys, BlobOpener, StoredBlob
from backstay.sources.files_target import FilesTarget, new_run
from backstay.sources.pending_file import write_all
from backstay.sources.restore_errors import failure
from backstay.sources.target_directory import TargetDirectory
from backstay.sources.twins import Twins

ROOM: Final = 3 << 20  # bytes of a stored blob in one request
REQUESTS: Final = 20  # under way; with fewer a process waits while the next window is planned
KEPT: Final = 3  # decoded blobs: the files of one may come in two requests
_PLACE: Final = "backstay.operations.restore.write_process:writing"
_KINDS: Final[dict[str, type[BackstayError]]] = {
    kind.__name__: kind for kind in (CorruptedBackup, InsufficientSpace, NotFound, RestoreConflict, RestoreFailed)
}


class Settings(msgspec.Struct, array_like=True):
    """How the target is written, what opens blobs, and what tells that bytes are the right ones."""

    keys: BlobKeys
    root: bytes
    owners: bool
    numeric_ids: bool
    run: str


class Into(msgspec.Struct, array_like=True):
    """Files for the directory whose descriptor comes in the same place: what they are, and their chunks.

    A chunk is (id, start in the decoded blob, length, path of a twin that has the bytes, or empty). `is_own` and
    `hands_down` are what the asker knows of the directory.
    """

    path: bytes
    is_own: bool
    hands_down: bool
    nodes: list[Node]
    chunks: list[tuple[bytes, int, int, bytes]]


class Part(msgspec.Struct, array_like=True):
    """Chunks for a larger file, whose descriptor comes behind those of the directories, in the same order.

    They are (id, length), and lie behind each other from `start` of the decoded blob on; `spans` (offset in the file,
    start in their joined bytes, length) say where these go.
    """

    path: bytes
    chunks: Sequence[tuple[bytes, int]]
    start: int
    spans: list[tuple[int, int, int]]


class Request(msgspec.Struct, array_like=True):
    """Files and parts whose bytes lie in one blob, or files that all have twins.

    The blob's stored bytes are the data, or lie in the pack, which is the last of the descriptors.
    """

    blob: StoredBlob | None
    in_pack: bool
    into: list[Into]
    parts: list[Part]


class Failed(msgspec.Struct, array_like=True):
    """One file or part that could not be written; `at` is its place among those asked for, files before parts.

    Without `kind` its bytes are not those of the chunk.
    """

    at: int
    kind: str = ""
    title: str = ""
    cause: str = ""
    hint: str = ""

    def error(self) -> BackstayError:
        return _KINDS.get(self.kind, RestoreFailed)(self.title, cause=self.cause, hint=self.hint)


class Written(msgspec.Struct, array_like=True):
    """All files that are not in `failed` are in their places; `problems` are (path, message)."""

    failed: list[Failed]
    problems: list[tuple[bytes, str]]


class SmallFile(NamedTuple):
    """A file that is one chunk, for an open directory; `path` is for messages.

    Its bytes begin at `start` of a decoded blob, or are those of its twin, a path below the root of the target.
    """

    directory: TargetDirectory
    node: Node
    path: bytes
    chunk: bytes
    start: int
    length: int
    twin: bytes = b""


_directory: Final[Callable[[SmallFile], TargetDirectory]] = attrgetter("directory")
_CHUNK: Final = 3  # `SmallFile.chunk`, from which on the fields are those of a chunk in `Into`


class Piece(NamedTuple):
    """Chunks for a larger file that is open; the rest as for `Part`."""

    fd: int
    path: bytes
    chunks: Sequence[tuple[bytes, int]]
    start: int
    spans: list[tuple[int, int, int]]


class WriteProcess(HelperProcess):
    """The asking side."""

    def __init__(self, target: FilesTarget, keys: BlobKeys) -> None:
        attributes = target.attributes
        self.run = new_run()  # whose temporary files are to be removed, should it die
        settings = Settings(keys, bytes(target.root), attributes.owners, attributes.numeric_ids, self.run)
        super().__init__(_PLACE, msgspec.msgpack.encode(settings), room=ROOM, slots=REQUESTS)
        self._answers = msgspec.msgpack.Decoder(Written)

    def request(
        self,
        files: Sequence[SmallFile],
        blob: StoredBlob | None = None,
        stored: bytes = b"",
        *,
        pieces: Sequence[Piece] = (),
        pack: int | None = None,
    ) -> bool:
        """Ask for files and pieces to be written; false if they are too many or too large for that.

        The blob is `stored`, or lies in the open file `pack`. Raises HelperGone.
        """
        if len(stored) > ROOM:
            return False
        descriptors: list[int] = []
        into: list[Into] = []
        for directory, group in groupby(files, key=_directory):
            here = list(group)
            descriptors.append(directory.fd)
            chunks = [file[_CHUNK:] for file in here]
            known = directory.is_own, directory.hands_down
            into.append(Into(directory.path, *known, [file.node for file in here], chunks))
        descriptors += [piece.fd for piece in pieces]
        if pack is not None:
            descriptors.append(pack)
        parts = [Part(*piece[1:]) for piece in pieces]
        body = msgspec.msgpack.encode(Request(blob, pack is not None, into, parts))
        if len(descriptors) > MAX_FILES or len(body) > BODY:
            return False
        self.ask(body, descriptors, [stored])
        return True

    @contextmanager
    def written(self) -> Iterator[Written]:
        """The answer to the oldest request. Raises HelperGone."""
        with self.answer() as (body, _):
            try:
                written = self._answers.decode(body)
            except msgspec.MsgspecError as error:
                raise HelperGone(f"it answered nonsense: {error}") from error
            yield written


# -- the process


def writing(settings: bytes) -> Handler[_Prepared]:
    """What answers requests by these settings."""
    return _Writing(msgspec.msgpack.decode(settings, type=Settings))


class _Prepared(NamedTuple):
    """A request, and the stored bytes of its blob if they lie in the pack and are not decoded yet."""

    wanted: Request
    stored: Bytes | None


class _Writing:
    """Writes what it is asked for."""

    def __init__(self, settings: Settings) -> None:
        root = Path(os.fsdecode(settings.root))
        self._ids = ChunkIds(settings.keys.ids)
        self._opener = BlobOpener(settings.keys.epochs)
        self._decoded: OrderedDict[tuple[bytes, int], memoryview] = OrderedDict()
        self._reader = PastCacheReader(buffers=2)
        self._last: StoredBlob | None = None  # the one that was prepared last, which then is decoded
        self._target = FilesTarget(root, owners=settings.owners, numeric_ids=settings.numeric_ids, run=settings.run)
        self._twins = Twins(self._target)
        self._requests = msgspec.msgpack.Decoder(Request)

    def prepare(self, request: memoryview, files: list[int]) -> _Prepared:
        wanted = self._requests.decode(request)
        if not wanted.in_pack or wanted.blob is None:
            return _Prepared(wanted, None)
        pack = files.pop()
        try:
            return _Prepared(wanted, self._read(pack, wanted.blob))
        finally:
            os.close(pack)

    def answer(self, prepared: _Prepared, files: list[int], room: memoryview) -> bytes:
        wanted = prepared.wanted
        blob = self._open(prepared, room)
        failed: list[Failed] = []
        at = 0
        for into in wanted.into:
            directory = TargetDirectory(  # closes its descriptor
                self._target, files.pop(0), into.path, is_own=into.is_own, hands_down=into.hands_down
            )
            for node, (chunk, start, length, twin) in zip(into.nodes, into.chunks, strict=True):
                data = self._twins.read(twin, length) if twin else blob[start : start + length]
                write = partial(directory.write_small, node.name, node=node)
                failed += self._try(at, [(chunk, length)], data, write)
                at += 1
            directory.close()
        for file, part in zip(files, wanted.parts, strict=True):  # who called closes the files
            data = blob[part.start : part.start + sum(length for _, length in part.chunks)]
            failed += self._try(at, part.chunks, data, partial(_write_spans, file, part))
            at += 1
        problems = [(problem.path, problem.message) for problem in self._target.problems]
        self._target.problems.clear()
        return msgspec.msgpack.encode(_cut(Written(failed, problems)))

    def _try(
        self, at: int, chunks: Sequence[tuple[bytes, int]], data: Buffer | None, write: Callable[[Buffer], None]
    ) -> list[Failed]:
        """Write the joined bytes of chunks if they are those that the ids say; what failed."""
        try:
            if data is None or not self._holds(memoryview(data), chunks):
                return [Failed(at)]
            write(data)
        except BackstayError as error:
            return [Failed(at, type(error).__name__, error.title, error.cause, error.hint)]
        return []

    def _holds(self, data: memoryview, chunks: Sequence[tuple[bytes, int]]) -> bool:
        at = 0
        for chunk, length in chunks:
            if self._ids.of(data[at : at + length]) != chunk:
                return False
            at += length
        return at == len(data)

    def _read(self, pack: int, blob: StoredBlob) -> Bytes | None:
        """A blob's bytes out of its pack, or fewer when that was cut short, which its tag then tells."""
        if blob == self._last:
            return None
        self._last = blob
        try:
            return self._reader.read(pack, blob.info.stored, blob.info.offset)
        except OSError:
            return None

    def _open(self, prepared: _Prepared, room: memoryview) -> memoryview:
        """The decoded blob; nothing when it cannot be decoded, so that its files are asked for in another way."""
        (wanted, read), blob = prepared, prepared.wanted.blob
        if blob is None:
            return memoryview(b"")
        key = blob.header, blob.info.ordinal
        try:
            if key not in self._decoded:
                stored = read.view if read is not None else room[: 0 if wanted.in_pack else blob.info.stored]
                self._decoded[key] = memoryview(self._opener.open(blob, stored))
                if len(self._decoded) > KEPT:
                    self._decoded.popitem(last=False)
        except CorruptedBackup:
            return memoryview(b"")
        finally:
            if read is not None:
                read.release()
        return self._decoded[key]


def _write_spans(file: int, part: Part, data: Buffer) -> None:
    """Put the bytes of a chunk into a file under construction. Raises RestoreFailed, InsufficientSpace."""
    view = memoryview(data)
    try:
        for at, start, length in part.spans:
            write_all(file, view[start : start + length], at)
    except OSError as error:
        raise failure(error, part.path, "write") from error


def _cut(written: Written) -> Written:
    """What fits into an answer: of very many problems the first ones, and how many more there were."""
    if len(msgspec.msgpack.encode(written.failed)) > ANSWER // 2:  # their kinds at least
        brief = [Failed(each.at, each.kind, "it cannot be written" if each.kind else "") for each in written.failed]
        written = Written(brief, written.problems)
    while len(msgspec.msgpack.encode(written)) > ANSWER - 200 and written.problems:
        kept = len(written.problems) // 2
        written = Written(written.failed, [*written.problems[:kept], (b"", "there were more problems than these")])
    return written
