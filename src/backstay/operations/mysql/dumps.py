"""The dumps of MySQL and MariaDB in a repository that tell where in the binary log they lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from backstay.errors import CorruptedBackup, InvalidRequest
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, OnDamage
from backstay.sources.mysql.binlog import Position, position_at
from backstay.sources.mysql.dump import KIND


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlDump:
    """A dump; the log goes on behind it at `position`. `time` is when it was begun.

    `gtids` is what MariaDB has logged until there, None if the dump does not tell. `server` is what tells the server
    from others, if it has something of the kind. `is_whole` means all databases.
    """

    snapshot: str
    name: str
    time: datetime
    position: Position
    gtids: frozenset[str] | None
    server: str | None
    is_whole: bool
    manifest: Manifest = field(compare=False, repr=False)


def mysql_dumps(
    repository: Repository, name: str | None = None, *, on_damage: OnDamage | None = None
) -> list[MysqlDump]:
    """Those of a name, or all, in the order of the log. Raises CorruptedBackup."""
    return [dump for dump in dumps_among(repository.snapshots.live(on_damage)) if name in (None, dump.name)]


def dumps_among(manifests: Iterable[Manifest]) -> list[MysqlDump]:
    """Those snapshots that are such dumps, in the order of the log. Raises CorruptedBackup."""
    found = [_dump_of(manifest) for manifest in manifests if is_dump(manifest)]
    return sorted(found, key=lambda dump: (dump.position, dump.time))


def is_dump(manifest: Manifest) -> bool:
    """Whether a snapshot is a dump that tells its position."""
    return manifest.source.startswith(f"{KIND}:") and "binlog_file" in manifest.consistency


def _dump_of(manifest: Manifest) -> MysqlDump:
    told = manifest.consistency
    try:
        position = position_at(told["binlog_file"], int(told["binlog_position"]))
    except (KeyError, ValueError, InvalidRequest) as error:
        raise CorruptedBackup(
            f"snapshot {manifest.id} does not tell its position in the binary log",
            cause=f"{type(error).__name__}: {error}",
        ) from error
    gtids = told.get("gtid_position")
    return MysqlDump(
        snapshot=manifest.id,
        name=manifest.name or "",
        time=manifest.time,
        position=position,
        gtids=None if gtids is None else frozenset(filter(None, gtids.split(","))),
        server=told.get("server_id"),
        is_whole=manifest.paths[0].count(b"/") == 2,  # /mysql/SERVER, and behind it the database if it is one
        manifest=manifest,
    )
