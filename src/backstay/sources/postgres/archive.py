"""The table of contents of a dump in PostgreSQL's custom format, read from its beginning.

`pg_restore -l` prints it too, but as words between which names with spaces cannot be told apart, and without what
depends on what. The format is that of pg_backup_archiver.c and pg_backup_custom.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from backstay.codec.compression import Buffer
from backstay.errors import CorruptedBackup, VersionUnsupported
from backstay.sources.postgres.encodings import codec_of

MAGIC: Final = b"PGDMP"
_CUSTOM: Final = 1
_OLDEST, _NEWEST = (1, 14), (1, 16)  # PostgreSQL 12 to 18
_COMPRESSION_BYTE: Final = (1, 15)  # since which compression is told by a byte, before by a number
_RELATION_KINDS: Final = (1, 16)
_LONGEST: Final = 256 << 20  # bytes of one text: a function body
_MOST: Final = 10_000_000  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object of a dump, or a part of one: `kind` and `name` are pg_dump's words, such as TABLE and `t`."""

    ident: int
    kind: str
    schema: str
    name: str
    owner: str
    definition: str
    dependencies: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a dump holds, in the order in which it is restored."""

    database: str
    server: str  # version, such as 18.1
    program: str  # version of pg_dump
    entries: tuple[Entry, ...]


def read_contents(dump: Iterable[Buffer]) -> Contents:
    """Read as much of a dump as its table of contents takes. Raises CorruptedBackup, VersionUnsupported."""
    reader = _Reader(iter(dump))
    if reader.take(5) != MAGIC:
        raise _damaged("it does not begin as one")
    version = reader.byte(), reader.byte()
    reader.byte()
    if not _OLDEST <= version <= _NEWEST:
        raise VersionUnsupported(
            f"a dump of format {version[0]}.{version[1]} cannot be looked into",
            cause=f"this program knows {_OLDEST[0]}.{_OLDEST[1]} to {_NEWEST[0]}.{_NEWEST[1]}",
            hint="use a newer backstay, or restore the dump with --to DIR and give it to pg_restore",
        )
    reader.integer, reader.offset = reader.byte(), reader.byte()
    if reader.byte() != _CUSTOM or not 2 <= reader.integer <= 8 or not 1 <= reader.offset <= 16:
        raise _damaged("it is not of the custom format")
    if version >= _COMPRESSION_BYTE:
        reader.byte()
    else:
        reader.number()
    for _ in range(7):  # when it was made
        reader.number()
    database, server, program = reader.text(), reader.text(), reader.text()
    count = reader.number()
    if not 0 <= count <= _MOST:
        raise _damaged(f"it claims {count} entries")
    entries = tuple(_entry(reader, version) for _ in range(count))
    return Contents(database=database, server=server, program=program, entries=entries)


def _entry(reader: _Reader, version: tuple[int, int]) -> Entry:
    """The next entry. The first one tells the encoding of all that follows."""
    ident = reader.number()
    reader.number()  # whether it has data
    reader.text()  # oid of its catalog
    reader.text()  # its own oid
    name, kind = reader.text(), reader.text()
    reader.number()  # section
    definition = reader.text()
    reader.text()  # how to drop it
    reader.text()  # how to copy into it
    schema = reader.text()
    reader.text()  # tablespace
    reader.text()  # access method
    if version >= _RELATION_KINDS:
        reader.number()
    owner = reader.text()
    reader.text()  # whether it has oids
    dependencies = []
    while (other := reader.maybe_text()) is not None:
        if not other.isdecimal():
            raise _damaged("a dependency is no number")
        dependencies.append(int(other))
    reader.take(1 + reader.offset)  # where its data is, which a stream does not know
    if kind == "ENCODING":
        reader.codec = codec_of(definition.partition("'")[2].partition("'")[0])
    return Entry(
        ident=ident,
        kind=kind,
        schema=schema,
        name=name,
        owner=owner,
        definition=definition,
        dependencies=tuple(dependencies),
    )


class _Reader:
    """Reads the archive's own numbers and texts."""

    def __init__(self, pieces: Iterator[Buffer]) -> None:
        self._pieces = pieces
        self._data = b""
        self._at = 0
        self.integer = self.offset = 4  # bytes
        self.codec = "utf-8"

    def take(self, size: int) -> bytes:
        while len(self._data) - self._at < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise _damaged("it ends in its table of contents")
            self._data = self._data[self._at :] + bytes(piece)
            self._at = 0
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        negative = self.byte()
        value = int.from_bytes(self.take(self.integer), "little")
        return -value if negative else value

    def maybe_text(self) -> str | None:
        length = self.number()
        if length < 0:
            return None
        if length > _LONGEST:
            raise _damaged(f"it claims a text of {length} bytes")
        return self.take(length).decode(self.codec, "surrogateescape")

    def text(self) -> str:
        return self.maybe_text() or ""


def _damaged(cause: str) -> CorruptedBackup:
    return CorruptedBackup("the dump cannot be read", cause=cause, hint="restore an earlier snapshot")
