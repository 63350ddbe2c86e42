"""`backup --watch`: a snapshot of a SQLite database each time that it has changed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backstay.cli import database, jsonout
from backstay.cli.context import Context
from backstay.cli.moments import parse_every
from backstay.cli.render import local_time
from backstay.core.quantities import format_size, plural
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.core.events import EventSink
    from backstay.operations.backup.request import BackupOptions, BackupResult
    from backstay.repository.repository import Repository
    from backstay.sources.sqlite.changes import Mark

EVERY = "10s"


@dataclass(frozen=True, slots=True)
class _Database:
    """What is watched."""

    context: Context
    repository: Repository
    asked: database.Database
    options: BackupOptions
    events: EventSink

    @property
    def path(self) -> bytes:
        from backstay.sources.sqlite.database import path_of

        return path_of(self.asked.address)

    def mark(self) -> Mark:
        from backstay.sources.sqlite.changes import mark_of

        return mark_of(self.path)

    def back_up(self) -> BackupResult:
        """Others may write to the repository between two snapshots, also where there is one writer at a time."""
        from backstay.operations.backup.run import run_backup

        source = database.source(self.context, self.repository, self.asked)
        try:
            return run_backup(self.repository, source, self.options, events=self.events)
        finally:
            self.repository.release()


def interval(
    every: str | None, asked: database.Database | None, options: BackupOptions, *, is_watching: bool
) -> float | None:
    """Seconds between two looks; None if nothing is to be watched. Raises InvalidRequest for what goes not with it."""
    if not is_watching:
        if every is not None:
            raise InvalidRequest("--every goes with --watch", cause="nothing is watched", hint="add --watch")
        return None
    if asked is None or not asked.is_sqlite:
        raise InvalidRequest(
            "only SQLite databases can be watched",
            cause="--watch goes with a sqlite:/// source",
            hint="call `backstay backup` from a timer; clusters of PostgreSQL have `backstay pg receive`",
        )
    if options.dry_run or options.time is not None:
        raise InvalidRequest(
            "a watch makes snapshots of the present", cause="--dry-run or --time is given", hint="leave it out"
        )
    return parse_every(EVERY if every is None else every)


def run(context: Context, asked: database.Database, options: BackupOptions, every_s: float) -> int:
    """Watch until a signal comes, which ends it gently."""
    from backstay.operations.backup.watching import watch
    from backstay.sources.sqlite.changes import uses_log

    with context.open(grows=True) as repository, context.until_stopped() as (events, stopped):
        source = _Database(context, repository, asked, options, events)
        if not uses_log(source.path):
            context.warn(
                "programs that write to the database wait while it is copied; in WAL mode they would not: "
                "PRAGMA journal_mode = WAL"
            )
        result = watch(
            source,
            stopped,
            every_s=every_s,
            clock=context.clock,
            made=lambda made: _tell(context, made),
            events=events,
        )
    context.result(jsonout.plain(result), lambda: context.say(f"stopped after {plural(result.snapshots, 'snapshot')}"))
    return 0


def _tell(context: Context, made: BackupResult) -> None:
    """A line for each snapshot at once, also into a log."""
    if context.json:
        return
    added = f"{format_size(made.bytes_added)} added, {format_size(made.bytes_scanned)} in all"
    context.say(f"{local_time(context.clock.now())} snapshot {made.snapshot} ({added})")
    sys.stdout.flush()
