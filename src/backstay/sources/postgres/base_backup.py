"""BASE_BACKUP: all files of a cluster as the server sends them (PostgreSQL documentation, "BASE_BACKUP").

Servers from 15 on send one COPY: messages that begin an archive (`n`), bring data (`d`), tell how far it is (`p`), and
begin the manifest (`m`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from backstay.errors import BackupFailed, SourceRefused, VersionUnsupported
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import parse_lsn
from backstay.sources.postgres.tar_stream import Sink, TarStream

OLDEST: Final = 15
INCREMENTAL_FROM: Final = 17
DATA_CORRUPTED: Final = "XX001"  # the SQLSTATE of a damaged page
_COMMAND: Final = "BASE_BACKUP"
_TOLD: Final = 3  # damaged pages that are named
_SUMMARIES: Final = ("wal summar", "summarize_wal", "manifest", "timeline")


@dataclass(frozen=True, slots=True)
class Tablespace:
    """One outside of the data directory: where it lies on the server."""

    oid: int
    location: bytes

    def __str__(self) -> str:
        return f"tablespace {self.oid} in {self.location.decode('utf-8', 'backslashreplace')}"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the WAL of a timeline."""

    lsn: int
    timeline: int


@dataclass(frozen=True, slots=True)
class Received:
    """A backup that has come to its end; `damage` tells where the server saw pages that are not as it wrote them."""

    start: Position
    stop: Position
    tablespaces: tuple[Tablespace, ...]
    manifest: bytes
    damage: str = ""


class Taker(Protocol):
    """What takes the files: a sink for each archive, that of the data directory (None) or of a tablespace (its oid)."""

    def archive(self, tablespace: int | None) -> Sink: ...

    def progress(self, done: int) -> None:
        """The server has sent so many bytes."""
        ...


class SummariesMissing(SourceRefused):
    """The server cannot tell what changed since the earlier backup; a whole one can still be made."""

    default_hint = "set summarize_wal = on, and make backups more often than wal_summary_keep_time (10 days)"


def receive_base(connection: Connection, taker: Taker, *, label: str, earlier: bytes | None) -> Received:
    """Have the server send itself; with `earlier`, the manifest of a backup, only what changed since that one.

    The WAL that makes the files consistent, from `start` to `stop`, is not part of it. Raises SummariesMissing before
    anything was taken, SourceRefused, SourceUnreachable, BackupFailed, VersionUnsupported.
    """
    require_version(connection)
    if earlier is not None:
        try:
            connection.upload("UPLOAD_MANIFEST", earlier)
        except SourceRefused as error:
            raise _without_summaries(error) from error
    sql = _command(label, incremental=earlier is not None)
    try:
        rows = connection.begin_copy(sql)
    except SourceRefused as error:
        if earlier is not None and any(sign in str(error).lower() for sign in _SUMMARIES):
            raise _without_summaries(error) from error
        raise
    start, tablespaces = _facts(rows)
    messages = _Messages(taker)
    messages.run(connection)
    ends, damage = _ends(connection)  # first: a server that breaks off says why here, and has sent half of something
    manifest = messages.finish()
    if not ends:
        raise BackupFailed("the server did not say where its backup ends", cause=damage)
    return Received(start, _position(ends[0]), tablespaces, manifest, damage)


def _ends(connection: Connection) -> tuple[list[list[str | None]], str]:
    """The rows that follow the files, and what damage the server saw in these: that it tells last, as an error."""
    rows: list[list[str | None]] = []
    try:
        rows.extend(connection.rows_left(_COMMAND))
    except SourceRefused as error:
        if error.state != DATA_CORRUPTED:
            raise
        found = [notice for notice in connection.notices if "checksum" in notice]
        return rows, "; ".join(found[:_TOLD]) or error.cause
    return rows, ""


def read_tablespaces(plain: Connection) -> tuple[Tablespace, ...]:
    """Those that a server has now, over a plain connection."""
    rows = plain.query(
        "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'"
    )
    return tuple(Tablespace(int(oid or 0), (location or "").encode()) for oid, location in rows)


def require_version(connection: Connection) -> None:
    """Raises VersionUnsupported."""
    if connection.version < OLDEST:
        raise VersionUnsupported(
            f"{connection.place} has version {connection.version}",
            cause=f"base backups are made of version {OLDEST} and later",
            hint="upgrade it, or back up its databases one by one with `backstay backup --source postgresql://…`",
        )


def _command(label: str, *, incremental: bool) -> str:
    quoted = label.replace("'", "''")
    options = [f"LABEL '{quoted}'", "PROGRESS", "CHECKPOINT 'fast'", "WAL false", "WAIT false", "TABLESPACE_MAP true"]
    # One of SHA-2 takes some servers longer than all else: not each is built with what makes it fast.
    options += ["MANIFEST 'yes'", "MANIFEST_CHECKSUMS 'CRC32C'"]
    if incremental:
        options.append("INCREMENTAL")
    return f"{_COMMAND} ({', '.join(options)})"


def _without_summaries(error: SourceRefused) -> SummariesMissing:
    return SummariesMissing("the server does not know what changed since the last backup", cause=str(error))


def _facts(rows: list[list[str | None]]) -> tuple[Position, tuple[Tablespace, ...]]:
    """From the rows before the data: (position, timeline), then (oid, location, size) for each tablespace."""
    if not rows:
        raise BackupFailed("the server did not say where its backup begins")
    found = [
        Tablespace(int(row[0]), (row[1] or "").encode()) for row in rows[1:] if row[0] is not None and row[0] != ""
    ]
    return _position(rows[0]), tuple(found)


def _position(row: list[str | None]) -> Position:
    return Position(parse_lsn(row[0] or ""), int(row[1] or 0))


class _Messages:
    """The messages of the one COPY."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._tar: TarStream | None = None
        self._manifest: bytearray | None = None

    def run(self, connection: Connection) -> None:
        """Hand everything on."""
        for message in connection.copied():
            kind, body = bytes(message[:1]), message[1:]
            if kind == b"d":
                self._data(body)
            elif kind == b"p":
                self._taker.progress(int.from_bytes(body, "big"))
            elif kind == b"n":
                self._archive(bytes(body))
            elif kind == b"m":
                self._close_archive()
                self._manifest = bytearray()
            else:
                raise BackupFailed("the server sent what this program does not know", cause=repr(kind))

    def finish(self) -> bytes:
        """The manifest, once the server has sent all."""
        self._close_archive()
        if not self._manifest:
            raise BackupFailed("the server sent no manifest of its backup")
        return bytes(self._manifest)

    def _data(self, body: memoryview) -> None:
        if self._manifest is not None:
            self._manifest += body
        elif self._tar is not None:
            self._tar.feed(body)
        else:
            raise BackupFailed("the server sent data before it said of what")

    def _archive(self, body: bytes) -> None:
        self._close_archive()
        name = body.split(b"\0", 1)[0].decode("utf-8", "replace")
        stem = name.removesuffix(".tar")
        self._tar = TarStream(self._taker.archive(int(stem) if stem.isdecimal() else None))

    def _close_archive(self) -> None:
        if self._tar is not None:
            self._tar.finish()
        self._tar = None
