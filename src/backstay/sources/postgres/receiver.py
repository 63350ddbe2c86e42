"""The WAL of a server as a stream: PostgreSQL documentation, "Streaming Replication Protocol"."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

from backstay.core.bell import Bell
from backstay.core.clock import Clock
from backstay.errors import SourceRefused, VersionUnsupported
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import format_lsn, parse_lsn

_DATA: Final = struct.Struct(">cQQQ")  # 'w', position, end of the server's WAL, time
_KEEPALIVE: Final = struct.Struct(">cQQB")  # 'k', end of the server's WAL, time, whether an answer is wanted
_STATUS: Final = struct.Struct(">cQQQQB")  # 'r', written, flushed, applied, time, whether an answer is wanted
_EPOCH_US: Final = 946_684_800_000_000  # microseconds from 1970 to 2000
OLDEST: Final = 13  # the first version whose slots have a wal_status
UNDEFINED_FILE: Final = "58P01"  # the SQLSTATE for WAL, or a history, that is not there any more


@dataclass(frozen=True, slots=True)
class Slot:
    """A replication slot as the server shows it; `kept_from` is where the WAL that it keeps begins.

    `status` is wal_status: reserved, extended, unreserved or lost. `left` is how many bytes may still be written
    before it is lost; None for no limit.
    """

    name: str
    kept_from: int | None
    status: str
    left: int | None
    is_active: bool


def read_slot(connection: Connection, name: str) -> Slot | None:
    """A slot, over a plain connection; None if there is none. Raises as `Connection.query` does."""
    rows = connection.query(
        "SELECT slot_name, restart_lsn, wal_status, safe_wal_size, active FROM pg_replication_slots"
    )
    for _, kept_from, status, left, active in (row for row in rows if row[0] == name):
        return Slot(
            name,
            None if kept_from is None else parse_lsn(kept_from),
            status or "",
            None if left is None else int(left),
            active == "t",
        )
    return None


def slot_limit(connection: Connection) -> int | None:
    """Bytes of WAL that a slot may keep, over a plain connection; None for no limit."""
    mebibytes = int(connection.value("SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'"))
    return None if mebibytes < 0 else mebibytes << 20


def require_version(connection: Connection) -> None:
    """Raise VersionUnsupported for a server that does not tell how its slots are."""
    if connection.version < OLDEST:
        raise VersionUnsupported(
            f"{connection.place} runs version {connection.version}",
            cause=f"WAL is received from {OLDEST} on",
            hint="upgrade the server, or let it archive: `backstay pg archive`",
        )


def sender_timeout(connection: Connection) -> float:
    """Seconds of silence after which the server gives a receiver up, over a plain connection; infinite for never."""
    milliseconds = int(connection.value("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'"))
    return milliseconds / 1000 or math.inf


def commits_wait_for(connection: Connection, process: int) -> bool:
    """Whether synchronous_standby_names names a session that streams, over a plain connection of the same role."""
    rows = connection.query("SELECT pid, sync_priority FROM pg_stat_replication")
    return any(pid == str(process) and int(priority or 0) > 0 for pid, priority in rows)


def segment_size(connection: Connection) -> int:
    """Bytes of a WAL segment, over a plain connection."""
    return int(connection.value("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'"))


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of WAL from a position on."""

    lsn: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """The server wants to know how far we are."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The server ended the stream: it shuts down, or goes on with another timeline from a position on."""

    timeline: int | None
    lsn: int


Message: TypeAlias = Data | Asked | Ended | None


class WalStream:
    """A session of the replication protocol. Its methods raise SourceUnreachable, SourceRefused and their kin."""

    def __init__(self, url: str, clock: Clock, *, application: str = "backstay") -> None:
        """Connect, under an application name unless `url` gives one, which is what names a synchronous standby."""
        self._connection, self._clock = Connection(url, replication=True, application=application), clock
        self.place, self.process = self._connection.place, self._connection.process
        system, timeline, position, _ = self._connection.query("IDENTIFY_SYSTEM")[0]
        self.system, self.timeline, self.position = int(system or 0), int(timeline or 0), parse_lsn(position or "")

    def create_slot(self, name: str, *, temporary: bool = False) -> None:
        """Let the server keep WAL from now on, or only as long as this session lasts."""
        kind = "TEMPORARY PHYSICAL" if temporary else "PHYSICAL"
        self._connection.query(f'CREATE_REPLICATION_SLOT "{name}" {kind} RESERVE_WAL')

    def drop_slot(self, name: str) -> None:
        self._connection.query(f'DROP_REPLICATION_SLOT "{name}"')

    def history(self, timeline: int) -> tuple[str, bytes] | None:
        """As `read_history`."""
        return read_history(self._connection, timeline)

    def start(self, slot: str, timeline: int, lsn: int) -> None:
        """Begin to stream a timeline from a position on."""
        self._connection.begin_copy(f'START_REPLICATION SLOT "{slot}" PHYSICAL {format_lsn(lsn)} TIMELINE {timeline}')

    def next(self, seconds: float | None, bell: Bell | None = None) -> Message:
        """What comes next; None if nothing does for so long, or until the bell rings.

        `seconds` None asks only for what came together with the message before.
        """
        message = self._connection.message()
        if message == b"" and seconds is not None and self._connection.wait(seconds, bell):
            message = self._connection.message()
        if message is None:
            return self._ended()
        if not message:
            return None
        if message[:1] == b"w":
            return Data(_DATA.unpack_from(message)[1], message[_DATA.size :])
        if message[:1] == b"k":
            return Asked() if _KEEPALIVE.unpack_from(message)[3] else None
        raise SourceRefused(f"{self.place} sends what is not known", cause=f"a message {message[:1]!r} within WAL")

    def _ended(self) -> Ended:
        for timeline, lsn, *_ in self._connection.finish_copy():
            if timeline is not None and lsn is not None:
                return Ended(int(timeline), parse_lsn(lsn))
        return Ended(None, 0)

    def report(self, written: int, durable: int) -> None:
        """Say how far we are; the server removes WAL only before `durable`. 0 says nothing."""
        now = self._clock.now_ns() // 1000 - _EPOCH_US
        self._connection.send(_STATUS.pack(b"r", written, durable, 0, now, 0))

    def stop(self) -> None:
        """End the stream from this side."""
        self._connection.end_copy()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_history(replication: Connection, timeline: int) -> tuple[str, bytes] | None:
    """The file that says from where a timeline came, with its name; None if the server has none."""
    try:
        name, text = replication.query(f"TIMELINE_HISTORY {timeline}")[0]
    except SourceRefused as error:
        if error.state == UNDEFINED_FILE:
            return None
        raise
    return name or "", (text or "").encode(errors="surrogateescape")
