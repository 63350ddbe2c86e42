"""Remove WAL that no recovery needs any more: a plan first, then its execution.

Needed is what makes each base backup consistent, and everything from one base backup on: the newest that lets the
whole window be recovered, or the oldest if no window is given. What lies between older base backups goes, which leaves
gaps on purpose. Base backups are dropped by `prune` and `delete`, which holds forbid: so holds keep their WAL as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay.core.events import EventSink, Finished, Progress, Started, ignore
from backstay.errors import NotFound
from backstay.operations.pg_backup import base_snapshots
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest
from backstay.repository.wal import StoredFile
from backstay.sources.postgres.lsn import format_lsn, is_segment, parse_lsn, segment_start


@dataclass(frozen=True, slots=True, kw_only=True)
class WalExpiry:
    """What is to be removed of a cluster's WAL; everything from `from_lsn` on stays, that of base backup `since`."""

    system: int
    since: str
    from_lsn: str
    expired: tuple[str, ...]
    kept: int


def plan_expiry(repository: Repository, name: str, *, window: timedelta | None = None) -> WalExpiry:
    """Decide without removing anything. Raises NotFound when there is no base backup: then all WAL waits for one."""
    bases = base_snapshots(repository, name)
    if not bases:
        raise NotFound(
            f"there is no base backup of {name}",
            cause="WAL that waits for its first base backup is not removed",
            hint="make one with `backstay pg backup`",
        )
    system = int(bases[-1].consistency["system_id"])
    bases = [base for base in bases if base.consistency["system_id"] == str(system)]
    since = _first_needed(bases, window, repository.clock.now())
    size = int(since.consistency["segment_size"])
    needed = [(_lsn(base, "start_lsn"), _lsn(base, "stop_lsn")) for base in bases]
    files = repository.wal.files(system)
    segments = [file for file in files if is_segment(file)]
    expired = [
        file
        for file in segments
        if segment_start(file, size) + size <= _lsn(since, "start_lsn")
        and not any(_overlaps(segment_start(file, size), size, *span) for span in needed)
    ]
    expired.sort(key=lambda file: segment_start(file, size))
    return WalExpiry(
        system=system,
        since=since.id,
        from_lsn=format_lsn(_lsn(since, "start_lsn")),
        expired=tuple(expired),
        kept=len(segments) - len(expired),
    )


def expire_wal(repository: Repository, plan: WalExpiry, *, events: EventSink = ignore) -> None:
    """Remove what a plan names, oldest first: a crash leaves newer WAL, and the next plan names the rest."""
    files = repository.wal.files(plan.system)
    events(Started(operation="expire WAL", total_files=len(plan.expired)))
    for done, file in enumerate(plan.expired):
        repository.wal.remove(plan.system, file, files.get(file, StoredFile()))
        events(Progress(files=done + 1, bytes=0, current=file))
    events(Finished(operation="expire WAL"))


def _first_needed(bases: Sequence[Manifest], window: timedelta | None, now: datetime) -> Manifest:
    """The base backup from which on all WAL stays."""
    if window is None:
        return bases[0]
    before = [base for base in bases if datetime.fromisoformat(base.consistency["stop_time"]) <= now - window]
    return before[-1] if before else bases[0]


def _overlaps(start: int, size: int, first: int, last: int) -> bool:
    return start <= last and start + size > first


def _lsn(base: Manifest, which: str) -> int:
    return parse_lsn(base.consistency[which])
