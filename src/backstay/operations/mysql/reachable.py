"""Which files of a binary log recoveries from some dumps can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backstay.operations.mysql.binlog_archive import BinlogArchive
from backstay.operations.mysql.dumps import MysqlDump, dumps_among
from backstay.repository.snapshots.store import Manifest
from backstay.repository.wal.store import StoredFile, WalStore


def reachable(archive: BinlogArchive, dumps: Iterable[MysqlDump]) -> dict[str, StoredFile]:
    """All that recoveries from some dumps can read: of each file the slices, then its end, in the order of the log.

    From the file in which each dump lies up to the first gap.
    """
    found = {log.start: log for dump in dumps for log in archive.run(dump.position.file)}
    return {file: stored for _, log in sorted(found.items()) for file, stored in archive.reachable(log).items()}


def logged(wal: WalStore, snapshots: Iterable[Manifest]) -> Iterator[tuple[str, BinlogArchive, list[MysqlDump]]]:
    """The names of those that are dumps of all databases, each with its stored log and its dumps.

    No recovery begins with a dump of one database. Raises CorruptedBackup.
    """
    dumps = [dump for dump in dumps_among(snapshots) if dump.is_whole]
    if not dumps:
        return
    bound = wal.names()
    for name in sorted({dump.name for dump in dumps} & bound.keys()):
        yield name, BinlogArchive.load(wal, bound[name]), [dump for dump in dumps if dump.name == name]
