"""The tar archives that PostgreSQL streams, taken apart while they come (POSIX.1-2017 pax, "ustar Interchange Format").

`tarfile` wants a file to read from; this one is given pieces of any length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from backstay.errors import BackupFailed

_BLOCK: Final = 512
_FILE: Final = (b"0", b"\0")
_SYMLINK, _DIRECTORY = b"2", b"5"
MAX_SIZE: Final = 1 << 50  # bytes of a member


@dataclass(frozen=True, slots=True)
class Member:
    """The header of one member; `kind` is "file", "directory" or "symlink"."""

    path: bytes
    kind: str
    mode: int  # permissions alone
    uid: int
    gid: int
    size: int
    mtime: int  # seconds since 1970
    target: bytes


class Sink(Protocol):
    """What takes members as they come; the bytes of one between `begin` and `end`."""

    def begin(self, member: Member) -> None: ...

    def data(self, piece: memoryview) -> None:
        """Bytes of the present member; not to be kept."""
        ...

    def end(self) -> None: ...


class TarStream:
    """One archive."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._header = bytearray()
        self._left = self._padding = 0
        self._inside = False

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next bytes. Raises BackupFailed for what is no tar."""
        view = memoryview(piece)
        while view:
            if self._inside:
                view = self._take_data(view)
            elif self._padding:
                skipped = min(self._padding, len(view))
                self._padding -= skipped
                view = view[skipped:]
            else:
                view = self._take_header(view)

    def finish(self) -> None:
        """The archive is over. Raises BackupFailed if it was cut short."""
        if self._inside or self._padding or self._header:
            raise BackupFailed("the server's archive is cut short")

    def _take_header(self, view: memoryview) -> memoryview:
        wanted = _BLOCK - len(self._header)
        self._header += view[:wanted]
        if len(self._header) == _BLOCK:
            header, self._header = bytes(self._header), bytearray()
            if any(header):  # two blocks of zeros end an archive
                self._begin(_member(header))
        return view[wanted:]

    def _begin(self, member: Member) -> None:
        self._sink.begin(member)
        self._left = member.size if member.kind == "file" else 0
        self._padding = -self._left % _BLOCK
        self._inside = True
        if not self._left:
            self._end()

    def _take_data(self, view: memoryview) -> memoryview:
        part = view[: self._left]
        self._sink.data(part)
        self._left -= len(part)
        if not self._left:
            self._end()
        return view[len(part) :]

    def _end(self) -> None:
        self._inside = False
        self._sink.end()


def _member(header: bytes) -> Member:
    if sum(header[:148]) + 8 * 0x20 + sum(header[156:]) != _number(header[148:156]):
        raise BackupFailed("the server's archive cannot be read", cause="the checksum of a header is wrong")
    flag = header[156:157]
    kind = "file" if flag in _FILE else "symlink" if flag == _SYMLINK else "directory" if flag == _DIRECTORY else ""
    if not kind:
        raise BackupFailed("the server's archive cannot be read", cause=f"a member has the type {flag!r}")
    prefix, name = _text(header[345:500]), _text(header[:100])
    size = _number(header[124:136])
    if not 0 <= size <= MAX_SIZE:
        raise BackupFailed("the server's archive cannot be read", cause=f"a member has {size} bytes")
    return Member(
        path=_path(prefix + b"/" + name if prefix else name),
        kind=kind,
        mode=_number(header[100:108]) & 0o7777,
        uid=_number(header[108:116]),
        gid=_number(header[116:124]),
        size=size,
        mtime=_number(header[136:148]),
        target=_text(header[157:257]),
    )


def _path(name: bytes) -> bytes:
    """Relative, without `.`: directories come as `./pg_wal`. Raises BackupFailed for what lies elsewhere."""
    path = name.removeprefix(b"./").removesuffix(b"/")
    if any(part in (b"", b".", b"..") for part in path.split(b"/")):
        raise BackupFailed("the server sent a file that lies nowhere", cause=repr(name))
    return path


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes) -> int:
    """Octal digits, or with the first bit set a number to the base 256."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise BackupFailed("the server's archive cannot be read", cause=f"{field!r} is no number") from None
