"""Databases that change places in a restore in place: nobody uses one then, and none gets the log of another one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backstay.errors import InsufficientSpace
from backstay.operations.restore.journal import Journal, Switch
from backstay.sources.sqlite.database import side_files
from backstay.sources.sqlite.target import require_unused, settle


def settle_databases(journal: Journal, *, back: bool) -> None:
    """What came into the log of a database that goes comes into the database, where that works.

    Raises RestoreConflict while somebody uses one, OSError.
    """
    for live, logs in _going(journal, back=back):
        require_unused(live)
        if logs:
            with suppress(InsufficientSpace):  # its log stays beside it under another name
                settle(live)


def logs_left(journal: Journal, *, back: bool) -> list[bytes]:
    """What would be replayed into a database that comes, and belongs to the one that goes. Raises OSError."""
    return [log for _, logs in _going(journal, back=back) for log in logs]


def _going(journal: Journal, *, back: bool) -> Iterator[tuple[bytes, list[bytes]]]:
    """Each database that is not yet the one that it will be, and the logs beside it that have no row of their own."""
    if not journal.header.is_database:
        return
    rows = {row.live: row for row in journal.rows() if isinstance(row, Switch)}
    for live, row in rows.items():
        wanted = row.old if back else row.new
        if wanted is None or _inode(live) != wanted:
            yield live, [log for log in side_files(live) if not _is_known(rows.get(log), log)]


def _is_known(row: Switch | None, path: bytes) -> bool:
    return row is not None and _inode(path) in (row.old, row.new)


def _inode(path: bytes) -> int | None:
    try:
        return Path(os.fsdecode(path)).lstat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
