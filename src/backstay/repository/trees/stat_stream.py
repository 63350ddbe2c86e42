"""The stat stream of a snapshot: what a later run compares with, in walk order (docs/format.md, "Stat streams")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from backstay.errors import CorruptedBackup
from backstay.repository.blobs.contents import frame, read_frames
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.decoding import decoded
from backstay.repository.nodes import Content

Row: TypeAlias = tuple[bytes, int, int, int, int, int]  # name, mode, size, mtime_ns, ctime_ns, inode
NEVER_SAME: Final = -1  # as ctime: differs from everything, so that the next run reads the entry again
PAGE_ENTRIES: Final = 4096  # entries compared and recorded at a time

ENTER: Final = 1  # a directory begins: its name and first page
PAGE: Final = 2  # one more page of the directory begun last
LEAVE: Final = 3  # a directory ends: its listing and what it holds itself
MAX_FRAME: Final = 64 << 20
_UNREADABLE: Final = "a stat stream cannot be read"
_PART: Final = 1 << 20  # bytes of frames handed on at once

_encoder: Final = msgspec.msgpack.Encoder()
_decode_enter: Final = msgspec.msgpack.Decoder(tuple[bytes, list[Row]])
_decode_page: Final = msgspec.msgpack.Decoder(list[Row])


class Leave(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The end of a directory: its listing, how many files lie directly in it, and their bytes."""

    content: Content
    files: int
    bytes: int


_decode_leave: Final = msgspec.msgpack.Decoder(Leave)


class Subtree(NamedTuple):
    """Part of the frames of a directory and all below it, and what the directories that end in it hold themselves.

    `content` is the listing of the directory, told by the last part.
    """

    frames: bytes
    files: int
    dirs: int
    bytes: int
    content: Content | None


def encode_enter(name: bytes, rows: Sequence[Row]) -> bytes:
    return frame(ENTER, _encoder.encode((name, rows)))


def encode_page(rows: Sequence[Row]) -> bytes:
    return frame(PAGE, _encoder.encode(rows))


def encode_leave(leave: Leave) -> bytes:
    return frame(LEAVE, _encoder.encode(leave))


class StatCursor:
    """Follows a walk through an earlier stat stream. Both go through names in order, so it never goes back."""

    def __init__(self, stream: Content, reader: BlobReader) -> None:
        self._frames: Iterator[tuple[int, bytes]] = read_frames(stream, reader, limit=MAX_FRAME)
        self._kind = 0
        self._body = b""
        self._entered: tuple[bytes, list[Row]] | None = None
        self._advance()

    def _advance(self) -> None:
        self._kind, self._body = next(self._frames, (0, b""))
        self._entered = None

    def _peek_enter(self) -> tuple[bytes, list[Row]]:
        if self._entered is None:
            self._entered = decoded(_decode_enter, self._body, _UNREADABLE)
        return self._entered

    def enter(self, name: bytes) -> tuple[list[Row], bytes] | None:
        """Go into the child directory `name`: its first page and that frame's body; None when it was not there."""
        while self._kind == ENTER:
            found, rows = self._peek_enter()
            if found > name:
                return None
            body = self._body
            self._advance()
            if found == name:
                return rows, body
            self.leave()
        return None

    def page(self) -> tuple[list[Row], bytes] | None:
        """The next page of the directory entered last, with its frame's body; only before any of its children."""
        if self._kind != PAGE:
            return None
        body = self._body
        rows = decoded(_decode_page, body, _UNREADABLE)
        self._advance()
        return rows, body

    def is_at(self, name: bytes) -> bool:
        """Whether the directory `name` comes next, past those before it."""
        while self._kind == ENTER:
            found = self._peek_enter()[0]
            if found >= name:
                return found == name
            self._advance()
            self.leave()
        return False

    def subtree(self) -> Iterator[Subtree]:
        """The directory that comes next and all below it, as they are; goes past them."""
        frames: list[bytes] = []
        size = files = dirs = total = depth = 0
        while True:
            kind, body = self._kind, self._body
            frames.append(frame(kind, body))
            size += len(body)
            depth += kind == ENTER
            if kind == LEAVE:
                left = decoded(_decode_leave, body, _UNREADABLE)
                files, dirs, total, depth = files + left.files, dirs + 1, total + left.bytes, depth - 1
                if depth == 0:
                    self._advance()
                    yield Subtree(b"".join(frames), files, dirs, total, left.content)
                    return
            elif kind not in (ENTER, PAGE):
                raise CorruptedBackup("a stat stream ends too early")
            self._advance()
            if size >= _PART:
                yield Subtree(b"".join(frames), files, dirs, total, None)
                frames, size, files, dirs, total = [], 0, 0, 0, 0

    def leave(self) -> Leave:
        """Go out of the current directory, past whatever is left of it."""
        depth = 0
        while True:
            kind, body = self._kind, self._body
            self._advance()
            if kind == ENTER:
                depth += 1
            elif kind == LEAVE:
                if depth == 0:
                    return decoded(_decode_leave, body, _UNREADABLE)
                depth -= 1
            elif kind != PAGE:
                raise CorruptedBackup("a stat stream ends too early")
