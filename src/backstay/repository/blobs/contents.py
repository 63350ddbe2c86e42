"""Byte streams as chunks: long lists of ids are themselves stored as chunks. A patched one is another with changes."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Final

import msgspec

from backstay.codec.chunker import Chunker, StreamCutter
from backstay.codec.compression import Buffer
from backstay.codec.deltas import MOST, undelta
from backstay.codec.digest import ID_BYTES, ChunkIds
from backstay.errors import CorruptedBackup
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.decoding import decoded
from backstay.repository.format import RecordKind
from backstay.repository.nodes import PATCHED, Content

MAX_IDS: Final = 1024  # ids in a node itself; more go one level down
MAX_DEPTH: Final = 4
MAX_PATCH: Final = 1 << 20  # bytes of the record that says what is changed
MAX_CHANGE: Final = 2 * MOST  # bytes of one change
PATCH: Final = 5  # kinds of frames
CHANGE: Final = 6
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


def chunk_list(content: Content, reader: BlobReader, most: int | None = None) -> list[bytes]:
    """The ids of a stream's own chunks, in order. Raises CorruptedBackup, also for more than `most`."""
    if content.depth == 0:
        ids = split_ids(content.ids)
    else:
        ids = [*islice(chunk_ids(content, reader), None if most is None else most + 1)]
    if most is not None and len(ids) > most:
        raise CorruptedBackup("a file has more chunks than bytes")
    return ids


def check_depth(content: Content) -> None:
    """Raises CorruptedBackup for a depth that no writer makes, before anything goes down so far."""
    if not 0 <= (content.depth - PATCHED if content.is_patched else content.depth) <= MAX_DEPTH:
        raise CorruptedBackup("a content nests too deeply", cause=f"depth {content.depth}")


def chunk_ids(content: Content, reader: BlobReader) -> Iterator[bytes]:
    """The ids of a stream's own chunks, in order; one that is patched has none. Raises CorruptedBackup."""
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
    """The ids of all chunks that a stream needs: its own, those that hold their ids, and those of a patch.

    Raises CorruptedBackup.
    """
    check_depth(content)
    if content.is_patched:
        yield from all_chunk_ids(content.patch, reader)
        patch = patch_of(content, reader)
        yield from all_chunk_ids(patch.base, reader)
        yield from all_chunk_ids(patch.changes, reader)
        return
    if content.depth:
        yield from all_chunk_ids(Content(content.depth - 1, content.ids), reader)
    yield from chunk_ids(content, reader)


def read_content(content: Content, reader: BlobReader) -> Iterator[Buffer]:
    """The bytes of a stream, piece by piece, each checked. Raises CorruptedBackup."""
    if content.is_patched:
        yield from _read_patched(content, reader)
        return
    for chunk in chunk_ids(content, reader):
        yield reader.chunk(chunk)


def sha256_of(content: Content, reader: BlobReader) -> bytes:
    """The digest of a stream's bytes. Raises CorruptedBackup."""
    digest = sha256()
    for piece in read_content(content, reader):
        digest.update(piece)
    return digest.digest()


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


class Patch(msgspec.Struct, array_like=True, frozen=True):
    """What a patched content is made of: `size` bytes, those of `base` but for the `changes`, a stream of them."""

    size: int
    base: Content
    changes: Content


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`length` bytes from `at` on, whose id as a chunk is `chunk`: what `delta` makes of a range of the base."""

    at: int
    length: int
    base_at: int
    base_length: int
    chunk: bytes
    delta: bytes

    def check(self, end: int) -> None:
        """Raises CorruptedBackup for what cannot be, and when it does not lie behind the change that ended at `end`."""
        if not (end <= self.at and 0 < self.length <= MOST and len(self.chunk) == ID_BYTES):
            raise CorruptedBackup("a patch holds an impossible change")
        if not (self.base_at >= 0 and 0 <= self.base_length <= MOST):
            raise CorruptedBackup("a patch refers to an impossible part of its base")

    def apply_to(self, base: Buffer, reader: BlobReader) -> Buffer:
        """Its bytes, made of the range of the base that it names. Raises CorruptedBackup when they are others."""
        data = undelta(self.delta, base, self.length)
        reader.require(self.chunk, data)
        return data


_patch_decoder: Final = msgspec.msgpack.Decoder(Patch)
_change_decoder: Final = msgspec.msgpack.Decoder(Change)


def patch_of(content: Content, reader: BlobReader) -> Patch:
    """What a patched content is made of. Raises CorruptedBackup."""
    check_depth(content)
    frames = [*read_frames(content.patch, reader, limit=MAX_PATCH)]
    if [kind for kind, _ in frames] != [PATCH]:
        raise CorruptedBackup("a patch holds foreign records")
    patch = decoded(_patch_decoder, frames[0][1], "a patch cannot be read")
    # One look is enough, however often a file has changed.
    if patch.size < 0 or patch.base.is_patched or patch.changes.is_patched:
        raise CorruptedBackup("a patch changes what cannot be patched")
    return patch


def changes_of(patch: Patch, reader: BlobReader) -> Iterator[Change]:
    """The changes, by their positions; they do not overlap. Raises CorruptedBackup."""
    end = 0
    for kind, body in read_frames(patch.changes, reader, limit=MAX_CHANGE):
        if kind != CHANGE:
            raise CorruptedBackup("a patch holds a foreign record")
        change = decoded(_change_decoder, body, "a patch cannot be read")
        change.check(end)
        end = change.at + change.length
        if end > patch.size:
            raise CorruptedBackup("a patch goes on behind the end of its stream")
        yield change


class PlainStream:
    """Any range of a stream that is no patch."""

    def __init__(self, content: Content, reader: BlobReader) -> None:
        """Raises CorruptedBackup when a chunk is not known."""
        self._reader = reader
        self._ids = chunk_list(content, reader)
        self._starts: list[int] = []
        self.size = 0
        for chunk in self._ids:
            self._starts.append(self.size)
            self.size += reader.place(chunk).length

    def pieces(self, start: int, end: int) -> Iterator[Buffer]:
        """The bytes from `start` to before `end`, chunk by chunk. Raises CorruptedBackup where there are none."""
        if start != end and not 0 <= start < end <= self.size:
            raise CorruptedBackup("a patch refers to what its base does not have", cause=f"{end} of {self.size} bytes")
        number = bisect_right(self._starts, start) - 1
        while start < end:
            data = memoryview(self._reader.chunk(self._ids[number]))
            first = start - self._starts[number]
            piece = data[first : first + end - start]
            yield piece
            start += len(piece)
            number += 1

    def read(self, start: int, length: int) -> Buffer:
        """The same in one piece."""
        pieces = [*self.pieces(start, start + length)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_patched(content: Content, reader: BlobReader) -> Iterator[Buffer]:
    patch = patch_of(content, reader)
    base = PlainStream(patch.base, reader)
    at = 0
    for change in changes_of(patch, reader):
        yield from base.pieces(at, change.at)
        yield change.apply_to(base.read(change.base_at, change.base_length), reader)
        at = change.at + change.length
    yield from base.pieces(at, patch.size)
