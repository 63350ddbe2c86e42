"""Recovery windows of MySQL and MariaDB: from when to when a server can be recovered, and what is missing in between.

Times of a binary log are whole seconds. What can be reached is "all that was logged before a second".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from backstay.errors import NotFound
from backstay.operations.mysql.binlog_archive import BinlogArchive, LogGap, StoredLog
from backstay.operations.mysql.dumps import MysqlDump, mysql_dumps
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import OnDamage
from backstay.sources.mysql.binlog import Position, Transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class BinlogWindow:
    """What can be reached from the first of some dumps without meeting a gap.

    `start_time` is the earliest and `end_time` the latest second that `--at` may name. They are None when nothing was
    logged behind the dump that a time could tell from it, and so is `end` when the log at the dump is not stored. `gap`
    lies behind the end.
    """

    name: str
    snapshots: tuple[str, ...]
    start: Position
    end: Position | None
    start_time: datetime | None
    end_time: datetime | None
    gap: LogGap | None


def require_archive(repository: Repository, name: str) -> BinlogArchive:
    """The log of the server that has a name. Raises NotFound when none is stored."""
    system = repository.wal.bound(name)
    archive = None if system is None else BinlogArchive.load(repository.wal, system)
    if archive is None or not archive.logs:
        raise NotFound(
            f"no binary log is stored under the name {name}",
            cause="no receiver of this name has stored anything yet",
            hint=f"start one: `backstay mysql receive URL --name {name}`",
        )
    return archive


def binlog_windows(
    repository: Repository, name: str | None = None, *, on_damage: OnDamage | None = None
) -> list[BinlogWindow]:
    """The windows of the dumps of a name, or of all that have a log. Raises CorruptedBackup, ObjectNotFound."""
    names = repository.wal.names()
    dumps = [dump for dump in mysql_dumps(repository, name, on_damage=on_damage) if dump.is_whole]
    found: list[BinlogWindow] = []
    for one in sorted({dump.name for dump in dumps if dump.name in names}):
        archive = BinlogArchive.load(repository.wal, names[one])
        found += _windows(archive, [dump for dump in dumps if dump.name == one])
    return found


def _windows(archive: BinlogArchive, dumps: Iterable[MysqlDump]) -> list[BinlogWindow]:
    """Dumps that reach the same end make one window."""
    groups: dict[str | None, tuple[list[StoredLog], list[MysqlDump]]] = {}
    for dump in dumps:
        run = archive.run(dump.position.file)
        groups.setdefault(run[-1].file if run else None, (run, []))[1].append(dump)
    return [_window(archive, run, group) for run, group in groups.values()]


def _window(archive: BinlogArchive, run: list[StoredLog], group: list[MysqlDump]) -> BinlogWindow:
    first = group[0]
    end, end_time = reach(archive, run[-1]) if run else (None, None)
    is_there = end is not None and end >= first.position
    start_time = _earliest(archive, run[0], first.position) if is_there else None
    has_times = start_time is not None and end_time is not None and start_time <= end_time
    return BinlogWindow(
        name=first.name,
        snapshots=tuple(dump.snapshot for dump in group),
        start=first.position,
        end=end if is_there else None,
        start_time=start_time if has_times else None,
        end_time=end_time if has_times else None,
        gap=archive.gap_behind(run),
    )


def reach(archive: BinlogArchive, log: StoredLog) -> tuple[Position, datetime]:
    """Up to where there are whole transactions in a file, and the time of the last event in it."""
    found, latest = Transactions(), 0
    for event in archive.events(log):
        found.add(event)
        if event.end == found.boundary:
            latest = max(latest, event.time)
    return log.start._replace(offset=found.boundary), moment_of(latest)


def _earliest(archive: BinlogArchive, log: StoredLog, position: Position) -> datetime:
    """The first second before which nothing was logged that a dump at a position lacks."""
    latest = 0
    for event in archive.events(log):
        if event.end > position.offset and latest:
            break
        latest = max(latest, event.time)
    return moment_of(latest + 1)


def moment_of(seconds: int) -> datetime:
    """The second that an event tells."""
    return datetime.fromtimestamp(seconds, UTC)
