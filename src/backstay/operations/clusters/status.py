"""How far the stored WAL of a cluster is behind the cluster, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from backstay.errors import NotFound
from backstay.operations.archiving.problems import archives_here, archiving_problems
from backstay.operations.clusters.receive import slot_name
from backstay.operations.clusters.receiving_problems import receiving_problems
from backstay.operations.clusters.tablespace_watch import made_behind
from backstay.operations.wal.bases import base_backups, sound
from backstay.operations.wal.coverage import Gap, Run, WalCoverage
from backstay.operations.wal.ways import followed_timeline, is_led_to
from backstay.operations.wal.windows import Window, open_gap, windows
from backstay.repository.repository import Repository
from backstay.repository.wal.store import require_cluster
from backstay.sources.postgres.archiving import Archiving, read_archiving
from backstay.sources.postgres.base_backup import Tablespace, read_tablespaces
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import parse_lsn
from backstay.sources.postgres.receiver import Slot, read_slot, slot_limit

_OPEN_GAP: Final = (
    "WAL is missing and no base backup lies behind the gap: make one with `backstay pg backup`, or if you can do "
    "without, `backstay pg acknowledge-gap`"
)

_MADE_BEHIND: Final = (
    "{} is not in the newest base backup: what follows its making is recovered only where that place is free; make a "
    "base backup with `backstay pg backup`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What the server says: where its WAL ends, how its slot is and how many bytes it may keep, how it archives, and
    which tablespaces it has outside of its data directory.
    """

    position: int
    slot: Slot | None
    slot_limit: int | None
    is_standby: bool
    archiving: Archiving
    tablespaces: tuple[Tablespace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PgStatus:
    """The newest stored WAL of a name, its windows, and its server if that was asked; times are those of commits.

    `lag_s` is how long ago the last stored commit was, `lag_bytes` how much the server has written since.
    """

    name: str
    system: int
    timeline: int | None
    stored_lsn: int | None
    last_commit: datetime | None
    lag_s: float | None
    lag_bytes: int | None
    gaps: tuple[Gap, ...]
    windows: tuple[Window, ...]
    server: ServerStatus | None
    problems: tuple[str, ...]


def pg_status(repository: Repository, name: str, url: str | None = None, *, heartbeat: float = 0.0) -> PgStatus:
    """Look at the stored WAL of a name, and with `url` at its server.

    `heartbeat` is that of the receiver, in seconds, 0 for none: no last commit may be much older.
    Raises NotFound, IdentityMismatch, SourceUnreachable and its kin, CorruptedBackup.
    """
    system = known_system(repository, name)
    server = None if url is None else _ask(url, name, system)  # first: what it has archived by now must be stored
    coverage = WalCoverage.load(repository.wal, system)
    every = base_backups(repository)
    known = [base for base in every if base.name == name]
    bases = sound(known)
    found = tuple(windows(coverage, bases))
    timeline = followed_timeline(coverage, every, name)
    runs = [] if timeline is None else coverage.runs(coverage.path(timeline))
    gaps = tuple(coverage.gaps_behind(runs, runs[0].begin)) if runs else ()
    last = _last_commit(coverage, timeline, runs)
    stored = runs[-1].end if runs else None
    lag_s = None if last is None else max(0.0, (repository.clock.now() - last).total_seconds())
    problems = _problems(runs, found)
    if known and known[-1].damage:
        problems.append(f"base backup {known[-1].snapshot}, the newest, is no good: {known[-1].damage}")
    if timeline is not None and _is_open(open_gap(coverage, coverage.path(timeline), bases)):
        problems.append(_OPEN_GAP)
    own = [base for base in bases if base.system == system]
    if own and timeline is not None and not is_led_to(coverage.path(timeline), own):
        problems.append(f"no base backup leads to timeline {timeline}, the newest: make one with `backstay pg backup`")
    if server is not None:
        problems += archiving_problems(server.archiving)
        problems += [_MADE_BEHIND.format(space) for space in made_behind(bases, server.tablespaces)]
        if server.slot is not None or not archives_here(server.archiving, coverage.files):
            problems += _slot_problems(server.slot, server.archiving)
        if server.slot is not None:
            problems += receiving_problems(
                repository,
                system,
                server.slot,
                limit=server.slot_limit,
                waiting=server.position - (stored or 0),
                lag_s=lag_s,
                heartbeat=0.0 if server.is_standby else heartbeat,
            )
    return PgStatus(
        name=name,
        system=system,
        timeline=timeline,
        stored_lsn=stored,
        last_commit=last,
        lag_s=lag_s,
        lag_bytes=None if server is None or stored is None else max(0, server.position - stored),
        gaps=gaps,
        windows=found,
        server=server,
        problems=tuple(problems),
    )


def known_system(repository: Repository, name: str) -> int:
    """The cluster that a name belongs to. Raises NotFound, CorruptedBackup."""
    system = repository.wal.bound(name)
    if system is None:
        system = next((base.system for base in base_backups(repository, name)), None)
    if system is None:
        known = sorted({*repository.wal.names(), *(base.name for base in base_backups(repository))})
        raise NotFound(
            f"there is no database cluster {name}",
            cause=f"known are {', '.join(known)}" if known else "no base backup and no WAL is stored",
            hint="`backstay pg receive` and `backstay pg backup` give a cluster its name",
        )
    return system


def _last_commit(coverage: WalCoverage, timeline: int | None, runs: list[Run]) -> datetime | None:
    """When the last transaction was committed of which the newest run knows."""
    if timeline is None or not runs:
        return None
    return coverage.last_commit_time(coverage.path(timeline), runs[-1], runs[-1].begin)


def _ask(url: str, name: str, system: int) -> ServerStatus:
    with Connection(url, application="backstay status") as plain:
        theirs = int(plain.value("SELECT system_identifier FROM pg_control_system()"))
        require_cluster(name, system, theirs)
        is_standby = plain.value("SELECT pg_is_in_recovery()") == "t"
        position = plain.value(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END"
        )
        return ServerStatus(
            position=parse_lsn(position),
            slot=read_slot(plain, slot_name(name)),
            slot_limit=slot_limit(plain),
            is_standby=is_standby,
            archiving=read_archiving(plain),
            tablespaces=read_tablespaces(plain),
        )


def _problems(runs: list[Run], found: tuple[Window, ...]) -> list[str]:
    problems = []
    if not runs:
        problems.append("no WAL is stored")
    if not found:
        problems.append("there is no whole base backup: nothing can be recovered")
    elif all(window.end_time is None for window in found):
        problems.append("no base backup finds the WAL that it needs")
    return problems


def _slot_problems(slot: Slot | None, archiving: Archiving) -> list[str]:
    if slot is None and archiving.is_on and archiving.last_file is not None:
        return [
            f"the server archived {archiving.last_file} elsewhere: it is not stored here, and no receiver has a slot"
        ]
    if slot is None:
        return ["the server has no slot for this name: it keeps no WAL for a receiver"]
    problems = []
    if slot.status == "lost":
        problems.append("the server gave up WAL that its slot should have kept")
    elif not slot.is_active:
        problems.append("no receiver runs")
    if slot.status == "unreserved":
        problems.append("the server is about to give up WAL that was not received")
    return problems


def _is_open(gap: Gap | None) -> bool:
    return gap is not None and gap.known is None
