"""The moment that a base backup of a standby shows: what it has not replayed is not there, whatever its clock says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from backstay.repository.wal.store import WalStore
from backstay.sources.postgres.base_backup import Position
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import parse_lsn, segment_name
from backstay.sources.postgres.wal_records import last_commit

_CHECKPOINT: Final = "SELECT redo_lsn, extract(epoch FROM checkpoint_time)::bigint FROM pg_control_checkpoint()"


def stored_content_time(
    wal: WalStore, system: int, segment_size: int, start: Position, stop: Position
) -> datetime | None:
    """When the last transaction was committed that a backup holds, by the WAL that is stored for it; None without."""
    first, last = start.lsn // segment_size, (stop.lsn - 1) // segment_size
    for begin in range(last * segment_size, first * segment_size - 1, -segment_size):
        file = segment_name(stop.timeline, begin, segment_size)
        commit = last_commit(wal.read(system, file, wal.find(system, file))[: stop.lsn - begin])
        if commit is not None:
            return commit.time
    return None


def checkpoint_time(plain: Connection, start: Position) -> datetime | None:
    """The end of the second in which the checkpoint began that a backup begins with.

    None if the standby knows a later one by now.
    """
    redo, seconds = plain.query(_CHECKPOINT)[0]
    if parse_lsn(redo or "") != start.lsn:
        return None
    return datetime.fromtimestamp(int(seconds or 0) + 1, UTC)  # it tells whole ones: no commit before it was later
