"""Base backups and WAL of a cluster without a server: a few files that say where in the log they lie."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from backstay.core.ids import new_ulid
from backstay.operations.wal.bases import source_of
from backstay.repository.repository import Repository
from backstay.sources.postgres.lsn import format_lsn, segment_name
from tests.operations.copies import back_up
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, segment

NAME = "orders"


def wal_file(number: int, timeline: int = 1) -> str:
    return segment_name(timeline, number * SIZE, SIZE)


def store_wal(
    repository: Repository,
    numbers: Iterable[int],
    *,
    timeline: int = 1,
    system: int = SYSTEM,
    begun: datetime = at(0),  # noqa: B008 - it never changes
) -> None:
    """Whole segments, each with one commit, a minute apart by their numbers."""
    for number in numbers:
        data = segment(number, [commit(number, begun + timedelta(minutes=number))], system=system)
        repository.wal.store(system, wal_file(number, timeline), data)


def make_base(
    repository: Repository,
    source: Path,
    number: int,
    *,
    name: str = NAME,
    timeline: int = 1,
    stop_time: datetime | None = None,
    system: int = SYSTEM,
) -> str:
    """A base backup whose WAL is the segment of a number, and that ended when it was written; its id."""
    repository.wal.bind(name, system, repository.clock)
    files = repository.snapshots.get(back_up(repository, source))
    ident = new_ulid(repository.clock.now_ns(), repository.environment.random)
    start = number * SIZE + 100
    consistency = {
        "system_id": str(system),
        "timeline": str(timeline),
        "start_lsn": format_lsn(start),
        "stop_lsn": format_lsn(start + 100),
        "stop_time": (stop_time or at(number)).isoformat(),
        "segment_size": str(SIZE),
    }
    base = replace(
        files,
        id=ident,
        source=source_of(system),
        name=name,
        previous=None,
        previous_digest=None,
        consistency=consistency,
    )
    repository.snapshots.commit(base)
    repository.snapshots.drop(files.id, "only its files were wanted", repository.clock)
    return ident
