"""Byte streams as chunks: long lists of ids are themselves stored as chunks. A patched one is another with changes."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator
from hashlib import sha256
from itertools import accumulate, islice
from typing import Final, TypeAlias, cast

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
IDS_AT_ONCE: Final = 1024  # of a long list that are in memory
KNOWN_LISTS: Final = 1 << 17  # chunks whose lists are not gone through again
MAX_DEPTH: Final = 4
MAX_PATCH: Final = 1 << 20  # bytes of the record that says what is changed
MAX_CHANGE: Final = 2 * MOST  # bytes of one change
PATCH: Final = 5  # kinds of frames
CHANGE: Final = 6
_FRAME: Final = struct.Struct("<BI")  # kind, length of the body
_FRAME_BYTES: Final = _FRAME.size
_PAGE_BYTES: Final = IDS_AT_ONCE * ID_BYTES


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
    rests = [b""]
    for inner in chunk_ids(Content(content.depth - 1, content.ids), reader):
        for ids in _listed(reader.chunk(inner), rests, 0):
            yield from ids
    _check_ended(rests)


def _listed(data: Buffer, rests: list[bytes], level: int) -> Iterator[list[bytes]]:
    """The ids in a further chunk of a list, some at a time; `rests[level]` is what of one is left over."""
    view = memoryview(data)
    for at in range(0, len(view), IDS_AT_ONCE * ID_BYTES):
        joined = rests[level] + view[at : at + IDS_AT_ONCE * ID_BYTES]
        whole = len(joined) - len(joined) % ID_BYTES
        rests[level] = joined[whole:]
        yield split_ids(joined[:whole])


def _check_ended(rests: list[bytes]) -> None:
    if any(rests):
        raise CorruptedBackup("a list of chunk ids is cut short")


Needs: TypeAlias = Generator[list[bytes], int | None, int]


class NeededChunks:
    """The chunks that contents need: their own, those that hold their ids, and those of patches.

    What a chunk lists is gone through once, however often it is named: a few bytes can name more than anybody counts.
    """

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        # By depth, chunk, and what was left over before it: the size of what it lists, and what is left over behind it.
        self._known: dict[tuple[object, ...], tuple[int, list[bytes]]] = {}

    def of(self, content: Content) -> Needs:
        """Their ids, some at a time; what is sent back, as their lengths, is added up for those of the stream itself.

        The sum is what is returned; for a patch, the size that it says. Raises CorruptedBackup.
        """
        check_depth(content)
        if content.is_patched:
            yield from self.of(content.patch)
            patch = patch_of(content, self._reader)
            yield from self.of(patch.base)
            yield from self.of(patch.changes)
            return patch.size
        rests = [b""] * content.depth
        size = yield from self._below(content.depth, split_ids(content.ids), rests)
        _check_ended(rests)
        return size

    def _below(self, depth: int, ids: list[bytes], rests: list[bytes]) -> Needs:
        size = (yield ids) or 0
        if depth == 0:
            return size
        size = 0
        for chunk in ids:
            key = (depth, chunk, *rests[:depth])
            known = self._known.get(key)
            if known is None:
                listed = 0
                for inner in _listed(self._reader.chunk(chunk), rests, depth - 1):
                    listed += yield from self._below(depth - 1, inner, rests)
                if len(self._known) >= KNOWN_LISTS:
                    self._known.clear()
                known = self._known[key] = listed, rests[:depth]
            listed, rests[:depth] = known
            size += listed
        return size


def summed(needs: Needs, measure: Callable[[list[bytes]], int]) -> int:
    """Go through all chunks that a content needs; what is returned in the end."""
    try:
        ids = next(needs)
        while True:
            ids = needs.send(measure(ids))
    except StopIteration as end:
        return cast("int", end.value)


def all_chunk_ids(content: Content, reader: BlobReader) -> Iterator[bytes]:
    """The ids of all chunks that a stream needs, in no order, each at least once. Raises CorruptedBackup."""
    for ids in NeededChunks(reader).of(content):
        yield from ids


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
    rest, needed = bytearray(), 0  # what is left over, and how long it must be to hold a record
    for chunk in read_content(content, reader):
        if len(rest) + len(chunk) < needed:
            rest += chunk
            continue
        data = b"".join((rest, chunk)) if rest else bytes(chunk)
        at, end, needed = 0, len(data), 0
        while (start := at + _FRAME_BYTES) <= end:
            kind, length = _FRAME.unpack_from(data, at)
            if length > limit:
                raise CorruptedBackup("a stream declares an absurd record length", cause=f"{length} bytes")
            if start + length > end:
                needed = start + length - at
                break
            at = start + length
            yield kind, data[start:at]
        rest = bytearray(data[at:])
    if rest:
        raise CorruptedBackup("a stream ends in the middle of a record")


class Patch(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """What a patched content is made of: `size` bytes, those of `base` but for the `changes`, a stream of them."""

    size: int
    base: Content
    changes: Content


class Change(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
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
    frames = [*islice(read_frames(content.patch, reader, limit=MAX_PATCH), 2)]
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
    """Any range of a stream that is no patch.

    A long list of its chunks is such a stream itself, of which only as much is looked at as is asked for.
    """

    def __init__(self, content: Content, reader: BlobReader) -> None:
        """Raises CorruptedBackup for a content that cannot be."""
        check_depth(content)
        self._reader = reader
        self._ids = content.ids
        self._list = PlainStream(Content(content.depth - 1, content.ids), reader) if content.depth else None
        self._starts = [0]  # of each page of ids that was looked at, and of the next one
        self._has_ended = False
        self._page: tuple[int, list[bytes], list[int]] = (-1, [], [])  # number, ids, where each chunk begins and ends

    @property
    def size(self) -> int:
        """In bytes. Raises CorruptedBackup when a chunk is not known."""
        while not self._has_ended:
            self._turn_to(len(self._starts) - 1)
        return self._starts[-1]

    def reaches(self, position: int) -> bool:
        """Whether it has so many bytes. Raises CorruptedBackup when a chunk before is not known."""
        while self._starts[-1] < position and not self._has_ended:
            self._turn_to(len(self._starts) - 1)
        return position <= self._starts[-1]

    def _turn_to(self, number: int) -> tuple[list[bytes], list[int]]:
        """A page that was looked at, or the next one."""
        if self._page[0] != number:
            at, length = number * _PAGE_BYTES, _PAGE_BYTES
            ids = split_ids(self._ids[at : at + length] if self._list is None else self._list.read_most(at, length))
            lengths = (self._reader.place(chunk).length for chunk in ids)
            ends = [*accumulate(lengths, initial=self._starts[number])]
            if number == len(self._starts) - 1:
                self._starts.append(ends[-1])
                self._has_ended = len(ids) < IDS_AT_ONCE
            self._page = number, ids, ends
        return self._page[1:]

    def pieces(self, start: int, end: int) -> Iterator[Buffer]:
        """The bytes from `start` to before `end`, chunk by chunk. Raises CorruptedBackup where there are none."""
        while start != end:
            if not (0 <= start < end and self.reaches(start + 1)):
                raise CorruptedBackup("a patch refers to what its base does not have", cause=f"bytes {start} to {end}")
            ids, ends = self._turn_to(bisect_right(self._starts, start) - 1)
            for number in range(bisect_right(ends, start) - 1, len(ids)):
                first, last = ends[number], ends[number + 1]
                data = memoryview(self._reader.chunk(ids[number]))
                if len(data) != last - first:
                    raise CorruptedBackup("a chunk has another length than its index says")
                yield data[start - first : end - first]
                start = last
                if start >= end:
                    return

    def read(self, start: int, length: int) -> Buffer:
        """The same in one piece."""
        pieces = [*self.pieces(start, start + length)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_most(self, start: int, length: int) -> bytes:
        """As many of these bytes as there are."""
        end = start + length if self.reaches(start + length) else self._starts[-1]
        return bytes(self.read(start, end - start)) if start < end else b""


def _read_patched(content: Content, reader: BlobReader) -> Iterator[Buffer]:
    patch = patch_of(content, reader)
    base = PlainStream(patch.base, reader)
    at = 0
    for change in changes_of(patch, reader):
        yield from base.pieces(at, change.at)
        yield change.apply_to(base.read(change.base_at, change.base_length), reader)
        at = change.at + change.length
    yield from base.pieces(at, patch.size)
