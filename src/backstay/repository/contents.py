"""Byte streams as chunks: long lists of ids are themselves stored as chunks."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from backstay.codec.chunker import Chunker, StreamCutter
from backstay.codec.compression import Buffer
from backstay.codec.digest import ID_BYTES, ChunkIds
from backstay.errors import CorruptedBackup
from backstay.repository.blobs import BlobReader, BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import Content

MAX_IDS: Final = 1024  # ids in a node itself; more go one level down
MAX_DEPTH: Final = 4
_FRAME: Final = struct.Struct("<BI")  # kind, length of the body
_FRAME_BYTES: Final = _FRAME.size


class MetaWriter:
    """Writes one stream (a listing, a stat stream, a list of ids) as chunks of meta packs."""

    def __init__(self, writer: BlobWriter, ids: ChunkIds, chunker: Chunker) -> None:
        self._writer, self._ids, self._chunker = writer, ids, chunker
        self._cutter = StreamCutter(chunker)
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._content: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= self._chunker.window:
            self._store(self._cutter.feed(self._take()))

    def finish(self) -> Content:
        """Store the rest; what names the whole stream."""
        rest = self._take()
        if not self._content and len(rest) <= self._chunker.window:  # the common short listing, in one call
            self._store(self._chunker.cut(rest, last=True))
        else:
            self._store(self._cutter.feed(rest))
            self._store(self._cutter.finish())
        return content_of(self._content, self._writer, self._ids, self._chunker)

    def _take(self) -> bytes:
        data = b"".join(self._buffer)
        self._buffer, self._buffered = [], 0
        return data

    def _store(self, chunks: Iterable[memoryview]) -> None:
        for chunk in chunks:
            chunk_id = self._ids.of(chunk)
            self._writer.put(RecordKind.META_PACK, chunk_id, chunk)
            self._content.append(chunk_id)


def content_of(chunks: list[bytes], writer: BlobWriter, ids: ChunkIds, chunker: Chunker) -> Content:
    """The content of a stream whose chunks are stored; a long list of ids is stored as well."""
    depth = 0
    while len(chunks) > MAX_IDS:
        stream = MetaWriter(writer, ids, chunker)
        stream.write(b"".join(chunks))
        inner = stream.finish()
        chunks = split_ids(inner.ids)
        depth += 1 + inner.depth
    return Content(depth, b"".join(chunks))


class ContentWriter:
    """The content of a stream of any length: ids go into chunks of their own as soon as there are many."""

    def __init__(self, writer: BlobWriter, ids: ChunkIds, chunker: Chunker) -> None:
        self._made = writer, ids, chunker
        self._ids: list[bytes] = []
        self._stream: MetaWriter | None = None

    def add(self, chunk: bytes) -> None:
        """The next chunk of the stream, which is stored."""
        self._ids.append(chunk)
        if len(self._ids) > MAX_IDS:
            if self._stream is None:
                self._stream = MetaWriter(*self._made)
            self._stream.write(b"".join(self._ids))
            self._ids.clear()

    def finish(self) -> Content:
        """What names the whole stream: the same as `content_of` makes of all its chunks."""
        if self._stream is None:
            return Content(0, b"".join(self._ids))
        self._stream.write(b"".join(self._ids))
        inner = self._stream.finish()
        return Content(1 + inner.depth, inner.ids)


def split_ids(ids: bytes) -> list[bytes]:
    """The ids of a joined list. Raises CorruptedBackup."""
    if len(ids) % ID_BYTES:
        raise CorruptedBackup("a list of chunk ids is cut short")
    if len(ids) <= ID_BYTES:  # most contents are one chunk, or none
        return [ids] if ids else []
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]


def chunk_list(content: Content, reader: BlobReader) -> list[bytes]:
    """The ids of a stream's own chunks, in order. Raises CorruptedBackup."""
    return split_ids(content.ids) if content.depth == 0 else [*chunk_ids(content, reader)]


def chunk_ids(content: Content, reader: BlobReader) -> Iterator[bytes]:
    """The ids of a stream's own chunks, in order. Raises CorruptedBackup."""
    if not 0 <= content.depth <= MAX_DEPTH:
        raise CorruptedBackup("a content nests too deeply", cause=f"depth {content.depth}")
    if content.depth == 0:
        yield from split_ids(content.ids)
        return
    rest = b""
    for inner in chunk_ids(Content(content.depth - 1, content.ids), reader):
        data = rest + bytes(reader.chunk(inner))
        whole = len(data) - len(data) % ID_BYTES
        yield from split_ids(data[:whole])
        rest = data[whole:]
    if rest:
        raise CorruptedBackup("a list of chunk ids is cut short")


def all_chunk_ids(content: Content, reader: BlobReader) -> Iterator[bytes]:
    """The ids of a stream's chunks and of the chunks that hold those ids."""
    if content.depth:
        yield from all_chunk_ids(Content(content.depth - 1, content.ids), reader)
    yield from chunk_ids(content, reader)


def read_content(content: Content, reader: BlobReader) -> Iterator[Buffer]:
    """The bytes of a stream, chunk by chunk, each checked. Raises CorruptedBackup."""
    for chunk in chunk_ids(content, reader):
        yield reader.chunk(chunk)


def frame(kind: int, body: bytes) -> bytes:
    """One framed record of a stream."""
    return _FRAME.pack(kind, len(body)) + body


def read_frames(content: Content, reader: BlobReader, *, limit: int) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each framed record; one longer than `limit` bytes is an error. Raises CorruptedBackup."""
    rest = b""
    for chunk in read_content(content, reader):
        data = rest + chunk if rest else bytes(chunk)
        at, end = 0, len(data)
        while (start := at + _FRAME_BYTES) <= end:
            kind, length = _FRAME.unpack_from(data, at)
            if length > limit:
                raise CorruptedBackup("a stream declares an absurd record length", cause=f"{length} bytes")
            if start + length > end:
                break
            at = start + length
            yield kind, data[start:at]
        rest = data[at:]
    if rest:
        raise CorruptedBackup("a stream ends in the middle of a record")
