"""What a server says of its own archiver: PostgreSQL documentation, "Continuous Archiving" and pg_stat_archiver."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from backstay.sources.postgres.connection import Connection

_SETTINGS: Final = """
    SELECT current_setting('archive_mode'), current_setting('archive_command'),
           coalesce(current_setting('archive_library', true), ''),
           last_archived_wal, extract(epoch FROM last_archived_time),
           last_failed_wal, extract(epoch FROM last_failed_time), failed_count
    FROM pg_stat_archiver"""
_MAY_LOOK: Final = "SELECT has_function_privilege('pg_ls_archive_statusdir()', 'execute')"
_WAITING: Final = """
    SELECT count(*), extract(epoch FROM clock_timestamp() - min(modification))
    FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"""
_YES: Final = re.compile(r"(?:^|[;&|(])\s*(?:/\S*/)?(?:true|:|exit\s+0)(?=$|[\s;&|)])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Archiving:
    """How a server archives, and what became of it; `failures` is counted since its statistics were reset.

    The command itself stays where it is: it may hold a password. `discards` says that it succeeds whatever became of
    the file. `waiting` files are to be archived, the oldest for `waiting_s` seconds; None where the role may not see.
    """

    is_on: bool
    has_command: bool
    discards: bool
    last_file: str | None
    last_time: datetime | None
    failed_file: str | None
    failed_time: datetime | None
    failures: int
    waiting: int | None
    waiting_s: float

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt failed."""
        if self.failed_time is None:
            return False
        return self.last_time is None or self.failed_time > self.last_time


def read_archiving(connection: Connection) -> Archiving:
    """Over a plain connection. Raises as `Connection.query` does."""
    mode, command, library, last, last_at, failed, failed_at, failures = connection.query(_SETTINGS)[0]
    waiting, waiting_s = None, None
    if connection.value(_MAY_LOOK) == "t":
        waiting, waiting_s = connection.query(_WAITING)[0]
    return Archiving(
        is_on=mode != "off",
        has_command=bool(command or library),
        discards=not library and says_yes(command or ""),
        last_file=last,
        last_time=_moment(last_at),
        failed_file=failed,
        failed_time=_moment(failed_at),
        failures=int(failures or 0),
        waiting=None if waiting is None else int(waiting),
        waiting_s=float(waiting_s or 0),
    )


def says_yes(command: str) -> bool:
    """Whether a shell's command succeeds whatever became of the file."""
    return _YES.search(command) is not None


def _moment(seconds: str | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(float(seconds), UTC)
