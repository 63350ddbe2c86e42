"""Receive the binary log of a MySQL or MariaDB server into the repository, until asked to stop.

Order: the server's program writes the file into a directory of this process, events are checked there, what is right
becomes durable in the repository, and the local file goes when all of it is. Nothing is reported to the server: it
keeps its files for as long as it was told (`binlog_expire_logs_seconds`). Whatever a crash interrupts, the next
receiver begins with the last file that is stored, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backstay.core.clock import LOOK_S, rest
from backstay.core.events import EventSink, Started, Warned, ignore
from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    SourceRefused,
    SourceUnreachable,
    StorageUnavailable,
    WalConflict,
    WalGap,
)
from backstay.operations.mysql.binlog_archive import BinlogArchive, StoredLog
from backstay.operations.mysql.binlog_cutting import GrowingLog
from backstay.operations.mysql.dumps import mysql_dumps
from backstay.operations.mysql.log_origin import bind, logging_server, scratch
from backstay.operations.wal.storing import (
    LONGEST_PAUSE_S,
    Piece,
    Storing,
    as_warning,
    forget_superseded,
)
from backstay.operations.wal.streaming import DRAIN_S, Stopped
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import slice_of
from backstay.sources.mysql.binlog import Position, position_at, split_name
from backstay.sources.mysql.log_stream import GONE, TORN, LogStream
from backstay.sources.mysql.server import Server
from backstay.storage.fitness import require_fit

_AHEAD: Final = 1 << 30  # bytes that may wait on the local disk while the store is slow
_SILENT_S: Final = 60.0  # without anything new, until the server is asked whether there is
_WINDOWS: Final = "`backstay mysql windows` shows what can be reached"
_REPLICAS: Final = 1 << 31  # server ids from here on are rare among real replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class BinlogReceiveOptions:
    """Whose log to receive. What has come of a file is stored every `every` seconds."""

    url: str
    name: str
    every: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BinlogReceiveResult:
    """What was stored until the receiver was stopped, in bytes; `durable` is up to where all is stored."""

    name: str
    system: int
    bytes: int
    durable: Position | None


def run_binlog_receive(
    repository: Repository,
    options: BinlogReceiveOptions,
    stopped: Stopped,
    *,
    environ: Mapping[str, str],
    events: EventSink = ignore,
) -> BinlogReceiveResult:
    """Receive until `stopped` says so. What is lost for good is told as a warning, and receiving goes on behind it.

    Raises SourceUnreachable when the server cannot be reached at first, SourceRefused, IdentityMismatch, WalConflict,
    CorruptedSource, VersionUnsupported, StorageUnfit.
    """
    require_fit(repository.backend)
    server = logging_server(options.url, environ)
    system = bind(repository, options.name, server)
    receiver = _Receiver(repository, options, system, environ, stopped, events)
    events(Started(operation="receive the binary log"))
    try:
        receiver.run()
    finally:
        receiver.storing.close()
    return BinlogReceiveResult(name=options.name, system=system, bytes=receiver.storing.bytes, durable=receiver.durable)


@dataclass(slots=True)
class _Receiver:
    repository: Repository
    options: BinlogReceiveOptions
    system: int
    environ: Mapping[str, str]
    stopped: Stopped
    events: EventSink
    storing: Storing = field(init=False)
    durable: Position | None = None
    is_told: bool = False  # that something is away
    has_begun: bool = False
    torn: str = ""  # a file that the server cannot send to its end, which is stored as far as it is whole
    pause: float = 1.0

    def __post_init__(self) -> None:
        self.storing = Storing(
            self.repository,
            self.system,
            self.events,
            parts=forget_superseded(self.repository, self.system, self.events),
            noticed=self._noticed,
            what="the binary log",
        )

    def run(self) -> None:
        """Session after session, until asked to stop."""
        while not self.stopped():
            try:
                self._settle()
                self._session()
            except (SourceUnreachable, StorageUnavailable, InsufficientSpace) as error:
                if not self.is_told:
                    self.events(Warned(message=f"{error}; it is tried again, and the server keeps its log meanwhile"))
                self.is_told = True
                rest(self.repository.clock, self.pause, self.stopped)
                self.pause = min(2 * self.pause, LONGEST_PAUSE_S)
            except SourceRefused as error:
                if error.state != GONE or not self.has_begun:
                    raise
                rest(
                    self.repository.clock, LOOK_S, self.stopped
                )  # it was removed a moment ago: the next session sees what is left
        self._drain()

    def _noticed(self, piece: Piece) -> None:
        found = slice_of(piece.file)
        assert found is not None
        self.durable = position_at(found[0], piece.end)

    def _settle(self) -> None:
        """Let all that was received become durable: the next session begins with what is stored."""
        while not self.storing.is_idle and not self.stopped():
            self.storing.check()
            self.storing.wait(LOOK_S)

    def _drain(self) -> None:
        """Wait a while for the store."""
        until = self.repository.clock.monotonic() + DRAIN_S
        while not self.storing.is_idle and self.repository.clock.monotonic() < until:
            self.storing.check()
            self.storing.wait(LOOK_S)
        if not self.storing.is_idle:
            self.events(Warned(message="what came last is not stored yet; the server keeps it for the next receiver"))

    def _session(self) -> None:
        """Find out where to begin, and follow the log from there."""
        server = logging_server(self.options.url, self.environ)
        bind(self.repository, self.options.name, server)
        archive = BinlogArchive.load(self.repository.wal, self.system)
        first = self._first(server.binary_logs(), archive)
        ident = _REPLICAS + int.from_bytes(self.repository.environment.random(4), "big") % _REPLICAS
        with (
            scratch(self.repository) as place,
            LogStream(server, first, place, follow=ident) as stream,
        ):
            _Following(self, server, stream, archive).run()

    def _first(self, there: Iterable[str], archive: BinlogArchive) -> str:
        """The file to begin with: the last one that is stored, or the first that the server has behind it."""
        files = list(there)
        newest = archive.newest
        if newest is None:
            dumps = mysql_dumps(self.repository, self.options.name, on_damage=self._damaged)
            return next((dump.position.file for dump in dumps if dump.position.file in files), files[-1])
        if newest.file in files:
            return files[files.index(newest.file) + (newest.file == self.torn)]
        parts = split_name(files[0])
        if parts is None or parts[0] != newest.start.base or parts[1] < newest.start.number:
            raise WalConflict(
                f"the server's binary log begins anew with {files[0]}",
                cause=f"{newest.file} is stored, and the server has not got it: it is another server, or its log "
                "was reset or renamed",
                hint="make a new dump, and receive under another --name",
            )
        if parts[1] > newest.start.number + 1 or not newest.is_complete:
            self.events(as_warning(self._gap(newest, files[0])))
        return files[0]

    def _damaged(self, snapshot: str, error: BackstayError) -> None:
        self.events(Warned(message=f"{snapshot} was not looked at: {error}"))

    def _gap(self, newest: StoredLog, first: str) -> WalGap:
        return WalGap(
            f"the binary log of {self.options.name} from {newest.file} to before {first} is missing",
            cause="the server removed it before it was received",
            hint=f"make a new dump: `backstay backup --source`; {_WINDOWS}",
        )

    def leave(self, file: str) -> None:
        """The server ended in the middle of writing a file: the next session begins behind it."""
        self.torn = file
        self.events(
            Warned(
                message=f"{file} ends within an event, because the server was killed while it wrote; what is whole is "
                "stored, and receiving goes on behind it. What was not whole the server has rolled back, but for DDL "
                "and tables without transactions: make a new dump if there may be some"
            )
        )

    def is_well(self) -> None:
        """Something new came, or nothing is left to come: what is stored comes in each session, also if it fails."""
        if self.is_told:
            self.events(Warned(message="the binary log comes in again"))
        self.is_told, self.pause = False, 1.0


class _Following:
    """One session: takes what the stream writes, file after file."""

    def __init__(self, receiver: _Receiver, server: Server, stream: LogStream, archive: BinlogArchive) -> None:
        self._receiver, self._server, self._stream, self._archive = receiver, server, stream, archive
        self._storing, self._clock = receiver.storing, receiver.repository.clock
        self._log: GrowingLog | None = None
        self._cut_at = self._moved_at = self._clock.monotonic()
        self._is_ahead = False  # so far that the program was stopped
        self._is_behind = False  # the server, when it was asked last, had more than came

    def run(self) -> None:
        """Until the stream ends, or somebody asks to stop. Raises what ended it."""
        try:
            while not self._receiver.stopped():
                self._storing.check()
                failure = self._stream.failure()  # asked first: what came before it is taken
                if self._step():
                    self._moved_at, self._is_behind = self._clock.monotonic(), False
                elif failure is not None and self._storing.has_room:
                    if self._is_torn(failure):
                        return
                    self._cut()
                    if self._is_ahead:
                        return
                    raise failure
                elif self._is_stalled():
                    raise SourceUnreachable(
                        f"{self._server.place} has logged more than it sends",
                        cause=f"nothing came for {2 * _SILENT_S:.0f} s",
                    )
                else:
                    self._storing.wait(LOOK_S)
            self._cut()
        finally:
            if self._log is not None:
                self._log.close()

    def _is_torn(self, failure: BackstayError) -> bool:
        """Whether the server can send no more of a file that it will never go on with; then that is its end."""
        if self._log is None or not isinstance(failure, SourceRefused) or failure.state != TORN:
            return False
        file = self._log.path.name
        if file == next(reversed(self._server.binary_logs())):
            return False
        self._offer(self._log.finish())
        self._receiver.leave(file)
        return True

    def _step(self) -> bool:
        """Take some of what has come; false if there was nothing, or no room for it."""
        files = self._stream.files()
        if not files or not self._storing.has_room:
            return False
        if self._log is None:
            self._log = GrowingLog(files[0], self._archive)
        pieces = self._log.advance()
        if pieces is not None:
            self._offer(pieces)
            self._receiver.has_begun = True
            if self._log.has_news:
                self._receiver.is_well()
            self._stop_if_far_ahead(files)
        elif len(files) > 1:
            self._offer(self._log.finish())
            self._log.close()
            self._log.path.unlink()
            self._log = None
        if self._clock.monotonic() - self._cut_at >= self._receiver.options.every and self._storing.is_idle:
            self._cut()
        return pieces is not None or self._log is None

    def _offer(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            self._storing.offer(piece)

    def _cut(self) -> None:
        """Let what came of the file that grows become durable."""
        self._cut_at = self._clock.monotonic()
        if self._log is not None and (piece := self._log.part()) is not None:
            self._storing.offer(piece)

    def _stop_if_far_ahead(self, files: list[Path]) -> None:
        """A store that is slower than the server must not fill the local disk: the next session fetches the rest."""
        assert self._log is not None
        if not self._is_ahead and sum(path.stat().st_size for path in files) - self._log.received > _AHEAD:
            self._is_ahead = True
            self._stream.close()

    def _is_stalled(self) -> bool:
        """Whether the server has more, though nothing came for long: a connection may be dead without a sign."""
        if self._clock.monotonic() - self._moved_at < _SILENT_S:
            return False
        self._moved_at = self._clock.monotonic()
        file, size = list(self._server.binary_logs().items())[-1]
        was_behind = self._is_behind
        self._is_behind = self._log is None or (file, size) != (self._log.path.name, self._log.received)
        if not self._is_behind:
            self._receiver.is_well()
        return was_behind and self._is_behind
