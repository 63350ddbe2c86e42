"""`init` and `backup`."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backstay.cli import database, default_repository, jsonout, watching
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.snapshot_words import host_of, tags_of
from backstay.core.local_zone import LOCAL
from backstay.core.names import printable, require_utf8
from backstay.core.quantities import format_count, format_duration, format_size, plural
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.backup.request import BackupOptions, BackupResult
    from backstay.repository.repository import Repository
    from backstay.sources.filesystem import FilesystemSource
    from backstay.sources.filters import Filters
    from backstay.sources.source import Source

UNREADABLE_ITEMS = 3  # exit status: the snapshot is good, but lacks some items
SHOWN_ERRORS = 20
_NEEDED = ("backstay.operations.backup.run", "backstay.sources.filesystem")


def init(
    ctx: typer.Context,
    # Not named `repository`: the parser would take it for the value of -r as well.
    address: Annotated[str | None, argument("REPO", "Where; else -r, BACKSTAY_REPO or the default place.")] = None,
) -> int:
    """Create a repository."""
    context = context_of(ctx)
    location = context.location(address)
    uuid = default_repository.create(context, location)

    def show() -> None:
        context.say(f"created repository {uuid[:8]} in {location.address}")
        if location.key_file is None:
            context.say("without its password the backups are lost: `backstay key recovery` prints a key to put away")

    context.result({"repository": location.address, "uuid": uuid}, show)
    return 0


def backup(
    ctx: typer.Context,
    paths: Annotated[list[str] | None, argument("PATH", "Files and directories.")] = None,
    source: Annotated[
        str | None,
        option(
            "URL",
            "What to back up instead of paths: file:PATH, sqlite:///PATH, postgresql://USER@HOST:PORT/DB or "
            "mysql://USER@HOST:PORT/[DB].",
        ),
    ] = None,
    schema: Annotated[list[str] | None, option("SCHEMA", "Of PostgreSQL only this schema; repeatable.")] = None,
    name: Annotated[str | None, option("NAME", "Name the source, to find its snapshots as latest:NAME.")] = None,
    kind: Annotated[
        Literal["full", "incremental", "differential"],
        option(
            "KIND",
            "full reads every byte, incremental what changed since the last snapshot, "
            "differential what changed since the last full one.",
            show_default=True,
        ),
    ] = "incremental",
    exclude: Annotated[
        list[str] | None, option("GLOB", "Leave out what matches, such as '*.tmp' or 'node_modules/'; repeatable.")
    ] = None,
    exclude_from: Annotated[list[Path] | None, option("FILE", "Read such patterns from a file; repeatable.")] = None,
    exclude_caches: Annotated[
        bool, flag("Leave out directories that are marked as caches with a CACHEDIR.TAG.", "--exclude-caches")
    ] = False,
    one_file_system: Annotated[
        bool, flag("Do not enter other mounted file systems.", "--one-file-system", "-x")
    ] = False,
    tag: Annotated[list[str] | None, option("TAG", "Tag the snapshot; repeatable.")] = None,
    description: Annotated[str, option("TEXT", "A remark on the snapshot.")] = "",
    host: Annotated[str | None, option("HOST", "Another host name than this machine's.")] = None,
    time: Annotated[str | None, option("TIME", "The time that the snapshot claims, if not now.")] = None,
    read_concurrency: Annotated[
        int | None, option("N", "Files read at once; 1 or 2 if not given, by the processors.", min=1, max=64)
    ] = None,
    watch: Annotated[
        bool, flag("Make a snapshot each time that files or a SQLite database have changed, until stopped.", "--watch")
    ] = False,
    every: Annotated[
        str | None, option("DUR", f"With --watch: one snapshot in this time; {watching.EVERY} if not given.")
    ] = None,
    settle: Annotated[
        str | None,
        option("DUR", f"With --watch, of files: wait until nothing changed so long; {watching.SETTLE} if not given."),
    ] = None,
    within: Annotated[
        str | None,
        option("DUR", f"With --watch, of files: but not longer, if changes go on; {watching.WITHIN} if not given."),
    ] = None,
    check_every: Annotated[
        str | None,
        option("DUR", f"With --watch, of files: look at everything so often; {watching.CHECK_EVERY} if not given."),
    ] = None,
    skip_if_unchanged: Annotated[
        bool, flag("Make no snapshot of what is as in the one before.", "--skip-if-unchanged")
    ] = False,
    dry_run: Annotated[bool, flag("Only tell what would be read.", "--dry-run", "-n")] = False,
) -> int:
    """Back up files and directories, or a database, into a new snapshot."""
    from backstay.operations.backup.request import DEFAULT_READERS, BackupOptions, check_name

    context = context_of(ctx)
    check_name(name)
    options = BackupOptions(
        kind=kind,
        host=host_of(host),
        name=require_utf8("name", name) if name is not None else None,
        tags=tags_of(tag),
        description=require_utf8("description", description),
        time=_claimed(context, time),
        read_concurrency=read_concurrency or DEFAULT_READERS,
        dry_run=dry_run,
        skip_unchanged=skip_if_unchanged,
    )
    patterns = _patterns(exclude or [], exclude_from or [])
    asked = database.asked(source, schema or [], beside=[*(paths or []), *patterns])
    places = _places(paths or [], source) if asked is None else []
    as_asked = watching.Asked(watch=watch, every=every, settle=settle, within=within, check_every=check_every)
    pace = watching.pace_of(as_asked, asked, options)
    if not dry_run:
        default_repository.ensure_default(context, context.location())
    if pace is not None and asked is not None:
        return watching.run(context, asked, options, pace.every_s)

    def filters_of(repository: Repository) -> Filters:
        from backstay.operations.backup.itself import patterns_without
        from backstay.sources.filters import Filters

        left_out = [*patterns, *patterns_without(repository, places, context.environ)]
        return Filters(left_out, exclude_caches=exclude_caches, one_file_system=one_file_system)

    if pace is not None:
        return watching.run_files(context, places, filters_of, options, pace)
    with context.open(grows=True, then=_NEEDED) as repository:
        found: Source = (
            _source(context, places, filters_of(repository))
            if asked is None
            else database.source(context, repository, asked)
        )
        result = _run(context, repository, found, options)
    context.result(backup_document(result), lambda: show_backup(context, result, skipped=not dry_run))
    return UNREADABLE_ITEMS if result.errors else 0


def _claimed(context: Context, text: str | None) -> datetime | None:
    from backstay.core.times import parse_moment

    return None if text is None else parse_moment(text, now=context.clock.now(), zone=LOCAL)


def _places(paths: list[str], source: str | None) -> list[bytes]:
    """The paths to back up. Raises InvalidRequest for sources of other kinds."""
    if source is None:
        return [os.fsencode(path) for path in paths]
    scheme, colon, rest = source.partition(":")
    if colon and scheme != "file":
        raise InvalidRequest(
            f"cannot back up {scheme}: sources",
            cause="this version knows file:, sqlite:, postgresql: and mysql: sources",
            hint="dump it into a file and back that up",
        )
    place = rest.removeprefix("//") if colon else source
    return [os.fsencode(path) for path in (*paths, place)]


def _patterns(exclude: list[str], files: list[Path]) -> list[bytes]:
    from backstay.sources.filters import read_patterns

    return [pattern for file in files for pattern in read_patterns(file)] + [os.fsencode(text) for text in exclude]


def _source(context: Context, places: list[bytes], filters: Filters) -> FilesystemSource:
    from backstay.sources.filesystem import FilesystemSource

    return FilesystemSource(places, filters=filters, clock=context.clock)


def _run(context: Context, repository: Repository, source: Source, options: BackupOptions) -> BackupResult:
    from backstay.operations.backup.run import run_backup

    with context.committing("backup") as events:
        return run_backup(repository, source, options, events=events)


def backup_document(result: BackupResult) -> dict[str, object]:
    return {
        "snapshot": result.snapshot,
        "kind": result.kind,
        "parent": result.parent,
        "files_new": result.files_new,
        "files_changed": result.files_changed,
        "files_unchanged": result.files_unchanged,
        "files": result.files,
        "dirs": result.dirs,
        "bytes_scanned": result.bytes_scanned,
        "bytes_read": result.bytes_read,
        "bytes_added": result.bytes_added,
        "duration_s": round(result.duration_s, 3),
        "errors": [jsonout.path_fields(problem.path) | {"message": problem.message} for problem in result.errors],
    }


def show_backup(context: Context, result: BackupResult, *, skipped: bool = False) -> None:
    counts = (
        plural(result.files_new, "new file"),
        f"{format_count(result.files_changed)} changed",
        f"{format_count(result.files_unchanged)} unchanged",
        plural(result.dirs, "directory", "directories"),
    )
    context.say(", ".join(counts))
    if result.snapshot is None and result.parent is not None and skipped:
        context.say(f"nothing has changed since snapshot {result.parent}: none was made")
    elif result.snapshot is None:
        context.say(
            f"{format_size(result.bytes_read)} of {format_size(result.bytes_scanned)} would be read; nothing was stored"
        )
    else:
        context.say(
            f"{format_size(result.bytes_scanned)} in all, {format_size(result.bytes_read)} read, "
            f"{format_size(result.bytes_added)} added to the repository in {format_duration(result.duration_s)}"
        )
        context.say(f"snapshot {result.snapshot} ({result.kind})")
    for problem in result.errors[:SHOWN_ERRORS]:
        what = "backed up in part" if problem.is_stored else "not backed up"
        context.warn(f"{what}: {printable(problem.path)}: {problem.message}")
    if len(result.errors) > SHOWN_ERRORS:
        context.warn(f"and {plural(len(result.errors) - SHOWN_ERRORS, 'more item', 'more items')}")
