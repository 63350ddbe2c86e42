"""Remove what nobody needs of a stored binary log: a plan first, then its execution.

Needed is everything from one dump on: the newest that lets the whole window be recovered, or the oldest if no window
is given. All dumps of the server count that name a file of this log, whatever their own names are, but for those of one
database: no recovery begins with one. A dump needs no log to be restored itself, so that nothing before stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.errors import NotFound
from backstay.operations.mysql.binlog_archive import BinlogArchive
from backstay.operations.mysql.dumps import mysql_dumps
from backstay.operations.mysql.windows import require_archive
from backstay.operations.wal.expire import ExpiryResult
from backstay.operations.wal.since_window import needed_from
from backstay.repository.readers import running_readers
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import end_name, slice_name
from backstay.repository.wal.store import StoredFile
from backstay.sources.mysql.binlog import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class BinlogExpiry:
    """Which files are to be removed; everything from file `first_kept` on stays, that of snapshot `since`."""

    system: int
    since: str
    first_kept: str
    expired: tuple[str, ...]
    kept: int


def plan_binlog_expiry(repository: Repository, name: str, *, window: timedelta | None = None) -> BinlogExpiry:
    """Decide without removing anything.

    Raises NotFound when there is no dump: then the log waits for one; and CorruptedBackup when a snapshot cannot be
    read: it may be one that needs the log.
    """
    archive = require_archive(repository, name)
    bases = {log.start.base for log in archive.logs.values()}
    every = [dump for dump in mysql_dumps(repository) if dump.is_whole]
    servers = {dump.server for dump in every if dump.name == name}
    dumps = [dump for dump in every if dump.name == name or (dump.server in servers and dump.position.base in bases)]
    if not any(dump.name == name for dump in dumps):
        raise NotFound(
            f"there is no dump of all databases of {name}",
            cause="none was made under this name, or all were deleted",
            hint=f"make one: `backstay backup --source mysql://user@host/ --name {name}`",
        )
    now = repository.clock.now()
    needed = needed_from(dumps, window, now, name=lambda dump: dump.name, moment=lambda dump: dump.time)
    since = min(needed, key=lambda dump: dump.position)
    expired = tuple(log.file for log in archive.logs.values() if _is_before(log.start, since.position))
    return BinlogExpiry(
        system=archive.system,
        since=since.snapshot,
        first_kept=since.position.file,
        expired=expired,
        kept=len(archive.logs) - len(expired),
    )


def expire_binlog(repository: Repository, plan: BinlogExpiry, *, events: EventSink = ignore) -> ExpiryResult:
    """Remove what a plan names, oldest first, of each file the end first: a crash leaves a file that is not complete,
    and the next plan names it again. Nothing is removed while a recovery runs: it may need any of it.
    """
    if plan.expired and (readers := running_readers(repository)):
        return ExpiryResult(removed=0, waiting_for=tuple(map(str, readers)))
    logs = BinlogArchive.load(repository.wal, plan.system).logs
    events(Started(operation="expire the binary log", total_files=len(plan.expired)))
    for done, file in enumerate(plan.expired):
        if (log := logs.get(file)) is not None:
            repository.wal.remove(plan.system, end_name(file), StoredFile(whole=log.has_end))
            for number, stored in log.slices.items():
                repository.wal.remove(plan.system, slice_name(file, number), stored)
        events(Progress(files=done + 1, bytes=0, current=file))
    finished(events, "expire the binary log")
    return ExpiryResult(removed=len(plan.expired))


def _is_before(log: Position, since: Position) -> bool:
    return log.base == since.base and log.number < since.number
