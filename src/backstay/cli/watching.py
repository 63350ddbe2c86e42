"""`backup --watch`: a snapshot of files or of a SQLite database each time that they have changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from backstay.cli import database, jsonout
from backstay.cli.context import Context
from backstay.cli.moments import parse_every
from backstay.cli.render import local_time
from backstay.core.clock import LOOK_S
from backstay.core.quantities import format_size, plural
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.core.events import EventSink
    from backstay.operations.backup.request import BackupOptions, BackupResult
    from backstay.operations.backup.watching import WatchResult
    from backstay.operations.backup.watching_files import Pace
    from backstay.repository.repository import Repository
    from backstay.sources.filters import Filters
    from backstay.sources.sqlite.changes import Mark

EVERY: Final = "10s"
SETTLE: Final = "2s"
WITHIN: Final = "1min"
CHECK_EVERY: Final = "1h"
UNREADABLE_ITEMS: Final = 3  # exit status: the last snapshot is good, but lacks some items

Patterns: TypeAlias = "Callable[[Repository], Filters]"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a watch, as they were written."""

    watch: bool
    every: str | None
    settle: str | None
    within: str | None
    check_every: str | None


def pace_of(asked: Asked, found: database.Database | None, options: BackupOptions) -> Pace | None:
    """How fast to watch; None if nothing is to be watched. Raises InvalidRequest for what goes not with it."""
    of_files = {"--settle": asked.settle, "--within": asked.within, "--check-every": asked.check_every}
    given = [name for name, value in {"--every": asked.every, **of_files}.items() if value is not None]
    if not asked.watch:
        if given:
            raise InvalidRequest(f"{given[0]} goes with --watch", cause="nothing is watched", hint="add --watch")
        return None
    if found is not None and not found.is_sqlite:
        raise InvalidRequest(
            "only files and SQLite databases can be watched",
            cause="--watch goes with paths, or with a sqlite:/// source",
            hint="call `backstay backup` from a timer; clusters of PostgreSQL have `backstay pg receive`",
        )
    if found is not None and (wrong := [name for name in given if name in of_files]):
        raise InvalidRequest(
            f"{wrong[0]} goes with files", cause="a database is watched, which is looked at", hint="leave it out"
        )
    if options.dry_run or options.time is not None:
        raise InvalidRequest(
            "a watch makes snapshots of the present", cause="--dry-run or --time is given", hint="leave it out"
        )
    return _pace(asked)


def _pace(asked: Asked) -> Pace:
    from backstay.operations.backup.watching_files import Pace

    return Pace(
        every_s=parse_every(asked.every or EVERY),
        settle_s=parse_every(asked.settle or SETTLE, "--settle"),
        within_s=parse_every(asked.within or WITHIN, "--within"),
        check_s=parse_every(asked.check_every or CHECK_EVERY, "--check-every"),
    )


def run(context: Context, asked: database.Database, options: BackupOptions, every_s: float) -> int:
    """Watch a database until a signal comes, which ends it gently."""
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
    _tell_end(context, result)
    return 0


def run_files(context: Context, places: list[bytes], patterns: Patterns, options: BackupOptions, pace: Pace) -> int:
    """Watch files until a signal comes, which ends it gently: 3 if the last snapshot lacks something, else 0."""
    from backstay.operations.backup.watching import watch
    from backstay.operations.backup.watching_files import WatchedFiles
    from backstay.sources.change_journal import ChangeJournal
    from backstay.sources.filesystem import FilesystemSource

    with context.open(grows=True) as repository, context.until_stopped() as (events, stopped):
        filters = patterns(repository)
        real = [os.path.realpath(place) for place in places]
        with closing(ChangeJournal(real, filters=filters, clock=context.clock)) as journal:
            source = WatchedFiles(
                repository,
                journal,
                lambda: FilesystemSource(places, filters=filters, clock=context.clock, observer=journal),
                options,
                pace,
                context.clock,
                stopped,
                events,
            )
            result = watch(
                source,
                stopped,
                every_s=LOOK_S,
                clock=context.clock,
                made=lambda made: _tell(context, made),
                events=events,
            )
    _tell_end(context, result)
    return UNREADABLE_ITEMS if source.errors else 0


def _tell_end(context: Context, result: WatchResult) -> None:
    context.result(jsonout.plain(result), lambda: context.say(f"stopped after {plural(result.snapshots, 'snapshot')}"))


def _tell(context: Context, made: BackupResult) -> None:
    """A line for each snapshot at once, also into a log."""
    if context.json:
        return
    added = f"{format_size(made.bytes_added)} added, {format_size(made.bytes_scanned)} in all"
    context.say(f"{local_time(context.clock.now())} snapshot {made.snapshot} ({added})")
    sys.stdout.flush()
