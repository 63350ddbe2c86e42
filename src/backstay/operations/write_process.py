"""Writes small files in a process of its own: they are all system calls, which wait for no interpreter lock there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from backstay.codec.compression import Buffer
from backstay.codec.digest import ChunkIds
from backstay.core.helper_process import ANSWER, BODY, MAX_FILES, Handler, HelperGone, HelperProcess
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, NotFound, RestoreConflict, RestoreFailed
from backstay.repository.nodes import Node
from backstay.sources.files_target import FilesTarget, TargetDirectory
from backstay.sources.twins import Twins

ROOM: Final = 3 << 20  # bytes of files in one request
_PLACE: Final = "backstay.operations.write_process:writing"
_KINDS: Final[dict[str, type[BackstayError]]] = {
    kind.__name__: kind for kind in (CorruptedBackup, InsufficientSpace, NotFound, RestoreConflict, RestoreFailed)
}


class Settings(msgspec.Struct, array_like=True):
    """How the target is written, and what tells that bytes are the right ones."""

    id_key: bytes
    root: bytes
    owners: bool
    numeric_ids: bool


class Into(msgspec.Struct, array_like=True):
    """Files for the directory whose descriptor comes in the same place: what they are, and their chunks."""

    path: bytes
    nodes: list[Node]
    chunks: list[
        tuple[bytes, int, bytes]
    ]  # (id, length, path of the twin that has the bytes, or empty: they come along)


class Failed(msgspec.Struct, array_like=True):
    """One file that could not be written; `at` is its place among those asked for.

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

    Without `data` its bytes are those of its twin, a path below the root of the target.
    """

    directory: TargetDirectory
    node: Node
    path: bytes
    chunk: bytes
    length: int
    data: Buffer = b""
    twin: bytes = b""


class WriteProcess(HelperProcess):
    """The asking side."""

    def __init__(self, target: FilesTarget, ids: ChunkIds) -> None:
        attributes = target.attributes
        settings = Settings(ids.key, bytes(target.root), attributes.owners, attributes.numeric_ids)
        super().__init__(_PLACE, msgspec.msgpack.encode(settings), room=ROOM)
        self._answers = msgspec.msgpack.Decoder(Written)

    def request(self, files: Sequence[SmallFile]) -> bool:
        """Ask for files to be written; false if they are too many or too large for that. Raises HelperGone."""
        if sum(len(file.data) for file in files) > ROOM:
            return False
        descriptors: list[int] = []
        into: list[Into] = []
        for directory, group in groupby(files, key=lambda file: file.directory):
            here = list(group)
            descriptors.append(directory.fd)
            chunks = [(file.chunk, file.length, file.twin) for file in here]
            into.append(Into(directory.path, [file.node for file in here], chunks))
        body = msgspec.msgpack.encode(into)
        if len(descriptors) > MAX_FILES or len(body) > BODY:
            return False
        self.ask(body, descriptors, [file.data for file in files])
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


def writing(settings: bytes) -> Handler:
    """What answers requests by these settings."""
    return _Writing(msgspec.msgpack.decode(settings, type=Settings)).answer


class _Writing:
    """Writes what it is asked for."""

    def __init__(self, settings: Settings) -> None:
        root = Path(os.fsdecode(settings.root))
        self._ids = ChunkIds(settings.id_key)
        self._target = FilesTarget(root, owners=settings.owners, numeric_ids=settings.numeric_ids)
        self._twins = Twins(self._target)
        self._requests = msgspec.msgpack.Decoder(list[Into])

    def answer(self, request: memoryview, files: list[int], room: memoryview) -> bytes:
        failed: list[Failed] = []
        at = start = 0
        for into in self._requests.decode(request):
            directory = TargetDirectory(self._target, files.pop(0), into.path)  # closes its descriptor
            for node, (chunk, length, twin) in zip(into.nodes, into.chunks, strict=True):
                if twin:
                    data: Buffer | None = self._twins.read(twin, length)
                else:
                    data = room[start : start + length]
                    start += length
                try:
                    if data is not None and self._ids.of(data) == chunk:
                        directory.write_small(node.name, data, node)
                    else:
                        failed.append(Failed(at))
                except BackstayError as error:
                    failed.append(Failed(at, type(error).__name__, error.title, error.cause, error.hint))
                at += 1
            directory.close()
        problems = [(problem.path, problem.message) for problem in self._target.problems]
        self._target.problems.clear()
        return msgspec.msgpack.encode(_cut(Written(failed, problems)))


def _cut(written: Written) -> Written:
    """What fits into an answer: of very many problems the first ones, and how many more there were."""
    while len(msgspec.msgpack.encode(written)) > ANSWER - 200 and written.problems:
        kept = len(written.problems) // 2
        written = Written(written.failed, [*written.problems[:kept], (b"", "there were more problems than these")])
    return written
