"""`restore` and `cat`: get data back."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backstay.cli import choosing, database
from backstay.cli import restore_database as into
from backstay.cli import restore_in_place as in_places
from backstay.cli.context import Context, context_of
from backstay.cli.options import SNAPSHOT_HELP, argument, flag, option
from backstay.cli.tiers import DAYS_HELP, NO_WAIT_HELP, need_document, show_need
from backstay.core.environment import own_places
from backstay.core.names import printable
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import CorruptedBackup, InvalidRequest, ObjectNotFound, RestoreConflict, RestoreFailed

if TYPE_CHECKING:
    from backstay.operations.restore.run import RestoreOptions, RestorePlan, RestoreResult
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots.store import Manifest
    from backstay.sources.filters import Selection

SHOWN = 20
_DAMAGE = {CorruptedBackup.code, ObjectNotFound.code}  # the repository is to blame, not the target


def restore(
    ctx: typer.Context,
    snapshot: Annotated[str | None, argument("ID[:PATH]", SNAPSHOT_HELP + " With :PATH only what lies there.")] = None,
    at: Annotated[
        str | None, option("TIME", "The newest snapshot of that time or before, such as 2026-11-18T14:30 or '2h ago'.")
    ] = None,
    to: Annotated[
        str | None,
        option(
            "DIR|URL",
            "Where to; absolute paths are recreated below it, :PATH is put into it. Databases also go to "
            "postgresql://USER@HOST:PORT/DB, mysql://USER@HOST:PORT/[DB] and sqlite:///PATH.",
        ),
    ] = None,
    in_place: Annotated[
        bool,
        flag(
            "Restore to the original places: staged beside them and compared, then switched all or nothing.",
            "--in-place",
        ),
    ] = False,
    keep_old: Annotated[bool, flag("With --in-place: keep the old state, for --rollback.", "--keep-old")] = False,
    direct: Annotated[
        bool, flag("With --in-place: overwrite file by file, without a way back; needs less room.", "--direct")
    ] = False,
    resume: Annotated[Path | None, option("DIR", "Finish a restore in place that was cut short.")] = None,
    rollback: Annotated[
        Path | None, option("DIR", "Put back what a restore in place replaced, from the directory that it keeps.")
    ] = None,
    include: Annotated[list[str] | None, option("GLOB", "Restore only what matches; repeatable.")] = None,
    exclude: Annotated[list[str] | None, option("GLOB", "Leave out what matches; repeatable.")] = None,
    conflict: Annotated[
        Literal["fail", "skip", "overwrite", "newer", "rename"],
        option(
            "HOW",
            "With existing items that differ: fail, skip, overwrite, newer (overwrite older ones) "
            "or rename (move them aside).",
            show_default=True,
        ),
    ] = "fail",
    delete: Annotated[
        bool, flag("Delete what the snapshot does not hold, inside its directories.", "--delete")
    ] = False,
    dry_run: Annotated[bool, flag("Only tell what would be done.", "--dry-run", "-n")] = False,
    verify: Annotated[bool, flag("Read everything back and compare it.", "--verify")] = False,
    parallel: Annotated[int | None, option("N", "Files written at once.", min=1, max=64)] = None,
    schema: Annotated[list[str] | None, option("SCHEMA", "Of a dump only this schema; repeatable.")] = None,
    table: Annotated[list[str] | None, option("[SCHEMA.]TABLE", "Of a dump only this table; repeatable.")] = None,
    no_owner: Annotated[
        bool, flag("Of a dump restore neither owners nor privileges; all belongs to who restores it.", "--no-owner")
    ] = False,
    no_wait: Annotated[bool, flag(NO_WAIT_HELP, "--no-wait")] = False,
    thaw_days: Annotated[int, option("N", DAYS_HELP, min=1, max=365, show_default=True)] = 7,
) -> int:
    """Restore a snapshot, or a part of it."""
    from backstay.repository.snapshots.selectors import split_target

    context = context_of(ctx)
    if resume is not None or rollback is not None:
        return in_places.finish(context, resume, rollback, others=bool(snapshot or to or in_place))
    if snapshot is None:
        raise InvalidRequest(
            "it is not said which snapshot", cause="no ID is given", hint="`backstay list` shows what there is"
        )
    in_places.refuse_unfit(in_place=in_place, direct=direct, keep_old=keep_old)
    _refuse_unclear_target(to, in_place=in_place)
    ident, path = split_target(snapshot)
    moment = choosing.moment(context, at) if at is not None else None
    selection = _selection(include, exclude)
    into_database = to is not None and database.is_address(to)
    if into_database:
        into.refuse_what_files_have(
            path=path, chosen=selection is not None, delete=delete, verify=verify, conflict=conflict
        )
    elif schema or table or no_owner:
        raise InvalidRequest(
            "--schema, --table and --no-owner go with a database",
            cause="they choose what is restored of a dump",
            hint="name the database with --to postgresql://USER@HOST:PORT/DB",
        )
    with context.open(then=["backstay.operations.restore.run"]) as repository:
        from backstay.operations.restore.request import RestoreOptions
        from backstay.operations.snapshots.walk import EVERYTHING

        options = RestoreOptions(
            path=path,
            chooser=EVERYTHING if selection is None else selection,
            conflict=conflict,
            delete=delete,
            verify=verify,
            in_place=in_place,
            keep_old=keep_old,
            spared=_spared(context),
            parallel=parallel,
            thaw_days=thaw_days,
            wait=not no_wait,
        )
        manifest = choosing.one(context, repository, ident, at=moment, path=path)
        if manifest.stats.errors:
            unread = plural(manifest.stats.errors, "item")
            context.warn(f"snapshot {manifest.id} lacks {unread}, or parts of them, that could not be read for it")
        if to is not None and into_database:
            part = into.part_of(schema, table, no_owner=no_owner)
            return into.restore(context, repository, manifest, to, part, options, dry_run=dry_run)
        target = Path(to) if to is not None else _original(repository, manifest, path)
        if dry_run:
            return _rehearse(context, repository, manifest, target, options)
        if in_place and not direct:
            return in_places.restore(context, repository, manifest, options)
        return _restore(context, repository, manifest, target, options)


def _spared(context: Context) -> tuple[Path, ...]:
    given = context.password_file
    return (*own_places(context.environ), *([given] if given is not None else []))


def _original(repository: Repository, manifest: Manifest, path: bytes | None) -> Path:
    from backstay.operations.restore.in_place import original_place

    return original_place(repository, manifest, path)


def _refuse_unclear_target(to: str | None, *, in_place: bool) -> None:
    if to is None and not in_place:
        raise InvalidRequest(
            "it is not said where to restore to",
            cause="neither --to nor --in-place is given",
            hint="give --to DIR, or --in-place to restore to the original places",
        )
    if to is not None and not str(Path(to)).strip("."):
        raise InvalidRequest(
            "it is not clear where to restore to",
            cause="--to is empty, or means the current directory",
            hint='name the directory; for this one write --to "$PWD"',
        )
    if to is not None and "://" in to and not database.is_address(to):
        raise InvalidRequest(
            "nothing can be restored there",
            cause=f"{printable(os.fsencode(to.partition(':')[0]))}: is neither a directory nor a database",
            hint="name a directory, postgresql://…, mysql://… or sqlite:///PATH",
        )
    if to is not None and in_place:
        raise InvalidRequest(
            "--to and --in-place exclude each other", cause="both name a target", hint="give one of them"
        )


def _selection(include: list[str] | None, exclude: list[str] | None) -> Selection | None:
    """What the patterns take, if there are any. Raises InvalidRequest for a bad one, before anything is opened."""
    if not include and not exclude:
        return None
    from backstay.sources.filters import Selection

    return Selection(_patterns(include), _patterns(exclude))


def _patterns(texts: list[str] | None) -> list[bytes]:
    return [os.fsencode(text) for text in texts or ()]


def _rehearse(
    context: Context, repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions
) -> int:
    from backstay.operations.restore.run import plan_restore

    plan = plan_restore(repository, manifest, target, options)
    context.result(_plan_document(plan), lambda: _show_plan(context, plan))
    refused = plan.conflict_count > 0 and options.conflict == "fail"
    if refused:
        return RestoreConflict.exit_status
    if plan.damaged:
        return CorruptedBackup.exit_status
    return RestoreFailed.exit_status if plan.errors else 0


def _plan_document(plan: RestorePlan) -> dict[str, object]:
    return {
        "dry_run": True,
        "snapshot": plan.snapshot,
        "target": plan.target,
        "files": plan.files,
        "dirs": plan.dirs,
        "bytes": plan.bytes,
        "unchanged": plan.unchanged,
        "conflicts": plan.conflict_count,
        "conflict_paths": plan.conflicts,
        "deletions": plan.delete_count,
        "delete_paths": plan.to_delete,
        "errors": [asdict(item) for item in plan.errors],
        "damaged_paths": plan.damaged,
        "cold": need_document(plan.cold) if plan.cold is not None else None,
    }


def _show_plan(context: Context, plan: RestorePlan) -> None:
    dirs = plural(plan.dirs, "directory", "directories")
    context.say(
        f"{plural(plan.files, 'file')} with {format_size(plan.bytes)} in {dirs} "
        f"would be restored into {plan.target}; {format_count(plan.unchanged)} are there already"
    )
    _show_paths(context, plan.conflicts, plan.conflict_count, "existing item differs", "existing items differ")
    _show_paths(context, plan.to_delete, plan.delete_count, "item would be deleted", "items would be deleted")
    for item in plan.errors[:SHOWN]:
        context.warn(f"would not be restored: {item.path}: {item.message}")
    if len(plan.errors) > SHOWN:
        context.warn(f"and {plural(len(plan.errors) - SHOWN, 'more', 'more')}")
    for path in plan.damaged or ():
        context.warn(f"{path}: what is in this directory cannot be read; `backstay verify` tells why")
    if plan.cold is not None:
        show_need(context, plan.cold)
    context.say("nothing was written")


def _show_paths(context: Context, paths: list[str], count: int, one: str, many: str) -> None:
    if not count:
        return
    context.say(f"{plural(count, one, many)}:")
    for path in paths[:SHOWN]:
        context.say(f"  {path}")
    if count > SHOWN:
        context.say(f"  and {format_count(count - SHOWN)} more")


def _restore(
    context: Context, repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions
) -> int:
    from backstay.operations.restore.run import run_restore

    with context.watching() as events:
        result = run_restore(repository, manifest, target, options, events=events)
    context.result(_document(manifest, target, result), lambda: _show(context, manifest, target, result))
    if not result.errors:
        return 0
    damaged = any(item.code in _DAMAGE for item in result.errors)
    return CorruptedBackup.exit_status if damaged else RestoreFailed.exit_status


def _document(manifest: Manifest, target: Path, result: RestoreResult) -> dict[str, object]:
    return {
        "snapshot": manifest.id,
        "target": target,
        "files": result.files,
        "dirs": result.dirs,
        "bytes": result.bytes,
        "unchanged": result.unchanged,
        "skipped": result.skipped,
        "renamed": result.renamed,
        "deleted": result.deleted,
        "verified": result.verified,
        "errors": [asdict(item) for item in result.errors],
        "problems": [{"path": printable(problem.path), "message": problem.message} for problem in result.problems],
    }


def _show(context: Context, manifest: Manifest, target: Path, result: RestoreResult) -> None:
    context.say(
        f"restored {plural(result.files, 'file')} with {format_size(result.bytes)} "
        f"from snapshot {manifest.id} into {target}"
    )
    counts = {
        "already there": result.unchanged,
        "left as they were": result.skipped,
        "moved aside": result.renamed,
        "deleted": result.deleted,
        "read back and equal": result.verified,
    }
    if told := [f"{format_count(count)} {what}" for what, count in counts.items() if count]:
        context.say(", ".join(told))
    for item in result.errors[:SHOWN]:
        context.warn(f"not restored: {item.path}: {item.message}" if item.path else f"not restored: {item.message}")
    for problem in result.problems[:SHOWN]:
        context.warn(f"{printable(problem.path)}: {problem.message}")
    hidden = max(0, len(result.errors) - SHOWN) + max(0, len(result.problems) - SHOWN)
    if hidden:
        context.warn(f"and {plural(hidden, 'more', 'more')}")


def cat(
    ctx: typer.Context,
    snapshot: Annotated[str, argument("ID", SNAPSHOT_HELP)],
    path: Annotated[str | None, argument("PATH", "The file; may also follow the id as ID:PATH.")] = None,
    no_wait: Annotated[bool, flag(NO_WAIT_HELP, "--no-wait")] = False,
    thaw_days: Annotated[int, option("N", DAYS_HELP, min=1, max=365, show_default=True)] = 7,
) -> int:
    """Write one file of a snapshot to standard output."""
    from backstay.operations.snapshots.look import open_file
    from backstay.repository.snapshots.selectors import split_target

    context = context_of(ctx)
    if context.json:
        raise InvalidRequest("cat has no JSON form", cause="it writes the bytes of the file", hint="leave --json out")
    ident, inside = split_target(snapshot)
    wanted = choosing.only_path(inside, path)
    if wanted is None:
        raise InvalidRequest(
            "it is not said which file",
            cause="the command names a snapshot, and no path in it",
            hint="write `backstay cat ID PATH`",
        )
    with context.open() as repository:
        manifest = choosing.one(context, repository, ident, path=wanted)
        with context.watching() as events:  # while something thaws; the bytes may go to the same terminal
            pieces = open_file(repository, manifest, wanted, days=thaw_days, wait=not no_wait, events=events)
        for piece in pieces:
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0
