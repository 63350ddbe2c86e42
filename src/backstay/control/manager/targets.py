"""Where a restore goes: a directory, a database, or the data directory of a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias

from backstay.control.manager.sources import is_database
from backstay.core.arguments import Bounds, checks_arguments
from backstay.core.times import require_zone
from backstay.errors import InvalidRequest


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryTarget:
    """Files into a directory: all of a snapshot with its absolute paths, or with `source` what lies there, itself."""

    destination: str | Path
    source: str | Path | None = None


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseTarget:
    """A dump into a database by its address; of PostgreSQL only some schemas or tables, and without owners."""

    connection: str = field(repr=False)  # it may hold a password
    schemas: Sequence[str] = ()
    tables: Sequence[str] = ()
    owners: bool = True


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTarget:
    """The data directory of a PostgreSQL cluster, which recovers to `time`, or to the end of its WAL.

    `name` is that of the cluster in the repository. Its server is started when `start` is set, and has so many seconds
    to recover.
    """

    destination: str | Path
    name: str
    time: datetime | None = None
    port: Annotated[int, Bounds(1, 65535)] | None = None
    start: bool = False
    patience_s: Annotated[float, Bounds(0)] = 3600.0

    def __post_init__(self) -> None:
        require_zone(self.time)


RestoreTarget: TypeAlias = DirectoryTarget | DatabaseTarget | ClusterTarget


def target_of(place: str | Path | RestoreTarget) -> RestoreTarget:
    """The target that is meant. Raises InvalidRequest."""
    if isinstance(place, (DirectoryTarget, DatabaseTarget, ClusterTarget)):
        return place
    if isinstance(place, str) and is_database(place):
        return DatabaseTarget(connection=place)
    if isinstance(place, str) and "://" in place:
        raise InvalidRequest(
            "nothing can be restored there",
            cause=f"{place.partition(':')[0]}: is neither a directory nor a database",
            hint="name a directory, postgresql://…, mysql://… or sqlite:///PATH",
        )
    if not os.fspath(place).strip("."):
        raise InvalidRequest(
            "it is not clear where to restore to",
            cause="the target is empty, or means the current directory",
            hint="name the directory by its whole path",
        )
    return DirectoryTarget(destination=place)


def told_target(target: RestoreTarget) -> str:
    """A target for records and people, without secrets."""
    if isinstance(target, DatabaseTarget):
        return without_password(target.connection)
    return os.path.abspath(target.destination)  # noqa: PTH100


def without_password(address: str) -> str:
    """An address as it may be shown."""
    scheme, colon, rest = address.partition("://")
    if not colon:
        return address
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    shown = f"{user.partition(':')[0]}@{host}" if at else host
    return f"{scheme}://{shown}{slash}{path.partition('?')[0]}"
